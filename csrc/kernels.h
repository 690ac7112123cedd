/* The arithmetic on networks, included once for each instruction set: FN(name) is the name there, V the floats of a vector.

   A result of one row never depends on the rows beside it: every element is summed over k in one order, and what does not
   fill a vector is padded, not computed by another loop. */

typedef float FN(vec) __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t FN(ivec) __attribute__((vector_size(4 * V), aligned(4), may_alias));
#define vec FN(vec)
#define ivec FN(ivec)
#define INLINE static inline __attribute__((always_inline))

/* ------------------------------------------------------------------------------------------------ tanh

   2|x| = n log 2 + r, expm1(2|x|) = 2^n expm1(r) + 2^n - 1 with expm1(r) by its Taylor polynomial (|r| < 0.35: 1e-8 of it),
   tanh|x| = expm1 / (expm1 + 2). Errors are relative, about 3 units in the last place, and a NaN stays one. */
INLINE vec FN(tanh_of)(vec x)
{
    const vec zero = {0}, magic = zero + 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const ivec sign = (ivec)x & (int32_t)0x80000000;
    vec y = (vec)((ivec)x & 0x7fffffff);
    y = (vec)(((ivec)(y > 10.0f) & (ivec)(zero + 10.0f)) | (~(ivec)(y > 10.0f) & (ivec)y)) * 2.0f;
    const vec t = y * 1.44269504f + magic, n = t - magic;
    const vec r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
    const vec scale = (vec)(((ivec)t << 23) + (127 << 23));
    vec p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    const vec e = scale * p + (scale - 1.0f);
    return (vec)((ivec)(e / (e + 2.0f)) | sign);
}

static void FN(tanh_all)(float *x, long count)
{
    long i = 0;
    for (; i + V <= count; i += V)
        *(vec *)(x + i) = FN(tanh_of)(*(vec *)(x + i));
    if (i < count) {
        vec rest = {0};
        memcpy(&rest, x + i, (count - i) * sizeof(float));
        rest = FN(tanh_of)(rest);
        memcpy(x + i, &rest, (count - i) * sizeof(float));
    }
}

/* ------------------------------------------------------------------------------------------------ matrix products */

/* c [m, nv V] = bias (or c, or 0) + a [m, depth] b [depth, nv V]; m and nv are constants where it is inlined */
INLINE void FN(tile)(const int m, const int nv, long depth, const float *a, long ar, long ac, const float *b, long ldb, float *c,
                     long ldc, const float *bias, int add)
{
    vec sum[6][2];
#pragma GCC unroll 6
    for (int i = 0; i < m; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            sum[i][j] = add ? *(const vec *)(c + i * ldc + j * V) : bias ? *(const vec *)(bias + j * V) : (vec){0};
    for (long k = 0; k < depth; k++) {
        vec right[2];
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            right[j] = *(const vec *)(b + k * ldb + j * V);
#pragma GCC unroll 6
        for (int i = 0; i < m; i++) {
            const float left = a[i * ar + k * ac];
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++)
                sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < m; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            *(vec *)(c + i * ldc + j * V) = sum[i][j];
}

INLINE void FN(strip)(const int nv, long m, long depth, const float *a, long ar, long ac, const float *b, long ldb, float *c, long ldc,
                      const float *bias, int add)
{
    long i = 0;
    for (; i + 6 <= m; i += 6)
        FN(tile)(6, nv, depth, a + i * ar, ar, ac, b, ldb, c + i * ldc, ldc, bias, add);
    a += i * ar;
    c += i * ldc;
    switch (m - i) {
    case 5: FN(tile)(5, nv, depth, a, ar, ac, b, ldb, c, ldc, bias, add); break;
    case 4: FN(tile)(4, nv, depth, a, ar, ac, b, ldb, c, ldc, bias, add); break;
    case 3: FN(tile)(3, nv, depth, a, ar, ac, b, ldb, c, ldc, bias, add); break;
    case 2: FN(tile)(2, nv, depth, a, ar, ac, b, ldb, c, ldc, bias, add); break;
    case 1: FN(tile)(1, nv, depth, a, ar, ac, b, ldb, c, ldc, bias, add); break;
    default: break;
    }
}

/* c [m, n] = bias [n] + a b, or c += a b where `add`; a(i, k) stands at a[i ar + k ac], b [depth, n]. m <= ROWS or depth <= ROWS */
static void FN(product)(long m, long n, long depth, const float *a, long ar, long ac, const float *b, long ldb, float *c, long ldc,
                        const float *bias, int add)
{
    long j = 0;
    for (; j + 2 * V <= n; j += 2 * V)
        FN(strip)(2, m, depth, a, ar, ac, b + j, ldb, c + j, ldc, bias ? bias + j : NULL, add);
    for (; j + V <= n; j += V)
        FN(strip)(1, m, depth, a, ar, ac, b + j, ldb, c + j, ldc, bias ? bias + j : NULL, add);
    if (j == n)
        return;
    const long rest = (n - j) * sizeof(float); /* the last columns stand in vectors padded with zeros */
    float right[SLICE * V], wide[6 * V], start[V] = {0};
    if (bias)
        memcpy(start, bias + j, rest);
    for (long from = 0; from < depth || from == 0; from += SLICE) {
        const long some = depth - from < SLICE ? depth - from : SLICE;
        for (long k = 0; k < some; k++) {
            memset(right + k * V, 0, V * sizeof(float));
            memcpy(right + k * V, b + (from + k) * ldb + j, rest);
        }
        for (long i = 0; i < m; i += 6) {
            const long high = m - i < 6 ? m - i : 6;
            const int more = add || from;
            if (more)
                for (long k = 0; k < high; k++)
                    memcpy(wide + k * V, c + (i + k) * ldc + j, rest);
            FN(strip)(1, high, some, a + i * ar + from * ac, ar, ac, right, V, wide, V, start, more);
            for (long k = 0; k < high; k++)
                memcpy(c + (i + k) * ldc + j, wide + k * V, rest);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ the network */

/* x [rows, I] -> out [rows, O]. `kept` [rows, kept_width(net)] takes what the gradient needs, or is NULL. */
static void FN(forward)(const Net *net, long rows, const float *x, float *kept, float *out)
{
    const int last = net->layers - 1;
    const long held = kept ? rows : rows < ROWS ? rows : ROWS;
    float *own = scratch((kept ? 0 : held * kept_width(net)) + net->sizes[0]), *work = kept ? kept : own + net->sizes[0];
    for (long k = 0; net->mean && k < net->sizes[0]; k++)
        own[k] = 1.0f / sqrtf(net->var[k] + 1e-8f);
    for (long r = 0; r < rows; r += ROWS) {
        const long some = rows - r < ROWS ? rows - r : ROWS, at = kept ? r : 0;
        const float *in = x + r * net->sizes[0], *w = net->theta;
        float *next = work;
        if (net->mean) {
            const long wide = net->sizes[0];
            float *to = next + at * wide;
            for (long i = 0; i < some; i++)
                for (long k = 0; k < wide; k++) {
                    const float y = (in[i * wide + k] - net->mean[k]) * own[k], low = y > net->bound ? net->bound : y;
                    to[i * wide + k] = low < -net->bound ? -net->bound : low;
                }
            in = to;
            next += held * wide;
        }
        for (int l = 0; l <= last; l++) {
            const long wide = net->sizes[l], high = net->sizes[l + 1];
            float *to = l == last ? out + r * high : next + at * high;
            FN(product)(some, high, wide, in, wide, 1, w, high, to, high, w + wide * high, 0);
            if (l < last) {
                FN(tanh_all)(to, some * high);
                next += held * high;
            }
            in = to;
            w += (wide + 1) * high;
        }
    }
    PyMem_RawFree(own);
}

/* From the gradient of the output g [rows, O]: adds that of theta to `found` [P]; where gx is not NULL, writes that of x (a network
   without moments). x and kept as `forward` had and left them. */
static void FN(backward)(const Net *net, long rows, const float *x, const float *kept, const float *g, float *found, float *gx)
{
    const int last = net->layers - 1;
    long widest = 0, count = 0;
    for (int l = 0; l <= last; l++) {
        widest = net->sizes[l] > widest ? net->sizes[l] : widest;
        count += (long)net->sizes[l] * net->sizes[l + 1];
    }
    float *work = scratch(2 * ROWS * widest + count), *turned = work + 2 * ROWS * widest;
    const float *w = net->theta;
    float *to = turned;
    for (int l = 0; l <= last; l++) { /* the weights, transposed */
        const long wide = net->sizes[l], high = net->sizes[l + 1];
        if (l || gx)
            for (long i = 0; i < wide; i++)
                for (long j = 0; j < high; j++)
                    to[j * wide + i] = w[i * high + j];
        to += wide * high;
        w += (wide + 1) * high;
    }
    for (long r = 0; r < rows; r += ROWS) {
        const long some = rows - r < ROWS ? rows - r : ROWS;
        const float *down = g + r * net->sizes[last + 1], *in = kept + rows * kept_width(net);
        float *at = found + count_theta(net), *flip = turned + count;
        for (int l = last; l >= 0; l--) {
            const long wide = net->sizes[l], high = net->sizes[l + 1];
            in -= l || net->mean ? rows * wide : 0;
            const float *here = (l || net->mean ? in : x) + r * wide;
            at -= (wide + 1) * high;
            flip -= wide * high;
            FN(product)(wide, high, some, here, 1, wide, down, high, at, high, NULL, 1);
            for (long i = 0; i < some; i++)
                for (long j = 0; j < high; j++)
                    at[wide * high + j] += down[i * high + j];
            if (!l && !gx)
                break;
            float *up = l ? work + (l & 1) * ROWS * widest : gx + r * wide;
            FN(product)(some, wide, high, down, high, 1, flip, wide, up, wide, NULL, 0);
            if (l)
                for (long i = 0; i < some * wide; i++)
                    up[i] *= 1.0f - here[i] * here[i];
            down = up;
        }
    }
    PyMem_RawFree(work);
}

/* ------------------------------------------------------------------------------------------------ Adam */

static double FN(squares)(const float *g, long count)
{
    vec sum[4] = {{0}, {0}, {0}, {0}};
    double total = 0;
    long i = 0;
    for (; i + 4 * V <= count; i += 4 * V)
        for (int j = 0; j < 4; j++) {
            const vec x = *(const vec *)(g + i + j * V);
            sum[j] += x * x;
        }
    for (int j = 0; j < 4; j++)
        for (int k = 0; k < V; k++)
            total += sum[j][k];
    for (; i < count; i++)
        total += (double)g[i] * g[i];
    return total;
}

/* arXiv 1412.6980 in torch's order of operations; gradients are first multiplied by `share`, and left so */
static void FN(adam)(const Adam *o, long count, float *p, float *g, float *m, float *v, double step, float share)
{
    const float wd = o->weight_decay, b1 = 1 - o->beta1, b2 = o->beta2, c2 = 1 - o->beta2, eps = o->eps;
    const float rate = o->lr / (1 - pow(o->beta1, step)), root = sqrt(1 - pow(o->beta2, step));
    for (long i = 0; i < count; i++) {
        g[i] *= share;
        const float x = g[i] + wd * p[i];
        m[i] += b1 * (x - m[i]);
        v[i] = b2 * v[i] + c2 * x * x;
        p[i] -= rate * m[i] / (sqrtf(v[i]) / root + eps);
    }
}

/* ------------------------------------------------------------------------------------------------ a loss

   registry [registers, ROWS], the inputs being there; rows <= ROWS. A comparison with a NaN is as torch's. */
static void FN(run)(const Program *program, long rows, float *registry)
{
    float *to = registry + INPUTS * ROWS, *last = to + program->lines * ROWS;
    for (int k = 0; k < program->count; k++)
        for (long i = 0; i < rows; i++)
            last[k * ROWS + i] = program->constants[k];
#define EACH(name, value) \
    case name: \
        for (long i = 0; i < rows; i++) { \
            const float x = a[i], y = b[i]; \
            (void)x, (void)y; \
            to[i] = value; \
        } \
        break;
    for (const int32_t *line = program->code, *end = line + 4 * program->lines; line < end; line += 4, to += ROWS) {
        const float *a = registry + line[1] * ROWS, *b = registry + line[2] * ROWS, *c = registry + line[3] * ROWS;
        switch (line[0]) {
            EACH(COPY, x)
            EACH(ADD, x + y)
            EACH(SUB, x - y)
            EACH(MUL, x * y)
            EACH(DIV, x / y)
            EACH(MAXIMUM, x != x || x > y ? x : y)
            EACH(MINIMUM, x != x || x < y ? x : y)
            EACH(EQ, x == y)
            EACH(NE, x != y)
            EACH(LT, x < y)
            EACH(LE, x <= y)
            EACH(GT, x > y)
            EACH(GE, x >= y)
            EACH(AND, x != 0 && y != 0)
            EACH(OR, x != 0 || y != 0)
            EACH(POW, powf(x, y))
            EACH(NEG, -x)
            EACH(EXP, expf(x))
            EACH(LOG, logf(x))
            EACH(SQRT, sqrtf(x))
            EACH(ABS, fabsf(x))
            EACH(TANH, tanhf(x))
            EACH(LOG1P, log1pf(x))
            EACH(EXPM1, expm1f(x))
            EACH(SIGN, (x > 0) - (x < 0))
            EACH(NOT, x == 0)
            EACH(WHERE, x != 0 ? y : c[i])
        }
    }
#undef EACH
}

static const Kernels FN(kernels) = {FN(run), FN(forward), FN(backward), FN(squares), FN(adam)};

#undef vec
#undef ivec
#undef INLINE

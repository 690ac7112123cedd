/* What a decoder of text does beside its matrix products, which stay torch's: norms, rotations, attention of short texts, gates.
   Included once for each instruction set, as kernels.h is. The twins are in models/decoder.py and in torch.

   A result of one row never depends on the rows beside it. */

typedef float FN(tvec) __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t FN(tivec) __attribute__((vector_size(4 * V), aligned(4), may_alias));
#define vec FN(tvec)
#define ivec FN(tivec)
#define INLINE static inline __attribute__((always_inline))

/* x = n log 2 + r, exp(x) = 2^n exp(r), exp(r) by its Taylor polynomial (|r| < 0.35: 1e-8 of it). Below -87 and above 88 as there;
   a NaN stays one. */
INLINE vec FN(exp_of)(vec x)
{
    const vec zero = {0}, magic = zero + 12582912.0f;
    const ivec low = x<zero - 87.0f, high = x> zero + 88.0f;
    x = (vec)((low & (ivec)(zero - 87.0f)) | (high & (ivec)(zero + 88.0f)) | (~(low | high) & (ivec)x));
    const vec t = x * 1.44269504f + magic, n = t - magic;
    const vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    const vec scale = (vec)(((ivec)t << 23) + (127 << 23));
    vec p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    return scale * (p * (r * r) + r + 1.0f);
}

INLINE float FN(dot)(const float *a, const float *b, long n)
{
    vec sum[2] = {{0}, {0}};
    long i = 0;
    for (; i + 2 * V <= n; i += 2 * V) {
        sum[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
        sum[1] += *(const vec *)(a + i + V) * *(const vec *)(b + i + V);
    }
    if (i + V <= n) {
        sum[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
        i += V;
    }
    sum[0] += sum[1];
    float total = 0;
    for (int j = 0; j < V; j++)
        total += sum[0][j];
    for (; i < n; i++)
        total += a[i] * b[i];
    return total;
}

/* y += c x */
INLINE void FN(axpy)(long n, float c, const float *x, float *y)
{
    long i = 0;
    for (; i + V <= n; i += V)
        *(vec *)(y + i) += c * *(const vec *)(x + i);
    for (; i < n; i++)
        y[i] += c * x[i];
}

/* y = w x s with s = 1 / sqrt(mean(x^2) + eps), which is kept in `inv` [rows] */
static void FN(rms)(long rows, long width, float eps, const float *x, const float *w, float *y, float *inv)
{
    for (long r = 0; r < rows; r++, x += width, y += width) {
        const float s = 1 / sqrtf(FN(dot)(x, x, width) / width + eps);
        inv[r] = s;
        for (long i = 0; i < width; i++)
            y[i] = w[i] * (x[i] * s);
    }
}

/* by_x += and by_w += their gradients, given that by y */
static void FN(rms_back)(long rows, long width, const float *x, const float *w, const float *inv, const float *by_y, float *by_x,
                         float *by_w)
{
    for (long r = 0; r < rows; r++, x += width, by_y += width, by_x += width) {
        const float s = inv[r];
        vec sum = {0};
        float along = 0;
        long i = 0;
        for (; i + V <= width; i += V)
            sum += *(const vec *)(by_y + i) * *(const vec *)(w + i) * *(const vec *)(x + i);
        for (int j = 0; j < V; j++)
            along += sum[j];
        for (; i < width; i++)
            along += by_y[i] * w[i] * x[i];
        const float back = along * s * s * s / width;
        for (i = 0; i < width; i++) {
            by_x[i] += by_y[i] * w[i] * s - x[i] * back;
            by_w[i] += by_y[i] * (x[i] * s);
        }
    }
}

/* x [rows, heads, depth] turned in place by the angles of its row: cos and sin [rows, depth]; `way` -1 turns back */
static void FN(turn)(long rows, long heads, long depth, float way, const float *c, const float *s, float *x)
{
    const long half = depth / 2;
    for (long r = 0; r < rows; r++, c += depth, s += depth)
        for (long h = 0; h < heads; h++, x += depth) {
            float *restrict left = x, *restrict right = x + half;
            for (long i = 0; i < half; i++) {
                const float a = left[i], b = right[i];
                left[i] = a * c[i] - way * b * s[i];
                right[i] = b * c[half + i] + way * a * s[half + i];
            }
        }
}

/* y = silu(g) u */
static void FN(gate)(long count, const float *g, const float *u, float *y)
{
    const vec zero = {0};
    long i = 0;
    for (; i + V <= count; i += V) {
        const vec a = *(const vec *)(g + i);
        *(vec *)(y + i) = a / (1.0f + FN(exp_of)(zero - a)) * *(const vec *)(u + i);
    }
    for (; i < count; i++)
        y[i] = g[i] / (1.0f + FN(exp_of)(zero - g[i])[0]) * u[i];
}

static void FN(gate_back)(long count, const float *g, const float *u, const float *by_y, float *by_g, float *by_u)
{
    const vec zero = {0};
    long i = 0;
    for (; i + V <= count; i += V) {
        const vec a = *(const vec *)(g + i), b = *(const vec *)(u + i), by = *(const vec *)(by_y + i);
        const vec s = 1.0f / (1.0f + FN(exp_of)(zero - a));
        *(vec *)(by_g + i) = by * b * s * (1.0f + a * (1.0f - s));
        *(vec *)(by_u + i) = by * a * s;
    }
    for (; i < count; i++) {
        const float s = 1.0f / (1.0f + FN(exp_of)(zero - g[i])[0]);
        by_g[i] = by_y[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
        by_u[i] = by_y[i] * g[i] * s;
    }
}

/* softmax of score [n] in place (room for V more), -> the logarithm of the sum */
INLINE float FN(soften)(long n, float *score)
{
    float top = score[0], sum = 0;
    for (long j = 1; j < n; j++)
        top = score[j] > top ? score[j] : top;
    for (long j = 0; j < n; j += V)
        *(vec *)(score + j) = FN(exp_of)(*(vec *)(score + j) - top);
    for (long j = 0; j < n; j++)
        sum += score[j];
    for (long j = 0; j < n; j++)
        score[j] /= sum;
    return top + logf(sum);
}

static void FN(attend)(const Attention *a, long spans, const int64_t *span, const float *q, const float *before_k,
                       const float *before_v, const float *own_k, const float *own_v, float *out, float *kept, float *score)
{
    const long wide = a->heads * a->depth, narrow = a->keys * a->depth, share = a->heads / a->keys;
    memset(score, 0, (a->longest + V) * sizeof(float));
    for (; spans--; span += SPAN) {
        const long before = span[1], own = span[3], from = span[4], count = span[5];
        for (long h = 0; h < a->heads; h++) {
            const long at = h / share * a->depth;
            const float *k = before_k + span[0] * narrow + at, *v = before_v + span[0] * narrow + at;
            const float *mk = own_k + span[2] * narrow + at, *mv = own_v + span[2] * narrow + at;
            for (long i = 0; i < count; i++) {
                const long row = from + i, mine = own - count + i + 1;
                const float *query = q + row * wide + h * a->depth;
                float *to = out + row * wide + h * a->depth;
                for (long j = 0; j < before; j++)
                    score[j] = a->scale * FN(dot)(query, k + j * narrow, a->depth);
                for (long j = 0; j < mine; j++)
                    score[before + j] = a->scale * FN(dot)(query, mk + j * narrow, a->depth);
                const float found = FN(soften)(before + mine, score);
                if (kept)
                    kept[row * a->heads + h] = found;
                memset(to, 0, a->depth * sizeof(float));
                for (long j = 0; j < before; j++)
                    FN(axpy)(a->depth, score[j], v + j * narrow, to);
                for (long j = 0; j < mine; j++)
                    FN(axpy)(a->depth, score[before + j], mv + j * narrow, to);
            }
        }
    }
}

INLINE void FN(attend_back_to)(const Attention *a, long count, float kept, float along, const float *query, const float *by_out,
                               const float *k, const float *v, float *by_query, float *by_k, float *by_v)
{
    const long narrow = a->keys * a->depth;
    for (long j = 0; j < count; j++, k += narrow, v += narrow, by_k += narrow, by_v += narrow) {
        const vec x = (vec){0} + (a->scale * FN(dot)(query, k, a->depth) - kept);
        const float p = FN(exp_of)(x)[0], by = p * (FN(dot)(by_out, v, a->depth) - along) * a->scale;
        FN(axpy)(a->depth, p, by_out, by_v);
        FN(axpy)(a->depth, by, query, by_k);
        FN(axpy)(a->depth, by, k, by_query);
    }
}

/* by_q is written, by_k and by_v are added to; what stands before and a text's own keys are one array here */
static void FN(attend_back)(const Attention *a, long spans, const int64_t *span, const float *q, const float *k, const float *v,
                            const float *out, const float *kept, const float *by_out, float *by_q, float *by_k, float *by_v)
{
    const long wide = a->heads * a->depth, narrow = a->keys * a->depth, share = a->heads / a->keys;
    for (; spans--; span += SPAN) {
        const long own = span[3], from = span[4], count = span[5];
        for (long h = 0; h < a->heads; h++) {
            const long at = h / share * a->depth, first = span[0] * narrow + at, second = span[2] * narrow + at;
            for (long i = 0; i < count; i++) {
                const long here = (from + i) * wide + h * a->depth;
                const float found = kept[(from + i) * a->heads + h], along = FN(dot)(by_out + here, out + here, a->depth);
                memset(by_q + here, 0, a->depth * sizeof(float));
                FN(attend_back_to)(a, span[1], found, along, q + here, by_out + here, k + first, v + first, by_q + here,
                                   by_k + first, by_v + first);
                FN(attend_back_to)(a, own - count + i + 1, found, along, q + here, by_out + here, k + second, v + second,
                                   by_q + here, by_k + second, by_v + second);
            }
        }
    }
}

static const Text FN(text) = {FN(rms), FN(rms_back), FN(turn), FN(gate), FN(gate_back), FN(attend), FN(attend_back)};

#undef vec
#undef ivec
#undef INLINE

/* Python's calls of text.h. Arguments are read by a line of letters: n a count, f a float, p an address (0: none). */

static int letters(PyObject *const *args, Py_ssize_t given, const char *kinds, ...)
{
    if (!arguments(given, (Py_ssize_t)strlen(kinds)))
        return 0;
    va_list to;
    va_start(to, kinds);
    for (; *kinds; kinds++, args++)
        if (*kinds == 'n')
            *va_arg(to, long *) = PyLong_AsLong(*args);
        else if (*kinds == 'f')
            *va_arg(to, float *) = (float)PyFloat_AsDouble(*args);
        else
            *va_arg(to, void **) = address(*args);
    va_end(to);
    return !PyErr_Occurred();
}

#define NATIVELY(work)                                                                                                             \
    Py_BEGIN_ALLOW_THREADS work;                                                                                                   \
    Py_END_ALLOW_THREADS Py_RETURN_NONE

/* rows, width, eps, x [rows, width], w [width], y [rows, width], inv [rows] */
static PyObject *rms(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    long rows, width;
    float eps, *x, *w, *y, *inv;
    if (!letters(args, given, "nnfpppp", &rows, &width, &eps, &x, &w, &y, &inv))
        return NULL;
    NATIVELY(text->rms(rows, width, eps, x, w, y, inv));
}

/* rows, width, x, w, inv, by_y, by_x (added to), by_w (added to) */
static PyObject *rms_back(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    long rows, width;
    float *x, *w, *inv, *by_y, *by_x, *by_w;
    if (!letters(args, given, "nnpppppp", &rows, &width, &x, &w, &inv, &by_y, &by_x, &by_w))
        return NULL;
    NATIVELY(text->rms_back(rows, width, x, w, inv, by_y, by_x, by_w));
}

/* rows, heads, depth, way, cos [rows, depth], sin [rows, depth], x [rows, heads, depth] */
static PyObject *turn(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    long rows, heads, depth;
    float way, *c, *s, *x;
    if (!letters(args, given, "nnnfppp", &rows, &heads, &depth, &way, &c, &s, &x))
        return NULL;
    NATIVELY(text->turn(rows, heads, depth, way, c, s, x));
}

/* count, g, u, y */
static PyObject *gate(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    long count;
    float *g, *u, *y;
    if (!letters(args, given, "nppp", &count, &g, &u, &y))
        return NULL;
    NATIVELY(text->gate(count, g, u, y));
}

/* count, g, u, by_y, by_g, by_u */
static PyObject *gate_back(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    long count;
    float *g, *u, *by_y, *by_g, *by_u;
    if (!letters(args, given, "nppppp", &count, &g, &u, &by_y, &by_g, &by_u))
        return NULL;
    NATIVELY(text->gate_back(count, g, u, by_y, by_g, by_u));
}

/* heads, keys, depth, the most keys that a query sees, scale, spans, span [spans, 6], q, before_k, before_v, own_k, own_v, out,
   kept [rows, heads] or 0. A span: where the keys before a text begin and how many there are; where its own begin and how many
   there are; its first query and how many there are, which are those of its last tokens. */
static PyObject *attend(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Attention a;
    long spans;
    int64_t *span;
    float *q, *before_k, *before_v, *own_k, *own_v, *out, *kept;
    if (!letters(args, given, "nnnnfnpppppppp", &a.heads, &a.keys, &a.depth, &a.longest, &a.scale, &spans, &span, &q, &before_k,
                 &before_v, &own_k, &own_v, &out, &kept))
        return NULL;
    Py_BEGIN_ALLOW_THREADS float *score = scratch(a.longest + 32);
    text->attend(&a, spans, span, q, before_k, before_v, own_k, own_v, out, kept, score);
    PyMem_RawFree(score);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* heads, keys, depth, scale, spans, span, q, k, v, out, kept, by_out, by_q, by_k (added to), by_v (added to) */
static PyObject *attend_back(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Attention a = {.longest = 0};
    long spans;
    int64_t *span;
    float *q, *k, *v, *out, *kept, *by_out, *by_q, *by_k, *by_v;
    if (!letters(args, given, "nnnfnpppppppppp", &a.heads, &a.keys, &a.depth, &a.scale, &spans, &span, &q, &k, &v, &out, &kept,
                 &by_out, &by_q, &by_k, &by_v))
        return NULL;
    NATIVELY(text->attend_back(&a, spans, span, q, k, v, out, kept, by_out, by_q, by_k, by_v));
}

#undef NATIVELY

/* What steepest does natively: multi-layer perceptrons and their gradients, two distributions over actions, Adam, the library's
   own environments, a policy that acts in MuJoCo's, and the layers of small decoders of text (text.h). Python passes addresses of
   contiguous arrays that it owns and keeps; nothing here outlives a call.

   Everything has a twin in Python that says what it computes: models/control.py, models/distributions.py, models/moments.py,
   models/stack.py, torch's Adam, problems/control.py and problems/robots.py. Results depend on the instruction set, and on nothing else: not on
   the number of threads. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if !defined(_WIN32)
#include <pthread.h>
#include <stdatomic.h>
#define THREADS 64 /* that share the work of a call, at most */
#else
#define THREADS 1
#endif

#define VERSION 4 /* of the interface; core/native.py asks for the same */
#define LAYERS 16
#define ROWS 64   /* of a block that goes through all layers while it is in the first cache */
#define SLICE 128 /* of a product's depth, where columns are padded */

typedef struct {
    const float *theta;
    int layers, sizes[LAYERS + 1];
    const float *mean, *var; /* x is first (x - mean) / sqrt(var + 1e-8), kept within bound; NULL: left as it is */
    float bound;
} Net;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} Adam;

/* A loss as torch ran it, see core/program.py: registers of one number a row; first the inputs, then what each line computes, then
   the constants. */
#define INPUTS 9
enum { NEW, OLD, ADVANTAGE, MASK, ENTROPY, VALUE, OLD_VALUE, TARGET, WEIGHT };
enum {
    COPY, ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM, EQ, NE, LT, LE, GT, GE, AND, OR, POW, NEG, EXP, LOG, SQRT, ABS, TANH, LOG1P, EXPM1,
    SIGN, NOT, WHERE
};

typedef struct {
    const int32_t *code; /* [lines, 4]: operation and operands */
    const float *constants;
    int lines, count;
} Program;

typedef struct {
    void (*run)(const Program *, long, float *);
    void (*forward)(const Net *, long, const float *, float *, float *);
    void (*backward)(const Net *, long, const float *, const float *, const float *, float *, float *);
    double (*squares)(const float *, long);
    void (*adam)(const Adam *, long, float *, float *, float *, float *, double, float);
} Kernels;

/* Attention of texts, of which several may share what stands before them: see `attend` in text_calls.h */
#define SPAN 6
typedef struct {
    long heads, keys, depth, longest; /* heads of queries, heads of keys and values, numbers of each, keys that a query sees at most */
    float scale;
} Attention;

typedef struct {
    void (*rms)(long, long, float, const float *, const float *, float *, float *);
    void (*rms_back)(long, long, const float *, const float *, const float *, const float *, float *, float *);
    void (*turn)(long, long, long, float, const float *, const float *, float *);
    void (*gate)(long, const float *, const float *, float *);
    void (*gate_back)(long, const float *, const float *, const float *, float *, float *);
    void (*attend)(const Attention *, long, const int64_t *, const float *, const float *, const float *, const float *,
                   const float *, float *, float *, float *);
    void (*attend_back)(const Attention *, long, const int64_t *, const float *, const float *, const float *, const float *,
                        const float *, const float *, float *, float *, float *);
} Text;

static float *scratch(long count)
{
    float *found = PyMem_RawMalloc((count ? count : 1) * sizeof(float));
    if (!found)
        Py_FatalError("steepest: no memory for a network's scratch");
    return found;
}

/* ------------------------------------------------------------------------------------------------ threads */

typedef struct {
    void (*work)(void *, int);
    void *what;
    int which;
#if THREADS > 1
    pthread_t thread;
#endif
} Hand;

#if THREADS > 1
typedef atomic_long Counter;

static void *lend(void *x)
{
    const Hand *hand = x;
    hand->work(hand->what, hand->which);
    return NULL;
}

/* Whether a thread was there to do it; `dismiss` waits for its end. */
static int hire(Hand *hand) { return pthread_create(&hand->thread, NULL, lend, hand) == 0; }
static void dismiss(Hand *hand) { pthread_join(hand->thread, NULL); }
static long draw(Counter *next) { return atomic_fetch_add(next, 1); }

/* Where two threads wait for each other: in a loop for some 20 microseconds, and then asleep, for the other may not have a core. */
#define PATIENCE 1000
typedef struct {
    atomic_long reached[2], waits; /* waits: how often one fell asleep */
    atomic_int asleep;
    pthread_mutex_t lock;
    pthread_cond_t arrival;
} Meeting;

static void open_meeting(Meeting *m)
{
    *m = (Meeting){.lock = PTHREAD_MUTEX_INITIALIZER, .arrival = PTHREAD_COND_INITIALIZER};
}

static void close_meeting(Meeting *m)
{
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->arrival);
}

static long waits(Meeting *m) { return atomic_load(&m->waits); }

static void meet(Meeting *m, int which)
{
    const long here = atomic_fetch_add(&m->reached[which], 1) + 1;
    if (atomic_load(&m->asleep)) {
        pthread_mutex_lock(&m->lock);
        pthread_cond_broadcast(&m->arrival);
        pthread_mutex_unlock(&m->lock);
    }
    for (int k = 0; k < PATIENCE; k++) {
        if (atomic_load_explicit(&m->reached[1 - which], memory_order_acquire) >= here)
            return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    atomic_fetch_add(&m->waits, 1);
    pthread_mutex_lock(&m->lock);
    atomic_fetch_add(&m->asleep, 1);
    while (atomic_load(&m->reached[1 - which]) < here)
        pthread_cond_wait(&m->arrival, &m->lock);
    atomic_fetch_sub(&m->asleep, 1);
    pthread_mutex_unlock(&m->lock);
}
#else
typedef long Counter;
typedef int Meeting;
static int hire(Hand *hand) { return 0; }
static void dismiss(Hand *hand) {}
static long draw(Counter *next) { return (*next)++; }
static void open_meeting(Meeting *m) {}
static void close_meeting(Meeting *m) {}
static void meet(Meeting *m, int which) {}
static long waits(Meeting *m) { return 0; }
#endif

/* `work` by up to `threads` threads at once, of which this one is number 0; they share out among themselves what there is to do. */
static void together(int threads, void (*work)(void *, int), void *what)
{
    Hand hands[THREADS];
    int hired = 1;
    for (; hired < threads && hired < THREADS; hired++) {
        hands[hired] = (Hand){work, what, hired};
        if (!hire(&hands[hired]))
            break;
    }
    work(what, 0);
    while (--hired)
        dismiss(&hands[hired]);
}

static long kept_width(const Net *net)
{
    long wide = net->mean ? net->sizes[0] : 0;
    for (int l = 1; l < net->layers; l++)
        wide += net->sizes[l];
    return wide;
}

static long count_theta(const Net *net)
{
    long count = 0;
    for (int l = 0; l < net->layers; l++)
        count += (net->sizes[l] + 1L) * net->sizes[l + 1];
    return count;
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, ISA)

#define V 4
#define ISA base
#include "kernels.h"
#include "text.h"
#undef V
#undef ISA

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#define V 8
#define ISA avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "kernels.h"
#include "text.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif
#undef V
#undef ISA
#define V 16
#define ISA avx512
#include "kernels.h"
#include "text.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef V
#undef ISA
#endif

static const Kernels *kernels = &kernels_base;
static const Text *text = &text_base;
static const char *instructions = "base";

static void choose(void)
{
#ifdef X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        kernels = &kernels_avx512, text = &text_avx512, instructions = "avx512";
    else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        kernels = &kernels_avx2, text = &text_avx2, instructions = "avx2";
#endif
}

/* ------------------------------------------------------------------------------------------------ distributions

   log_std [A] says which: a diagonal normal of that log standard deviation, or, NULL, one of A choices. `out` is the network's
   output [rows, A]; a categorical one is brought to log-probabilities in place. */

static const double HALF_LOG_TAU = 0.91893853320467274178;

static void normalise(float *score, long count)
{
    float most = score[0], total = 0;
    for (long k = 1; k < count; k++)
        most = score[k] > most ? score[k] : most;
    for (long k = 0; k < count; k++)
        total += expf(score[k] -= most);
    total = logf(total);
    for (long k = 0; k < count; k++)
        score[k] -= total;
}

static float constant(const float *log_std, long count)
{
    double sum = 0;
    for (long k = 0; k < count; k++)
        sum += log_std[k] + HALF_LOG_TAU;
    return (float)sum;
}

static void judge_head(const float *log_std, long rows, long count, float *out, const void *action, float *logp, float *entropy)
{
    if (!log_std) {
        const int64_t *chosen = action;
        for (long i = 0; i < rows; i++, out += count) {
            normalise(out, count);
            float mean = 0;
            for (long k = 0; k < count; k++)
                mean += expf(out[k]) * out[k];
            logp[i] = out[chosen[i]];
            entropy[i] = -mean;
        }
        return;
    }
    const float *at = action, all = constant(log_std, count);
    for (long i = 0; i < rows; i++) {
        float sum = 0;
        for (long k = 0; k < count; k++) {
            const float z = (at[i * count + k] - out[i * count + k]) * expf(-log_std[k]);
            sum += z * z;
        }
        logp[i] = -0.5f * sum - all;
        entropy[i] = all + 0.5f * count;
    }
}

/* From gradients by logp and entropy ([rows], or NULL): g [rows, A] by the output; that by log_std is added to `found`. */
static void push_head(const float *log_std, long rows, long count, const float *out, const void *action, const float *entropy,
                      const float *by_logp, const float *by_entropy, float *g, float *found)
{
    if (!log_std) {
        const int64_t *chosen = action;
        for (long i = 0; i < rows; i++, out += count, g += count) {
            for (long k = 0; k < count; k++) {
                const float p = expf(out[k]);
                g[k] = -by_logp[i] * p;
                if (by_entropy)
                    g[k] -= by_entropy[i] * p * (out[k] + entropy[i]);
            }
            g[chosen[i]] += by_logp[i];
        }
        return;
    }
    const float *at = action;
    double extra = 0;
    for (long i = 0; i < rows && by_entropy; i++)
        extra += by_entropy[i];
    for (long k = 0; k < count; k++) {
        const float inverse = expf(-log_std[k]);
        double sum = extra;
        for (long i = 0; i < rows; i++) {
            const float z = (at[i * count + k] - out[i * count + k]) * inverse;
            g[i * count + k] = by_logp[i] * z * inverse;
            sum += by_logp[i] * (z * z - 1.0f);
        }
        found[k] += (float)sum;
    }
}

/* noise: uniform [rows] for choices, standard normal [rows, A] else -> action [rows] or [rows, A], logp [rows] */
static void sample_head(const float *log_std, long rows, long count, float *out, const float *noise, void *action, float *logp)
{
    if (!log_std) {
        int64_t *chosen = action;
        for (long i = 0; i < rows; i++, out += count) {
            normalise(out, count);
            float passed = 0;
            long k = 0;
            for (; k < count - 1; k++) /* whatever rounding did, the last action is the end */
                if ((passed += expf(out[k])) > noise[i])
                    break;
            chosen[i] = k;
            logp[i] = out[k];
        }
        return;
    }
    float *at = action;
    const float all = constant(log_std, count);
    for (long i = 0; i < rows; i++) {
        float sum = 0;
        for (long k = 0; k < count; k++) {
            const float z = noise[i * count + k];
            at[i * count + k] = out[i * count + k] + expf(log_std[k]) * z;
            sum += z * z;
        }
        logp[i] = -0.5f * sum - all;
    }
}

/* ------------------------------------------------------------------------------------------------ environments

   The equations stand in problems/control.py, in numpy. No product here may be fused with a sum: the two would differ. */

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

#define SIZE 4  /* the most numbers in a state, and in an observation */
#define DRAWS 4 /* the most random numbers of a reset */
static const double PI = 3.14159265358979323846;

typedef struct {
    int size, seen, draws, acts; /* acts: numbers in an action, 0 where it is one of some */
    void (*start)(const double *u, double *state);
    void (*see)(const double *state, float *obs);
    int (*move)(double *state, const void *action, float *reward); /* -> terminated */
} World;

static double within(double x, double bound) { return x > bound ? bound : x < -bound ? -bound : x; }

static void see_state(const double *state, float *obs)
{
    for (int k = 0; k < 4; k++)
        obs[k] = (float)state[k];
}

static void cartpole_start(const double *u, double *state)
{
    for (int k = 0; k < 4; k++)
        state[k] = -0.05 + 0.1 * u[k];
}

static int cartpole_move(double *state, const void *action, float *reward)
{
    const double pole = 0.1, total = 1.1, half = 0.5, tau = 0.02, lever = pole * half / total;
    const double cosine = cos(state[2]), sine = sin(state[2]);
    const double push = state[3] * state[3] * sine * lever + (20.0 / total * (double)*(const int64_t *)action - 10.0 / total);
    const double bend = (9.8 * sine - cosine * push) / (half * 4.0 / 3.0 - lever * (cosine * cosine));
    const double speed = push - bend * cosine * lever;
    state[0] += tau * state[1];
    state[1] += tau * speed;
    state[2] += tau * state[3];
    state[3] += tau * bend;
    *reward = 1.0f;
    return fabs(state[0]) > 2.4 || fabs(state[2]) > 12 * PI / 180;
}

static void pendulum_start(const double *u, double *state)
{
    state[0] = -PI + 2 * PI * u[0];
    state[1] = -1.0 + 2.0 * u[1];
}

static void pendulum_see(const double *state, float *obs)
{
    obs[0] = (float)cos(state[0]);
    obs[1] = (float)sin(state[0]);
    obs[2] = (float)state[1];
}

static int pendulum_move(double *state, const void *action, float *reward)
{
    const float torque = (float)within(*(const float *)action, 2.0); /* in single precision, as Gymnasium leaves it */
    double lean = fmod(state[0] + PI, 2 * PI);
    lean = (lean < 0 ? lean + 2 * PI : lean) - PI;
    *reward = (float)-(lean * lean + 0.1 * (state[1] * state[1]) + 0.001f * (torque * torque));
    state[1] = within(state[1] + (15.0 * sin(state[0]) + 3.0f * torque) * 0.05, 8.0);
    state[0] += 0.05 * state[1];
    return 0;
}

static void pointmass_start(const double *u, double *state)
{
    for (int k = 0; k < 2; k++) {
        state[k] = -1.0 + 2.0 * u[k];
        state[k + 2] = 0;
    }
}

static int pointmass_move(double *state, const void *action, float *reward)
{
    double away = 0, effort = 0;
    for (int k = 0; k < 2; k++) {
        const double force = within(((const float *)action)[k], 1.0);
        state[k + 2] = 0.9 * state[k + 2] + 0.1 * force;
        state[k] += 0.5 * state[k + 2];
        away += state[k] * state[k];
        effort += force * force;
    }
    *reward = (float)(-away - 0.01 * effort);
    return 0;
}

static const World worlds[] = { /* their order is that of core/native.py */
    {4, 4, 4, 0, cartpole_start, see_state, cartpole_move},
    {2, 3, 2, 1, pendulum_start, pendulum_see, pendulum_move},
    {4, 4, 2, 2, pointmass_start, see_state, pointmass_move},
};

/* Random numbers by address: the finaliser of splitmix64 (Steele, Lea and Flood, 2014), folded over the address. */
static uint64_t fold(uint64_t hash, uint64_t name)
{
    uint64_t z = hash + (name + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void begin(const World *world, uint64_t seed, uint64_t index, uint64_t episode, double *state)
{
    const uint64_t here = fold(fold(fold(0, seed), index), episode);
    double u[DRAWS];
    for (int k = 0; k < world->draws; k++)
        u[k] = (double)(fold(here, k) >> 11) * 0x1p-53;
    world->start(u, state);
}

/* models/moments.py: the discounted return as it runs on [count], over reward [count, horizon]; it starts anew after `over` */
static void run_on(long count, long horizon, float discount, const float *reward, const uint8_t *over, float *running, float *found)
{
    for (long i = 0; i < count; i++)
        for (long t = i * horizon; t < (i + 1) * horizon; t++) {
            const float decayed = discount * running[i];
            found[t] = decayed + reward[t];
            running[i] = found[t] * (over[t] ? 0.0f : 1.0f);
        }
}

#if !defined(__clang__)
#pragma GCC pop_options
#endif

/* ------------------------------------------------------------------------------------------------ environments of MuJoCo

   Its functions are called where Python found them. One environment goes on until its episode or the horizon ends, then another is
   taken: none waits for one beside it. */

typedef struct {
    void (*step)(const void *model, void *data);
    void (*set)(const void *model, void *data, const double *state, int which);
    void (*get)(const void *model, const void *data, double *state, int which);
    const void *model;
    int which, substeps; /* what the state is made of; steps of the physics in one of the environment */
    long size;           /* of a state */
    int positions, speeds;
} Physics;

typedef struct {
    void *data; /* of MuJoCo, one for each thread, and where it holds: */
    const double *qpos, *qvel;
    double *ctrl;
} Desk;

typedef struct {
    Physics physics;
    Desk desk[THREADS];
    Net net;
    const float *log_std, *noise;
    int first, falls;                      /* positions from `first` on are shown; whether an episode ends where it is not well */
    double swift, *low, *high;             /* speeds are shown up to here; well: positions and speeds are between these */
    const float *least, *most;             /* actions are kept within these */
    long count, horizon;
    int64_t limit, *at, *clock;            /* `at`: the steps done [count] */
    double *state, *place, *moved;         /* of each environment: [count, size], [count]; [count, horizon] */
    float *obs, *action, *logp, *seen, *next;
    uint8_t *well, *over;
    Counter chosen;
} Journey;

static void show(const Journey *j, const Desk *desk, float *obs)
{
    for (int k = j->first; k < j->physics.positions; k++)
        *obs++ = (float)desk->qpos[k];
    for (int k = 0; k < j->physics.speeds; k++)
        *obs++ = (float)within(desk->qvel[k], j->swift);
}

static int is_well(const Journey *j, const Desk *desk)
{
    int well = 1;
    for (int k = 0; k < j->physics.positions; k++)
        well &= j->low[k] < desk->qpos[k] && desk->qpos[k] < j->high[k];
    const double *low = j->low + j->physics.positions, *high = j->high + j->physics.positions;
    for (int k = 0; k < j->physics.speeds; k++)
        well &= low[k] < desk->qvel[k] && desk->qvel[k] < high[k];
    return well;
}

static void travel(void *what, int which)
{
    Journey *j = what;
    const Physics *p = &j->physics;
    const Desk *desk = &j->desk[which];
    const long acts = j->net.sizes[j->net.layers], wide = j->net.sizes[0];
    float *out = scratch(acts);
    for (long i; (i = draw(&j->chosen)) < j->count;) {
        long t = j->at[i];
        if (t == j->horizon)
            continue;
        double *state = j->state + i * p->size;
        float *now = j->obs + i * wide;
        p->set(p->model, desk->data, state, p->which);
        for (int going = 1; going && t < j->horizon; t++) {
            const long at = i * j->horizon + t;
            float *action = j->action + at * acts;
            memcpy(j->seen + at * wide, now, wide * sizeof(float));
            kernels->forward(&j->net, 1, now, NULL, out);
            sample_head(j->log_std, 1, acts, out, j->noise + (t * j->count + i) * acts, action, j->logp + at);
            for (long k = 0; k < acts; k++) {
                const float x = action[k] < j->least[k] ? j->least[k] : action[k];
                desk->ctrl[k] = x > j->most[k] ? j->most[k] : x;
            }
            for (int k = 0; k < p->substeps; k++)
                p->step(p->model, desk->data);
            j->moved[at] = desk->qpos[0] - j->place[i];
            j->place[i] = desk->qpos[0];
            j->well[at] = is_well(j, desk);
            show(j, desk, now);
            memcpy(j->next + at * wide, now, wide * sizeof(float));
            going = !(++j->clock[i] >= j->limit || (j->falls && !j->well[at]));
            j->over[at] = !going;
        }
        j->at[i] = t;
        p->get(p->model, desk->data, state, p->which);
    }
    PyMem_RawFree(out);
}

/* ------------------------------------------------------------------------------------------------ an epoch of an update */

#define REPORTS 32
#define PARAMETERS 16

typedef struct {
    float *p, *g, *m, *v, *step;
    long count;
    Adam rule;
    int side;
} Moved;

typedef struct {
    Net policy, critic;
    int judged;           /* whether the critic is asked */
    const float *log_std; /* as above */
    long wide;            /* bytes of an action */
    const float *obs, *column[INPUTS]; /* NULL: the column is 1, or what the policy says now */
    const char *action;
    Program program;
    int by[3], reports, report[REPORTS]; /* registers of gradients by logp, entropy and value, -1 where there is none */
    float *found[3];                     /* gradients of the policy's theta, of log_std, of the critic's theta, or NULL */
    int moved;
    Moved parameter[PARAMETERS];
    double max_norm, square[PARAMETERS]; /* the squares of each gradient's numbers, summed */
    long rows, size;                     /* decisions, and those of a minibatch */
    const int64_t *order;
    float *column_now; /* of a minibatch [INPUTS, rows] */
    double *told;
    Meeting meeting;
    int alone; /* from the next minibatch on */
} Update;

enum { ACTING, JUDGING }; /* the sides of an update: policy and critic, which two threads can share */

/* Gradients are scaled down to max_norm together, then Adam on those of the sides `mine`; -> the norm before */
static double advance_all(const Update *u, const int *mine)
{
    double norm = 0;
    for (int k = 0; k < u->moved; k++)
        norm += u->square[k];
    norm = sqrt(norm);
    const double share = u->max_norm / (norm + 1e-6);
    for (int k = 0; k < u->moved; k++) {
        const Moved *x = &u->parameter[k];
        if (!mine[x->side])
            continue;
        *x->step += 1;
        kernels->adam(&x->rule, x->count, x->p, x->g, x->m, x->v, *x->step, share < 1 ? (float)share : 1.0f);
    }
    return norm;
}

/* The loss of `rows` decisions: from column [INPUTS, rows] the gradients `by` [3, rows]; -> what is to be reported, `told`, or NULL */
static void weigh(const Update *u, long rows, const float *column, float *by, float *registry, double *told)
{
    double sum[REPORTS] = {0};
    for (long r = 0; r < rows; r += ROWS) {
        const long some = rows - r < ROWS ? rows - r : ROWS;
        for (int k = 0; k < INPUTS; k++)
            memcpy(registry + k * ROWS, column + k * rows + r, some * sizeof(float));
        kernels->run(&u->program, some, registry);
        for (int k = 0; k < 3; k++)
            if (u->by[k] >= 0)
                memcpy(by + k * rows + r, registry + u->by[k] * ROWS, some * sizeof(float));
            else
                memset(by + k * rows + r, 0, some * sizeof(float));
        for (int k = 0; told && k < u->reports; k++)
            for (long i = 0; i < some; i++)
                sum[k] += registry[u->report[k] * ROWS + i];
    }
    for (int k = 0; told && k < u->reports; k++)
        told[k] += sum[k] / rows;
}

/* All minibatches, as both sides or as the one of them. What one side needs of the other is there after they meet: values and
   probabilities before the loss, which each computes for itself, and the gradients before their norm. Where they waited too often
   for a core, the side that acts goes on as both. */
static void pass(Update *u, int acting, int judging)
{
    const Net *net = acting ? &u->policy : &u->critic;
    const long seen = net->sizes[0], outputs = u->policy.sizes[u->policy.layers], size = u->size;
    const long kept = size * kept_width(&u->policy), kept_critic = u->judged ? size * kept_width(&u->critic) : 0;
    const long registers = INPUTS + u->program.lines + u->program.count;
    float *memory = scratch(size * (seen + 2 * outputs + 3) + kept + kept_critic + registers * ROWS);
    char *action = (char *)scratch((size * u->wide + 3) / sizeof(float));
    float *obs = memory, *out = obs + size * seen, *g = out + size * outputs, *by = g + size * outputs, *activity = by + 3 * size;
    float *activity_critic = activity + kept, *registry = activity_critic + kept_critic, *column = u->column_now;
    for (long from = 0; from < u->rows; from += size) {
        const long rows = u->rows - from < size ? u->rows - from : size;
        const int64_t *index = u->order + from;
        if (u->alone && !(acting && judging)) {
            meet(&u->meeting, acting ? ACTING : JUDGING); /* once more: the critic has moved */
            if (!acting)
                break;
            judging = 1;
        }
        const int apart = !(acting && judging), side = acting ? ACTING : JUDGING, mine[] = {acting, judging};
        for (long i = 0; i < rows; i++)
            memcpy(obs + i * seen, u->obs + index[i] * seen, seen * sizeof(float));
        if (acting) {
            for (long i = 0; i < rows; i++) {
                memcpy(action + i * u->wide, u->action + index[i] * u->wide, u->wide);
                for (int k = 0; k < INPUTS; k++)
                    if (k != VALUE || !u->judged)
                        column[k * rows + i] = u->column[k] ? u->column[k][index[i]] : k == WEIGHT ? 1.0f / rows : 1.0f;
            }
            kernels->forward(&u->policy, rows, obs, activity, out);
            judge_head(u->log_std, rows, outputs, out, action, column + NEW * rows, column + ENTROPY * rows);
            if (!u->column[OLD])
                memcpy(column + OLD * rows, column + NEW * rows, rows * sizeof(float));
        }
        if (judging && u->judged)
            kernels->forward(&u->critic, rows, obs, activity_critic, column + VALUE * rows);
        if (apart)
            meet(&u->meeting, side);
        weigh(u, rows, column, by, registry, acting ? u->told : NULL);
        for (int k = 0; k < u->moved; k++)
            if (mine[u->parameter[k].side])
                memset(u->parameter[k].g, 0, u->parameter[k].count * sizeof(float));
        if (acting && u->found[0]) {
            push_head(u->log_std, rows, outputs, out, (const void *)action, column + ENTROPY * rows, by,
                      u->by[1] < 0 ? NULL : by + rows, g, u->found[1]);
            kernels->backward(&u->policy, rows, obs, activity, g, u->found[0], NULL);
        }
        if (judging && u->found[2])
            kernels->backward(&u->critic, rows, obs, activity_critic, by + 2 * rows, u->found[2], NULL);
        for (int k = 0; k < u->moved; k++)
            if (mine[u->parameter[k].side])
                u->square[k] = kernels->squares(u->parameter[k].g, u->parameter[k].count);
        if (apart && acting)
            u->alone = waits(&u->meeting) > 2;
        if (apart)
            meet(&u->meeting, side);
        const double norm = advance_all(u, mine);
        if (acting)
            u->told[u->reports] += norm;
    }
    PyMem_RawFree(action);
    PyMem_RawFree(memory);
}

static void pass_apart(void *what, int which) { pass(what, which == ACTING, which == JUDGING); }

/* ------------------------------------------------------------------------------------------------ Python */

static void *address(PyObject *x) { return PyLong_AsVoidPtr(x); }

static int arguments(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, not %zd", wanted, given);
    return 0;
}

/* (theta, sizes, mean or 0, var, bound) */
static int read_net(PyObject *x, Net *net)
{
    if (!PyTuple_Check(x) || PyTuple_GET_SIZE(x) != 5 || !PyTuple_Check(PyTuple_GET_ITEM(x, 1))) {
        PyErr_SetString(PyExc_TypeError, "a network is (theta, sizes, mean, var, bound)");
        return 0;
    }
    PyObject *sizes = PyTuple_GET_ITEM(x, 1);
    net->theta = address(PyTuple_GET_ITEM(x, 0));
    net->layers = (int)PyTuple_GET_SIZE(sizes) - 1;
    if (net->layers < 1 || net->layers > LAYERS) {
        PyErr_Format(PyExc_ValueError, "a network has 1 to %d layers, not %d", LAYERS, net->layers);
        return 0;
    }
    for (int l = 0; l <= net->layers; l++)
        net->sizes[l] = (int)PyLong_AsLong(PyTuple_GET_ITEM(sizes, l));
    net->mean = address(PyTuple_GET_ITEM(x, 2));
    net->var = address(PyTuple_GET_ITEM(x, 3));
    net->bound = (float)PyFloat_AsDouble(PyTuple_GET_ITEM(x, 4));
    return !PyErr_Occurred();
}

static PyObject *forward(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Net net;
    if (!arguments(count, 5) || !read_net(args[0], &net))
        return NULL;
    const long rows = PyLong_AsLong(args[1]);
    const float *x = address(args[2]);
    float *kept = address(args[3]), *out = address(args[4]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS kernels->forward(&net, rows, x, kept, out);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *backward(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Net net;
    if (!arguments(count, 7) || !read_net(args[0], &net))
        return NULL;
    const long rows = PyLong_AsLong(args[1]);
    const float *x = address(args[2]), *kept = address(args[3]), *g = address(args[4]);
    float *found = address(args[5]), *gx = address(args[6]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS kernels->backward(&net, rows, x, kept, g, found, gx);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* Whether every action is one of the choices; else an error is set. */
static int in_range(const float *log_std, const void *action, long rows, long choices)
{
    for (long i = 0; !log_std && i < rows; i++) {
        const int64_t chosen = ((const int64_t *)action)[i];
        if (chosen < 0 || chosen >= choices) {
            PyErr_Format(PyExc_IndexError, "action %lld of row %ld is not one of %ld choices", (long long)chosen, i, choices);
            return 0;
        }
    }
    return 1;
}

static PyObject *judge(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Net net;
    if (!arguments(count, 9) || !read_net(args[0], &net))
        return NULL;
    const float *log_std = address(args[1]), *x = address(args[3]);
    const long rows = PyLong_AsLong(args[2]);
    const void *action = address(args[4]);
    float *kept = address(args[5]), *out = address(args[6]), *logp = address(args[7]), *entropy = address(args[8]);
    if (PyErr_Occurred() || !in_range(log_std, action, rows, net.sizes[net.layers]))
        return NULL;
    Py_BEGIN_ALLOW_THREADS kernels->forward(&net, rows, x, kept, out);
    judge_head(log_std, rows, net.sizes[net.layers], out, action, logp, entropy);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* the last argument is only held until the call is over */
static PyObject *push(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Net net;
    if (!arguments(count, 13) || !read_net(args[0], &net))
        return NULL;
    const float *log_std = address(args[1]), *x = address(args[3]), *kept = address(args[5]), *out = address(args[6]);
    const long rows = PyLong_AsLong(args[2]), wide = net.sizes[net.layers];
    const void *action = address(args[4]);
    const float *entropy = address(args[7]), *by_logp = address(args[8]), *by_entropy = address(args[9]);
    float *found = address(args[10]), *found_std = address(args[11]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS float *g = scratch(rows * wide);
    push_head(log_std, rows, wide, out, action, entropy, by_logp, by_entropy, g, found_std);
    kernels->backward(&net, rows, x, kept, g, found, NULL);
    PyMem_RawFree(g);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *sample(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Net net;
    if (!arguments(count, 7) || !read_net(args[0], &net))
        return NULL;
    const float *log_std = address(args[1]), *x = address(args[3]), *noise = address(args[4]);
    const long rows = PyLong_AsLong(args[2]), wide = net.sizes[net.layers];
    void *action = address(args[5]);
    float *logp = address(args[6]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS float *out = scratch(rows * wide);
    kernels->forward(&net, rows, x, NULL, out);
    sample_head(log_std, rows, wide, out, noise, action, logp);
    PyMem_RawFree(out);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* ((addresses of a parameter, its gradient, its moments and its step, its size, lr, beta1, beta2, eps, weight_decay), ...) */
static int read_moved(PyObject *x, Moved *moved)
{
    const int count = PyTuple_Check(x) ? (int)PyTuple_GET_SIZE(x) : PARAMETERS + 1;
    if (count > PARAMETERS)
        return PyErr_Format(PyExc_TypeError, "at most %d parameters are moved at once", PARAMETERS), -1;
    for (int k = 0; k < count; k++) {
        PyObject *one = PyTuple_GET_ITEM(x, k);
        if (!PyTuple_Check(one) || PyTuple_GET_SIZE(one) != 11)
            return PyErr_Format(PyExc_TypeError, "a parameter is five addresses, its size and five numbers"), -1;
        void *at[5];
        double number[5];
        for (int i = 0; i < 5; i++) {
            at[i] = address(PyTuple_GET_ITEM(one, i));
            number[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(one, 6 + i));
        }
        moved[k] = (Moved){at[0], at[1], at[2], at[3], at[4], PyLong_AsLong(PyTuple_GET_ITEM(one, 5)),
                           {number[0], number[1], number[2], number[3], number[4]}, 0};
    }
    return PyErr_Occurred() ? -1 : count;
}

/* Steps of `count` environments, `horizon` of each; what they gave is [count, horizon, ...]. With a network (not None) it acts, on
   noise [horizon, count, ...], else `action` is what to do. obs [count, O]: where to act first, and afterwards next. */
static PyObject *roll(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Net net;
    if (!arguments(given, 19))
        return NULL;
    const size_t which = PyLong_AsSize_t(args[0]);
    if (which >= sizeof worlds / sizeof *worlds)
        return PyErr_Format(PyExc_ValueError, "there is no world of number %R", args[0]);
    const World *world = &worlds[which];
    const long count = PyLong_AsLong(args[1]), horizon = PyLong_AsLong(args[2]);
    const int64_t limit = PyLong_AsLongLong(args[3]);
    const uint64_t seed = PyLong_AsUnsignedLongLong(args[4]);
    double *state = address(args[5]);
    int64_t *clock = address(args[6]), *episode = address(args[7]);
    float *obs = address(args[8]);
    const int acting = args[9] != Py_None;
    if (acting && !read_net(args[9], &net))
        return NULL;
    const float *log_std = address(args[10]), *noise = address(args[11]);
    char *action = address(args[12]);
    float *logp = address(args[13]), *seen = address(args[14]), *next = address(args[15]), *reward = address(args[16]);
    uint8_t *terminated = address(args[17]), *truncated = address(args[18]);
    if (PyErr_Occurred())
        return NULL;
    const long wide = world->seen, bytes = world->acts ? world->acts * sizeof(float) : sizeof(int64_t);
    const long drawn = world->acts ? world->acts : 1, outputs = acting ? net.sizes[net.layers] : 0;
    if (acting && (net.sizes[0] != wide || (world->acts ? world->acts != outputs || !log_std : log_std != NULL)))
        return PyErr_Format(PyExc_ValueError, "the policy does not fit the environment"), NULL;
    Py_BEGIN_ALLOW_THREADS float *out = scratch(count * outputs), *chances = scratch(count);
    char *chosen = (char *)scratch(count * bytes / sizeof(float));
    for (long t = 0; t < horizon; t++) {
        if (acting) {
            kernels->forward(&net, count, obs, NULL, out);
            sample_head(log_std, count, outputs, out, noise + t * count * drawn, chosen, chances);
        }
        for (long i = 0; i < count; i++) {
            const long at = i * horizon + t;
            double *here = state + i * world->size;
            float *now = obs + i * wide;
            if (acting) {
                memcpy(seen + at * wide, now, wide * sizeof(float));
                memcpy(action + at * bytes, chosen + i * bytes, bytes);
                logp[at] = chances[i];
            }
            const int ended = world->move(here, action + at * bytes, reward + at), late = ++clock[i] >= limit;
            terminated[at] = ended;
            truncated[at] = late && !ended;
            world->see(here, now);
            memcpy(next + at * wide, now, wide * sizeof(float));
            if (ended || late) {
                begin(world, seed, i, episode[i]++, here);
                clock[i] = 0;
                world->see(here, now);
            }
        }
    }
    PyMem_RawFree(out);
    PyMem_RawFree(chances);
    PyMem_RawFree(chosen);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* (code, lines, constants, count) */
static int read_program(PyObject *x, Program *program)
{
    if (!PyTuple_Check(x) || PyTuple_GET_SIZE(x) != 4)
        return PyErr_SetString(PyExc_TypeError, "a program is (code, lines, constants, count)"), 0;
    program->code = address(PyTuple_GET_ITEM(x, 0));
    program->lines = (int)PyLong_AsLong(PyTuple_GET_ITEM(x, 1));
    program->constants = address(PyTuple_GET_ITEM(x, 2));
    program->count = (int)PyLong_AsLong(PyTuple_GET_ITEM(x, 3));
    return !PyErr_Occurred();
}

/* program, rows, inputs [9, rows], where to [registers, rows] */
static PyObject *run(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Program program;
    if (!arguments(given, 4) || !read_program(args[0], &program))
        return NULL;
    const long rows = PyLong_AsLong(args[1]), registers = INPUTS + program.lines + program.count;
    const float *from = address(args[2]);
    float *to = address(args[3]);
    if (PyErr_Occurred())
        return NULL;
    float *registry = scratch(registers * ROWS);
    for (long r = 0; r < rows; r += ROWS) {
        const long some = rows - r < ROWS ? rows - r : ROWS;
        for (long k = 0; k < INPUTS; k++)
            memcpy(registry + k * ROWS, from + k * rows + r, some * sizeof(float));
        kernels->run(&program, some, registry);
        for (long k = 0; k < registers; k++)
            memcpy(to + k * rows + r, registry + k * ROWS, some * sizeof(float));
    }
    PyMem_RawFree(registry);
    Py_RETURN_NONE;
}

/* An epoch: policy net, log_std, critic net or None, obs, action, bytes of an action, (columns), program, (registers of gradients),
   (registers to report), (addresses of gradients), max_norm, parameters, rows, size of a minibatch, order [rows], where to add what
   is told [reports + 1] in double, threads (a second one does the critic's part). -> its steps */
static PyObject *learn(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Update u = {.judged = 0};
    if (!arguments(given, 18) || !read_net(args[0], &u.policy) || (args[2] != Py_None && !read_net(args[2], &u.critic)) ||
        !read_program(args[7], &u.program))
        return NULL;
    u.log_std = address(args[1]);
    u.judged = args[2] != Py_None;
    u.obs = address(args[3]);
    u.action = address(args[4]);
    u.wide = PyLong_AsLong(args[5]);
    const int tuples[] = {6, 8, 9, 10};
    for (int i = 0; i < 4; i++)
        if (!PyTuple_Check(args[tuples[i]]))
            return PyErr_Format(PyExc_TypeError, "argument %d must be a tuple", tuples[i]), NULL;
    u.reports = (int)PyTuple_GET_SIZE(args[9]);
    u.moved = read_moved(args[12], u.parameter);
    if (u.moved < 0)
        return NULL;
    if (PyTuple_GET_SIZE(args[6]) != INPUTS || PyTuple_GET_SIZE(args[8]) != 3 || PyTuple_GET_SIZE(args[10]) != 3 ||
        u.reports > REPORTS)
        return PyErr_Format(PyExc_ValueError, "an update of a size that is not known"), NULL;
    for (int k = 0; k < INPUTS; k++)
        u.column[k] = address(PyTuple_GET_ITEM(args[6], k));
    for (int k = 0; k < 3; k++) {
        u.by[k] = (int)PyLong_AsLong(PyTuple_GET_ITEM(args[8], k));
        u.found[k] = address(PyTuple_GET_ITEM(args[10], k));
    }
    for (int k = 0; k < u.reports; k++)
        u.report[k] = (int)PyLong_AsLong(PyTuple_GET_ITEM(args[9], k));
    for (int k = 0; k < u.moved; k++)
        u.parameter[k].side = u.found[2] && u.parameter[k].g == u.found[2] ? JUDGING : ACTING;
    u.max_norm = PyFloat_AsDouble(args[11]);
    u.rows = PyLong_AsLong(args[13]);
    u.size = PyLong_AsLong(args[14]);
    u.order = address(args[15]);
    u.told = address(args[16]);
    const long threads = PyLong_AsLong(args[17]);
    if (PyErr_Occurred() || u.size < 1 || !in_range(u.log_std, u.action, u.rows, u.policy.sizes[u.policy.layers]))
        return NULL;
    Py_BEGIN_ALLOW_THREADS u.size = u.size < u.rows ? u.size : u.rows;
    u.column_now = scratch(u.size * INPUTS);
    Hand judge = {pass_apart, &u, JUDGING};
    open_meeting(&u.meeting);
    if (threads > 1 && u.judged && u.critic.theta != u.policy.theta && hire(&judge)) {
        pass_apart(&u, ACTING);
        dismiss(&judge);
    } else
        pass(&u, 1, 1);
    close_meeting(&u.meeting);
    PyMem_RawFree(u.column_now);
    Py_END_ALLOW_THREADS return PyLong_FromLong(u.size ? (u.rows + u.size - 1) / u.size : 0);
}

/* count, horizon, discount, reward, over, running, where to */
static PyObject *accrue(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    if (!arguments(given, 7))
        return NULL;
    const long count = PyLong_AsLong(args[0]), horizon = PyLong_AsLong(args[1]);
    const double discount = PyFloat_AsDouble(args[2]);
    const float *reward = address(args[3]);
    const uint8_t *over = address(args[4]);
    float *running = address(args[5]), *found = address(args[6]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS run_on(count, horizon, (float)discount, reward, over, running, found);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* (functions to step, set and get, model, which state, its size, substeps, positions, speeds), ((data, qpos, qvel, ctrl) for each
   thread, ...), (first position shown, bound of speeds shown, low, high, whether an episode ends there), (least and most action), net,
   log_std, noise [horizon, count, A], count, horizon, limit, at, clock, state, place, obs [count, O] where to act first and afterwards
   next; then [count, horizon, ...]: action, logp, seen, next, moved, well, over. Each environment goes on to the end of its episode or to
   the horizon. */
static PyObject *journey(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Journey j = {.chosen = 0};
    if (!arguments(given, 22) || !read_net(args[4], &j.net))
        return NULL;
    const Py_ssize_t sizes[] = {9, -1, 5, 2};
    for (int k = 0; k < 4; k++)
        if (!PyTuple_Check(args[k]) || (sizes[k] >= 0 && PyTuple_GET_SIZE(args[k]) != sizes[k]))
            return PyErr_Format(PyExc_TypeError, "argument %d must be a tuple of its size", k), NULL;
#define PART(k, i) PyTuple_GET_ITEM(args[k], i)
    Physics *p = &j.physics;
    *(void **)&p->step = address(PART(0, 0));
    *(void **)&p->set = address(PART(0, 1));
    *(void **)&p->get = address(PART(0, 2));
    p->model = address(PART(0, 3));
    p->which = (int)PyLong_AsLong(PART(0, 4));
    p->size = PyLong_AsLong(PART(0, 5));
    p->substeps = (int)PyLong_AsLong(PART(0, 6));
    p->positions = (int)PyLong_AsLong(PART(0, 7));
    p->speeds = (int)PyLong_AsLong(PART(0, 8));
    const Py_ssize_t asked = PyTuple_GET_SIZE(args[1]), threads = asked < THREADS ? asked : THREADS;
    for (Py_ssize_t k = 0; k < threads; k++) {
        PyObject *one = PART(1, k);
        if (!PyTuple_Check(one) || PyTuple_GET_SIZE(one) != 4)
            return PyErr_Format(PyExc_TypeError, "a thread needs (data, qpos, qvel, ctrl)"), NULL;
        j.desk[k] = (Desk){address(PyTuple_GET_ITEM(one, 0)), address(PyTuple_GET_ITEM(one, 1)), address(PyTuple_GET_ITEM(one, 2)),
                           address(PyTuple_GET_ITEM(one, 3))};
    }
    j.first = (int)PyLong_AsLong(PART(2, 0));
    j.swift = PyFloat_AsDouble(PART(2, 1));
    j.low = address(PART(2, 2));
    j.high = address(PART(2, 3));
    j.falls = PyObject_IsTrue(PART(2, 4));
    j.least = address(PART(3, 0));
    j.most = address(PART(3, 1));
#undef PART
    j.log_std = address(args[5]);
    j.noise = address(args[6]);
    j.count = PyLong_AsLong(args[7]);
    j.horizon = PyLong_AsLong(args[8]);
    j.limit = PyLong_AsLongLong(args[9]);
    j.at = address(args[10]);
    j.clock = address(args[11]);
    j.state = address(args[12]);
    j.place = address(args[13]);
    j.obs = address(args[14]);
    j.action = address(args[15]);
    j.logp = address(args[16]);
    j.seen = address(args[17]);
    j.next = address(args[18]);
    j.moved = address(args[19]);
    j.well = address(args[20]);
    j.over = address(args[21]);
    if (PyErr_Occurred())
        return NULL;
    if (!j.log_std || threads < 1 || j.net.sizes[0] != p->positions - j.first + p->speeds)
        return PyErr_Format(PyExc_ValueError, "the policy does not fit the environment"), NULL;
    Py_BEGIN_ALLOW_THREADS together((int)threads, travel, &j);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

#include "text_calls.h"

#define CALL(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {CALL(forward), CALL(backward), CALL(judge), CALL(push), CALL(sample), CALL(roll),
                                CALL(run),     CALL(learn),    CALL(accrue), CALL(journey), CALL(rms), CALL(rms_back),
                                CALL(turn), CALL(gate), CALL(gate_back), CALL(attend), CALL(attend_back), {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_steepest", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__steepest(void)
{
    choose();
    PyObject *module = PyModule_Create(&definition);
    if (module && (PyModule_AddIntConstant(module, "VERSION", VERSION) ||
                   PyModule_AddStringConstant(module, "instructions", instructions))) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

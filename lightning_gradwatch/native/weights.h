/* What a step did to the weights: one copy of them before it, one pass over them after it.
 *
 * Only tensors whose elements lie in the order of their indices are taken, so that the elements of
 * weight, copy and gradient belong together by their places alone.
 */
#ifndef GRADWATCH_WEIGHTS_H
#define GRADWATCH_WEIGHTS_H

#include "tensors.h"

/* A weight and its copy; the caller keeps a table of them. Lengths are in elements. */
typedef struct {
    int64_t place, column, kind, numel;
    int64_t step;               /* every how many-th element is measured */
    int64_t offset;             /* of its copy, in bytes */
    int64_t places, apart;      /* of its gradient's elements that are kept as its direction */
    int64_t room, start;        /* of that direction, in bytes; the caller decides on `start` */
} Row;

enum { ROW = sizeof(Row) / sizeof(int64_t), SUMS = 6 };

typedef struct {
    const Row *row;
    const void *now, *before, *grad; /* NULL: `now` is left to the caller, or no gradient */
    void *known;                     /* the direction of the measured step before */
    PyObject *held;                  /* what keeps `grad` alive */
} Pair;

static const double nothing[BLOCK];

/* The loop that follows may add these up side by side, in any order. */
#if defined(__GNUC__)
#define PRAGMA(text) _Pragma(#text)
#define IN_LANES(a, b, c) PRAGMA(omp simd reduction(+ : a, b, c))
#else
#define IN_LANES(a, b, c)
#endif

INLINE int64_t places_in(int64_t numel, int64_t step) {
    return (numel + step - 1) / step;
}

/* To take at most so many. An odd step does not fall on the same column of every row. */
INLINE int64_t step_of(int64_t numel, int64_t most) {
    int64_t step = places_in(numel, most);
    return step <= 1 ? 1 : step | 1;
}

INLINE size_t size_of(int64_t kind) {
    return kind == F64 ? 8 : kind == F32 ? 4 : 2;
}

INLINE size_t in_eights(size_t bytes) {
    return (bytes + 7) / 8 * 8;
}

#define DEFINE_EVERY(NAME, TYPE)                                                                  \
    INLINE void NAME(const TYPE *x, size_t n, size_t step, TYPE *out) {                           \
        for (size_t i = 0; i < n; i++)                                                            \
            out[i] = x[i * step];                                                                 \
    }

DEFINE_EVERY(every16, uint16_t)
DEFINE_EVERY(every32, float)
DEFINE_EVERY(every64, double)

INLINE void copy_of(const Row *row, const void *data, void *out) {
    size_t n = (size_t)places_in(row->numel, row->step), step = (size_t)row->step;
    if (step == 1)
        memcpy(out, data, n * size_of(row->kind));
    else if (row->kind == F64)
        every64(data, n, step, out);
    else if (row->kind == F32)
        every32(data, n, step, out);
    else
        every16(data, n, step, out);
}

/* Elements `at` to `at + n`, counted in steps: where they lie, or brought into `room`. */
INLINE const double *doubles_at(const void *data, size_t at, size_t n, size_t step, double *room) {
    const double *x = data;
    if (!x)
        return nothing;
    if (step == 1)
        return x + at;
    every64(x + at * step, n, step, room);
    return room;
}

INLINE const float *floats_at(int64_t kind, const void *data, size_t at, size_t n, size_t step,
                              float *room) {
    if (!data)
        return (const float *)nothing;
    if (kind == F32) {
        const float *x = (const float *)data + at * step;
        if (step == 1)
            return x;
        every32(x, n, step, room);
    } else {
        const uint16_t *x = (const uint16_t *)data + at * step;
        uint16_t together[BLOCK];
        if (step != 1) {
            every16(x, n, step, together);
            x = together;
        }
        if (kind == F16)
            widen_f16(x, n, room);
        else
            widen_bf16(x, n, room);
    }
    return room;
}

/* In double, where no square of a float32 is lost: squares of the weight before and of its change,
 * and gradient times change. */
#define DEFINE_PRODUCTS(NAME, TYPE)                                                               \
    INLINE void NAME(const TYPE *now, const TYPE *before, const TYPE *grad, size_t n,             \
                     double *sums) {                                                              \
        double weight = 0, moved = 0, rise = 0;                                                   \
        IN_LANES(weight, moved, rise)                                                             \
        for (size_t i = 0; i < n; i++) {                                                          \
            double b = before[i], change = (double)now[i] - b, g = grad[i];                       \
            weight += b * b;                                                                      \
            moved += change * change;                                                             \
            rise += g * change;                                                                   \
        }                                                                                         \
        sums[0] += weight;                                                                        \
        sums[1] += moved;                                                                         \
        sums[2] -= rise;                                                                          \
    }

DEFINE_PRODUCTS(products32, float)
DEFINE_PRODUCTS(products64, double)

/* A direction with the one known: product, square, square. With `keep` it is the known one then. */
#define DEFINE_TURN(NAME, TYPE)                                                                   \
    INLINE void NAME(const TYPE *x, TYPE *known, size_t n, int keep, double *sums) {              \
        double both = 0, new = 0, old = 0;                                                        \
        IN_LANES(both, new, old)                                                                  \
        for (size_t i = 0; i < n; i++) {                                                          \
            double g = x[i], k = known[i];                                                        \
            both += g * k;                                                                        \
            new += g * g;                                                                         \
            old += k * k;                                                                         \
        }                                                                                         \
        sums[3] += both;                                                                          \
        sums[4] += new;                                                                           \
        sums[5] += old;                                                                           \
        if (keep)                                                                                 \
            memcpy(known, x, n * sizeof *x);                                                      \
    }

DEFINE_TURN(turn32, float)
DEFINE_TURN(turn64, double)

INLINE void compare_doubles(const Pair *p, size_t n, int keep, double *sums) {
    double now[BLOCK], grad[BLOCK];
    size_t step = (size_t)p->row->step, places = (size_t)p->row->places;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = n - i < BLOCK ? n - i : BLOCK;
        products64(doubles_at(p->now, i, m, step, now), (const double *)p->before + i,
                   doubles_at(p->grad, i, m, step, grad), m, sums);
    }
    turn64(doubles_at(p->grad, 0, places, (size_t)p->row->apart, grad), p->known, places, keep,
           sums);
}

INLINE void compare_floats(const Pair *p, size_t n, int keep, double *sums) {
    float now[BLOCK], before[BLOCK], grad[BLOCK];
    int64_t kind = p->row->kind;
    size_t step = (size_t)p->row->step, places = (size_t)p->row->places;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = n - i < BLOCK ? n - i : BLOCK;
        products32(floats_at(kind, p->now, i, m, step, now),
                   floats_at(kind, p->before, i, m, 1, before),
                   floats_at(kind, p->grad, i, m, step, grad), m, sums);
    }
    turn32(floats_at(kind, p->grad, 0, places, (size_t)p->row->apart, grad), p->known, places,
           keep, sums);
}

/* The six sums of one weight, estimated for the whole of it where not every element is measured. */
CHOSEN_AT_LOAD
static void compare_pair(const Pair *p, int keep, double *out, size_t apart) {
    int64_t n = places_in(p->row->numel, p->row->step);
    double sums[SUMS] = {0}, share = (double)p->row->numel / (double)n;
    if (p->row->kind == F64)
        compare_doubles(p, (size_t)n, keep, sums);
    else
        compare_floats(p, (size_t)n, keep, sums);
    for (size_t i = 0; i < SUMS; i++)
        out[i * apart] = sums[i] * share;
}

#endif

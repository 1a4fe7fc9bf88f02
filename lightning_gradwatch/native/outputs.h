/* What one look at the output of a module tells: its square sum, how many elements are not zero or
 * beyond the limit of an activation, and which units were on for any sample.
 *
 * Zero is told by its bits: -0 is zero, NaN and denormal numbers are not.
 */
#ifndef GRADWATCH_OUTPUTS_H
#define GRADWATCH_OUTPUTS_H

#include <float.h>

#include "kernels.h"

/* Where an activation is flat: farther than `edge` from `center`; an infinite edge is never met. */
typedef struct {
    double center, edge;
} Limit;

/* Units lie `inner` elements apart, and `size` of them `outer` times over; a size of 0: none. */
typedef struct {
    size_t outer, size, inner;
} Units;

typedef struct {
    double squares;
    size_t nonzero, beyond;
} Counted;

/* `on` holds a word for each unit, as wide as an element. Counts of a block fit into that word. */
#define DEFINE_COUNTS(NAME, WORD, SIGNLESS)                                                       \
    INLINE size_t nonzero_##NAME(const WORD *x, size_t n) {                                       \
        size_t sum = 0;                                                                           \
        for (size_t i = 0; i < n; i += BLOCK) {                                                   \
            size_t m = n - i < BLOCK ? n - i : BLOCK;                                             \
            WORD count = 0;                                                                       \
            for (size_t j = 0; j < m; j++)                                                        \
                count += (WORD)((x[i + j] & SIGNLESS) != 0);                                      \
            sum += count;                                                                         \
        }                                                                                         \
        return sum;                                                                               \
    }                                                                                             \
    INLINE void switch_on_##NAME(const WORD *x, const Units *u, WORD *on) {                       \
        for (size_t k = 0; k < u->outer; k++)                                                     \
            if (u->inner == 1) {                                                                  \
                for (size_t j = 0; j < u->size; j++)                                              \
                    on[j] |= x[k * u->size + j] & SIGNLESS;                                       \
            } else {                                                                              \
                for (size_t j = 0; j < u->size; j++) {                                            \
                    const WORD *of = x + (k * u->size + j) * u->inner;                            \
                    WORD any = 0;                                                                 \
                    for (size_t i = 0; i < u->inner; i++)                                         \
                        any |= of[i] & SIGNLESS;                                                  \
                    on[j] |= any;                                                                 \
                }                                                                                 \
            }                                                                                     \
    }

DEFINE_COUNTS(16, uint16_t, 0x7fffu)
DEFINE_COUNTS(32, uint32_t, 0x7fffffffu)
DEFINE_COUNTS(64, uint64_t, 0x7fffffffffffffffu)

INLINE size_t beyond32(const float *x, size_t n, const Limit *limit) {
    float center = (float)limit->center, edge = (float)limit->edge;
    uint32_t count = 0; /* of one block */
    for (size_t i = 0; i < n; i++)
        count += fabsf(x[i] - center) > edge;
    return count;
}

INLINE size_t beyond16(enum kind kind, const uint16_t *x, size_t n, const Limit *limit) {
    float wide[BLOCK];
    (kind == F16 ? widen_f16 : widen_bf16)(x, n, wide);
    return beyond32(wide, n, limit);
}

/* Rounded to float32 before the comparison, as without this reader. */
INLINE size_t beyond64(const double *x, size_t n, const Limit *limit) {
    float edge = (float)limit->edge;
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (float)fabs(x[i] - limit->center) > edge;
    return count;
}

INLINE size_t beyond_of(enum kind kind, const void *data, size_t n, const Limit *limit) {
    size_t count = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = n - i < BLOCK ? n - i : BLOCK;
        count += kind == F32   ? beyond32((const float *)data + i, m, limit)
                 : kind == F64 ? beyond64((const double *)data + i, m, limit)
                               : beyond16(kind, (const uint16_t *)data + i, m, limit);
    }
    return count;
}

/* Elements that stay in a near cache while each count passes over them; rows of units stay whole. */
enum { STRETCH = 8192 };

INLINE void count_of(enum kind kind, const void *data, size_t n, const Limit *limit,
                     const Units *units, void *on, Counted *out) {
    size_t width = kind == F64 ? 8 : kind == F32 ? 4 : 2;
    size_t row = units->size ? units->size * units->inner : 1;
    size_t step = row < STRETCH ? STRETCH / row * row : row;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n; i += step) {
        const void *x = (const char *)data + i * width;
        size_t m = n - i < step ? n - i : step;
        Units part = {m / row, units->size, units->inner};
        double norm = norm_of(kind, x, m, SQUARES);
        out->squares += norm * norm;
        out->nonzero += kind == F64   ? nonzero_64(x, m)
                        : kind == F32 ? nonzero_32(x, m)
                                      : nonzero_16(x, m);
        if (limit->edge <= DBL_MAX)
            out->beyond += beyond_of(kind, x, m, limit);
        if (!units->size)
            continue;
        if (kind == F64)
            switch_on_64(x, &part, on);
        else if (kind == F32)
            switch_on_32(x, &part, on);
        else
            switch_on_16(x, &part, on);
    }
}

#endif

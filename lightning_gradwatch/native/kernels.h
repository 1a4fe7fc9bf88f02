/* Norms of flat memory, exact to 1e-6 over the whole range of each type, in one pass.
 *
 * Numbers are read in blocks. A block of float32 is summed in float32, in 64 lanes so that no lane
 * adds more than 32 numbers, and block sums are added up in double. If a block's sum says that
 * squares left the range (or that a NaN or Inf is among them), that block alone, still in the
 * first cache, is summed again with care. So the common case costs one float operation a number,
 * and a norm is Inf or NaN only where an element is.
 */
#ifndef GRADWATCH_KERNELS_H
#define GRADWATCH_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* The best instructions are chosen when the module is loaded, where compiler and libc can do so.
 * Everything below is inlined into the one function that is compiled several times. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define CHOSEN_AT_LOAD __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CHOSEN_AT_LOAD
#endif

enum kind { F32, F64, F16, BF16 };
enum order { MAXIMUM = 0, ABSOLUTE = 1, SQUARES = 2 }; /* p = inf, 1, 2 */

enum { BLOCK = 2048, LANES = 64 };

/* Sums in three scales: `sum` plain, `huge` of numbers times 2^-600, `tiny` of numbers times 2^600
 * (only float64 needs those two). `top` holds the largest absolute value by its bits, which order
 * floats like integers and put NaN above Inf. */
typedef struct {
    double sum, huge, tiny;
    uint64_t top;
} Total;

INLINE uint32_t bits32(float x) {
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b & 0x7fffffffu;
}

INLINE uint64_t bits64(double x) {
    uint64_t b;
    memcpy(&b, &x, sizeof b);
    return b & 0x7fffffffffffffffu;
}

INLINE double from_bits64(uint64_t b) {
    double x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* Sum of a block in its own type, `lanes` sums side by side. GCC and clang have vectors of any
 * length and cut them to what the machine has; others get arrays, which they may vectorise. */
#if defined(__GNUC__)

typedef float floats __attribute__((vector_size(64)));
typedef int32_t words __attribute__((vector_size(64)));
typedef double doubles __attribute__((vector_size(64)));
typedef int64_t longs __attribute__((vector_size(64)));

#define DEFINE_SUM(NAME, TYPE, VECTOR, INTEGERS, MASK)                                            \
    INLINE void NAME##_add(VECTOR *sum, const TYPE *x, enum order p) {                            \
        VECTOR v;                                                                                 \
        memcpy(&v, x, sizeof v);                                                                  \
        *sum += p == SQUARES ? v * v : (VECTOR)((INTEGERS)v & MASK);                              \
    }                                                                                             \
    INLINE double NAME(const TYPE *x, size_t n, enum order p) {                                   \
        enum { WIDE = 64 / sizeof(TYPE) };                                                        \
        size_t i = 0;                                                                             \
        double sum = 0;                                                                           \
        VECTOR a = {0};                                                                           \
        if (n >= 4 * WIDE) {                                                                      \
            VECTOR b = {0}, c = {0}, d = {0};                                                     \
            for (; i + 4 * WIDE <= n; i += 4 * WIDE) {                                            \
                NAME##_add(&a, x + i, p);                                                         \
                NAME##_add(&b, x + i + WIDE, p);                                                  \
                NAME##_add(&c, x + i + 2 * WIDE, p);                                              \
                NAME##_add(&d, x + i + 3 * WIDE, p);                                              \
            }                                                                                     \
            a = (a + b) + (c + d);                                                                \
        }                                                                                         \
        for (; i + WIDE <= n; i += WIDE)                                                          \
            NAME##_add(&a, x + i, p);                                                             \
        for (int j = 0; j < WIDE; j++)                                                            \
            sum += a[j];                                                                          \
        for (; i < n; i++)                                                                        \
            sum += p == SQUARES ? (TYPE)(x[i] * x[i]) : (TYPE)fabs(x[i]);                         \
        return sum;                                                                               \
    }

DEFINE_SUM(sum32, float, floats, words, 0x7fffffff)
DEFINE_SUM(sum64, double, doubles, longs, 0x7fffffffffffffff)

#else

#define DEFINE_SUM(NAME, TYPE)                                                                    \
    INLINE double NAME(const TYPE *x, size_t n, enum order p) {                                   \
        TYPE lane[LANES] = {0};                                                                   \
        size_t i = 0;                                                                             \
        double sum = 0;                                                                           \
        for (; i + LANES <= n; i += LANES)                                                        \
            for (int j = 0; j < LANES; j++)                                                       \
                lane[j] += p == SQUARES ? x[i + j] * x[i + j] : (TYPE)fabs(x[i + j]);             \
        for (int j = 0; j < LANES; j++)                                                           \
            sum += lane[j];                                                                       \
        for (; i < n; i++)                                                                        \
            sum += p == SQUARES ? (TYPE)(x[i] * x[i]) : (TYPE)fabs(x[i]);                         \
        return sum;                                                                               \
    }

DEFINE_SUM(sum32, float)
DEFINE_SUM(sum64, double)

#endif

INLINE uint32_t largest32(const float *x, size_t n) {
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t b = bits32(x[i]);
        top = b > top ? b : top;
    }
    return top;
}

INLINE uint64_t largest64(const double *x, size_t n) {
    uint64_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t b = bits64(x[i]);
        top = b > top ? b : top;
    }
    return top;
}

/* The block again, in double, where the squares of every float32 have room. */
INLINE double careful32(const float *x, size_t n, enum order p) {
    double lane[8] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) {
            double v = x[i + j];
            lane[j] += p == SQUARES ? v * v : fabs(v);
        }
    for (; i < n; i++) {
        double v = x[i];
        sum += p == SQUARES ? v * v : fabs(v);
    }
    for (int j = 0; j < 8; j++)
        sum += lane[j];
    return sum;
}

INLINE void block32(const float *x, size_t n, enum order p, Total *total) {
    if (p == MAXIMUM) {
        /* Bits of a float32 do not compare with those of a float64: see `norm_of_total`. */
        uint32_t top = largest32(x, n);
        total->top = top > total->top ? top : total->top;
        return;
    }
    double sum = sum32(x, n, p);
    /* Below 1e-27 what 2,048 squares can have lost to underflow is no longer small against it,
     * even where denormal numbers are flushed to zero. Also false for NaN. */
    if (!(sum > 1e-27 && sum < 3e38))
        sum = careful32(x, n, p);
    total->sum += sum;
}

INLINE void block64(const double *x, size_t n, enum order p, Total *total) {
    if (p == MAXIMUM) {
        uint64_t top = largest64(x, n);
        total->top = top > total->top ? top : total->top;
        return;
    }
    double sum = sum64(x, n, p);
    /* Room above for a billion blocks, and below for what underflows. */
    if (p == ABSOLUTE || (sum > 1e-270 && sum < 1e290)) {
        total->sum += sum;
        return;
    }
    double top = from_bits64(largest64(x, n));
    if (!(top <= 1.7976931348623157e308)) {
        total->sum += top; /* NaN or Inf, and it stays */
        return;
    }
    double scale = top > 1 ? ldexp(1, -600) : ldexp(1, 600), scaled = 0;
    for (size_t i = 0; i < n; i++)
        scaled += (x[i] * scale) * (x[i] * scale);
    *(top > 1 ? &total->huge : &total->tiny) += scaled;
}

INLINE void widen_bf16(const uint16_t *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t b = (uint32_t)x[i] << 16;
        memcpy(out + i, &b, sizeof b);
    }
}

/* Half precision by hand: the instruction for it is not part of what every compiler assumes. */
INLINE void widen_f16(const uint16_t *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t h = x[i] & 0x7fffu;
        uint32_t normal = (h << 13) + (112u << 23), infinite = (h << 13) | 0x7f800000u, b;
        float denormal = (float)(int32_t)h * 5.9604644775390625e-8f; /* 2^-24 */
        memcpy(&b, &denormal, sizeof b);
        b = h < 0x0400u ? b : h < 0x7c00u ? normal : infinite;
        b |= (x[i] & 0x8000u) << 16;
        memcpy(out + i, &b, sizeof b);
    }
}

INLINE double norm_of_total(const Total *t, enum order p, enum kind kind) {
    if (p == MAXIMUM) {
        if (kind == F64)
            return from_bits64(t->top);
        uint32_t b = (uint32_t)t->top;
        float top;
        memcpy(&top, &b, sizeof top);
        return top;
    }
    if (p == ABSOLUTE)
        return t->sum;
    if (t->huge > 0 && t->sum <= 1.7976931348623157e308)
        return ldexp(sqrt(t->huge + ldexp(t->sum, -1200)), 600);
    if (t->tiny > 0 && t->sum == 0)
        return ldexp(sqrt(t->tiny), -600);
    return sqrt(t->sum + ldexp(t->tiny, -1200));
}

INLINE double norm_of(enum kind kind, const void *data, size_t n, enum order p) {
    Total total = {0, 0, 0, 0};
    float wide[BLOCK];
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = n - i < BLOCK ? n - i : BLOCK;
        switch (kind) {
        case F32:
            block32((const float *)data + i, m, p, &total);
            break;
        case F64:
            block64((const double *)data + i, m, p, &total);
            break;
        case F16:
            widen_f16((const uint16_t *)data + i, m, wide);
            block32(wide, m, p, &total);
            break;
        case BF16:
            widen_bf16((const uint16_t *)data + i, m, wide);
            block32(wide, m, p, &total);
            break;
        }
    }
    return norm_of_total(&total, p, kind);
}

#endif

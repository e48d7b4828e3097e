/* Chains of elementwise operations on bfloat16, one pass over memory: kernels.py says what each is for.
 *
 * IEEE 754 operations in the order that is written, none fused but fmaf: compiled without contraction and
 * without fast-math (pyproject.toml), so that the bits depend on neither compiler nor vector width. A NaN has
 * bits that torch chooses by the place of an element, so that its kernels decide wherever one turns
 * up: what is returned is 0, or 1 where a result is NaN and nothing written may be used.
 *
 * No Python here: ctypes (native.py) calls with the addresses of tensors that it has looked at.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The same function for several processors, chosen when it is loaded: glibc on x86-64. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef VECTORS
#define VECTORS
#endif

typedef uint16_t bf16;

/* Elements at a time: a few buffers of so many stay in a first-level cache. */
enum { BLOCK = 512 };
/* Elements of one binary tree (sums.py). */
enum { TREE = 4096 };

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

static inline float widened(bf16 value)
{
    uint32_t pattern = (uint32_t)value << 16;
    float found;
    memcpy(&found, &pattern, sizeof found);
    return found;
}

/* To nearest, ties to even. A NaN stays one: it comes from bfloat16 or from the processor, so that the
 * lower half of its pattern is 0 and carries nothing into the upper. */
static inline bf16 rounded(float value)
{
    uint32_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return (bf16)((pattern + 0x7fff + ((pattern >> 16) & 1)) >> 16);
}

static inline float narrowed(float value) { return widened(rounded(value)); }

/* Not 0 where a value is NaN or, if compared, not what `out` holds; if not compared, it is written. */
static inline uint32_t settle(float value, bf16 *out, int compare)
{
    uint32_t missing = value != value;
    bf16 made = rounded(value);
    if (compare)
        return missing | (made ^ *out);
    *out = made;
    return missing;
}

static inline uint32_t stored(const float *values, bf16 *out, size_t size, int compare)
{
    uint32_t missing = 0;
    if (compare)
        for (size_t i = 0; i < size; i++)
            missing |= settle(values[i], out + i, 1);
    else
        for (size_t i = 0; i < size; i++)
            missing |= settle(values[i], out + i, 0);
    return missing;
}

/* The end of a sum of task vectors: times `scale`, plus `origin`. */
static inline uint32_t moved(float *total, const float *origin, float scale, bf16 *out,
                             size_t size, int compare)
{
    if (scale != 1.0f)
        for (size_t i = 0; i < size; i++)
            total[i] = narrowed(total[i] * scale);
    for (size_t i = 0; i < size; i++)
        total[i] += origin[i];
    return stored(total, out, size, compare);
}

/* weights * parts summed by fma from +0 in order; divided unless `divisor` is 1; rounded. */
VECTORS size_t parentage_linear(const bf16 *const *parts, const float *weights, size_t count,
                             float divisor, bf16 *out, size_t elements, int compare)
{
    float total[BLOCK];
    for (size_t start = 0; start < elements; start += BLOCK) {
        size_t size = least(BLOCK, elements - start);
        uint32_t missing = 0;
        for (size_t i = 0; i < size; i++)
            total[i] = 0.0f;
        for (size_t k = 0; k + 1 < count; k++) {
            const bf16 *part = parts[k] + start;
            float weight = weights[k];
            for (size_t i = 0; i < size; i++)
                total[i] = fmaf(widened(part[i]), weight, total[i]);
        }
        const bf16 *last = parts[count - 1] + start;
        bf16 *here = out + start;
        float weight = weights[count - 1];
        if (divisor != 1.0f) {
            for (size_t i = 0; i < size; i++)
                total[i] = fmaf(widened(last[i]), weight, total[i]) / divisor;
            missing = stored(total, here, size, compare);
        } else if (compare) {
            for (size_t i = 0; i < size; i++)
                missing |= settle(fmaf(widened(last[i]), weight, total[i]), here + i, 1);
        } else {
            for (size_t i = 0; i < size; i++)
                missing |= settle(fmaf(widened(last[i]), weight, total[i]), here + i, 0);
        }
        if (missing)
            return start;
    }
    return elements;
}

/* base + scale * (sum of weights * (others - base)) / divisor, each operation rounded to bf16; a sum of
 * three or more is rounded once, at its end, and each sum begins at +0. */
VECTORS size_t parentage_task_vectors(const bf16 *restrict base, const bf16 *const *others,
                                   const float *weights, size_t count, float divisor, float scale,
                                   bf16 *out, size_t elements, int compare)
{
    float total[BLOCK], origin[BLOCK];
    for (size_t start = 0; start < elements; start += BLOCK) {
        size_t size = least(BLOCK, elements - start);
        for (size_t i = 0; i < size; i++) {
            origin[i] = widened(base[start + i]);
            total[i] = 0.0f;
        }
        for (size_t k = 0; k < count; k++) {
            const bf16 *part = others[k] + start;
            float weight = weights[k];
            for (size_t i = 0; i < size; i++)
                total[i] += narrowed(narrowed(widened(part[i]) - origin[i]) * weight);
        }
        for (size_t i = 0; i < size; i++)
            total[i] = narrowed(total[i]);
        if (divisor != 1.0f)
            for (size_t i = 0; i < size; i++)
                total[i] = narrowed(total[i] / divisor);
        if (moved(total, origin, scale, out + start, size, compare))
            return start;
    }
    return elements;
}

/* by_left * left + by_right * right: two products and their sum in fp32, rounded at the end. */
VECTORS size_t parentage_interpolated(const bf16 *left, const bf16 *right, float by_left,
                                   float by_right, bf16 *out, size_t elements, int compare)
{
    float total[BLOCK];
    for (size_t start = 0; start < elements; start += BLOCK) {
        size_t size = least(BLOCK, elements - start);
        for (size_t i = 0; i < size; i++)
            total[i] = widened(left[start + i]) * by_left + widened(right[start + i]) * by_right;
        if (stored(total, out + start, size, compare))
            return start;
    }
    return elements;
}

static inline uint32_t no_number(float value)
{
    uint32_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return (pattern & 0x7f800000) == 0x7f800000;
}

/* Inputs of parentage_sparse: torch adds more of them in another order. */
enum { MOST = 4 };

/* base + scale * (sum of weights * scales * masked vectors) / divisor, each operation rounded to bf16; sums
 * as those of parentage_task_vectors. With `elect` only terms with the sign of their sum are added, and the
 * divisor, unless it is 0, is the sum of the weights of those (electing.py). Vectors are `parts`, or what
 * is left of them less `base`. A mask may be missing, and is 1 then. */
VECTORS size_t parentage_sparse(const bf16 *base, const bf16 *const *parts,
                                const uint8_t *const *masks, const float *scales,
                                const float *weights, size_t count, int subtract, int elect,
                                float divisor, float scale, bf16 *out, size_t elements,
                                int compare)
{
    float origin[BLOCK], total[BLOCK], shares[BLOCK], terms[MOST][BLOCK];
    if (count > MOST)
        return 0;
    for (size_t start = 0; start < elements; start += BLOCK) {
        size_t size = least(BLOCK, elements - start);
        uint32_t missing = 0;
        for (size_t i = 0; i < size; i++) {
            origin[i] = widened(base[start + i]);
            total[i] = 0.0f;
        }
        for (size_t k = 0; k < count; k++) {
            const bf16 *part = parts[k] + start;
            float *term = terms[k], factor = scales[k], weight = weights[k];
            for (size_t i = 0; i < size; i++)
                term[i] = widened(part[i]);
            if (subtract)
                for (size_t i = 0; i < size; i++)
                    term[i] = narrowed(term[i] - origin[i]);
            for (size_t i = 0; i < size; i++)
                missing |= no_number(term[i]);
            if (masks[k]) {
                const uint8_t *mask = masks[k] + start;
                for (size_t i = 0; i < size; i++)
                    term[i] = mask[i] ? term[i] : 0.0f;
            }
            if (factor != 1.0f)
                for (size_t i = 0; i < size; i++)
                    term[i] = narrowed(term[i] * factor);
            for (size_t i = 0; i < size; i++) {
                term[i] = narrowed(term[i] * weight);
                missing |= no_number(term[i]);
                total[i] += term[i];
            }
        }
        for (size_t i = 0; i < size; i++)
            total[i] = narrowed(total[i]);
        if (elect) {
            float sign[BLOCK];
            for (size_t i = 0; i < size; i++) {
                sign[i] = total[i] >= 0.0f ? 1.0f : -1.0f;
                total[i] = shares[i] = 0.0f;
            }
            for (size_t k = 0; k < count; k++) {
                const float *term = terms[k];
                float weight = weights[k];
                for (size_t i = 0; i < size; i++) {
                    int agrees = term[i] * sign[i] > 0.0f;
                    total[i] += agrees ? term[i] : 0.0f;
                    shares[i] += agrees ? weight : 0.0f;
                }
            }
            for (size_t i = 0; i < size; i++) {
                float share = narrowed(shares[i]);
                total[i] = narrowed(total[i]);
                shares[i] = share == 0.0f ? 1.0f : share;
            }
            if (divisor != 0.0f)
                for (size_t i = 0; i < size; i++)
                    total[i] = narrowed(total[i] / shares[i]);
        } else if (divisor != 0.0f) {
            for (size_t i = 0; i < size; i++)
                total[i] = narrowed(total[i] / divisor);
        }
        missing |= moved(total, origin, scale, out + start, size, compare);
        if (missing)
            return start;
    }
    return elements;
}

static inline double tree(double *terms)
{
    for (size_t width = TREE / 4; width; width /= 2)
        for (size_t i = 0; i < width; i++)
            terms[i] += terms[i + width];
    return terms[0];
}

/* The float64 sums of <left, left>, <right, right> and <left, right> over each 4,096 elements, as one
 * binary tree each; found[0], found[1], found[2] are rows of `blocks` sums. */
VECTORS void parentage_gram(const bf16 *left, const bf16 *right, double *const *found, size_t blocks)
{
    double terms[3][TREE / 2];
    for (size_t block = 0; block < blocks; block++) {
        const bf16 *a = left + block * TREE, *b = right + block * TREE;
        for (size_t i = 0; i < TREE / 2; i++) {
            double a0 = widened(a[i]), a1 = widened(a[i + TREE / 2]);
            double b0 = widened(b[i]), b1 = widened(b[i + TREE / 2]);
            terms[0][i] = a0 * a0 + a1 * a1;
            terms[1][i] = b0 * b0 + b1 * b1;
            terms[2][i] = a0 * b0 + a1 * b1;
        }
        for (size_t k = 0; k < 3; k++)
            found[k][block] = tree(terms[k]);
    }
}

/* The float64 sums of the magnitudes of vectors (others - base, rounded to bf16), of all elements and of
 * those whose mask is 1, over each 4,096, as one binary tree each: found[2k] and found[2k + 1]. */
VECTORS void parentage_norms(const bf16 *base, const bf16 *const *others,
                             const uint8_t *const *masks, size_t count, double *const *found,
                             size_t blocks)
{
    double all[TREE / 2], kept[TREE / 2];
    for (size_t block = 0; block < blocks; block++) {
        for (size_t k = 0; k < count; k++) {
            const bf16 *a = base + block * TREE, *b = others[k] + block * TREE;
            const uint8_t *mask = masks[k] + block * TREE;
            for (size_t i = 0; i < TREE / 2; i++) {
                size_t j = i + TREE / 2;
                double first = fabsf(narrowed(widened(b[i]) - widened(a[i])));
                double second = fabsf(narrowed(widened(b[j]) - widened(a[j])));
                all[i] = first + second;
                kept[i] = (mask[i] ? first : 0.0) + (mask[j] ? second : 0.0);
            }
            found[2 * k][block] = tree(all);
            found[2 * k + 1][block] = tree(kept);
        }
    }
}

/* mt19937 (Matsumoto & Nishimura 1998): 624 words, and which of them is drawn next. */
enum { WORDS = 624, MIDDLE = 397 };

void parentage_seeded(uint32_t *state, uint32_t seed)
{
    state[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++)
        state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
    state[WORDS] = WORDS;
}

static inline uint32_t twisted(uint32_t upper, uint32_t lower)
{
    uint32_t mixed = (upper & 0x80000000u) | (lower & 0x7fffffffu);
    return (mixed >> 1) ^ (lower & 1 ? 0x9908b0dfu : 0);
}

static inline void next_words(uint32_t *state)
{
    for (size_t i = 0; i < WORDS - MIDDLE; i++)
        state[i] = state[i + MIDDLE] ^ twisted(state[i], state[i + 1]);
    for (size_t i = WORDS - MIDDLE; i < WORDS - 1; i++)
        state[i] = state[i + MIDDLE - WORDS] ^ twisted(state[i], state[i + 1]);
    state[WORDS - 1] = state[MIDDLE - 1] ^ twisted(state[WORDS - 1], state[0]);
    state[WORDS] = 0;
}

static inline uint32_t tempered(uint32_t word)
{
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

/* Draw `count` words. `packed` may be missing; else its bits, the first lowest, are 1 where the lower 24
 * bits of a word are below `limit`: at::uniform_real_distribution of fp32 below limit / 2^24. */
VECTORS void parentage_drawn(uint32_t *state, size_t count, uint32_t limit, uint8_t *packed)
{
    uint8_t below[WORDS + 16];
    size_t held = 0;
    while (count) {
        if (state[WORDS] == WORDS)
            next_words(state);
        size_t first = state[WORDS], size = least(count, WORDS - first);
        state[WORDS] += (uint32_t)size;
        count -= size;
        if (!packed)
            continue;
        for (size_t i = 0; i < size; i++)
            below[held + i] = (tempered(state[first + i]) & 0xffffff) < limit;
        held += size;
        size_t whole = count ? held / 8 : (held + 7) / 8;
        if (!count)
            memset(below + held, 0, 8);
        for (size_t i = 0; i < whole; i++) {
            uint8_t bits = 0;
            for (size_t j = 0; j < 8; j++)
                bits |= (uint8_t)(below[8 * i + j] << j);
            packed[i] = bits;
        }
        packed += whole;
        held = count ? held % 8 : 0;
        memmove(below, below + 8 * whole, held);
    }
}

/* A byte, 0 or 1, for each of so many bits, the first lowest. */
VECTORS void parentage_unpacked(const uint8_t *packed, uint8_t *flags, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        uint64_t spread = packed[i] * 0x0101010101010101u & 0x8040201008040201u;
        spread = (spread + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
        memcpy(flags + 8 * i, &spread, 8);
    }
}

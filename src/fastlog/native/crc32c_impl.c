/* CRC-32C: polynomial 0x1EDC6F41, reflected (0x82F63B78), initial value and final xor all ones (RFC 3720, appendix B.4).
 *
 * Reflected: bit 31 of a 32-bit value is the coefficient of x^0. All constants are computed here from the polynomial:
 *
 *   Three lanes.  CRC instructions have a latency of three cycles and a throughput of one, so three parts of the input run side by
 *                 side and are joined: appending L bytes multiplies a state by x^(8L) mod P. A carry-less product of two 32-bit
 *                 values, taken as a 64-bit reflected word, is their product times x, and running it through the CRC instruction
 *                 multiplies by x^32: hence the constant for L bytes is x^(8L - 33).
 *   Folding.      A 128-bit word with D bytes still to come after it is congruent to  lo * x^(8D+64) + hi * x^(8D); each half is
 *                 one carry-less product with a 64-bit reflected constant, again times x: x^(8D+63) and x^(8D-1).
 *                 (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009.)
 */
#include "crc32c_impl.h"

#include <endian.h>
#include <string.h>

#define POLYNOMIAL 0x82F63B78u

typedef uint32_t (*Kernel)(uint32_t state, const uint8_t *p, size_t n); /* state: not inverted */

static inline uint64_t load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* ---- the portable kernel: eight bytes a step through eight tables ---- */

static uint32_t table[8][256];

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int k = 0; k < 8; k++) v = (v >> 1) ^ (v & 1 ? POLYNOMIAL : 0);
        table[0][i] = v;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255];
}

static uint32_t run_table(uint32_t state, const uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = le64toh(load64(p)) ^ state;
        state = table[7][v & 255] ^ table[6][v >> 8 & 255] ^ table[5][v >> 16 & 255] ^ table[4][v >> 24 & 255] ^
                table[3][v >> 32 & 255] ^ table[2][v >> 40 & 255] ^ table[1][v >> 48 & 255] ^ table[0][v >> 56];
    }
    while (n--) state = (state >> 8) ^ table[0][(state ^ *p++) & 255];
    return state;
}

/* ---- constants for the others ---- */

#if defined(__x86_64__) || (defined(__aarch64__) && __BYTE_ORDER == __LITTLE_ENDIAN)
#define ACCELERATED 1

static uint32_t multiply(uint32_t a, uint32_t b) { /* a * b mod P */
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = (b >> 1) ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return product;
}

static uint32_t power_of_x(uint32_t n) { /* x^n mod P */
    uint32_t power = 1u << 31, square = 1u << 30;
    for (; n; n >>= 1) {
        if (n & 1) power = multiply(power, square);
        square = multiply(square, square);
    }
    return power;
}

enum { LANE_SIZES = 3 };
static const uint32_t lane_bytes[LANE_SIZES] = {4096, 512, 64};
static uint32_t lane_shift[LANE_SIZES][2]; /* to append two lanes, one lane */

static void make_lanes(void) {
    for (int i = 0; i < LANE_SIZES; i++) {
        lane_shift[i][0] = power_of_x(16 * lane_bytes[i] - 33);
        lane_shift[i][1] = power_of_x(8 * lane_bytes[i] - 33);
    }
}

/* STEP(state, u64), STEP_BYTE(state, u8); PRODUCT(a, b): low 64 bits of the carry-less product. */
#define ONE_LANE(STEP, STEP_BYTE)                                          \
    for (; n >= 8; p += 8, n -= 8) state = (uint32_t)STEP(state, load64(p)); \
    while (n--) state = STEP_BYTE(state, *p++);                            \
    return state;

#define THREE_LANES(STEP, PRODUCT)                                                                     \
    for (int i = 0; i < LANE_SIZES; i++) {                                                             \
        const size_t lane = lane_bytes[i];                                                             \
        for (; n >= 3 * lane; p += 3 * lane, n -= 3 * lane) {                                          \
            uint64_t a = state, b = 0, c = 0;                                                          \
            for (size_t at = 0; at < lane; at += 8) {                                                  \
                a = STEP(a, load64(p + at));                                                           \
                b = STEP(b, load64(p + lane + at));                                                    \
                c = STEP(c, load64(p + 2 * lane + at));                                                \
            }                                                                                          \
            state = (uint32_t)(STEP(0, PRODUCT(a, lane_shift[i][0]) ^ PRODUCT(b, lane_shift[i][1])) ^ c); \
        }                                                                                              \
    }
#endif

/* ---- x86-64 ---- */

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("sse4.2"))) static uint32_t run_sse42(uint32_t state, const uint8_t *p, size_t n) {
    ONE_LANE(_mm_crc32_u64, _mm_crc32_u8)
}

#define X86_PRODUCT(a, b) ((uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)(a)), _mm_cvtsi32_si128((int)(b)), 0)))

__attribute__((target("sse4.2,pclmul"))) static uint32_t run_pclmul(uint32_t state, const uint8_t *p, size_t n) {
    THREE_LANES(_mm_crc32_u64, X86_PRODUCT)
    ONE_LANE(_mm_crc32_u64, _mm_crc32_u8)
}

enum { FOLD_256, FOLD_64, FOLD_16, FOLDS };
static uint64_t fold_by[FOLDS][2]; /* for the low half, for the high half */

static void make_folds(void) {
    static const uint32_t distance[FOLDS] = {256, 64, 16};
    for (int i = 0; i < FOLDS; i++) {
        fold_by[i][0] = (uint64_t)power_of_x(8 * distance[i] + 63) << 32;
        fold_by[i][1] = (uint64_t)power_of_x(8 * distance[i] - 1) << 32;
    }
}

#define WIDE __attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.2")))

WIDE static inline __m512i constant512(int i) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_by[i]));
}

WIDE static inline __m512i fold512(__m512i v, __m512i k, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(v, k, 0x00), _mm512_clmulepi64_epi128(v, k, 0x11), next, 0x96);
}

WIDE static inline __m128i fold128(__m128i v, __m128i k, __m128i next) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(v, k, 0x00), _mm_clmulepi64_si128(v, k, 0x11)), next);
}

/* Four registers of 64 bytes are folded over what follows, then into one, into 16 bytes, and those go through the CRC instruction. */
WIDE static uint32_t run_avx512(uint32_t state, const uint8_t *p, size_t n) {
    if (n < 512) return run_pclmul(state, p, n);
    __m512i k = constant512(FOLD_256);
    __m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    __m512i b = _mm512_loadu_si512(p + 64), c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);
    for (p += 256, n -= 256; n >= 256; p += 256, n -= 256) {
        a = fold512(a, k, _mm512_loadu_si512(p));
        b = fold512(b, k, _mm512_loadu_si512(p + 64));
        c = fold512(c, k, _mm512_loadu_si512(p + 128));
        d = fold512(d, k, _mm512_loadu_si512(p + 192));
    }
    k = constant512(FOLD_64);
    a = fold512(fold512(fold512(a, k, b), k, c), k, d);
    for (; n >= 64; p += 64, n -= 64) a = fold512(a, k, _mm512_loadu_si512(p));
    __m128i k16 = _mm_loadu_si128((const __m128i *)fold_by[FOLD_16]);
    __m128i v = fold128(_mm512_castsi512_si128(a), k16, _mm512_extracti32x4_epi32(a, 1));
    v = fold128(fold128(v, k16, _mm512_extracti32x4_epi32(a, 2)), k16, _mm512_extracti32x4_epi32(a, 3));
    state = (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(v)), (uint64_t)_mm_extract_epi64(v, 1));
    ONE_LANE(_mm_crc32_u64, _mm_crc32_u8)
}
#endif

/* ---- aarch64 ---- */

#if defined(__aarch64__) && defined(ACCELERATED)
#include <arm_acle.h>
#include <arm_neon.h>
#include <sys/auxv.h>

#ifndef HWCAP_PMULL
#define HWCAP_PMULL (1 << 4)
#endif
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

#define ARM_STEP(state, v) __crc32cd((uint32_t)(state), v)
#define ARM_PRODUCT(a, b) ((uint64_t)vmull_p64((poly64_t)(a), (poly64_t)(b)))

__attribute__((target("arch=armv8-a+crc"))) static uint32_t run_armv8(uint32_t state, const uint8_t *p, size_t n) {
    ONE_LANE(ARM_STEP, __crc32cb)
}

__attribute__((target("arch=armv8-a+crc+crypto"))) static uint32_t run_pmull(uint32_t state, const uint8_t *p, size_t n) {
    THREE_LANES(ARM_STEP, ARM_PRODUCT)
    ONE_LANE(ARM_STEP, __crc32cb)
}
#endif

/* ---- the choice ---- */

enum { KERNELS_MAX = 4 };
static struct {
    const char *name;
    Kernel run;
} kernels[KERNELS_MAX];
static int kernel_count;

static void offer(const char *name, Kernel run) {
    kernels[kernel_count].name = name;
    kernels[kernel_count].run = run;
    kernel_count++;
}

void fl_crc32c_init(void) {
    if (kernel_count) return;
    make_table();
#if defined(__x86_64__)
    make_lanes();
    make_folds();
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2")) {
        if (__builtin_cpu_supports("pclmul")) {
            if (__builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
                offer("avx512+vpclmul", run_avx512);
            offer("sse4.2+pclmul", run_pclmul);
        }
        offer("sse4.2", run_sse42);
    }
#elif defined(__aarch64__) && defined(ACCELERATED)
    make_lanes();
    if (getauxval(AT_HWCAP) & HWCAP_CRC32) {
        if (getauxval(AT_HWCAP) & HWCAP_PMULL) offer("armv8+pmull", run_pmull);
        offer("armv8", run_armv8);
    }
#endif
    offer("table", run_table);
}

uint32_t fl_crc32c(uint32_t crc, const void *p, size_t n) {
    return ~kernels[0].run(~crc, p, n);
}

int fl_crc32c_kernels(void) {
    return kernel_count;
}

const char *fl_crc32c_name(int kernel) {
    return kernels[kernel].name;
}

uint32_t fl_crc32c_with(int kernel, uint32_t crc, const void *p, size_t n) {
    return ~kernels[kernel].run(~crc, p, n);
}

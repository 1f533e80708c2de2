/* CRC-32C (RFC 3720, appendix B.4) on raw states: no inversion at either end, so that states combine.
 *
 * raw(s, A|B) == raw(raw(s, A), B), and by linearity raw(s, B) == zeroes(s, len B) ^ raw(0, B), where zeroes() runs the state
 * over that many zero bytes. So a batch of which only the head differs costs a CRC of its head and four table look-ups.
 * The checksum on the wire is ~raw(~0, data). This is the generator's own implementation: the broker's is what it checks. */
#ifndef BENCH_CRC32C_H
#define BENCH_CRC32C_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BENCH_CRC_LANE 2048 /* bytes that each of three interleaved streams takes: the instruction's latency is three cycles */

typedef struct { uint32_t table[4][256]; } bench_zeroes;

static uint32_t bench_crc_table[256];
static bench_zeroes bench_lane1, bench_lane2;

static inline uint32_t bench_zeroes_run(const bench_zeroes *z, uint32_t s) {
    return z->table[0][s & 255] ^ z->table[1][s >> 8 & 255] ^ z->table[2][s >> 16 & 255] ^ z->table[3][s >> 24];
}

static uint32_t bench_crc_raw_table(uint32_t s, const uint8_t *p, size_t n) {
    for (; n; n--) s = bench_crc_table[(s ^ *p++) & 255] ^ s >> 8;
    return s;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t bench_crc_raw_sse(uint32_t s, const uint8_t *p, size_t n) {
    uint64_t a = s, v[3];
    for (; n >= 3 * BENCH_CRC_LANE; n -= 3 * BENCH_CRC_LANE, p += 3 * BENCH_CRC_LANE) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < BENCH_CRC_LANE; i += 8) {
            memcpy(v, p + i, 8); memcpy(v + 1, p + BENCH_CRC_LANE + i, 8); memcpy(v + 2, p + 2 * BENCH_CRC_LANE + i, 8);
            a = __builtin_ia32_crc32di(a, v[0]);
            b = __builtin_ia32_crc32di(b, v[1]);
            c = __builtin_ia32_crc32di(c, v[2]);
        }
        a = bench_zeroes_run(&bench_lane2, (uint32_t)a) ^ bench_zeroes_run(&bench_lane1, (uint32_t)b) ^ (uint32_t)c;
    }
    for (; n >= 8; n -= 8, p += 8) { memcpy(v, p, 8); a = __builtin_ia32_crc32di(a, v[0]); }
    for (; n; n--) a = __builtin_ia32_crc32qi((uint32_t)a, *p++);
    return (uint32_t)a;
}
#endif

static uint32_t (*bench_crc_raw)(uint32_t, const uint8_t *, size_t) = bench_crc_raw_table;

/* Fills z for runs of n zero bytes: one run per bit of the state. */
static void bench_zeroes_make(bench_zeroes *z, size_t n) {
    static const uint8_t zero[4096];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t s = (uint32_t)1 << bit;
        for (size_t left = n; left;) {
            size_t step = left < sizeof zero ? left : sizeof zero;
            s = bench_crc_raw(s, zero, step);
            left -= step;
        }
        for (int byte = 0; byte < 256; byte++) {
            if (bit % 8 == 0 && byte == 0) z->table[bit / 8][0] = 0;
            if (byte >> (bit % 8) == 1) z->table[bit / 8][byte] = z->table[bit / 8][byte ^ 1 << (bit % 8)] ^ s;
        }
    }
}

static void bench_crc_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t s = i;
        for (int k = 0; k < 8; k++) s = s & 1 ? s >> 1 ^ 0x82F63B78u : s >> 1;
        bench_crc_table[i] = s;
    }
    bench_crc_raw = bench_crc_raw_table;
    bench_zeroes_make(&bench_lane1, BENCH_CRC_LANE);
    bench_zeroes_make(&bench_lane2, 2 * BENCH_CRC_LANE);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) bench_crc_raw = bench_crc_raw_sse;
#endif
}
#endif

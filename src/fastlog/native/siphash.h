/* Hashes that a stranger can't foresee: names and keys that are sent to us must not all fall into one slot of a table. */
#ifndef FL_SIPHASH_H
#define FL_SIPHASH_H
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FL_ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define FL_SIP_ROUND \
    v0 += v1; v1 = FL_ROTATE(v1, 13); v1 ^= v0; v0 = FL_ROTATE(v0, 32); \
    v2 += v3; v3 = FL_ROTATE(v3, 16); v3 ^= v2; \
    v0 += v3; v3 = FL_ROTATE(v3, 21); v3 ^= v0; \
    v2 += v1; v1 = FL_ROTATE(v1, 17); v1 ^= v2; v2 = FL_ROTATE(v2, 32);
/* SipHash-2-4-128 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", and its 128-bit variant). */
static inline void fl_siphash128(const uint64_t key[2], const uint8_t *p, uint64_t n, uint64_t *a, uint64_t *b)
{
    uint64_t v0 = key[0] ^ 0x736f6d6570736575u, v1 = key[1] ^ 0x646f72616e646f6du ^ 0xee;
    uint64_t v2 = key[0] ^ 0x6c7967656e657261u, v3 = key[1] ^ 0x7465646279746573u;
    uint64_t m, left = n & 7;
    const uint8_t *end = p + (n - left);
    for (; p != end; p += 8) {
        memcpy(&m, p, 8);
        m = le64toh(m);
        v3 ^= m;
        FL_SIP_ROUND FL_SIP_ROUND
        v0 ^= m;
    }
    m = 0;
    memcpy(&m, p, left);
    m = le64toh(m) | n << 56;
    v3 ^= m;
    FL_SIP_ROUND FL_SIP_ROUND
    v0 ^= m;
    v2 ^= 0xee;
    FL_SIP_ROUND FL_SIP_ROUND FL_SIP_ROUND FL_SIP_ROUND
    *a = v0 ^ v1 ^ v2 ^ v3;
    v1 ^= 0xdd;
    FL_SIP_ROUND FL_SIP_ROUND FL_SIP_ROUND FL_SIP_ROUND
    *b = v0 ^ v1 ^ v2 ^ v3;
}

/* Of this process, for tables that do not outlive it. */
static uint64_t fl_secret[2];
__attribute__((constructor)) static void fl_secret_make(void)
{
    if (getrandom(fl_secret, sizeof fl_secret, 0) != sizeof fl_secret)
        abort();
}
static inline uint32_t fl_hash(const void *p, uint64_t n)
{
    uint64_t a, b;
    fl_siphash128(fl_secret, (const uint8_t *) p, n, &a, &b);
    return (uint32_t) a;
}
#endif

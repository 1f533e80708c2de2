#ifndef FASTLOG_ACCEPT_COPY_H
#define FASTLOG_ACCEPT_COPY_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
/* A copy whose destination is not wanted in the cache: chunks are reused in turn, so that each line would be read from memory only
   to be overwritten. Costs half of a plain copy where memory is larger than the cache. */
static void fl_copy_past_cache(uint8_t *to, const uint8_t *from, size_t n)
{
#ifdef __SSE2__
    size_t head = (size_t) (-(uintptr_t) to & 63);
    if (n >= 4096) {
        memcpy(to, from, head);
        to += head; from += head; n -= head;
        for (; n >= 64; n -= 64, to += 64, from += 64) {
            __m128i a = _mm_loadu_si128((const __m128i *) from), b = _mm_loadu_si128((const __m128i *) from + 1);
            __m128i c = _mm_loadu_si128((const __m128i *) from + 2), d = _mm_loadu_si128((const __m128i *) from + 3);
            _mm_stream_si128((__m128i *) to, a);
            _mm_stream_si128((__m128i *) to + 1, b);
            _mm_stream_si128((__m128i *) to + 2, c);
            _mm_stream_si128((__m128i *) to + 3, d);
        }
        _mm_sfence();                   /* before anyone is told that the bytes are there */
    }
#endif
    memcpy(to, from, n);
}
#endif

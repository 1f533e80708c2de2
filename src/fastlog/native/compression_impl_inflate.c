/* Decompression as a stream: see compression_impl.h.
 *
 * What is accepted is what Kafka's broker accepts and every client can read back: one lz4 frame with independent blocks, snappy as
 * one block or in snappy-java's framing, gzip members, zstd frames; nothing behind the end.
 */
#include "compression_impl.h"
#include "check.h"

#include <endian.h>
#include <lz4frame.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* ---- contexts, one of a kind per thread ---- */

typedef struct {
    z_stream gzip;
    bool gzip_ready;
    LZ4F_dctx *lz4;
    ZSTD_DCtx *zstd;
} Contexts;

static _Thread_local Contexts contexts;
static pthread_key_t at_thread_end;
static pthread_once_t key_made = PTHREAD_ONCE_INIT;

static void free_contexts(void *p) {
    Contexts *c = p;
    if (c->gzip_ready) inflateEnd(&c->gzip);
    LZ4F_freeDecompressionContext(c->lz4);
    ZSTD_freeDCtx(c->zstd);
    memset(c, 0, sizeof(*c));
}

static void make_key(void) {
    if (pthread_key_create(&at_thread_end, free_contexts)) abort();
}

static void remember(void) { /* before a thread's first context is made */
    pthread_once(&key_made, make_key);
    pthread_setspecific(at_thread_end, &contexts);
}

static z_stream *gzip_context(void) {
    z_stream *z = &contexts.gzip;
    if (contexts.gzip_ready) return inflateReset(z) == Z_OK ? z : NULL;
    remember();
    if (inflateInit2(z, 16 + MAX_WBITS) != Z_OK) return NULL; /* 16: gzip only, neither zlib nor raw */
    contexts.gzip_ready = true;
    return z;
}

static LZ4F_dctx *lz4_context(void) {
    if (contexts.lz4) {
        LZ4F_resetDecompressionContext(contexts.lz4);
        return contexts.lz4;
    }
    remember();
    if (LZ4F_isError(LZ4F_createDecompressionContext(&contexts.lz4, LZ4F_VERSION))) contexts.lz4 = NULL;
    return contexts.lz4;
}

static ZSTD_DCtx *zstd_context(void) {
    if (contexts.zstd) {
        ZSTD_DCtx_reset(contexts.zstd, ZSTD_reset_session_only);
        return contexts.zstd;
    }
    remember();
    contexts.zstd = ZSTD_createDCtx();
    return contexts.zstd;
}

/* A frame may ask for a window of up to 128 MiB (the highest levels do); a thread does not keep one that large. */
static void zstd_done(void) {
    enum { KEEP_MAX = 16 << 20 };
    if (contexts.zstd && ZSTD_sizeof_DCtx(contexts.zstd) > KEEP_MAX) {
        ZSTD_freeDCtx(contexts.zstd);
        contexts.zstd = NULL;
    }
}

/* ---- gzip ---- */

static int gzip_next(FlInflate *s, size_t *n) {
    z_stream *z = s->context;
    z->next_out = s->buffer;
    z->avail_out = (uInt)s->capacity;
    z->next_in = (Bytef *)(uintptr_t)s->p; /* zlib does not write to it */
    z->avail_in = (uInt)(s->end - s->p);
    while (z->avail_out) {
        if (s->ended) { /* another member may follow */
            if (!z->avail_in) break;
            if (inflateReset(z) != Z_OK) return FL_BAD;
            s->ended = false;
        }
        const int status = inflate(z, Z_NO_FLUSH);
        if (status == Z_STREAM_END)
            s->ended = true;
        else if (status != Z_OK) /* Z_BUF_ERROR: cut short */
            return status == Z_MEM_ERROR ? FL_MEMORY : FL_BAD;
    }
    s->p = z->next_in;
    *n = s->capacity - z->avail_out;
    return *n ? FL_MORE : FL_END;
}

/* ---- lz4 ---- */

/* The first bytes of a frame, as Kafka demands them: version 1, independent blocks, no dictionary, reserved bits zero. */
static bool lz4_frame_served(const uint8_t *p, size_t n) {
    static const uint8_t magic[4] = {0x04, 0x22, 0x4D, 0x18};
    return n >= 7 && !memcmp(p, magic, 4) && (p[4] & 0xE3) == 0x60 && (p[5] & 0x8F) == 0 && p[5] >> 4 >= 4;
}

static int lz4_next(FlInflate *s, size_t *n) {
    enum { USUAL_BLOCK = 65536 };
    size_t made = 0;
    while (!s->ended && s->capacity - made >= (made ? USUAL_BLOCK : 1)) { /* with less room lz4 would decode elsewhere, and copy */
        size_t out = s->capacity - made, in = (size_t)(s->end - s->p);
        const size_t hint = LZ4F_decompress(s->context, s->buffer + made, &out, s->p, &in, NULL);
        if (LZ4F_isError(hint)) return FL_BAD;
        if (!hint) s->ended = true;
        if (!in && !out && hint) return FL_BAD; /* cut short */
        s->p += in;
        made += out;
    }
    if (s->ended && s->p != s->end) return FL_BAD;
    *n = made;
    return made ? FL_MORE : FL_END;
}

/* ---- zstd ---- */

static int zstd_next(FlInflate *s, size_t *n) {
    ZSTD_outBuffer out = {s->buffer, s->capacity, 0};
    while (out.pos < out.size) {
        if (s->ended && s->p == s->end) break;
        ZSTD_inBuffer in = {s->p, (size_t)(s->end - s->p), 0};
        const size_t before = out.pos;
        const size_t hint = ZSTD_decompressStream(s->context, &out, &in);
        if (ZSTD_isError(hint)) return ZSTD_getErrorCode(hint) == ZSTD_error_memory_allocation ? FL_MEMORY : FL_BAD;
        s->p += in.pos;
        s->ended = !hint;
        if (hint && !in.pos && out.pos == before) return FL_BAD; /* cut short */
    }
    *n = out.pos;
    return out.pos ? FL_MORE : FL_END;
}

/* ---- snappy ---- */

/* snappy-java's framing: magic, version and oldest compatible version, then blocks, each behind its length (all big endian). */
static const uint8_t java_magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};
enum { JAVA_HEADER = 16, JAVA_VERSION = 1 };

static uint32_t big_endian(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return be32toh(v);
}

static int snappy_open(FlInflate *s) {
    const size_t n = (size_t)(s->end - s->p);
    s->framed = n >= sizeof(java_magic) && !memcmp(s->p, java_magic, sizeof(java_magic));
    if (!s->framed) return n ? FL_END : FL_BAD;
    if (n < JAVA_HEADER || big_endian(s->p + 8) < JAVA_VERSION || big_endian(s->p + 12) > JAVA_VERSION) return FL_BAD;
    s->p += JAVA_HEADER;
    return FL_END;
}

static int snappy_block(FlInflate *s) { /* begins the next one */
    size_t n = (size_t)(s->end - s->p);
    if (s->framed) {
        if (n < 4) return FL_BAD;
        const uint32_t length = big_endian(s->p);
        s->p += 4;
        n -= 4;
        if (length > n) return FL_BAD;
        n = length;
    }
    s->block = s->p;
    s->p += n;
    if (fl_snappy_begin(&s->snappy, s->block, n, s->buffer, s->capacity)) return FL_BAD;
    if (s->snappy.size > (uint64_t)n * 22) return FL_BAD; /* three bytes make 64 at most */
    if (s->snappy.size > s->left) return FL_BIG;
    s->in_block = true;
    return FL_END;
}

/* Decodes the block again, whole, and leaves out what was given already. */
static int snappy_far(FlInflate *s, const uint8_t **piece, size_t *n) {
    const uint64_t size = s->snappy.size, given = s->snappy.produced - (s->snappy.at - s->snappy.given);
    free(s->far);
    s->far = malloc(size);
    if (!s->far) return FL_MEMORY;
    if (fl_snappy_begin(&s->snappy, s->block, (size_t)(s->snappy.end - s->block), s->far, size)) return FL_BAD;
    const int got = fl_snappy_next(&s->snappy, piece, n);
    if (got != FL_MORE) return got == FL_FAR ? FL_BAD : got;
    *piece += given;
    *n -= given;
    return FL_MORE;
}

static int snappy_next(FlInflate *s, const uint8_t **piece, size_t *n) {
    for (;;) {
        if (!s->in_block) {
            if (s->p == s->end) return FL_END;
            const int begun = snappy_block(s);
            if (begun) return begun;
        }
        int got = fl_snappy_next(&s->snappy, piece, n);
        if (got == FL_FAR) got = snappy_far(s, piece, n);
        if (got) return got;
        s->in_block = false;
        if (!s->framed) return FL_END;
    }
}

/* ---- all of them ---- */

int fl_inflate_open(FlInflate *s, int codec, const void *p, size_t n, void *buffer, size_t capacity, uint64_t max) {
    FL_ASSERT(capacity >= FL_SNAPPY_WINDOW && n <= INT32_MAX);
    memset(s, 0, sizeof(*s));
    s->codec = codec;
    s->p = p;
    s->end = s->p + n;
    s->buffer = buffer;
    s->capacity = capacity;
    s->left = max;
    switch (codec) {
    case FL_SNAPPY:
        return snappy_open(s);
    case FL_GZIP:
        s->context = gzip_context();
        break;
    case FL_LZ4:
        if (!lz4_frame_served(p, n)) return FL_BAD;
        s->context = lz4_context();
        break;
    case FL_ZSTD:
        s->context = zstd_context();
        break;
    default:
        return FL_BAD;
    }
    return s->context ? FL_END : FL_MEMORY;
}

int fl_inflate_next(FlInflate *s, const uint8_t **piece, size_t *n) {
    int got;
    *piece = s->buffer;
    *n = 0;
    switch (s->codec) {
    case FL_SNAPPY:
        got = snappy_next(s, piece, n);
        break;
    case FL_GZIP:
        got = gzip_next(s, n);
        break;
    case FL_LZ4:
        got = lz4_next(s, n);
        break;
    default:
        got = zstd_next(s, n);
    }
    if (got != FL_MORE) return got;
    if (*n > s->left) return FL_BIG;
    s->left -= *n;
    return FL_MORE;
}

void fl_inflate_close(FlInflate *s) {
    free(s->far);
    s->far = NULL;
    if (s->codec == FL_ZSTD) zstd_done();
}

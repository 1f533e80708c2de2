/* Compression as a stream: see compression_impl.h. Written as the Java client writes it: gzip with a plain header, snappy in snappy-java's
 * framing with 32 KiB blocks, one lz4 frame of independent 64 KiB blocks, one zstd frame.
 */
#include "compression_impl.h"
#include "check.h"

#include <lz4frame.h>
#include <lz4hc.h>
#include <pthread.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { SNAPPY_BLOCK = 32768, LZ4_BLOCK = 65536, LZ4_LEVEL_FAST = 9 /* Kafka's default: its library's fast compressor */ };

/* ---- contexts, one of a kind per thread ---- */

typedef struct {
    z_stream gzip;
    int gzip_level;
    bool gzip_ready;
    LZ4F_cctx *lz4;
    ZSTD_CCtx *zstd;
    uint8_t *snappy; /* SNAPPY_BLOCK bytes that gather */
} Contexts;

static _Thread_local Contexts contexts;
static pthread_key_t at_thread_end;
static pthread_once_t key_made = PTHREAD_ONCE_INIT;

static void free_contexts(void *p) {
    Contexts *c = p;
    if (c->gzip_ready) deflateEnd(&c->gzip);
    LZ4F_freeCompressionContext(c->lz4);
    ZSTD_freeCCtx(c->zstd);
    free(c->snappy);
    memset(c, 0, sizeof(*c));
}

static void make_key(void) {
    if (pthread_key_create(&at_thread_end, free_contexts)) abort();
}

static void remember(void) {
    pthread_once(&key_made, make_key);
    pthread_setspecific(at_thread_end, &contexts);
}

static z_stream *gzip_context(int level) {
    z_stream *z = &contexts.gzip;
    if (contexts.gzip_ready && contexts.gzip_level == level) return deflateReset(z) == Z_OK ? z : NULL;
    if (contexts.gzip_ready) deflateEnd(z);
    else remember();
    memset(z, 0, sizeof(*z));
    contexts.gzip_ready = deflateInit2(z, level, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK;
    contexts.gzip_level = level;
    return contexts.gzip_ready ? z : NULL;
}

static LZ4F_cctx *lz4_context(void) {
    if (contexts.lz4) return contexts.lz4;
    remember();
    if (LZ4F_isError(LZ4F_createCompressionContext(&contexts.lz4, LZ4F_VERSION))) contexts.lz4 = NULL;
    return contexts.lz4;
}

static ZSTD_CCtx *zstd_context(int level, uint64_t size) {
    if (!contexts.zstd) {
        remember();
        contexts.zstd = ZSTD_createCCtx();
        if (!contexts.zstd) return NULL;
    }
    ZSTD_CCtx_reset(contexts.zstd, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(contexts.zstd, ZSTD_c_compressionLevel, level); /* clamped by the library */
    if (size) ZSTD_CCtx_setPledgedSrcSize(contexts.zstd, size);            /* smaller tables for small inputs */
    return contexts.zstd;
}

/* The highest levels take hundreds of MiB: a thread does not keep those. */
static void zstd_done(void) {
    enum { KEEP_MAX = 16 << 20 };
    if (contexts.zstd && ZSTD_sizeof_CCtx(contexts.zstd) > KEEP_MAX) {
        ZSTD_freeCCtx(contexts.zstd);
        contexts.zstd = NULL;
    }
}

/* ---- the output ---- */

/* Room for n more bytes: FL_END, FL_BIG or FL_MEMORY. */
static int reserve(FlDeflate *s, size_t n) {
    if (n <= s->capacity - s->used) return FL_END;
    size_t capacity = s->capacity;
    while (capacity - s->used < n) capacity *= 2;
    uint8_t *out = realloc(s->out, capacity);
    if (!out) return FL_MEMORY;
    s->out = out;
    s->capacity = capacity;
    return FL_END;
}

static int within(const FlDeflate *s) { return s->used > s->max ? FL_BIG : FL_END; }

static int put(FlDeflate *s, const void *p, size_t n) {
    if (n > s->max - s->used) return FL_BIG;
    const int status = reserve(s, n);
    if (status) return status;
    memcpy(s->out + s->used, p, n);
    s->used += n;
    return FL_END;
}

/* ---- codecs ---- */

static int gzip_run(FlDeflate *s, const void *p, size_t n, int flush) {
    enum { STEP = 16384 };
    z_stream *z = s->context;
    z->next_in = (Bytef *)(uintptr_t)p;
    z->avail_in = (uInt)n;
    for (;;) {
        if (reserve(s, STEP)) return FL_MEMORY;
        z->next_out = s->out + s->used;
        z->avail_out = STEP;
        const int status = deflate(z, flush);
        s->used += STEP - z->avail_out;
        if (within(s)) return FL_BIG;
        if (status == Z_STREAM_END) return FL_END;
        FL_ASSERT(status == Z_OK || status == Z_BUF_ERROR);
        if (flush == Z_NO_FLUSH && !z->avail_in) return FL_END;
    }
}

static int snappy_flush(FlDeflate *s) {
    size_t length = snappy_max_compressed_length(s->gathered);
    if (reserve(s, 4 + length)) return FL_MEMORY;
    uint8_t *at = s->out + s->used;
    FL_ASSERT(snappy_compress((const char *)s->block, s->gathered, (char *)at + 4, &length) == SNAPPY_OK);
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(length >> (24 - 8 * i));
    s->used += 4 + length;
    s->gathered = 0;
    return within(s);
}

static int snappy_run(FlDeflate *s, const uint8_t *p, size_t n) {
    while (n) {
        const size_t room = SNAPPY_BLOCK - s->gathered, take = n < room ? n : room;
        memcpy(s->block + s->gathered, p, take);
        s->gathered += take;
        p += take;
        n -= take;
        if (s->gathered == SNAPPY_BLOCK) {
            const int status = snappy_flush(s);
            if (status) return status;
        }
    }
    return FL_END;
}

static int lz4_run(FlDeflate *s, const uint8_t *p, size_t n) {
    while (n) {
        const size_t take = n < LZ4_BLOCK ? n : LZ4_BLOCK, bound = LZ4F_compressBound(take, &s->lz4);
        if (reserve(s, bound)) return FL_MEMORY;
        const size_t made = LZ4F_compressUpdate(s->context, s->out + s->used, bound, p, take, NULL);
        if (LZ4F_isError(made)) return FL_MEMORY;
        s->used += made;
        if (within(s)) return FL_BIG;
        p += take;
        n -= take;
    }
    return FL_END;
}

static int zstd_run(FlDeflate *s, const void *p, size_t n, ZSTD_EndDirective directive) {
    ZSTD_inBuffer in = {p, n, 0};
    for (;;) {
        if (reserve(s, ZSTD_CStreamOutSize())) return FL_MEMORY;
        ZSTD_outBuffer out = {s->out + s->used, s->capacity - s->used, 0};
        const size_t left = ZSTD_compressStream2(s->context, &out, &in, directive);
        if (ZSTD_isError(left)) return FL_MEMORY;
        s->used += out.pos;
        if (within(s)) return FL_BIG;
        if (directive == ZSTD_e_continue ? in.pos == in.size : !left) return FL_END;
    }
}

/* ---- all of them ---- */

static int begin(FlDeflate *s, int level, uint64_t size) {
    static const uint8_t snappy_java[16] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1};
    switch (s->codec) {
    case FL_NONE:
        return FL_END;
    case FL_GZIP:
        s->context = gzip_context(level < 1 || level > 9 ? Z_DEFAULT_COMPRESSION : level);
        return s->context ? FL_END : FL_MEMORY;
    case FL_SNAPPY:
        if (!contexts.snappy) {
            remember();
            contexts.snappy = malloc(SNAPPY_BLOCK);
        }
        s->block = contexts.snappy;
        return s->block ? put(s, snappy_java, sizeof(snappy_java)) : FL_MEMORY;
    case FL_LZ4:
        s->lz4.frameInfo.blockMode = LZ4F_blockIndependent;
        s->lz4.frameInfo.blockSizeID = LZ4F_max64KB;
        s->lz4.compressionLevel = level == LZ4_LEVEL_FAST || level < 0 ? 0 : level > LZ4HC_CLEVEL_MAX ? LZ4HC_CLEVEL_MAX : level;
        s->context = lz4_context();
        if (!s->context || reserve(s, LZ4F_HEADER_SIZE_MAX)) return FL_MEMORY;
        const size_t made = LZ4F_compressBegin(s->context, s->out + s->used, LZ4F_HEADER_SIZE_MAX, &s->lz4);
        if (LZ4F_isError(made)) return FL_MEMORY;
        s->used += made;
        return within(s);
    default:
        s->context = zstd_context(level ? level : ZSTD_CLEVEL_DEFAULT, size);
        return s->context ? FL_END : FL_MEMORY;
    }
}

int fl_deflate_begin(FlDeflate *s, int codec, int level, uint64_t size, size_t head, size_t max) {
    enum { FIRST = 16384 };
    FL_ASSERT(codec >= FL_NONE && codec <= FL_ZSTD && head <= max);
    memset(s, 0, sizeof(*s));
    s->codec = codec;
    s->max = max;
    s->capacity = head + FIRST;
    s->used = head;
    s->out = malloc(s->capacity);
    return s->out ? begin(s, level, size) : FL_MEMORY;
}

int fl_deflate_add(FlDeflate *s, const void *p, size_t n) {
    switch (s->codec) {
    case FL_NONE:
        return put(s, p, n);
    case FL_GZIP:
        return gzip_run(s, p, n, Z_NO_FLUSH);
    case FL_SNAPPY:
        return snappy_run(s, p, n);
    case FL_LZ4:
        return lz4_run(s, p, n);
    default:
        return zstd_run(s, p, n, ZSTD_e_continue);
    }
}

int fl_deflate_end(FlDeflate *s) {
    switch (s->codec) {
    case FL_NONE:
        return FL_END;
    case FL_GZIP:
        return gzip_run(s, NULL, 0, Z_FINISH);
    case FL_SNAPPY:
        return s->gathered ? snappy_flush(s) : FL_END;
    case FL_LZ4: {
        const size_t bound = LZ4F_compressBound(0, &s->lz4);
        if (reserve(s, bound)) return FL_MEMORY;
        const size_t made = LZ4F_compressEnd(s->context, s->out + s->used, bound, NULL);
        if (LZ4F_isError(made)) return FL_MEMORY;
        s->used += made;
        return within(s);
    }
    default: {
        const int status = zstd_run(s, NULL, 0, ZSTD_e_end);
        zstd_done();
        return status;
    }
    }
}

void fl_deflate_drop(FlDeflate *s) {
    if (s->codec == FL_ZSTD) zstd_done();
    free(s->out);
    s->out = NULL;
}

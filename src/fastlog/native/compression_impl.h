/* The codecs of record batches as streams: `Inflate` gives decompressed bytes in pieces from bounded working memory, `Deflate` takes
 * bytes in pieces. Contexts of zlib, lz4 and zstd are kept per thread, so a stream allocates nothing after a thread's first of its
 * kind; hence at most one Inflate and one Deflate of a codec may be open on a thread at a time.
 */
#ifndef FASTLOG_COMPRESSION_IMPL_H
#define FASTLOG_COMPRESSION_IMPL_H

#include <lz4frame.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_NONE = 0, FL_GZIP = 1, FL_SNAPPY = 2, FL_LZ4 = 3, FL_ZSTD = 4 };

enum {
    FL_MORE = 1,    /* a piece was given */
    FL_END = 0,     /* the input was used up, and ended where the format says it ends */
    FL_BAD = -1,    /* not what the codec makes, cut short, or followed by something else */
    FL_BIG = -2,    /* more than `max` bytes would come out */
    FL_MEMORY = -3, /* no memory for a codec's context */
};

/* Decodes snappy blocks. The back-references that compressors write reach back 64 KiB at most, so that much of what was written is
 * kept in the window; a block with longer ones (some compressors make them from inputs over 64 KiB) is decoded in memory of its
 * own size instead. That size is believed only when so many bytes can come out of the compressed ones that are there. */
typedef struct {
    const uint8_t *op;      /* next element of the block */
    const uint8_t *end;     /* end of the block */
    uint8_t *window;        /* output and, before it, what back-references may reach */
    size_t capacity;
    size_t at;              /* end of the output in the window */
    size_t given;           /* output of this window that was already given */
    uint64_t produced;      /* bytes of the block decoded so far */
    uint64_t size;          /* bytes that the block says it decodes to */
    uint32_t length;        /* of an element that did not fit: bytes left */
    uint32_t distance;      /* of that element: 0 for a literal */
    bool sliding;           /* the window is smaller than the block */
} FlSnappy;

/* Begins a block. FL_END, or FL_BAD. The window must hold `size` bytes, or at least FL_SNAPPY_WINDOW. */
enum { FL_SNAPPY_WINDOW = 2 * 65536 };
int fl_snappy_begin(FlSnappy *s, const uint8_t *block, size_t n, uint8_t *window, size_t capacity);
/* The next piece: FL_MORE, FL_END after the last, FL_BAD, or FL_FAR: a back-reference reaches past the window; begin again in a larger. */
enum { FL_FAR = 2 };
int fl_snappy_next(FlSnappy *s, const uint8_t **piece, size_t *n);

typedef struct {
    int codec;
    const uint8_t *p;       /* input that was not read yet */
    const uint8_t *end;
    uint8_t *buffer;        /* working memory; pieces lie in it */
    size_t capacity;
    uint64_t left;          /* bytes that may still come out */
    void *context;          /* the thread's */
    bool ended;             /* gzip, lz4, zstd: at the end of a member or frame */
    bool framed;            /* snappy: blocks with lengths before them (snappy-java), not one block */
    bool in_block;          /* snappy */
    const uint8_t *block;   /* snappy: where the block begins */
    uint8_t *far;           /* snappy: memory for one block with long back-references, or NULL */
    FlSnappy snappy;
} FlInflate;

/* Begins to decompress n bytes at p. `buffer` has at least FL_SNAPPY_WINDOW bytes. FL_END, or an error. Always to be closed. */
int fl_inflate_open(FlInflate *s, int codec, const void *p, size_t n, void *buffer, size_t capacity, uint64_t max);
/* The next piece, valid until the next call: FL_MORE and *n > 0, FL_END, or an error. */
int fl_inflate_next(FlInflate *s, const uint8_t **piece, size_t *n);
void fl_inflate_close(FlInflate *s);

typedef struct {
    int codec;
    uint8_t *out;           /* malloc'ed; the owner's after fl_deflate_end */
    size_t used;
    size_t capacity;
    size_t max;             /* `used` may not grow past this */
    void *context;          /* the thread's */
    uint8_t *block;         /* snappy: what gathers for the next block */
    size_t gathered;
    LZ4F_preferences_t lz4;
} FlDeflate;

/* Begins to compress `size` bytes (0: unknown) behind `head` bytes of room at the start of the output. Level 0: the codec's default.
 * FL_END, or an error. */
int fl_deflate_begin(FlDeflate *s, int codec, int level, uint64_t size, size_t head, size_t max);
/* FL_END, FL_BIG: the output would be over `max`, or FL_MEMORY. */
int fl_deflate_add(FlDeflate *s, const void *p, size_t n);
int fl_deflate_end(FlDeflate *s);
/* After an error: frees the output. */
void fl_deflate_drop(FlDeflate *s);

#endif

"""Compression of record batches (gzip, snappy, lz4, zstd; codec numbers as in a batch's attributes), as streams.

An Inflate gives decompressed bytes in pieces, from bounded working memory whatever the input claims; a Deflate takes bytes in pieces.
What is accepted is what Kafka's broker takes and every client can read back; what is written is what the Java client writes. Contexts
of the libraries are kept per thread, so a stream allocates nothing after a thread's first of its kind; hence at most one Inflate and
one Deflate of a codec may be open on a thread at a time.
"""
from libc.stdint cimport uint8_t, uint64_t

cdef extern from "compression_impl.h" nogil:
    enum:
        FL_SNAPPY_WINDOW            # working memory that an Inflate needs at least
    enum:
        FL_MORE                     # a piece was given
        FL_END                      # the input was used up, and ended where its format says; or: done
        FL_BAD                      # not what the codec makes, cut short, or followed by something else
        FL_BIG                      # more than `max` bytes would come out
        FL_MEMORY                   # no memory for a codec's context
    ctypedef struct FlInflate:
        pass
    ctypedef struct FlDeflate:
        uint8_t *out                # malloc'ed; the caller's after FL_END of deflate_end
        size_t used

# Begins to decompress n bytes at p (less than 2^31), with `capacity` bytes at `buffer` to work in: FL_END, or an error. Always to be
# closed.
cdef int inflate_open(FlInflate *s, int codec, const void *p, size_t n, void *buffer, size_t capacity, uint64_t max) noexcept nogil
# The next piece, valid until the next call: FL_MORE and *n > 0, FL_END, or an error.
cdef int inflate_next(FlInflate *s, const uint8_t **piece, size_t *n) noexcept nogil
cdef void inflate_close(FlInflate *s) noexcept nogil

# Begins to compress `size` bytes (0: unknown) behind `head` bytes of room at the start of the output; codec 0 copies, level 0 is the
# codec's default. All three give FL_END, or FL_BIG (the output would be over `max` bytes), or FL_MEMORY; after an error: deflate_drop.
cdef int deflate_begin(FlDeflate *s, int codec, int level, uint64_t size, size_t head, size_t max) noexcept nogil
cdef int deflate_add(FlDeflate *s, const void *p, size_t n) noexcept nogil
cdef int deflate_end(FlDeflate *s) noexcept nogil
cdef void deflate_drop(FlDeflate *s) noexcept nogil

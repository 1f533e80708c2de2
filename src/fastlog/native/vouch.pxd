"""Vouching for what a read sends: bytes that came from a disk are checked by the CRCs of their batches, once for as long as they stay in
memory, before anyone gets them. What was appended in this life of the log was checked on its way in and costs nothing here.

The CRC covers a batch from its attributes on. Of what lies before, the length is proven by it, and the base offset is held against those
of the neighbours, as far as they are in the same read, and of the segments.
"""
from libc.stdint cimport int64_t, uint8_t
from fastlog.native.log cimport Read
from fastlog.native.store cimport LogState, Segment

cdef enum:
    VOUCH_MAX = 2097152             # bytes that one read checks at most, but for its first batch: about 200 us

# How many of the bytes at file positions [at, at + length), which are in memory and begin with a whole batch, may be sent: whole batches.
# 0: the first one is not what was written, and *why says what is wrong: static text.
cdef int64_t vouch(LogState *log, Segment *seg, int64_t at, int64_t length, const char **why) noexcept nogil
# Whether the CRC of one whole batch is right.
cdef bint vouch_for_one(LogState *log, const uint8_t *p) noexcept nogil
# Has file positions [at, at + length) be read from the disk again. False: none of them can be.
cdef bint vouch_forget(LogState *log, Segment *seg, int64_t at, int64_t length) noexcept nogil
# Ends a read with CORRUPT_MESSAGE, and names what is wrong with the batch at a file position: once, while it is the last one found.
cdef void vouch_deny(LogState *log, Segment *seg, int64_t at, Read *r, const char *why) noexcept nogil

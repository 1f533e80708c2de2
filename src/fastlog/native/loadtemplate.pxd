"""Record batches made ahead: all of a batch but its head is built once and sent again and again by reference.

A batch (KIP-98, format v2) is cut in two after the first record's stamp. The head (the 61 bytes of batch header, the first record's
prefix, the stamp) is written anew for each batch: producer id, sequence, timestamps, stamp, CRC. The rest never changes, and its CRC
is combined with the head's, so a batch of any size costs the generator a hundred bytes of work.

A compressed batch is cut behind its header: the rest is all of its records, compressed beforehand. It has no stamp, so nobody knows how
long it took to a consumer.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    BATCH_HEADER = 61
    CRC_AT = 17
    CRC_FROM = 21                   # the checksum covers the attributes and all behind them
    STAMP_BYTES = 16

# The first bytes of a batch's first value; little endian, it never leaves this program.
ctypedef struct Stamp:
    uint64_t due_ns                 # CLOCK_MONOTONIC when the batch was to be sent
    uint16_t filling
    uint16_t connection
    int32_t sequence

ctypedef struct Templates:
    int records                     # per batch
    int fillings                    # how many different contents take turns
    size_t head_bytes
    size_t rest_bytes
    size_t batch_bytes              # head + rest
    int codec                       # of the batch's attributes; 0: not compressed
    uint8_t *head
    uint8_t **rest
    uint32_t *rest_crc              # raw(0, rest), by filling
    void *over_rest                 # runs a CRC state over rest_bytes zeroes

ctypedef struct Identity:           # what one batch carries
    int filling
    int connection
    uint64_t due_ns
    int64_t wall_ms                 # CLOCK_REALTIME
    int64_t producer_id             # -1: none
    int16_t producer_epoch
    int32_t sequence

# What a batch read back turned out to be.
cdef enum Finding:
    INTACT = 0
    BAD_CRC = 1
    FOREIGN = 2                     # a sound batch that these templates did not make

# sections: of compressed batches, what stands behind the header, one for each filling, all of one size.
cdef int templates_make(Templates *t, int records, int record_bytes, int fillings, uint64_t seed, int codec, list sections) except -1
cdef void templates_free(Templates *t) noexcept
# Writes a batch's head (t.head_bytes) at dst. Sends nothing, allocates nothing.
cdef void write_head(const Templates *t, uint8_t *dst, const Identity *who) noexcept nogil
# Checks the CRC of the whole batch of n bytes at p (n >= BATCH_HEADER) and, when it is one of these, fills *stamp.
cdef Finding inspect_batch(const Templates *t, const uint8_t *p, size_t n, Stamp *stamp) noexcept nogil

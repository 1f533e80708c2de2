"""Record batches turned into columns: offsets, timestamps, keys, values and headers of one partition, each in memory of its own.

The layout is Arrow's: n + 1 offsets (int32) and one buffer, validity bits only where there are nulls. Pure but for malloc; what is read
was sent
by a stranger. A chunk is counted by an atomic reference, so that it may be let go of from any thread, with the interpreter's lock or
without.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef struct Bytes:
    uint8_t *p
    size_t used
    size_t capacity

cdef struct Strings:                # a column of byte strings
    Bytes data
    Bytes ends                      # int32: 0, and the end of each
    Bytes valid                     # bits; empty when there is no null
    int64_t nulls

cdef struct Chunk:
    int refs
    Chunk *next
    void *part                      # clientfetch's
    int64_t generation              # of the part when it was fetched
    int32_t topic
    int32_t number
    int64_t n
    int64_t next_offset             # what to read after it
    int32_t epoch                   # clientfetch's: the newest of a leader that wrote any of the answer; -1: not known
    size_t charged                  # bytes counted against the consumer's memory
    Bytes offsets                   # int64
    Bytes times                     # int64, milliseconds since the epoch
    Strings keys
    Strings values
    Strings headers                 # as they stand in the record, the count first; empty where there are none
    bint has_headers
    bint append_times               # some timestamps are the broker's

cdef enum ReadResult:
    READ_OK = 0
    READ_CORRUPT = 1
    READ_MEMORY = 2
    READ_FULL = 3                   # the chunk holds as much as a chunk may: go on with another

cdef struct Aborted:
    int64_t producer_id
    int64_t first_offset

cdef struct ReadRules:
    bint check_crc
    bint committed                  # leave out what was aborted
    Aborted *aborted                # by first offset
    int32_t aborted_n
    int64_t inflate_max

cdef Chunk *chunk_new() noexcept nogil
cdef void chunk_ref(Chunk *c) noexcept nogil
cdef void chunk_unref(Chunk *c) noexcept nogil
# Adds the records of the batches at p[0] that are at `from_offset` or behind it; p[0] moves over each batch taken. What is cut short at
# the end
# is left. `scratch` is working memory of the caller's, kept from call to call.
cdef ReadResult chunk_read(Chunk *c, const uint8_t **p, const uint8_t *end, int64_t from_offset, const ReadRules *rules,
                           Bytes *scratch) noexcept nogil

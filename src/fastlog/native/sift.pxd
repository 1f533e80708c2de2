"""What compaction keeps of one record batch, and the batch made anew from it. Pure: no I/O.

The rules are Kafka 4.3's (Cleaner.shouldRetainRecord, MemoryRecords.filterTo): of each key the newest record stays; a record without a
value is a tombstone, which stays too until the delete horizon that the first compaction writes into its batch (KIP-534). A batch keeps its
base offset, last offset, producer and sequence, so offsets never move and a producer's next sequence still follows; its records keep
their offsets and timestamps. It is compressed again with the codec that it had.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.keymap cimport KeyHash, KeyMap

cdef enum SiftResult:
    SIFT_GONE = 0                   # nothing of the batch stays
    SIFT_SAME = 1                   # all of it
    SIFT_MADE = 2                   # what is in `out`
    SIFT_BAD = -1                   # it can't be decoded: `why`
    SIFT_MEMORY = -2

cdef struct SiftRecord:
    const uint8_t *start            # its length
    const uint8_t *rest             # from its offset delta on
    const uint8_t *end
    const uint8_t *key
    KeyHash hash
    int64_t timestamp_delta
    int32_t offset_delta
    int32_t key_length              # -1: no key
    bint has_value

cdef struct Sieve:
    KeyMap map                      # the newest offset of each key
    int64_t latest                  # offsets past this one are not in the map: all of those stay
    int64_t now_ms
    int64_t retention_ms            # delete.retention.ms
    const char *why                 # static text
    uint8_t *out                    # SIFT_MADE: the batch; the sieve's until the next call
    BatchInfo out_info
    uint64_t records_read
    uint64_t records_kept
    uint64_t keyless                # records without a key, which compaction drops
    # working memory
    SiftRecord *records
    int32_t records_n
    int32_t records_cap
    uint8_t *plain                  # decompressed records
    size_t plain_cap
    uint8_t *made                   # records with other timestamp deltas
    size_t made_cap
    void *scratch

# Memory for the map of at most `keys` keys in `bytes` bytes. 0 or ENOMEM. To be freed in either case.
cdef int sieve_open(Sieve *s, uint64_t keys, uint64_t bytes) noexcept nogil
cdef void sieve_free(Sieve *s) noexcept nogil
# Notes the keys of a whole valid batch of records from `from_offset` on: 0, 1 when the map was full before the batch's end, or SIFT_BAD,
# SIFT_MEMORY.
cdef int sieve_note(Sieve *s, const uint8_t *p, const BatchInfo *info, int64_t from_offset) noexcept nogil
# What stays of a whole valid batch. `discard`: none of its records (an aborted transaction's, say). `keep_empty`: its header in any
# case. `marker`: it is the marker of a transaction without records, which goes when its delete horizon is past.
cdef SiftResult sieve_batch(Sieve *s, const uint8_t *p, const BatchInfo *info, bint discard, bint keep_empty, bint marker) noexcept nogil
# A batch without records, of BATCH_HEADER bytes: it holds the offsets up to `last_offset`, and no producer's state.
cdef void sieve_placeholder(Sieve *s, int64_t last_offset, int32_t leader_epoch, int64_t timestamp) noexcept nogil

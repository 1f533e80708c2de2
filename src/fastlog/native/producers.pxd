"""What a partition remembers of its idempotent and transactional producers (KIP-98): the epoch and the last five batches of each, and
where the transaction that it has under way began. Pure: no I/O.

The rules are those of Kafka 4.3's broker: an unknown producer may start at any sequence; a newer epoch must start at 0; an older epoch is
fenced; sequences follow each other and wrap from 2^31-1 to 0; one of the last five batches sent again is a duplicate. A transaction begins
with its first batch and ends with a marker; where transactions have version 2, each end has an epoch above that of the batches (KIP-890).
The snapshot is Kafka's file format, version 1: it keeps only the last batch of each producer.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.batchrecords cimport Marker
from fastlog.native.verify cimport Verification

cdef enum:
    PRODUCER_BATCHES = 5
    PRODUCER_OK = 0
    PRODUCER_DUPLICATE = -2         # beside Kafka's error codes: 45, 47, 48, 52

cdef struct ProducerBatch:
    int64_t last_offset
    int64_t timestamp               # max timestamp, ms
    int64_t end                     # log position past the batch, as the log counts; 0: from before this opening
    int32_t last_sequence
    int32_t delta                   # last offset - first offset

cdef struct Producer:
    int64_t id
    int64_t last_timestamp          # ms, of the last batch
    int64_t txn_first_offset        # of the transaction under way; -1: none
    int64_t txn_position            # log position of that batch, as the log counts; -1: not known
    Producer *txn_next              # whose transaction began later
    Producer *txn_prev
    Producer *chain
    int32_t coordinator_epoch       # -1: none
    int16_t epoch                   # -1: none
    int8_t count                    # batches held
    int8_t newest                   # index of the newest
    ProducerBatch batches[5]

cdef struct Producers:
    Producer **buckets
    uint32_t mask
    uint32_t count
    Producer *txn_first             # transactions under way, in order of their first offsets
    Producer *txn_last

cdef void producers_init(Producers *p) noexcept nogil
cdef void producers_free(Producers *p) noexcept nogil
# A producer that is remembered, or NULL.
cdef const Producer *producers_find(const Producers *p, int64_t id) noexcept nogil
# What to do with a batch that comes next: PRODUCER_OK, PRODUCER_DUPLICATE (the original in *original) or an error code. may_begin: the
# producer may begin a transaction with it. `asked`: what is known of its question whether it may, or NULL.
cdef int16_t producers_check(const Producers *p, const BatchInfo *info, bint may_begin, const Verification *asked,
                             const ProducerBatch **original) noexcept nogil
# The same for a marker that comes next; `version`: of the producer's transactions.
cdef int16_t producers_check_end(const Producers *p, const BatchInfo *info, const Marker *marker, int version) noexcept nogil
# Whether the producer has a transaction under way in this epoch.
cdef bint producers_in_txn(const Producers *p, int64_t id, int16_t epoch) noexcept nogil
# Notes a batch that became part of the log, checked or (recovery) not; no marker. -1: no memory.
cdef int producers_add(Producers *p, const BatchInfo *info, int64_t base_offset, int64_t end) noexcept nogil
# Notes a marker. first_offset, position: of the transaction that it ended, or -1: there was none. -1: no memory.
cdef int producers_end(Producers *p, const BatchInfo *info, const Marker *marker, int64_t *first_offset, int64_t *position) noexcept nogil
# Where the log is stable up to when the producer's transaction ends with the marker at `offset`: the start of another one, or past it.
cdef int64_t producers_stable(const Producers *p, int64_t id, int64_t offset) noexcept nogil
# Forgets producers whose last batch is older than `before_ms`.
cdef void producers_expire(Producers *p, int64_t before_ms) noexcept nogil
# Forgets about an eighth of them, those that wrote longest ago: for when there are more than memory allows.
cdef void producers_shed(Producers *p) noexcept nogil
cdef size_t producers_snapshot_bytes(const Producers *p) noexcept nogil
cdef void producers_snapshot(const Producers *p, uint8_t *out) noexcept nogil
# Replaces what is held by a snapshot. -1: not a valid snapshot (nothing is held then), or no memory.
cdef int producers_load(Producers *p, const uint8_t *data, size_t n) noexcept nogil

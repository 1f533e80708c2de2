"""A partition's log: append, read, find by time, and the positions that others may read.

Threads. A Store and everything in it belongs to one shard. All functions here are called on that shard's thread, except
`position_get` on a Partition's positions, which any thread may call at any time. Every request is a struct of the caller's that
stays in place until its `done` was called, on the shard's thread; `done` may be called from inside the call that starts the
request, and may free it. Nothing here blocks: what must wait is a ring operation or a job.

Durability. `log_append` with acks -1 is done when the batch and all before it are on stable storage; with acks 1 when it would
survive the death of the process (in the arena, or else written); with acks 0 when it is accepted. Accepted means: its blocks exist.
A batch is visible (high watermark) when its own promise is kept and all before it are visible. An append that has to wait for
blocks or for the next segment is parked, in order, and has no offset yet.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from fastlog.native.aborted cimport Aborted
from fastlog.native.batch cimport BatchInfo
from fastlog.native.ring cimport Ring
from fastlog.native.work cimport Home, Pool

cdef extern from *:
    """
    #include <stdint.h>
    static inline int64_t fl_load_acq(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void fl_store_rel(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    int64_t position_get "fl_load_acq"(const int64_t *p) noexcept nogil
    void position_set "fl_store_rel"(int64_t *p, int64_t v) noexcept nogil

cdef enum:
    SHARDS_MAX = 64
    LOG_WHY = 256

cdef struct Positions:              # invariant: log_start <= last_stable <= high_watermark <= log_end
    int64_t log_start
    int64_t last_stable
    int64_t high_watermark
    int64_t log_end
    int64_t leader_epoch
    int64_t offline                 # 0, or the Kafka error code that every request gets (56: KAFKA_STORAGE_ERROR)
    int64_t bytes                   # size of the log in bytes

cdef struct LogSettings:            # Kafka's topic settings of the same names
    int64_t segment_bytes
    int64_t segment_ms
    int64_t segment_jitter_ms
    int64_t index_interval_bytes
    int64_t segment_index_bytes
    int64_t flush_messages          # acks=1 data is flushed after so many messages; 2^63-1: never
    int64_t flush_ms
    bint write_caching              # acks -1 means no more than acks 1
    int64_t disk_reserve            # free bytes of the disk that the log leaves to others, at most a twentieth of it
    bint verify_reads               # what comes from the disk is checked before it is sent
    int64_t recycle_bytes           # that removed segments may hold in the data directory, as space for next ones; 0: none

cdef struct Log                     # opaque: segments, index, producer state, pending appends

cdef struct Partition:
    Positions at                    # written by the owner only, with position_set
    uint8_t topic_id[16]
    int32_t index
    int32_t owner                   # shard
    Log *log                        # the owner's
    Watch *watches                  # the owner's
    uint32_t users[64]              # requests of shard i that hold this pointer: written by shard i only (network side)

cdef struct Append:
    Partition *part
    uint8_t *data                   # one validated batch of info.size bytes; stamped in place; the caller's until done
    BatchInfo info
    int8_t acks                     # -1, 0, 1
    int64_t append_time             # in: log-append time in ms, or -1. out: as answered to the producer
    bint client                     # a client's: begins a transaction only with the guard of `log_ask` (else the broker's own: it may)
    int8_t txn_version              # of a transaction's end, a control batch; from 2 on each has an epoch of its own (KIP-890)
    uint64_t guard
    bint added                      # the coordinator added the partition to the transaction, which ends in a higher epoch: no guard needed
    int16_t error                   # out: Kafka error code
    int64_t base_offset             # out: of this batch, or of the original when it is a duplicate; -1 on error
    int64_t log_start               # out
    void (*done)(Append *a) noexcept nogil
    Append *next                    # the log's until done, as the two below
    int64_t end
    int32_t need

cdef struct Pin:                    # bytes of the log that stay in place until log_release
    void *base
    uint32_t length
    void *chunk
    Pin *next

cdef struct Read:
    Partition *part
    int64_t offset
    int32_t bytes_max               # 0: positions only
    bint whole_first                # the first batch is given even when larger than bytes_max (KIP-74)
    bint to_log_end                 # not bounded by the high watermark (the broker's own loading)
    bint committed_only             # bounded by the last stable offset
    int16_t error                   # out: 1 OFFSET_OUT_OF_RANGE, 2 CORRUPT_MESSAGE, 56 KAFKA_STORAGE_ERROR, 3 when closed
    int64_t log_start               # out
    int64_t high_watermark          # out
    int64_t last_stable             # out
    uint32_t bytes                  # out: sum over pins; starts at the batch that holds `offset`, ends at any byte
    Pin *pins                       # out: in order
    Aborted aborted                 # out, with committed_only: transactions of which those bytes may hold batches
    void (*done)(Read *r) noexcept nogil
    Read *next                      # the log's until done, as those below
    int64_t reached
    bint repeated                   # what it found damaged was read from the disk a second time

cdef struct TimeQuery:
    Partition *part
    int64_t timestamp               # ms: first record at or after; -3: the record with the largest timestamp (KIP-734)
    int16_t error
    int64_t offset                  # out: -1 when there is none
    int64_t found_ms                # out: -1 when there is none
    void (*done)(TimeQuery *q) noexcept nogil
    TimeQuery *next

cdef struct Watch:                  # one waiter on a partition; zero it before first use
    Partition *part
    int64_t past                    # fires once, when high_watermark > past, or the partition goes offline or is closed
    bint committed                  # last_stable > past, instead
    void (*fired)(Watch *w) noexcept nogil
    Watch *next
    Watch *prev
    bint armed

cdef struct LogOpen:
    const char *path                # the partition's directory
    uint8_t topic_id[16]
    int32_t index
    int32_t leader_epoch            # the newest the control plane knows
    bint create                     # the directory must not exist yet and is made, durably
    bint clean                      # the data directory was shut down cleanly: the end need not be searched for
    bint together                   # what recovery leaves is flushed by the caller (disk_sync), before anything else is done with the log
    LogSettings settings
    int16_t error                   # out: Kafka error code
    char why[256]                   # out: what happened, for the operator (errors and truncations)
    bint recovered                  # out: the end was searched for; the control plane raises the leader epoch
    int64_t lost_bytes              # out: bytes past the end that were not part of the log, not counting zeroes
    int64_t arena_bytes             # out: bytes taken over from a dead process's arena
    Partition *part                 # out: NULL on error
    void (*done)(LogOpen *o) noexcept nogil

cdef enum LogCtlKind:
    CTL_CLOSE = 0                   # fail what is parked, finish what is under way, flush, trim, write indexes and snapshot, close
    CTL_DELETE = 1                  # the same without flushing, then the directory is renamed to <name>.<hex>-delete and removed
    CTL_SETTINGS = 2
    CTL_LEADER_EPOCH = 3            # `number` becomes the epoch of appends from here on
    CTL_DELETE_RECORDS = 4          # log start goes to `number` (-1: the high watermark); whole segments below are removed
    CTL_FLUSH = 5
    CTL_ROLL = 6
    CTL_COMPACTABLE = 7             # result: where the segments end that can be compacted (sealed, and below the last stable offset)
    CTL_SWAP = 8                    # the segments from the one at `number` up to offset `end` give way to the .cleaned files there
    CTL_PRODUCERS = 9               # what is known of producers
    CTL_FAIL = 10                   # the disk has failed, with errno `number`: the log goes offline

cdef struct LogCtl:
    Partition *part
    int kind
    int64_t number
    int64_t end
    LogSettings settings
    int16_t error                   # out
    char why[256]                   # out
    int64_t result                  # out: CTL_DELETE_RECORDS: the new log start; CTL_SWAP: bytes of the new segment
    uint8_t *data                   # out: CTL_PRODUCERS: a producer snapshot (producers.pxd), malloc'ed: the caller's
    size_t length
    void (*done)(LogCtl *c) noexcept nogil
    LogCtl *next                    # the log's until done, as is the one below
    bint busy

cdef struct Relics                  # opaque: arenas of dead processes, read only, shared by all shards while logs are opened
# Maps the arenas named in paths (n of them; checked: owner, mode, inode, magic). Those that can't be used are skipped and said in why.
cdef int relics_open(Relics **out, const char **paths, int n, char *why, size_t why_len) noexcept nogil
# Unmaps and unlinks them: only after every partition they hold data of was opened (their data is durable in the logs then).
cdef void relics_drop(Relics *relics) noexcept nogil
cdef int64_t relics_bytes(const Relics *relics) noexcept nogil

cdef struct StoreConfig:
    Ring *ring
    Pool *pool
    Home *home
    int shard
    uint64_t memory                 # bytes of chunks: the tail cache, cold reads, appends
    const char *arena_path          # a new tmpfs file for the chunks, or NULL: anonymous memory (acks=1 then waits for the write)
    Relics *relics                  # or NULL
    int flush_group                 # 1: one flush for many partitions is allowed on this device
    int64_t producer_expires_ms     # a producer id is forgotten after being idle for so long; 0: a day
    int64_t checkpoint_bytes        # of the active segment between checkpoints; 0: the default
    int64_t unchecked_max           # bytes past the checkpoints of all logs, above which those with most get one earlier; 0: the default

cdef struct Store                   # opaque

cdef struct StoreStats:
    uint64_t appended_batches
    uint64_t appended_bytes
    uint64_t writes                 # write operations
    uint64_t written_bytes          # device bytes, blocks and zeroing included
    uint64_t zeroed_bytes           # of them, zeroes ahead of logs, and over what recycled files held
    uint64_t segments_removed
    uint64_t segments_recycled      # of them, kept as space for next ones
    uint64_t segments_reused        # next segments made of such
    uint64_t flushes
    uint64_t reads_disk             # read operations
    uint64_t read_bytes_disk
    uint64_t read_bytes_memory
    uint64_t read_bytes_verified    # read from the disk, and found to be what was written
    uint64_t reads_damaged          # answered with CORRUPT_MESSAGE
    uint64_t parked                 # appends that had to wait for blocks or a segment
    uint64_t chunks
    uint64_t chunks_free
    uint64_t chunks_pinned
    uint64_t partitions
    uint64_t offline
    uint64_t evictions
    uint64_t unchecked_bytes        # past the logs' checkpoints: what a start after a kill would look through

cdef int store_open(Store **out, const StoreConfig *config, char *why, size_t why_len) noexcept nogil
# Every partition must be closed. Unlinks the arena.
cdef void store_close(Store *store) noexcept nogil
# Frees a store as it is, writing nothing and leaving the arena: what a killed process leaves. Ring and pool are closed already.
cdef void store_abandon(Store *store) noexcept nogil
# Once per turn of the shard's loop, after its requests: submits the writes that gathered, runs timers. Returns the ns until it wants
# to be called again, or -1 when only a completion can change anything.
cdef int64_t store_tick(Store *store, int64_t now_ns) noexcept nogil
cdef void store_stats(const Store *store, StoreStats *out) noexcept nogil
# How long a producer id may be idle before it is forgotten, from now on. Any thread may call it.
cdef void store_expire_producers(Store *store, int64_t after_ms) noexcept nogil

cdef void log_open(Store *store, LogOpen *o) noexcept nogil
cdef void log_control(Store *store, LogCtl *c) noexcept nogil
cdef void log_append(Store *store, Append *a) noexcept nogil
# Asks whether a client's batch would go on with a transaction here: 0, or the guard with which it may begin one, once the coordinator said
# so. Of an offline or closed partition always 0: the append says why.
cdef uint64_t log_ask(Store *store, Partition *part, int64_t producer_id, int16_t epoch, int32_t sequence, bint bumps) noexcept nogil
cdef void log_read(Store *store, Read *r) noexcept nogil
# Gives back a Read's pins; r may be started again afterwards.
cdef void log_release(Store *store, Read *r) noexcept nogil
cdef void log_find_time(Store *store, TimeQuery *q) noexcept nogil
# Fires from inside a later call, never from inside this one; if the condition holds already, at the next store_tick.
cdef void log_watch(Store *store, Watch *w) noexcept nogil
cdef void log_unwatch(Store *store, Watch *w) noexcept nogil
# After CTL_CLOSE or CTL_DELETE was done and no shard holds it any more (users all zero).
cdef void partition_free(Store *store, Partition *part) noexcept nogil

"""What the rooms of the storage share: the structs behind log.pxd's Store and Log. No other room looks inside.

Terms. A *log position* counts bytes from the first byte of the first segment at opening, over all segments: it only grows, so that the
ends of what is accepted, written, durable and visible can be compared whatever segment they lie in. A *file position* counts from the
start of one segment's file. `position = segment.start + file position`.

Flow. Calls and completions change a log's state and put it on the store's ready list (`log_ready`); `store_tick` then takes each ready
log one step: parked appends, waiting reads, the next write, controls. So nothing re-enters a log half-way through.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from fastlog.native.arena cimport Arena, Chunk, ChunkSet
from fastlog.native.index cimport Index
from fastlog.native.log cimport Append, LogCtl, LogSettings, Partition, Read, StoreConfig, StoreStats, TimeQuery, Watch
from fastlog.native.producers cimport Producers
from fastlog.native.ring cimport Op, iovec
from fastlog.native.timer cimport Timer, Timers
from fastlog.native.verify cimport Verifications
from fastlog.native.work cimport Job

cdef extern from *:
    """
    #include <time.h>
    #include <stdint.h>
    static inline int64_t fl_clock_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static inline int64_t fl_clock_ms(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
    }
    """
    int64_t clock_ns "fl_clock_ns"() noexcept nogil     # CLOCK_MONOTONIC
    int64_t clock_ms "fl_clock_ms"() noexcept nogil     # wall clock, ms since the epoch

cdef enum:
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    RECORD_LIST_TOO_LARGE = 18
    KAFKA_STORAGE_ERROR = 56

cdef enum:
    WRITE_BYTES_MAX = 2097152       # of one write
    WRITE_IOVECS = 36               # chunks of such a write, and a bounce block
    WRITES_MAX = 256                # under way in a store
    LOADS_MAX = 128                 # reads under way, or in line, in a store
    LOADLINES = 16                  # devices that a store tells apart; see loadline
    LOAD_CHUNKS = 8                 # of one read: 512 KiB
    INDEX_ENTRIES_MAX = 2048        # of an active segment that are in memory only
    RECENT = 16                     # newest batches whose positions a log remembers
    SEQUENTIAL = 4                  # cold readers that a log tells apart

cdef enum Need:                     # Append.need
    NEED_WRITTEN = 1
    NEED_DURABLE = 2

cdef struct Segment:
    ChunkSet chunks
    LogState *log
    int64_t base_offset
    int64_t start                   # log position of its first byte
    int64_t size                    # bytes of batches
    int64_t first_timestamp         # of its first batch; -1: none
    int64_t created_ms
    int64_t roll_jitter_ms
    int64_t max_timestamp           # rolled: -1 none, TIME_UNKNOWN until it was looked up; active: in the index
    int64_t max_timestamp_offset
    int64_t aborted_least           # least first offset of the aborted transactions whose markers are in it; 2^63-1: none
    Index *index                    # active, and rolled until sealed: always, its newest entries; sealed: while open, all
    Index *prefix                   # of the former: all entries that were in the files at some time, while open; or NULL
    uint8_t *snapshot               # producer state at its end, until its files are written
    size_t snapshot_len
    int64_t checkpoint              # offset of a snapshot inside it that its own replaces; -1: none
    int fd                          # -1: not open
    int32_t users                   # operations and jobs under way on fd or index
    int32_t preparing               # jobs under way that make or zero its blocks, or write to its index files
    bint direct                     # fd is O_DIRECT
    bint rolled
    bint seal_due                   # rolled, and all its bytes are durable
    bint sealed                     # trimmed, flushed, indexes written: fd and index may be closed and opened again
    bint opening
    bint failed                     # the last opening did: who waits gets an error
    bint swapping                   # its files are being replaced: it is not opened now, nor removed
    bint keeping                    # a job writes index entries to the files
    bint outdated                   # one did since the opening under way began: what that finds is not all
    bint deleted                    # out of the log; freed with its last user
    bint listed
    Segment *next                   # open rolled segments, used last first
    Segment *prev

cdef enum:
    TIME_UNKNOWN = -2

cdef struct Sequence:               # a reader that goes through cold data
    int64_t low                     # log positions where its next read is expected to start
    int64_t high
    int64_t ahead                   # bytes to read ahead

cdef struct Ended:                  # a transaction whose marker is not visible yet
    int64_t first_offset
    int64_t position                # log position of its first batch; -1: not known
    int64_t last_offset             # of the marker
    Ended *next

cdef struct LogTimer:
    Timer timer                     # first: a Timer * is a LogTimer *
    LogState *log

cdef struct LogState:
    StoreState *store
    Partition *part
    char *path
    LogSettings *settings           # malloc'ed
    LogState *all_next
    LogState *all_prev
    # segments, oldest first; the last one is active
    Segment **segments
    int32_t segments_n
    int32_t segments_cap
    Segment *active
    # newest bytes
    Producers producers
    Verifications verifications     # transactional producers that asked whether they may begin a transaction here
    bint aborted_seen               # some segment has aborted transactions
    Ended *ended                    # transactions, in order of their markers
    Ended *ended_last
    Chunk *tail                     # chunk of the active segment that holds the newest byte, or NULL: then `partial` has the last block
    uint8_t *partial                # bytes of the last, partly filled block; malloc'ed
    bint partial_doubted            # they came from the disk (see Chunk)
    int64_t recent_offset[16]       # first offsets of the newest batches and
    int64_t recent_position[16]     # their log positions
    uint32_t recent_n
    # log positions
    int64_t end                     # accepted
    int64_t written
    int64_t durable
    int64_t visible                 # of the high watermark
    int64_t stable                  # of the last stable offset
    int64_t wanted                  # durable up to here is waited for
    int64_t forced                  # written up to here is waited for, though nobody's acknowledgement is
    # blocks ahead, of the active segment
    int64_t allocated               # file position up to which blocks exist
    int64_t runway_from             # file positions between which all blocks were written before, durably
    int64_t runway
    Segment *zero_segment           # a job is zeroing [zero_from, zero_to) of it, or NULL
    int64_t zero_from
    int64_t zero_to
    int64_t step                    # bytes of the next allocation
    int64_t stepped_ns              # when the last allocation was asked for
    int64_t zero_step
    int64_t zeroed_ns
    int64_t piece                   # bytes of a durable write, running mean
    bint allocating
    bint durable_seen               # acks -1 was asked for
    # the next segment
    int next_fd
    int64_t next_allocated
    int64_t next_runway
    bint next_direct
    bint next_ready
    bint next_busy                  # being made, or the last one's name is not yet final
    bint naming                     # the latter
    bint roll_asked
    # the checkpoint: producer state at an offset inside the active segment, all before it durable
    int64_t checked                 # log position of the last one, or of the segment's start: set by `log_checked`
    int64_t checked_offset          # its offset; -1: none that is a file
    int64_t check_end               # log position of one that waits to be durable; -1: none
    int64_t check_offset
    int64_t keep_after              # ns: index entries are not written before
    uint8_t *check_data
    size_t check_len
    # writing
    Segment *write_segment          # the oldest with unwritten bytes, or the active one
    bint writing                    # a write or a flush is under way
    uint64_t device                 # that it lies on
    int64_t flaws                   # flushes of it that had failed when the log was opened, or was last looked at
    FlushGroup *group               # of its device, or NULL, once that is known
    bint group_known
    int64_t unflushed               # messages since the last flush
    LogTimer lazy                   # writes what nobody waits for
    int64_t lazy_target
    LogTimer flush                  # flush.ms
    # waiting
    Append *pending                 # accepted, promise not yet kept
    Append *pending_last
    Append *parked                  # not yet accepted
    Append *parked_last
    Append *repeats                 # duplicates whose original is not yet as safe as asked
    bint parked_chunks              # in the store's line for chunks
    LogState *chunk_next
    Read *reads                     # waiting for a load, an opening or a chunk
    bint reads_due
    bint reads_failed               # a load failed: reads that wait for it get an error
    bint reads_starved              # in the store's line for chunks and loads, first come first served
    int64_t damage_said             # log position of the damage that was named last; -1: none
    LogState *starved_next
    TimeQuery *queries              # waiting for an opening or a look-up
    bint times_busy                 # largest timestamps of rolled segments are being looked up
    bint times_known
    bint removing                   # a job removes the oldest segments, or one failed to
    Segment *sealing_segment        # a job is at it: segments are sealed one after the other, oldest first
    LogCtl *controls
    Sequence sequences[4]
    uint32_t sequence_next
    # life
    int32_t jobs                    # out
    int32_t loads                   # under way, or in line
    LoadLine *loadline              # of its device
    int16_t closing                 # 0, or why: LogCtlKind + 1
    bint ready
    bint firing
    bint sealing
    bint slotless                   # in the store's line for a Write
    LogState *ready_next
    LogState *fire_next
    LogState *slot_next

cdef struct Write:                  # a write, or a flush, under way
    Op op                           # first: an Op * is a Write *
    LogState *log
    Segment *segment
    int64_t from_                   # file position, aligned
    int64_t length                  # whole blocks
    int64_t progress                # bytes done by earlier, short writes
    int64_t end                     # file position past the last byte of a batch in it
    int64_t covers                  # flush: the log position that was written before
    int32_t iovecs
    bint durable                    # by the write itself
    FlushGroup *group               # or by a flush of the device after it; NULL
    bint counted                    # in the group's under_way
    uint8_t *bounce                 # BLOCK bytes
    Write *next
    iovec iov[36]
    iovec rest[36]                  # of a short write

cdef struct Loading:                # one disk read of a chain; see loadline
    Op op                           # first: an Op * is a Loading *
    LoadLine *line
    const void *owner               # who may have it left out: the log
    void (*ended)(Loading *piece, int32_t res) noexcept nogil
    iovec *iov
    int64_t from_                   # file position
    int64_t length                  # bytes, over all of iov
    int fd
    int32_t n                       # of iov
    Loading *following              # of its chain
    Loading *next                   # of the first piece: the next chain in line, and
    Loading *last                   # the chain's last piece

cdef struct LoadLine:               # one device
    StoreState *store               # NULL: not in use
    uint64_t device
    int64_t under_way               # bytes of pieces that were begun
    Loading *first                  # of chains: their first pieces that were not
    Loading *last

cdef struct Load:                   # a read into chunks
    Loading piece                   # first: a Loading * is a Load *
    Segment *segment
    int64_t valid                   # file position where the segment's bytes ended when it was asked for
    Load *next                      # of those that are free
    Chunk *chunks[8]
    iovec iov[8]

cdef struct FlushGroup:             # one device; see flushgroup
    Op op                           # first: an Op * is a FlushGroup *
    StoreState *store
    FlushGroup *next
    uint64_t dev
    int fd                          # -1: none can be had
    bint busy                       # a flush is under way
    int32_t under_way               # durable writes of the device's logs, flushed or not
    Write *line                     # writes that wait for the next flush
    Write *covered                  # writes that the one under way is for

cdef struct LogJob:                 # work for a log that blocks
    Job job                         # first
    LogState *log
    Segment *segment
    int fd
    bint direct
    int error                       # errno
    int64_t from_
    int64_t to
    int64_t least
    int64_t offset
    int64_t reserve                 # bytes of the disk to be left free
    int64_t recycle                 # bytes that the pool of removed segments may hold; 0: it is not used
    int64_t segment_bytes
    uint64_t removed                # out: segments, and
    uint64_t recycled               # how many of them the pool took
    int64_t zeroed                  # out: bytes written for that
    bint reused                     # out: the next segment came from the pool
    Index *index
    uint8_t *data
    size_t len
    uint8_t *more
    size_t more_len
    uint8_t *aborted
    size_t aborted_len
    int64_t aborted_at              # position in the file
    uint8_t *snapshot
    size_t snapshot_len

cdef struct StoreState:
    StoreConfig *config             # malloc'ed, as is stats
    Arena *arena
    Timers timers
    LogState *logs
    LogState *ready
    LogState *ready_last
    LogState *fire
    LogState *chunk_line            # logs whose first parked append waits for chunks
    LogState *chunk_line_last
    LogState *slot_line             # logs that wait for a Write
    LogState *slot_line_last
    uint64_t released_seen
    int64_t now_ns                  # of this tick
    int64_t dirty                   # bytes accepted and not written
    int64_t dirty_max               # above this, everything is written at once
    uint64_t segment_ids
    # open rolled segments
    Segment *open_first
    Segment *open_last
    int32_t open_n
    int32_t open_max
    uint64_t index_bytes
    uint64_t index_bytes_max
    # free structs
    Write *writes_free
    int32_t writes_n                # made
    Load *loads_free
    int32_t loads_n
    bint big                        # a batch too large for chunks is being read
    void *pins
    int32_t pins_n
    int32_t opens                   # log_open jobs out
    LoadLine lines[16]
    LogState *starved               # logs whose reads wait for a chunk or a Load
    LogState *starved_last
    uint64_t producers_max
    uint64_t producers_n
    int64_t expire_after            # ns: producers are looked through then
    FlushGroup *groups
    int64_t flaws_seen              # flushes that had failed, on any device, when the logs were last looked at
    int64_t unchecked_base          # with the bytes appended: those that lie past the logs' checkpoints
    LogState *unchecked_next        # which the search for logs with many of them goes on at; NULL: the first
    void (*write_flushed)(Write *w, int error) noexcept nogil
    int32_t searches                # time queries that read
    TimeQuery *search_line
    TimeQuery *search_line_last
    Watch *firing                   # watches that are due, out of their partitions' lists
    StoreStats *stats


cdef inline void log_checked(LogState *log, int64_t position) noexcept nogil:
    """A log's last checkpoint is at a log position, or there is nothing before it that a start would look through."""
    log.store.unchecked_base -= position - log.checked
    log.checked = position


cdef inline void log_ready(LogState *log) noexcept nogil:
    """Has store_tick take the log a step."""
    cdef StoreState *s = log.store
    if log.ready:
        return
    log.ready = True
    log.ready_next = NULL
    if s.ready_last != NULL:
        s.ready_last.ready_next = log
    else:
        s.ready = log
    s.ready_last = log


cdef inline void log_moved(LogState *log) noexcept nogil:
    """Has store_tick look at the partition's watches."""
    if not log.firing and log.part.watches != NULL:
        log.firing = True
        log.fire_next = log.store.fire
        log.store.fire = log

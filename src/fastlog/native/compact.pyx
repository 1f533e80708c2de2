"""Compaction of one partition's files, as Kafka's Cleaner does it: a pass over the dirty segments notes the newest offset of each key, a
second one over all segments from the log's start writes what stays into new files beside the old ones. Blocking, for threads that have
time: it never touches a log in use. `swap` puts the new files in place of the old.

Reading and writing go past the page cache in pieces of 256 KiB, within a rate. Transactions: records of aborted ones are dropped, by what
the `.txnindex` files say; a marker stays until no record of its transaction is left, and from then on for delete.retention.ms. The last
batch of every producer stays, if need be without records, for its sequence; so does the last offset of every new segment, so that each
segment ends where the next one begins.
"""
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EFBIG, EIO, ENOENT, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memmove, memset, strdup
from fastlog.native.aborted cimport (
    ABORTED_ENTRY, Aborted, AbortedTxn, aborted_add, aborted_decode, aborted_encode, aborted_free, aborted_room,
)
from fastlog.native.arena cimport BLOCK
from fastlog.native.batch cimport (
    ATTR_CODEC, ATTR_CONTROL, ATTR_DELETE_HORIZON, ATTR_TRANSACTIONAL, BATCH_HEADER, BatchInfo, CODEC_NONE, Marker, PEEK_OK, batch_crc_ok,
    batch_marker, batch_peek,
)
from fastlog.native.files cimport (
    PATH_MAX_, SNAPSHOT_MAX, file_close, file_get, file_open, file_put_at, file_read, file_trim, file_unlink, file_write, path_of,
)
from fastlog.native.index cimport (
    OFFSET_ENTRY, TIME_ENTRY, Index, index_add, index_encode_offsets, index_encode_times, index_free, index_init, index_seal,
)
from fastlog.native.producers cimport Producer, Producers, producers_find, producers_free, producers_init, producers_load
from fastlog.native.sift cimport (
    SIFT_GONE, SIFT_MADE, SIFT_MEMORY, SIFT_SAME, Sieve, SiftResult, sieve_batch, sieve_free, sieve_note, sieve_open, sieve_placeholder,
)
from fastlog.native.store cimport clock_ns

cdef extern from *:
    """
    #include <stdlib.h>
    #include <time.h>
    static void *fl_aligned(size_t n) { void *p; return posix_memalign(&p, 4096, n) ? 0 : p; }
    static void fl_sleep_ns(int64_t ns)
    {
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        nanosleep(&t, 0);
    }
    static inline int fl_load(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void fl_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    """
    void *fl_aligned(size_t n) nogil
    void fl_sleep_ns(int64_t ns) nogil
    int fl_load(const int *p) nogil
    void fl_store(int *p, int v) nogil

cdef enum:
    PIECE = 262144                  # bytes read and written at once: a producer's write may have to wait for one on the device
    SEGMENT_MAX = 2147483647
    SLICE_NS = 50000000             # slept at once, so that a cancel is seen soon
    DAMAGED = -1                    # outcomes beside errnos
    CANCELLED = -2
    FULL = -3                       # the map is


cdef struct Part:                   # a segment of the log
    int64_t base_offset
    int64_t next_offset             # where the next one begins
    int64_t size

cdef struct Dropped:                # an aborted transaction
    AbortedTxn txn
    bint met                        # a batch of its was read

cdef struct Txns:                   # transactions, as batches are read in order
    int32_t next                    # of all the aborted, ordered by first offset: those before it have begun
    Dropped **aborted               # begun, and their markers not yet read
    int32_t aborted_n
    int64_t *committed              # producers with batches of a transaction that was not aborted, its marker not yet read
    int32_t committed_n
    int32_t committed_cap

cdef struct Input:                  # a segment that is read from its start to its end
    int fd
    int64_t size
    uint8_t *buf
    int64_t cap
    int64_t from_                   # file position of buf
    int64_t n                       # bytes there

cdef struct Output:                 # a segment that is written
    int fd
    uint8_t *buf
    int64_t used
    int64_t at                      # file position of buf
    Index index
    int64_t last_offset             # of the last batch; -1: none
    Aborted aborted                 # for its .txnindex

cdef struct Work:
    char *path
    Part *parts
    int32_t parts_n
    int64_t interval                # index.interval.bytes
    int64_t rate                    # bytes a second, read and written; 0: no limit
    int64_t rate_from_ns
    int64_t rate_bytes              # since then
    int cancelled
    Sieve sieve
    Producers producers             # at the end of the last part
    Dropped *all_aborted
    int32_t all_aborted_n
    Txns txns
    Input input
    Output output
    int64_t at_offset               # where it stopped: base offset of the segment
    int64_t at_position             # and file position
    const char *why                 # of DAMAGED
    int64_t read_bytes
    int64_t written_bytes


cdef int spend(Work *w, int64_t n) noexcept nogil:
    """Takes note of n bytes moved and waits until the rate allows for them. CANCELLED, or 0."""
    cdef int64_t left
    w.rate_bytes += n
    while w.rate:
        left = w.rate_from_ns + <int64_t> (<double> w.rate_bytes / <double> w.rate * 1e9) - clock_ns()
        if left <= 0 or fl_load(&w.cancelled):
            break
        fl_sleep_ns(left if left < SLICE_NS else SLICE_NS)
    return CANCELLED if fl_load(&w.cancelled) else 0


# ---- reading

cdef int input_open(Work *w, const Part *part) noexcept nogil:
    cdef Input *f = &w.input
    cdef char path[PATH_MAX_]
    cdef bint direct
    cdef int err = path_of(path, w.path, part.base_offset, ".log")
    if err:
        return err
    f.fd = file_open(path, False, False, &direct)
    if f.fd < 0:
        return -f.fd
    f.size = part.size
    f.from_ = 0
    f.n = 0
    w.at_offset = part.base_offset
    return 0


cdef void input_close(Work *w) noexcept nogil:
    file_close(w.input.fd)
    w.input.fd = -1


cdef int input_need(Work *w, int64_t at, int64_t n) noexcept nogil:
    """Has file positions [at, at + n) in memory."""
    cdef Input *f = &w.input
    cdef int64_t from_ = at & ~(<int64_t> BLOCK - 1)
    cdef int64_t kept = 0
    cdef int64_t cap
    cdef int64_t got
    cdef uint8_t *buf
    if at >= f.from_ and at + n <= f.from_ + f.n:
        return 0
    if from_ >= f.from_ and from_ < f.from_ + f.n:
        kept = f.from_ + f.n - from_
        if kept & (BLOCK - 1):
            return EIO              # the file ended before its size
    cap = at - from_ + n + PIECE
    cap = (cap + BLOCK - 1) & ~(<int64_t> BLOCK - 1)
    if cap < 2 * PIECE:
        cap = 2 * PIECE
    if cap > f.cap:
        buf = <uint8_t *> fl_aligned(<size_t> cap)
        if buf == NULL:
            return ENOMEM
        if kept:
            memcpy(buf, f.buf + (from_ - f.from_), <size_t> kept)
        free(f.buf)
        f.buf = buf
        f.cap = cap
    elif kept:
        memmove(f.buf, f.buf + (from_ - f.from_), <size_t> kept)
    f.from_ = from_
    f.n = kept
    while f.n < at - from_ + n:
        got = file_read(f.fd, f.buf + f.n, PIECE, from_ + f.n)
        if got <= 0:
            return <int> -got if got < 0 else EIO
        f.n += got
        w.read_bytes += got
        if spend(w, got):
            return CANCELLED
        if got < PIECE and f.n < at - from_ + n:
            return EIO
    return 0


cdef int damaged(Work *w, int64_t at, const char *why) noexcept nogil:
    w.at_position = at
    w.why = why
    return DAMAGED


cdef int input_batch(Work *w, int64_t at, int64_t offset, const uint8_t **p, BatchInfo *info) noexcept nogil:
    """The batch at a file position, checked; its first offset may not be below `offset`."""
    cdef Input *f = &w.input
    cdef int err
    if f.size - at < BATCH_HEADER:
        return damaged(w, at, "less than a batch header")
    err = input_need(w, at, BATCH_HEADER)
    if err:
        return err
    if batch_peek(f.buf + (at - f.from_), BATCH_HEADER, info) != PEEK_OK or info.size > f.size - at:
        return damaged(w, at, "no batch")
    if info.base_offset < offset:
        return damaged(w, at, "a batch whose offsets go back")
    err = input_need(w, at, info.size)
    if err:
        return err
    p[0] = f.buf + (at - f.from_)
    return 0 if batch_crc_ok(p[0], info) else damaged(w, at, "a batch with a wrong CRC")


# ---- transactions

cdef int by_first_offset(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<const Dropped *> a).txn.first_offset
    cdef int64_t y = (<const Dropped *> b).txn.first_offset
    return -1 if x < y else (1 if x > y else 0)


cdef int load_aborted(Work *w, int64_t base_offset) noexcept nogil:
    """Adds what a segment's .txnindex says; without the file, nothing. An entry that is half written (of the active one) is left out."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef Aborted found
    cdef Dropped *grown
    cdef int32_t i
    cdef int err
    memset(&found, 0, sizeof(found))
    path_of(path, w.path, base_offset, ".txnindex")
    err = file_get(path, SNAPSHOT_MAX, &data, &n)
    if err or n < ABORTED_ENTRY:
        free(data)
        return 0 if err == ENOENT else err
    err = aborted_decode(&found, data, n // ABORTED_ENTRY * ABORTED_ENTRY, base_offset)
    free(data)
    if err < 0:
        w.at_offset = base_offset
        return damaged(w, 0, "a .txnindex that is none")
    grown = <Dropped *> realloc(w.all_aborted, (<size_t> w.all_aborted_n + <size_t> found.n) * sizeof(Dropped))
    if grown == NULL:
        aborted_free(&found)
        return ENOMEM
    w.all_aborted = grown
    for i in range(found.n):
        grown[w.all_aborted_n].txn = found.at[i]
        grown[w.all_aborted_n].met = False
        w.all_aborted_n += 1
    aborted_free(&found)
    return 0


cdef void txns_free(Txns *t) noexcept nogil:
    free(t.aborted)
    free(t.committed)
    memset(t, 0, sizeof(Txns))


cdef int txns_begin(Work *w) noexcept nogil:
    cdef int32_t i
    txns_free(&w.txns)
    for i in range(w.all_aborted_n):
        w.all_aborted[i].met = False
    if w.all_aborted_n:
        w.txns.aborted = <Dropped **> calloc(<size_t> w.all_aborted_n, sizeof(Dropped *))
        if w.txns.aborted == NULL:
            return ENOMEM
    return 0


cdef int32_t aborted_of(const Txns *t, int64_t producer_id) noexcept nogil:
    cdef int32_t i
    for i in range(t.aborted_n):
        if t.aborted[i].txn.producer_id == producer_id:
            return i
    return -1


cdef void txns_advance(Work *w, int64_t offset, int64_t from_offset) noexcept nogil:
    """Aborted transactions that began at or before `offset`, and did not end before `from_offset`, are under way now."""
    cdef Txns *t = &w.txns
    cdef Dropped *one
    while t.next < w.all_aborted_n and w.all_aborted[t.next].txn.first_offset <= offset:
        one = w.all_aborted + t.next
        t.next += 1
        if one.txn.last_offset >= from_offset and aborted_of(t, one.txn.producer_id) < 0:
            t.aborted[t.aborted_n] = one
            t.aborted_n += 1


cdef int txns_data(Work *w, const BatchInfo *info, int64_t from_offset, bint *aborted) noexcept nogil:
    cdef Txns *t = &w.txns
    cdef int64_t *grown
    cdef int32_t i
    aborted[0] = False
    txns_advance(w, info.base_offset + info.last_offset_delta, from_offset)
    if not info.attributes & ATTR_TRANSACTIONAL:
        return 0
    i = aborted_of(t, info.producer_id)
    if i >= 0:
        t.aborted[i].met = True
        aborted[0] = True
        return 0
    for i in range(t.committed_n):
        if t.committed[i] == info.producer_id:
            return 0
    if t.committed_n == t.committed_cap:
        grown = <int64_t *> realloc(t.committed, <size_t> (2 * t.committed_cap + 8) * sizeof(int64_t))
        if grown == NULL:
            return ENOMEM
        t.committed = grown
        t.committed_cap = 2 * t.committed_cap + 8
    t.committed[t.committed_n] = info.producer_id
    t.committed_n += 1
    return 0


cdef int txns_control(Work *w, const uint8_t *p, const BatchInfo *info, int64_t from_offset, bint *gone) noexcept nogil:
    """*gone: no record of the marker's transaction is left. An abort marker that stays is noted for the new .txnindex."""
    cdef Txns *t = &w.txns
    cdef Dropped *one
    cdef Output *out = &w.output
    cdef Marker marker
    cdef int32_t i
    gone[0] = True
    txns_advance(w, info.base_offset + info.last_offset_delta, from_offset)
    if info.count == 0 or info.attributes & ATTR_CODEC != CODEC_NONE:
        gone[0] = info.count == 0
        return 0
    if batch_marker(p, <size_t> info.size, &marker) == 0 and not marker.commit:
        i = aborted_of(t, info.producer_id)
        if i < 0:
            return 0
        one = t.aborted[i]
        t.aborted_n -= 1
        t.aborted[i] = t.aborted[t.aborted_n]
        if not one.met:
            return 0
        gone[0] = False
        if out.fd >= 0:
            if aborted_room(&out.aborted, 1) < 0:
                return ENOMEM
            aborted_add(&out.aborted, one.txn.producer_id, one.txn.first_offset, one.txn.last_offset, one.txn.last_stable)
        return 0
    for i in range(t.committed_n):
        if t.committed[i] == info.producer_id:
            t.committed_n -= 1
            t.committed[i] = t.committed[t.committed_n]
            gone[0] = False
            return 0
    return 0


# ---- the first pass: which keys are there, and where last

cdef int sift_error(Work *w, int64_t at, int how) noexcept nogil:
    return ENOMEM if how == SIFT_MEMORY else damaged(w, at, w.sieve.why)


cdef int map_part(Work *w, const Part *part, int64_t from_offset) noexcept nogil:
    cdef BatchInfo info
    cdef const uint8_t *p = NULL
    cdef int64_t at = 0
    cdef int64_t offset = part.base_offset
    cdef int64_t last
    cdef bint skipped
    cdef int how = input_open(w, part)
    while how == 0 and at < part.size:
        how = input_batch(w, at, offset, &p, &info)
        if how:
            break
        last = info.base_offset + info.last_offset_delta
        if last >= from_offset:
            if info.attributes & ATTR_CONTROL:
                how = txns_control(w, p, &info, from_offset, &skipped)
            else:
                how = txns_data(w, &info, from_offset, &skipped)
                if how == 0 and not skipped:
                    how = sieve_note(&w.sieve, p, &info, from_offset)
                    how = FULL if how == 1 else sift_error(w, at, how) if how else 0
            if how:
                break
            w.sieve.latest = last
        offset = last + 1
        at += info.size
    input_close(w)
    return how


cdef int map_parts(Work *w, int64_t from_offset) noexcept nogil:
    """Notes keys from an offset on, until the parts end or the map is full: then w.sieve.latest says how far."""
    cdef int32_t i
    cdef int how = txns_begin(w)
    w.output.fd = -1
    w.sieve.latest = from_offset - 1
    for i in range(w.parts_n):
        if how or w.parts[i].next_offset <= from_offset:
            continue
        how = map_part(w, w.parts + i, from_offset)
        if how == 0:
            w.sieve.latest = w.parts[i].next_offset - 1
    return 0 if how == FULL else how


# ---- the second pass: what stays

cdef int output_open(Work *w, int64_t base_offset) noexcept nogil:
    cdef Output *out = &w.output
    cdef char path[PATH_MAX_]
    cdef bint direct
    cdef int err = path_of(path, w.path, base_offset, ".log.cleaned")
    if not err:
        err = file_unlink(path)
    if err:
        return err
    out.fd = file_open(path, True, True, &direct)
    if out.fd < 0:
        err = -out.fd
        out.fd = -1
        return err
    out.used = 0
    out.at = 0
    out.last_offset = -1
    out.aborted.n = 0
    index_free(&out.index)
    index_init(&out.index, base_offset)
    if out.buf == NULL:
        out.buf = <uint8_t *> fl_aligned(PIECE)
    return 0 if out.buf != NULL else ENOMEM


cdef int output_flush(Work *w) noexcept nogil:
    """Writes what gathered, up to whole blocks."""
    cdef Output *out = &w.output
    cdef int64_t n = (out.used + BLOCK - 1) & ~(<int64_t> BLOCK - 1)
    cdef int err
    if n == 0:
        return 0
    memset(out.buf + out.used, 0, <size_t> (n - out.used))
    err = file_write(out.fd, out.buf, <size_t> n, out.at)
    w.written_bytes += n
    return err if err else spend(w, n)


cdef int output_add(Work *w, const uint8_t *p, const BatchInfo *info) noexcept nogil:
    cdef Output *out = &w.output
    cdef int64_t left = info.size
    cdef int64_t n
    cdef int err
    if out.at + out.used + left > SEGMENT_MAX:
        return EFBIG
    out.last_offset = info.base_offset + info.last_offset_delta
    index_add(&out.index, out.last_offset, out.at + out.used, info.max_timestamp, w.interval)
    while left:
        n = left if left < PIECE - out.used else PIECE - out.used
        memcpy(out.buf + out.used, p, <size_t> n)
        out.used += n
        p += n
        left -= n
        if out.used == PIECE:
            err = output_flush(w)
            if err:
                return err
            out.at += PIECE
            out.used = 0
    return 0


cdef int output_end(Work *w, int64_t *size) noexcept nogil:
    """Makes the new segment's files durable, all but their names."""
    cdef Output *out = &w.output
    cdef char path[PATH_MAX_]
    cdef uint8_t *data
    cdef size_t n
    cdef int err = output_flush(w)
    size[0] = out.at + out.used
    if not err:
        err = file_trim(out.fd, size[0])
    file_close(out.fd)
    out.fd = -1
    if err:
        return err
    index_seal(&out.index)
    n = <size_t> (out.index.offsets_n + out.index.times_n) * TIME_ENTRY
    if n < <size_t> out.aborted.n * ABORTED_ENTRY:
        n = <size_t> out.aborted.n * ABORTED_ENTRY
    data = <uint8_t *> malloc(n + 1)
    if data == NULL:
        return ENOMEM
    n = <size_t> index_encode_offsets(&out.index, data) * OFFSET_ENTRY
    path_of(path, w.path, out.index.base_offset, ".index.cleaned")
    err = file_put_at(path, data, n, 0)
    if not err:
        n = <size_t> index_encode_times(&out.index, data) * TIME_ENTRY
        path_of(path, w.path, out.index.base_offset, ".timeindex.cleaned")
        err = file_put_at(path, data, n, 0)
    if not err and out.aborted.n:
        path_of(path, w.path, out.index.base_offset, ".txnindex.cleaned")
        err = file_put_at(path, data, aborted_encode(&out.aborted, data), 0)
    free(data)
    return err


cdef void output_drop(Work *w, int64_t base_offset) noexcept nogil:
    cdef char path[PATH_MAX_]
    file_close(w.output.fd)
    w.output.fd = -1
    path_of(path, w.path, base_offset, ".log.cleaned")
    file_unlink(path)
    path_of(path, w.path, base_offset, ".index.cleaned")
    file_unlink(path)
    path_of(path, w.path, base_offset, ".timeindex.cleaned")
    file_unlink(path)
    path_of(path, w.path, base_offset, ".txnindex.cleaned")
    file_unlink(path)


cdef bint last_of_producer(const Work *w, const BatchInfo *info) noexcept nogil:
    """Whether a producer's next sequence, or its epoch, is known from this batch."""
    cdef const Producer *e
    if info.producer_id < 0:
        return False
    e = producers_find(&w.producers, info.producer_id)
    if e == NULL:
        return False
    if e.count:
        return info.base_offset + info.last_offset_delta == e.batches[e.newest].last_offset
    return info.attributes & ATTR_CONTROL and info.producer_epoch == e.epoch


cdef int clean_batch(Work *w, const uint8_t *p, const BatchInfo *info, int64_t at, int64_t end) noexcept nogil:
    cdef bint gone = False
    cdef bint discard
    cdef bint keep = last_of_producer(w, info) or info.base_offset + info.last_offset_delta + 1 == end
    cdef SiftResult how
    cdef int err
    if info.attributes & ATTR_CONTROL:
        err = txns_control(w, p, info, 0, &gone)
        discard = gone and info.attributes & ATTR_DELETE_HORIZON and info.base_timestamp <= w.sieve.now_ms
    else:
        err = txns_data(w, info, 0, &gone)
        discard = gone
        gone = False
    if err:
        return err
    how = sieve_batch(&w.sieve, p, info, discard, keep, gone)
    if how == SIFT_GONE:
        return 0
    if how == SIFT_SAME:
        return output_add(w, p, info)
    if how == SIFT_MADE:
        return output_add(w, w.sieve.out, &w.sieve.out_info)
    return sift_error(w, at, how)


cdef int clean_part(Work *w, const Part *part, int64_t end) noexcept nogil:
    cdef BatchInfo info
    cdef const uint8_t *p = NULL
    cdef int64_t at = 0
    cdef int64_t offset = part.base_offset
    cdef int how = input_open(w, part)
    info.leader_epoch = -1
    info.max_timestamp = -1
    while how == 0 and at < part.size:
        how = input_batch(w, at, offset, &p, &info)
        if how == 0:
            how = clean_batch(w, p, &info, at, end)
        offset = info.base_offset + info.last_offset_delta + 1
        at += info.size
    input_close(w)
    if how == 0 and part.next_offset == end and w.output.last_offset != end - 1:
        # a segment that another broker compacted may end before the next one begins
        sieve_placeholder(&w.sieve, end - 1, info.leader_epoch, info.max_timestamp)
        how = output_add(w, w.sieve.out, &w.sieve.out_info)
    return how


cdef int clean_parts(Work *w, int32_t first, int32_t last, int64_t *size) noexcept nogil:
    """Writes parts [first, last] as one new segment."""
    cdef int32_t i
    cdef int how = output_open(w, w.parts[first].base_offset)
    for i in range(first, last + 1):
        if how == 0:
            how = clean_part(w, w.parts + i, w.parts[last].next_offset)
    if how == 0:
        how = output_end(w, size)
    if how:
        output_drop(w, w.parts[first].base_offset)
    return how


# ---- for the control plane

class DamagedLogError(Exception):
    """A log can't be compacted because of what is in it; the text says what and where."""


class CompactionCancelledError(Exception):
    """It was asked to stop; nothing was changed."""


cdef class Compaction:
    """Compaction of one partition: `map` once, then `clean` for groups of segments from the first on. One thread uses it; any may `cancel`.

    path: the partition's directory. segments: (base offset, offset where the next begins, bytes) of whole segments, oldest first, each
    beginning where the one before ends; a snapshot of the producers lies where the last one ends. transactions: base offsets of segments
    with a .txnindex, these and later ones. interval: index.interval.bytes. rate: bytes a second to read and write at most, 0 for no limit.
    All methods but `cancel` let other threads run. Raises OSError, MemoryError, DamagedLogError, CompactionCancelledError.
    """
    cdef Work w
    cdef bytes held

    def __cinit__(self, bytes path, list segments, *, list transactions, int64_t interval, int64_t rate, int64_t now_ms,
                  int64_t retention_ms):
        cdef int32_t i
        self.held = path
        self.w.path = strdup(PyBytes_AS_STRING(path))
        self.w.parts = <Part *> calloc(len(segments) + 1, sizeof(Part))
        if self.w.path == NULL or self.w.parts == NULL:
            raise MemoryError
        for base, following, size in segments:
            i = self.w.parts_n
            self.w.parts[i].base_offset = base
            self.w.parts[i].next_offset = following
            self.w.parts[i].size = size
            self.w.parts_n += 1
        self.w.interval = interval
        self.w.rate = rate
        self.w.rate_from_ns = clock_ns()
        self.w.sieve.now_ms = now_ms
        self.w.sieve.retention_ms = retention_ms
        self.w.input.fd = -1
        self.w.output.fd = -1
        producers_init(&self.w.producers)
        index_init(&self.w.output.index, 0)
        for base in transactions:
            self._check(load_aborted(&self.w, base))
        if self.w.all_aborted_n:
            qsort(self.w.all_aborted, <size_t> self.w.all_aborted_n, sizeof(Dropped), by_first_offset)

    def __dealloc__(self):
        file_close(self.w.input.fd)
        file_close(self.w.output.fd)
        free(self.w.path)
        free(self.w.parts)
        free(self.w.all_aborted)
        free(self.w.input.buf)
        free(self.w.output.buf)
        aborted_free(&self.w.output.aborted)
        index_free(&self.w.output.index)
        txns_free(&self.w.txns)
        producers_free(&self.w.producers)
        sieve_free(&self.w.sieve)

    cdef int _check(self, int how) except -1:
        if how == 0:
            return 0
        if how == CANCELLED:
            raise CompactionCancelledError
        if how == ENOMEM:
            raise MemoryError
        if how == DAMAGED:
            name = f"{self.w.at_offset:020}.log"
            raise DamagedLogError(f"{name}, byte {self.w.at_position}: {self.w.why.decode()}")
        import os
        raise OSError(how, os.strerror(how), f"{self.held.decode('utf-8', 'replace')}/{self.w.at_offset:020}.log")

    def map(self, from_offset: int, memory: int) -> int:
        """Notes the keys from an offset on, in at most `memory` bytes; where it stopped: the end, or earlier when memory was full."""
        cdef char path[PATH_MAX_]
        cdef uint8_t *data = NULL
        cdef size_t n = 0
        cdef int64_t start = from_offset
        cdef int64_t end = self.w.parts[self.w.parts_n - 1].next_offset
        cdef uint64_t keys = <uint64_t> (end - start) if end > start else 0
        cdef int64_t now_ms = self.w.sieve.now_ms
        cdef int64_t retention_ms = self.w.sieve.retention_ms
        cdef int how
        path_of(path, self.w.path, end, ".snapshot")
        how = file_get(path, SNAPSHOT_MAX, &data, &n)
        if how == 0 and producers_load(&self.w.producers, data, n):
            how = EIO
        free(data)
        self.w.at_offset = end
        self._check(how)
        sieve_free(&self.w.sieve)
        how = sieve_open(&self.w.sieve, keys, memory)
        self.w.sieve.now_ms = now_ms
        self.w.sieve.retention_ms = retention_ms
        self._check(how)
        with nogil:
            how = map_parts(&self.w, start)
        self._check(how)
        self._check(txns_begin(&self.w))
        return self.w.sieve.latest + 1

    def clean(self, int first, int last) -> int:
        """Writes segments [first, last], by their place in the list, as one, in files with the ending .cleaned. Returns its bytes."""
        cdef int64_t size = 0
        cdef int how
        with nogil:
            how = clean_parts(&self.w, first, last, &size)
        self._check(how)
        return size

    def cancel(self) -> None:
        """Has what is under way end soon, with CompactionCancelledError."""
        fl_store(&self.w.cancelled, 1)

    @property
    def counts(self) -> dict[str, int]:
        """What was done so far: keys, records_read, records_kept, keyless, read_bytes, written_bytes, memory."""
        return {
            "keys": self.w.sieve.map.used, "records_read": self.w.sieve.records_read, "records_kept": self.w.sieve.records_kept,
            "keyless": self.w.sieve.keyless, "read_bytes": self.w.read_bytes, "written_bytes": self.w.written_bytes,
            "memory": self.w.sieve.map.slots_n * sizeof(self.w.sieve.map.slots[0]),
        }

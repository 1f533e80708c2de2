"""See locallog.pxd. Every call drives the store's loop until what it asked for is done."""
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from fastlog.native.batch cimport PEEK_OK, batch_peek
from fastlog.native.log cimport (
    CTL_CLOSE, CTL_COMPACTABLE, CTL_DELETE, CTL_DELETE_RECORDS, CTL_FLUSH, CTL_LEADER_EPOCH, CTL_PRODUCERS, CTL_ROLL, CTL_SETTINGS,
    CTL_SWAP, Pin, Watch, log_append, log_ask, log_control, log_find_time, log_read, log_release, log_unwatch, log_watch, partition_free,
)
from fastlog.native.store cimport LogState

NEVER = 2**63 - 1


class Positions(NamedTuple):
    """Offsets of one log, and its size in bytes. `offline`: 0, or the Kafka error code that every request gets."""

    log_start: int
    last_stable: int
    high_watermark: int
    log_end: int
    leader_epoch: int
    offline: int
    bytes: int


class AppendResult(NamedTuple):
    """A Kafka error code (0: none), the offset of the batch's first record (-1 on error), and the log's start."""

    error: int
    base_offset: int
    log_start: int


class ReadResult(NamedTuple):
    """A Kafka error code, bytes from the batch that holds the offset on, and the log's offsets."""

    error: int
    data: bytes
    log_start: int
    last_stable: int
    high_watermark: int


class TimeResult(NamedTuple):
    """A Kafka error code, and the record found: offset and timestamp in ms, or -1."""

    error: int
    offset: int
    timestamp: int


class LogError(Exception):
    """A request failed with a Kafka error code; `why` says more, or is empty."""

    def __init__(self, code, why=""):
        super().__init__(f"error {code}: {why}" if why else f"error {code}")
        self.code = code
        self.why = why


cdef inline Waiting *from_append(Append *a) noexcept nogil:
    return <Waiting *> (<uint8_t *> a - <size_t> &(<Waiting *> NULL).append)


cdef void append_finished(Append *a) noexcept nogil:
    from_append(a).finished = True


cdef void read_finished(Read *r) noexcept nogil:
    (<Waiting *> (<uint8_t *> r - <size_t> &(<Waiting *> NULL).read)).finished = True


cdef void query_finished(TimeQuery *q) noexcept nogil:
    (<Waiting *> (<uint8_t *> q - <size_t> &(<Waiting *> NULL).query)).finished = True


cdef void control_finished(LogCtl *c) noexcept nogil:
    (<Waiting *> (<uint8_t *> c - <size_t> &(<Waiting *> NULL).control)).finished = True


cdef LogSettings settings_of(dict given):
    cdef LogSettings v
    known = dict(segment_bytes=1 << 30, segment_ms=NEVER, segment_jitter_ms=0, index_interval_bytes=4096, segment_index_bytes=10 << 20,
                 flush_messages=NEVER, flush_ms=NEVER, write_caching=False, disk_reserve=0, verify_reads=True,
                 recycle_bytes=0)
    for name in given:
        if name not in known:
            raise TypeError(f"no such setting: {name}")
    known.update(given)
    v.segment_bytes = known["segment_bytes"]
    v.segment_ms = known["segment_ms"]
    v.segment_jitter_ms = known["segment_jitter_ms"]
    v.index_interval_bytes = known["index_interval_bytes"]
    v.segment_index_bytes = known["segment_index_bytes"]
    v.flush_messages = known["flush_messages"]
    v.flush_ms = known["flush_ms"]
    v.write_caching = known["write_caching"]
    v.disk_reserve = known["disk_reserve"]
    v.verify_reads = known["verify_reads"]
    v.recycle_bytes = known["recycle_bytes"]
    return v


cdef class Pending:
    """An append under way. `done` tells; `result()` drives the loop until it is."""

    cdef Waiting *w
    cdef Drive owner

    def __dealloc__(self):
        if self.w != NULL and (self.w.finished or self.owner.store == NULL):
            free(self.w.append.data)
            free(self.w)

    @property
    def done(self):
        return self.w.finished

    @property
    def batch(self):
        """Its bytes; stamped once it was accepted."""
        return PyBytes_FromStringAndSize(<const char *> self.w.append.data, self.w.append.info.size)

    def result(self, double seconds=60):
        self.owner.until(&self.w.finished, seconds)
        return AppendResult(self.w.append.error, self.w.append.base_offset, self.w.append.log_start)


cdef class Pinned:
    """Bytes of a log held in place, once the read is `done`."""

    cdef Waiting *w
    cdef Drive owner

    @property
    def done(self):
        return self.w.finished

    @property
    def error(self):
        return self.w.read.error

    @property
    def data(self):
        return data_of(&self.w.read)

    def release(self):
        if self.w != NULL:
            log_release(self.owner.store, &self.w.read)
            free(self.w)
            self.w = NULL


cdef bytes data_of(const Read *r):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, r.bytes)
    cdef char *at = PyBytes_AS_STRING(out)
    cdef Pin *p = r.pins
    while p != NULL:
        memcpy(at, p.base, p.length)
        at += p.length
        p = p.next
    return out


cdef struct Watching:
    Watch watch                     # first: a Watch * is a Watching *
    bint fired


cdef class Watcher:
    """A watch: `fired` tells whether the high watermark passed, or the log went away."""

    cdef Watching w
    cdef Drive owner

    @property
    def fired(self):
        return self.w.fired

    def cancel(self):
        log_unwatch(self.owner.store, &self.w.watch)


cdef void watch_fired(Watch *w) noexcept nogil:
    (<Watching *> w).fired = True


cdef class LocalLog:
    """One log of a LocalStore. Methods return NamedTuples with Kafka's error codes; those that can't go on raise LogError."""

    cdef Partition *open_part(self) except NULL:
        if self.part == NULL:
            raise ValueError("the log is closed")
        return self.part

    def submit(self, batch, int acks=-1, int64_t append_time=-1, *, int txn_version=0, guard=None):
        """Starts an append of one whole record batch and returns a Pending. Raises ValueError when it is no batch.

        txn_version: of the transaction that it ends. guard: a client's append with this guard (0: none), else the broker's own.
        """
        cdef Pending p = Pending.__new__(Pending)
        cdef const uint8_t[::1] data = batch
        cdef Waiting *w
        cdef Partition *part = self.open_part()
        w = <Waiting *> calloc(1, sizeof(Waiting))
        if w == NULL:
            raise MemoryError
        p.owner = self.owner
        p.w = w
        w.append.data = <uint8_t *> malloc(<size_t> data.shape[0])
        if w.append.data == NULL or batch_peek(&data[0], <size_t> data.shape[0], &w.append.info) != PEEK_OK or \
                w.append.info.size != data.shape[0]:
            w.finished = True
            raise ValueError("not one whole record batch")
        memcpy(w.append.data, &data[0], <size_t> data.shape[0])
        w.append.part = part
        w.append.acks = acks
        w.append.append_time = append_time
        w.append.txn_version = txn_version
        w.append.client = guard is not None
        w.append.guard = guard or 0
        w.append.done = append_finished
        log_append(self.owner.store, &w.append)
        return p

    def append(self, batch, int acks=-1, *, int txn_version=0, guard=None):
        """Appends one whole record batch and waits for its promise."""
        return self.submit(batch, acks, txn_version=txn_version, guard=guard).result()

    def ask(self, int64_t producer_id, int epoch, int sequence, bint bumps=False):
        """0, or the guard with which the producer may begin a transaction."""
        return log_ask(self.owner.store, self.open_part(), producer_id, epoch, sequence, bumps)

    cdef Waiting *read_of(self, int64_t offset, int32_t max_bytes, bint to_log_end, bint whole_first, bint committed_only,
                          bint wait=True) except NULL:
        cdef Waiting *w
        cdef Partition *part = self.open_part()
        w = <Waiting *> calloc(1, sizeof(Waiting))
        if w == NULL:
            raise MemoryError
        w.read.part = part
        w.read.offset = offset
        w.read.bytes_max = max_bytes
        w.read.to_log_end = to_log_end
        w.read.whole_first = whole_first
        w.read.committed_only = committed_only
        w.read.done = read_finished
        log_read(self.owner.store, &w.read)
        if wait:
            self.owner.until(&w.finished)
        return w

    def read(self, int64_t offset, int32_t max_bytes=1 << 20, *, bint to_log_end=False, bint whole_first=True):
        """Reads from the batch that holds `offset`."""
        return self.read_both(offset, max_bytes, to_log_end, whole_first, False)[0]

    def read_committed(self, int64_t offset, int32_t max_bytes=1 << 20):
        """The same up to the last stable offset, and the aborted transactions there: (producer id, first offset) of each."""
        return self.read_both(offset, max_bytes, False, True, True)

    cdef tuple read_both(self, int64_t offset, int32_t max_bytes, bint to_log_end, bint whole_first, bint committed_only):
        cdef Waiting *w = self.read_of(offset, max_bytes, to_log_end, whole_first, committed_only)
        aborted = [(w.read.aborted.at[i].producer_id, w.read.aborted.at[i].first_offset) for i in range(w.read.aborted.n)]
        result = ReadResult(w.read.error, data_of(&w.read), w.read.log_start, w.read.last_stable, w.read.high_watermark)
        log_release(self.owner.store, &w.read)
        free(w)
        return result, aborted

    def pin(self, int64_t offset, int32_t max_bytes=1 << 20, *, bint wait=True):
        """Reads and keeps the bytes in place: a Pinned. wait: until it is done; otherwise that is for who drives the loop."""
        cdef Pinned p = Pinned.__new__(Pinned)
        p.owner = self.owner
        p.w = self.read_of(offset, max_bytes, False, True, False, wait)
        return p

    def watch(self, int64_t past, *, bint committed=False):
        """A Watcher for the high watermark, or the last stable offset, to get past an offset."""
        cdef Watcher w = Watcher.__new__(Watcher)
        w.owner = self.owner
        w.w.watch.part = self.open_part()
        w.w.watch.past = past
        w.w.watch.committed = committed
        w.w.watch.fired = watch_fired
        log_watch(self.owner.store, &w.w.watch)
        return w

    def find_time(self, int64_t timestamp):
        """The first record at or after a timestamp (ms); -3: the one with the largest timestamp."""
        cdef Waiting *w
        cdef Partition *part = self.open_part()
        w = <Waiting *> calloc(1, sizeof(Waiting))
        if w == NULL:
            raise MemoryError
        w.query.part = part
        w.query.timestamp = timestamp
        w.query.done = query_finished
        log_find_time(self.owner.store, &w.query)
        self.owner.until(&w.finished)
        result = TimeResult(w.query.error, w.query.offset, w.query.found_ms)
        free(w)
        return result

    def control(self, int kind, int64_t number=0, dict settings=None, int64_t end=0):
        """Does a LogCtl; its result. Raises LogError."""
        cdef Waiting *w
        cdef Partition *part = self.open_part()
        w = <Waiting *> calloc(1, sizeof(Waiting))
        if w == NULL:
            raise MemoryError
        w.control.part = part
        w.control.kind = kind
        w.control.number = number
        w.control.settings = settings_of(settings or {})
        w.control.end = end
        w.control.done = control_finished
        log_control(self.owner.store, &w.control)
        self.owner.until(&w.finished)
        code, why, result = w.control.error, w.control.why.decode(), w.control.result
        if w.control.data != NULL:
            result = PyBytes_FromStringAndSize(<const char *> w.control.data, w.control.length)
            free(w.control.data)
        free(w)
        if code:
            raise LogError(code, why)
        return result

    def flush(self):
        self.control(CTL_FLUSH)

    def roll(self):
        self.control(CTL_ROLL)

    def set_settings(self, **settings):
        self.control(CTL_SETTINGS, 0, settings)

    def producers(self):
        """A producer snapshot (producers.pxd)."""
        return self.control(CTL_PRODUCERS)

    def set_leader_epoch(self, int64_t epoch):
        self.control(CTL_LEADER_EPOCH, epoch)

    def delete_records(self, int64_t offset):
        """Moves the log's start; the new one."""
        return self.control(CTL_DELETE_RECORDS, offset)

    def compactable(self):
        """The offset below which segments can be compacted."""
        return self.control(CTL_COMPACTABLE)

    def swap(self, int64_t base_offset, int64_t end):
        """Puts the .cleaned files at a base offset in the place of the segments from there to `end`; the new segment's bytes."""
        return self.control(CTL_SWAP, base_offset, None, end)

    def close(self):
        """A clean close."""
        self.end(CTL_CLOSE)

    def delete(self):
        """Removes the log and its directory."""
        self.end(CTL_DELETE)

    def end(self, int kind):
        if self.part == NULL:
            return
        try:
            self.control(kind)
        finally:
            partition_free(self.owner.store, self.part)
            self.part = NULL
            self.owner.logs.remove(self)

    @property
    def positions(self):
        cdef Partition *part = self.open_part()
        return Positions(part.at.log_start, part.at.last_stable, part.at.high_watermark, part.at.log_end, part.at.leader_epoch,
                         part.at.offline, part.at.bytes)

    @property
    def progress(self):
        """(accepted, written, durable): bytes of the log since it was opened up to which each holds."""
        cdef LogState *log = <LogState *> self.open_part().log
        return log.end, log.written, log.durable

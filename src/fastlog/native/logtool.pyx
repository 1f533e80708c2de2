"""Logs without a broker: a store on a ring and a pool of its own, driven by the calling thread. For tests and offline tools.

Every call drives the store's loop until what it asked for is done. A LocalStore and its LocalLogs belong to the thread that made them.
"""
import os
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from fastlog.native.batch cimport PEEK_OK, BatchInfo, batch_peek
from fastlog.native.flaws cimport flaws_unlisten
from fastlog.native.log cimport (
    CTL_CLOSE, CTL_COMPACTABLE, CTL_DELETE, CTL_DELETE_RECORDS, CTL_FLUSH, CTL_LEADER_EPOCH, CTL_PRODUCERS, CTL_ROLL, CTL_SETTINGS,
    CTL_SWAP, Append, LogCtl, LogOpen, LogSettings, Partition, Pin, Read, Relics, Store, StoreConfig, StoreStats, TimeQuery, Watch,
    log_append, log_ask, log_control, log_find_time, log_open, log_read, log_release, log_unwatch, log_watch, partition_free, relics_bytes,
    relics_drop, relics_open, store_abandon, store_close, store_open, store_stats, store_tick,
)
from fastlog.native.ring cimport (
    RING_AUTO, RING_EPOLL, RING_GIVEN, RING_URING, Ring, RingConfig, ring_close, ring_kind, ring_open, ring_start, ring_wait,
)
from fastlog.native.store cimport LogState, clock_ns
from fastlog.native.tape cimport Tape
from fastlog.native.work cimport (
    WORK_LATER, WORK_SOON, Home, Pool, home_close, home_open, pool_close, pool_open, pool_step, work_reap,
)

ENGINES = {"auto": RING_AUTO, "uring": RING_URING, "epoll": RING_EPOLL}
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


class OpenResult(NamedTuple):
    """How opening went: see log.pxd's LogOpen."""

    error: int
    why: str
    recovered: bool
    lost_bytes: int
    arena_bytes: int


class LogError(Exception):
    """A request failed with a Kafka error code; `why` says more, or is empty."""

    def __init__(self, code, why=""):
        super().__init__(f"error {code}: {why}" if why else f"error {code}")
        self.code = code
        self.why = why


cdef struct Waiting:                # one request and whether it is done
    Append append
    Read read
    TimeQuery query
    LogCtl control
    LogOpen opening
    bint finished


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


cdef void open_finished(LogOpen *o) noexcept nogil:
    (<Waiting *> (<uint8_t *> o - <size_t> &(<Waiting *> NULL).opening)).finished = True


cdef struct PumpRun:
    int64_t left
    int64_t failed
    int64_t busy
    Pump *idle


cdef struct Pump:                   # one of the appends that a benchmark keeps under way
    Append append                   # first
    PumpRun *run
    Pump *next


cdef void pump_done(Append *a) noexcept nogil:
    cdef Pump *p = <Pump *> a
    p.run.busy -= 1
    p.run.failed += a.error != 0
    p.next = p.run.idle
    p.run.idle = p


cdef void pump_start(Store *store, PumpRun *run, const BatchInfo *info) noexcept nogil:
    """Starts what may be under way, each append once: those that end at once wait for the next turn."""
    cdef Pump *p = run.idle
    cdef Pump *following
    run.idle = NULL
    while p != NULL and run.left > 0:
        following = p.next
        p.append.info = info[0]
        p.append.append_time = -1
        run.left -= 1
        run.busy += 1
        log_append(store, &p.append)
        p = following


cdef void pump_turn(LocalStore s, const PumpRun *run) noexcept nogil:
    cdef int64_t due = store_tick(s.store, clock_ns())
    ring_wait(s.ring, 0 if run.idle != NULL and run.left > 0 else due)
    work_reap(s.home)


cdef class LocalStore:
    """A store. Arguments: engine "auto", "uring" or "epoll"; memory in bytes; arena: path of a new tmpfs file, or None for anonymous
    memory; relics: paths of dead processes' arenas; threads of the worker pool; lock: a descriptor that stays open until the last
    request to the kernel has ended, or -1; flush_group: whether one flush may do for many logs; producer_expires_ms: 0 for a day;
    checkpoint_bytes: between checkpoints inside a segment, and unchecked_max: past those of all logs, 0: the defaults; tape: does all I/O
    there, on this thread and in an order that repeats, and time is what the turns make of it. Raises OSError when it can't be opened.
    """

    cdef Ring *ring
    cdef Pool *pool
    cdef Home *home
    cdef Store *store
    cdef Relics *relics
    cdef Tape tape
    cdef int64_t now_ns                 # with a tape
    cdef readonly list logs
    cdef readonly str why

    def __cinit__(self, *, str engine="auto", uint64_t memory=64 << 20, arena=None, relics=(), int threads=2, int shard=0,
                  int io_threads=2, int lock=-1, bint flush_group=False, int64_t producer_expires_ms=0, int64_t checkpoint_bytes=0,
                  int64_t unchecked_max=0, Tape tape=None):
        cdef RingConfig ring
        cdef StoreConfig config
        cdef char why[4096]
        cdef int err
        cdef list paths = [os.fsencode(path) for path in relics]
        cdef const char **names
        cdef bytes arena_path
        cdef int i
        memset(&ring, 0, sizeof(ring))
        memset(&config, 0, sizeof(config))
        why[0] = 0
        self.logs = []
        ring.kind = ENGINES[engine]
        if tape is not None:
            ring.kind = RING_GIVEN
            ring.given = tape.given()
            threads = 0
            self.tape = tape
            self.now_ns = 1_000_000_000_000
        ring.entries = 256
        ring.recv_buffers = 8
        ring.recv_buffer_bytes = 4096
        ring.io_threads = io_threads
        ring.lock_fds = &lock
        ring.lock_fds_n = lock >= 0
        err = ring_open(&self.ring, &ring, why, sizeof(why))
        if err < 0:
            self.ring = NULL
            raise OSError(-err, why.decode())
        err = ring_start(self.ring)
        if err < 0:
            raise OSError(-err, "the ring cannot be started")
        err = pool_open(&self.pool, threads)
        if err < 0:
            self.pool = NULL
            raise OSError(-err, "the worker pool cannot be started")
        self.home = home_open(self.ring)
        if self.home == NULL:
            raise MemoryError
        if paths:
            names = <const char **> malloc(len(paths) * sizeof(char *))
            if names == NULL:
                raise MemoryError
            for i in range(len(paths)):
                names[i] = PyBytes_AS_STRING(paths[i])
            err = relics_open(&self.relics, names, <int> len(paths), why, sizeof(why))
            free(names)
            if err < 0:
                raise OSError(-err, why.decode())
        self.why = why.decode()
        config.ring = self.ring
        config.pool = self.pool
        config.home = self.home
        config.shard = shard
        config.flush_group = flush_group
        config.producer_expires_ms = producer_expires_ms
        config.checkpoint_bytes = checkpoint_bytes
        config.unchecked_max = unchecked_max
        config.memory = memory
        config.relics = self.relics
        if arena is not None:
            arena_path = os.fsencode(arena)
            config.arena_path = PyBytes_AS_STRING(arena_path)
        err = store_open(&self.store, &config, why, sizeof(why))
        if err < 0:
            self.store = NULL
            raise OSError(-err, why.decode())

    def __dealloc__(self):
        if self.ring != NULL:
            self.drop()

    cdef void drop(self) noexcept:
        """As a killed process: nothing is written, the arena stays."""
        if self.pool != NULL:
            pool_close(self.pool)
            self.pool = NULL
        if self.ring != NULL:
            flaws_unlisten(self.ring)
            ring_close(self.ring)
            self.ring = NULL
        if self.store != NULL:
            store_abandon(self.store)
            self.store = NULL
        self.home = NULL                # leaked: jobs that nobody takes any more may be on it
        self.relics = NULL

    cdef int64_t turn(self, int64_t wait_ns, const bint *done=NULL) except -1:
        cdef int64_t now = clock_ns()
        cdef int64_t due
        if self.store == NULL:
            raise ValueError("the store is closed")
        if self.tape is not None:
            self.turn_taped(done)
            return 0
        with nogil:
            due = store_tick(self.store, now)
            if due >= 0 and due < wait_ns:
                wait_ns = due
            if done != NULL and done[0]:
                wait_ns = 0
            ring_wait(self.ring, wait_ns)
            work_reap(self.home)
        return 0

    cdef int turn_taped(self, const bint *done) except -1:
        """One thing happens: an operation ends or a job runs; when there is none, the time comes at which the store wants its turn."""
        cdef int64_t due = store_tick(self.store, self.now_ns)
        cdef int lane = WORK_SOON if self.tape.choose(2) else WORK_LATER
        if done != NULL and done[0]:
            return 0
        self.now_ns += 1000
        if not (self.tape.choose(2) and ring_wait(self.ring, 0)) and not pool_step(self.pool, lane) and \
                not pool_step(self.pool, WORK_SOON + WORK_LATER - lane) and not ring_wait(self.ring, 0) and due > 0:
            self.now_ns += due
        work_reap(self.home)
        return 0

    cdef int until(self, bint *done, double seconds=60) except -1:
        cdef int64_t end = clock_ns() + <int64_t> (seconds * 1e9)
        while not done[0]:
            self.turn(10_000_000, done)
            if clock_ns() > end:
                raise TimeoutError("not done within its time")
        return 0

    def run(self, double seconds=0.0):
        """Drives the loop for a while; with a tape and 0 for one turn."""
        cdef int64_t end = clock_ns() + <int64_t> (seconds * 1e9)
        while True:
            self.turn(0 if seconds == 0 else min(<int64_t> 1_000_000, max(<int64_t> 0, end - clock_ns())))
            if clock_ns() >= end:
                return

    @property
    def engine(self):
        return "uring" if ring_kind(self.ring) == RING_URING else "epoll"

    @property
    def relic_bytes(self):
        """Bytes in dead arenas that were never written."""
        return relics_bytes(self.relics)

    def drop_relics(self):
        """Removes the dead arenas: everything in them is in the logs by now."""
        relics_drop(self.relics)
        self.relics = NULL

    def stats(self):
        """StoreStats (log.pxd) as a dict."""
        cdef StoreStats v
        if self.store == NULL:
            raise ValueError("the store is closed")
        store_stats(self.store, &v)
        return dict(v)

    def open(self, path, *, topic_id=bytes(16), int partition=0, int leader_epoch=0, create=None, bint clean=False, bint together=False,
             **settings):
        """Opens a log and returns a LocalLog. Settings: the fields of LogSettings. With `together` what recovery leaves is flushed by the
        caller (DiskSync). Raises LogError."""
        cdef LocalLog log = LocalLog.__new__(LocalLog)
        cdef Waiting *w = <Waiting *> calloc(1, sizeof(Waiting))
        cdef bytes name = os.fsencode(path)
        cdef LogOpen *o
        if w == NULL:
            raise MemoryError
        o = &w.opening
        try:
            o.path = PyBytes_AS_STRING(name)
            memcpy(o.topic_id, PyBytes_AS_STRING(topic_id), 16)
            o.index = partition
            o.leader_epoch = leader_epoch
            o.create = not os.path.exists(path) if create is None else create
            o.clean = clean
            o.together = together
            o.settings = settings_of(settings)
            o.done = open_finished
            log_open(self.store, o)
            self.until(&w.finished)
            result = OpenResult(o.error, o.why.decode(), o.recovered, o.lost_bytes, o.arena_bytes)
            if o.error:
                raise LogError(o.error, result.why)
            log.owner = self
            log.part = o.part
            log.opened = result
            log.settings = settings
            self.logs.append(log)
            return log
        finally:
            if w.finished:
                free(w)

    def pump(self, list logs, batch, int64_t count, *, int acks=-1, int in_flight=16):
        """Appends one batch `count` times, spread over logs, `in_flight` at once per log, without Python in between: for benchmarks.
        Returns the number of appends that failed.
        """
        cdef const uint8_t[::1] data = batch
        cdef int n = <int> len(logs) * in_flight
        cdef PumpRun run
        cdef Pump *pumps = <Pump *> calloc(n, sizeof(Pump))
        cdef BatchInfo info
        cdef int i
        if pumps == NULL:
            raise MemoryError
        if batch_peek(&data[0], <size_t> data.shape[0], &info) != PEEK_OK or info.size != data.shape[0]:
            free(pumps)
            raise ValueError("not one whole record batch")
        run.left = count
        run.failed = 0
        run.idle = NULL
        for i in range(n):
            pumps[i].run = &run
            pumps[i].append.part = (<LocalLog> logs[i % len(logs)]).open_part()
            pumps[i].append.data = <uint8_t *> malloc(<size_t> info.size)
            if pumps[i].append.data == NULL:
                raise MemoryError
            memcpy(pumps[i].append.data, &data[0], <size_t> info.size)
            pumps[i].append.acks = acks
            pumps[i].append.done = pump_done
            pumps[i].next = run.idle
            run.idle = &pumps[i]
        run.busy = 0
        with nogil:
            while run.left > 0 or run.busy:
                pump_start(self.store, &run, &info)
                pump_turn(self, &run)
        for i in range(n):
            free(pumps[i].append.data)
        free(pumps)
        return run.failed

    def close(self):
        """Closes all logs and the store, cleanly."""
        for log in list(self.logs):
            log.close()
        while self.tape is not None and (pool_step(self.pool, WORK_SOON) or pool_step(self.pool, WORK_LATER)):
            work_reap(self.home)
        with nogil:
            store_close(self.store)
            self.store = NULL
            while work_reap(self.home):
                pass
            pool_close(self.pool)
            self.pool = NULL
            home_close(self.home)
            self.home = NULL
            ring_close(self.ring)
            self.ring = NULL
        self.relics = NULL

    def crash(self):
        """Ends as a killed process does: what is in memory is gone, but for the arena."""
        for log in self.logs:
            (<LocalLog> log).part = NULL
        self.logs.clear()
        self.drop()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.store != NULL:
            if kind is None:
                self.close()
            else:
                self.crash()


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
    cdef LocalStore owner

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
    """Bytes of a log held in place."""

    cdef Waiting *w
    cdef LocalStore owner

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
    cdef LocalStore owner

    @property
    def fired(self):
        return self.w.fired

    def cancel(self):
        log_unwatch(self.owner.store, &self.w.watch)


cdef void watch_fired(Watch *w) noexcept nogil:
    (<Watching *> w).fired = True


cdef class LocalLog:
    """One log of a LocalStore. Methods return NamedTuples with Kafka's error codes; those that can't go on raise LogError."""

    cdef LocalStore owner
    cdef Partition *part
    cdef readonly object opened
    cdef readonly dict settings

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

    cdef Waiting *read_of(self, int64_t offset, int32_t max_bytes, bint to_log_end, bint whole_first, bint committed_only) except NULL:
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

    def pin(self, int64_t offset, int32_t max_bytes=1 << 20):
        """Reads and keeps the bytes in place: a Pinned."""
        cdef Pinned p = Pinned.__new__(Pinned)
        p.owner = self.owner
        p.w = self.read_of(offset, max_bytes, False, True, False)
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

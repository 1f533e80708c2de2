"""See logdrive.pxd."""
import os

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from fastlog.native.flaws cimport flaws_unlisten
from fastlog.native.log cimport (
    StoreConfig, StoreStats, relics_bytes, relics_drop, relics_open, store_abandon, store_close, store_open, store_stats, store_tick,
)
from fastlog.native.ring cimport (
    RING_AUTO, RING_EPOLL, RING_GIVEN, RING_URING, RingConfig, ring_close, ring_kind, ring_open, ring_start, ring_wait,
)
from fastlog.native.store cimport clock_ns
from fastlog.native.work cimport WORK_LATER, WORK_SOON, home_close, home_open, pool_close, pool_open, pool_step, work_reap

ENGINES = {"auto": RING_AUTO, "uring": RING_URING, "epoll": RING_EPOLL}


cdef class Drive:
    """What LocalStore (logtool) runs on, with its arguments."""

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

    cdef int finish(self) except -1:
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
        return 0

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

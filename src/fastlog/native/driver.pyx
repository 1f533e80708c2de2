"""A ring and a worker pool driven from Python, one operation at a time: for tests and benchmarks of theirs, nothing else."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from fastlog.native.ring cimport (
    Op, OP_MORE, Ring, RingConfig, RingStats, iovec, msghdr, ring_accept, ring_cancel, ring_close, ring_fdatasync, ring_kind,
    ring_open_without, ring_readv, ring_recv, ring_recv_any, ring_sendmsg, ring_start, ring_stats, ring_wait, ring_wake, ring_why,
    ring_writev, RING_EPOLL, RING_URING)
from fastlog.native.work cimport (
    Home, Job, Pool, home_close, home_open, pool_close, pool_open, work_pending, work_reap, work_submit)

import os

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t n)

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int nanosleep(const timespec *wanted, timespec *left)

cdef extern from *:
    """static inline uint64_t fl_next(uint64_t *n) { return __atomic_fetch_add(n, 1, __ATOMIC_SEQ_CST); }"""
    uint64_t fetch_next "fl_next"(uint64_t *n) noexcept nogil

cdef enum:
    PARTS_MAX = 8

cdef struct Event:
    uint64_t token
    int res
    uint32_t flags
    uint8_t *bytes                  # what was received or read, or NULL
    Event *next

cdef struct Events:
    Event *first
    Event *last

cdef struct Call:
    Op op
    uint64_t token
    Events *events
    iovec[8] iov
    msghdr message
    uint8_t *bytes
    bint incoming


cdef void call_done(Op *op) noexcept nogil:
    cdef Call *call = <Call *> op
    cdef Event *event = <Event *> calloc(1, sizeof(Event))
    cdef const void *source = call.bytes if call.bytes != NULL else op.buf
    event.token = call.token
    event.res = op.res
    event.flags = op.flags
    if call.incoming and op.res > 0:
        event.bytes = <uint8_t *> malloc(<size_t> op.res)
        memcpy(event.bytes, source, <size_t> op.res)
    if call.events.last != NULL:
        call.events.last.next = event
    else:
        call.events.first = event
    call.events.last = event


cdef class Driver:
    """One ring. Each operation returns a token; `wait` returns what completed as (token, res, more, bytes or None).

    kind: "uring" or "epoll". without: RingFeature bits. Raises OSError when the ring can't be made.
    """
    cdef Ring *ring
    cdef Events events
    cdef dict calls
    cdef uint64_t tokens

    def __cinit__(self, str kind, *, uint32_t entries=256, uint32_t recv_buffers=64, uint32_t recv_buffer_bytes=4096, int io_threads=2,
                  int lock_fd=-1, uint32_t without=0):
        cdef RingConfig config
        cdef char[256] why
        cdef int error
        self.calls = {}
        self.tokens = 0
        config.kind = {"auto": 0, "uring": <int> RING_URING, "epoll": <int> RING_EPOLL}[kind]
        config.entries = entries
        config.recv_buffers = recv_buffers
        config.recv_buffer_bytes = recv_buffer_bytes
        config.io_threads = io_threads
        config.lock_fds = &lock_fd
        config.lock_fds_n = 1 if lock_fd >= 0 else 0
        error = ring_open_without(&self.ring, &config, without, why, sizeof(why))
        if error < 0:
            self.ring = NULL
            raise OSError(-error, why.decode())

    def start(self):
        cdef int error = ring_start(self.ring)
        if error < 0:
            raise OSError(-error, os.strerror(-error))

    def close(self):
        """Closes the ring with whatever is under way; events not yet taken are dropped."""
        if self.ring != NULL:
            with nogil:
                ring_close(self.ring)
            self.ring = NULL
            self.take()
            for address in self.calls.values():
                free_call(<Call *> <uintptr_t> address)
            self.calls.clear()

    def __dealloc__(self):
        if self.ring != NULL:
            ring_close(self.ring)

    @property
    def kind(self):
        return "uring" if ring_kind(self.ring) == RING_URING else "epoll"

    @property
    def why(self):
        return ring_why(self.ring).decode()

    @property
    def stats(self):
        cdef RingStats stats
        ring_stats(self.ring, &stats)
        return stats

    def wake(self):
        ring_wake(self.ring)

    def wait(self, int64_t timeout_ns=-1):
        """One ring_wait: [(token, res, more, bytes | None)]."""
        cdef int n
        with nogil:
            n = ring_wait(self.ring, timeout_ns)
        taken = self.take()
        assert len(taken) == n
        return taken

    cdef list take(self):
        cdef Event *event = self.events.first
        cdef Event *following
        taken = []
        while event != NULL:
            data = (<char *> event.bytes)[:event.res] if event.bytes != NULL else None
            taken.append((event.token, event.res, bool(event.flags & OP_MORE), data))
            if not event.flags & OP_MORE:
                free_call(<Call *> <uintptr_t> self.calls.pop(event.token))
            following = event.next
            free(event.bytes)
            free(event)
            event = following
        memset(&self.events, 0, sizeof(Events))
        return taken

    cdef Call *call(self, size_t size, bint incoming) except NULL:
        cdef Call *made = <Call *> calloc(1, sizeof(Call))
        if size:
            made.bytes = <uint8_t *> aligned_alloc(4096, (size + 4095) // 4096 * 4096)
        self.tokens += 1
        made.token = self.tokens
        made.events = &self.events
        made.incoming = incoming
        made.op.done = call_done
        made.iov[0].iov_base = made.bytes
        made.iov[0].iov_len = size
        made.message.msg_iov = made.iov
        made.message.msg_iovlen = 1
        self.calls[made.token] = <uintptr_t> made
        return made

    cdef Call *outgoing(self, tuple parts) except NULL:
        cdef size_t at = 0
        cdef bytes part
        cdef int i = 0
        cdef Call *made
        if len(parts) > PARTS_MAX:
            raise ValueError(f"{len(parts)} parts")
        made = self.call(sum(map(len, parts)), False)
        for part in parts:
            made.iov[i].iov_base = made.bytes + at
            made.iov[i].iov_len = len(part)
            memcpy(made.bytes + at, <const char *> part, len(part))
            at += len(part)
            i += 1
        made.message.msg_iovlen = i
        return made

    def accept(self, int fd):
        cdef Call *call = self.call(0, False)
        ring_accept(self.ring, &call.op, fd)
        return call.token

    def recv(self, int fd, size_t n):
        cdef Call *call = self.call(n, True)
        ring_recv(self.ring, &call.op, fd, call.bytes, n)
        return call.token

    def recv_any(self, int fd):
        cdef Call *call = self.call(0, True)
        ring_recv_any(self.ring, &call.op, fd)
        return call.token

    def sendmsg(self, int fd, *parts):
        cdef Call *call = self.outgoing(parts)
        ring_sendmsg(self.ring, &call.op, fd, &call.message)
        return call.token

    def write(self, int fd, int64_t offset, *parts, int rw_flags=0):
        cdef Call *call = self.outgoing(parts)
        ring_writev(self.ring, &call.op, fd, call.iov, <int> call.message.msg_iovlen, offset, rw_flags)
        return call.token

    def read(self, int fd, int64_t offset, size_t n, int parts=1):
        """Into `parts` pieces of equal size."""
        cdef Call *call = self.call(n, True)
        cdef int i
        for i in range(parts):
            call.iov[i].iov_base = call.bytes + n // parts * i
            call.iov[i].iov_len = n // parts
        ring_readv(self.ring, &call.op, fd, call.iov, parts, offset)
        return call.token

    def fdatasync(self, int fd):
        cdef Call *call = self.call(0, False)
        ring_fdatasync(self.ring, &call.op, fd)
        return call.token

    def cancel(self, uint64_t token):
        ring_cancel(self.ring, &(<Call *> <uintptr_t> self.calls[token]).op)

    def ping_pong(self, list pairs, uint32_t size, uint64_t rounds):
        """Sends `size` bytes forth and back `rounds` times over each pair of connected sockets; returns ring_wait's calls."""
        cdef size_t n = len(pairs)
        cdef End *ends = <End *> calloc(2 * n, sizeof(End))
        cdef size_t i
        cdef size_t left = 2 * n
        cdef uint64_t waits = 0
        for i in range(n):
            open_end(&ends[2 * i], self.ring, pairs[i][0], size, rounds, &left)
            open_end(&ends[2 * i + 1], self.ring, pairs[i][1], size, rounds, &left)
        with nogil:
            for i in range(2 * n):
                ring_recv_any(self.ring, &ends[i].receive, ends[i].fd)
                if i % 2 == 0:
                    end_send(&ends[i])
            while left:
                ring_wait(self.ring, -1)
                waits += 1
        for i in range(2 * n):
            free(ends[i].iov.iov_base)
        free(ends)
        return waits


cdef void free_call(Call *call) noexcept:
    free(call.bytes)
    free(call)


# ---- ping-pong: submits from inside done, as the broker does

cdef struct End:
    Op receive                      # first: its done gets the End by the Op's address
    Op send
    Ring *ring
    int fd
    uint32_t size
    uint32_t got
    uint64_t rounds                 # messages still to come
    uint64_t answers                # messages still to go
    iovec iov
    msghdr message
    size_t *left                    # Ends that are not through


cdef void open_end(End *end, Ring *ring, int fd, uint32_t size, uint64_t rounds, size_t *left) noexcept:
    end.receive.done = end_received
    end.send.done = end_sent
    end.ring = ring
    end.fd = fd
    end.size = size
    end.rounds = rounds
    end.answers = rounds
    end.iov.iov_base = calloc(1, size)
    end.message.msg_iov = &end.iov
    end.message.msg_iovlen = 1
    end.left = left


cdef void end_send(End *end) noexcept nogil:
    if end.answers:
        end.answers -= 1
        end.iov.iov_len = end.size
        ring_sendmsg(end.ring, &end.send, end.fd, &end.message)


cdef void end_sent(Op *op) noexcept nogil:
    cdef End *end = <End *> (<uint8_t *> op - sizeof(Op))
    if op.res > 0 and <size_t> op.res < end.iov.iov_len:
        end.iov.iov_len -= <size_t> op.res
        ring_sendmsg(end.ring, &end.send, end.fd, &end.message)


cdef void end_received(Op *op) noexcept nogil:
    cdef End *end = <End *> op
    if op.res <= 0:
        end.left[0] -= 1
        return
    end.got += <uint32_t> op.res
    if end.got >= end.size:
        end.got -= end.size
        end.rounds -= 1
        end_send(end)
        if end.rounds == 0:
            end.left[0] -= 1
            return
    ring_recv_any(end.ring, &end.receive, end.fd)


# ---- jobs

cdef struct Task:
    Job job
    uint64_t number
    int64_t sleep_ns
    uint64_t began                  # its place in the order in which jobs were begun
    uint64_t *began_next
    Task **ended
    Task *next


cdef void task_run(Job *job) noexcept nogil:
    cdef Task *task = <Task *> job
    cdef timespec pause
    task.began = fetch_next(task.began_next)
    if task.sleep_ns:
        pause.tv_sec = task.sleep_ns // 1000000000
        pause.tv_nsec = <long> (task.sleep_ns % 1000000000)
        nanosleep(&pause, NULL)


cdef void task_done(Job *job) noexcept nogil:
    cdef Task *task = <Task *> job
    task.next = task.ended[0]
    task.ended[0] = task


cdef class Workers:
    """A pool and one Home at the ring of `driver`; jobs sleep for a given time."""
    cdef Driver driver
    cdef Pool *pool
    cdef Home *home
    cdef Task *ended
    cdef uint64_t began_next
    cdef uint64_t numbers

    def __cinit__(self, Driver driver, int threads):
        cdef int error = pool_open(&self.pool, threads)
        if error < 0:
            raise OSError(-error, os.strerror(-error))
        self.driver = driver
        self.home = home_open(driver.ring)

    def submit(self, int lane, int64_t sleep_ns=0):
        cdef Task *task = <Task *> calloc(1, sizeof(Task))
        self.numbers += 1
        task.number = self.numbers
        task.sleep_ns = sleep_ns
        task.began_next = &self.began_next
        task.ended = &self.ended
        task.job.run = task_run
        task.job.done = task_done
        work_submit(self.pool, self.home, &task.job, lane)
        return task.number

    def reap(self):
        """Runs done of what finished: [(number, its place in the order of beginning)], in the order of `done`."""
        cdef int n = work_reap(self.home)
        cdef Task *task = self.ended
        cdef Task *following
        self.ended = NULL
        taken = []
        while task != NULL:
            taken.append((task.number, task.began))
            following = task.next
            free(task)
            task = following
        assert len(taken) == n
        taken.reverse()
        return taken

    @property
    def pending(self):
        return work_pending(self.home)

    def close_pool(self):
        """Finishes queued jobs."""
        with nogil:
            pool_close(self.pool)
        self.pool = NULL

    def close(self):
        if self.pool != NULL:
            self.close_pool()
        self.reap()
        home_close(self.home)

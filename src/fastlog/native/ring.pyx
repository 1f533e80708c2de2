"""The front of a ring: chooses an engine, fills the Ops, and hands them to it."""
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memset
from posix.unistd cimport close
from fastlog.native.ring_common cimport (
    OP_ACCEPT, OP_FDATASYNC, OP_READ, OP_RECV, OP_RECV_ANY, OP_SENDMSG, OP_WRITE, Wake, wake_up)
from fastlog.native.ring_epoll cimport Epoll, epoll_cancel, epoll_close, epoll_open, epoll_stats, epoll_submit, epoll_wait
from fastlog.native.ring_uring cimport (
    Uring, uring_cancel, uring_close, uring_open, uring_start, uring_stats, uring_submit, uring_wait)

cdef extern from "<errno.h>" nogil:
    int errno

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t n)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    int EFD_CLOEXEC

cdef enum:
    WHY = 640

cdef struct Ring:
    Wake wake
    Uring *uring                    # one of the three
    Epoll *epoll
    const RingEngine *given
    char[640] why


cdef int ring_open(Ring **out, const RingConfig *config, char *why, size_t why_len) noexcept nogil:
    return ring_open_without(out, config, 0, why, why_len)


cdef int ring_open_without(Ring **out, const RingConfig *config, uint32_t without, char *why, size_t why_len) noexcept nogil:
    cdef char[256] refused
    cdef char[256] inside
    cdef const char *chosen
    cdef int error
    cdef Ring *ring = NULL
    if config.entries == 0 or config.recv_buffer_bytes == 0:
        snprintf(why, why_len, b"a ring needs submission entries and receive buffers")
        return -EINVAL
    ring = <Ring *> aligned_alloc(64, (sizeof(Ring) + 63) // 64 * 64)
    if ring == NULL:
        snprintf(why, why_len, b"out of memory")
        return -ENOMEM
    memset(ring, 0, sizeof(Ring))
    # Blocking, though nothing ever reads from it under io_uring, and a write to it could only block after 2^64 wake-ups.
    ring.wake.fd = eventfd(0, EFD_CLOEXEC)
    if ring.wake.fd < 0:
        error = -errno
        snprintf(why, why_len, b"eventfd: error %d", -error)
        free(ring)
        return error
    error = -EINVAL
    refused[0] = 0
    if config.kind == RING_GIVEN:
        ring.given = config.given
        snprintf(ring.why, WHY, b"given")
        out[0] = ring
        return 0
    if config.kind != RING_EPOLL:
        error = uring_open(&ring.uring, config, without, &ring.wake, refused, sizeof(refused))
        if error == 0:
            chosen = b"as asked" if config.kind == RING_URING else b"which works here"
            snprintf(ring.why, WHY, b"io_uring, %s: %s", chosen, refused)
    if error < 0 and config.kind != RING_URING:
        error = epoll_open(&ring.epoll, config, &ring.wake, inside, sizeof(inside))
        if error == 0:
            chosen = b"as asked"
            if config.kind != RING_EPOLL:
                chosen = refused
            snprintf(ring.why, WHY, b"epoll, %s: %s", chosen, inside)
        else:
            snprintf(refused, sizeof(refused), b"%s", inside)
    if error < 0:
        snprintf(why, why_len, b"%s", refused)
        close(ring.wake.fd)
        free(ring)
        return error
    out[0] = ring
    return 0


cdef int ring_start(Ring *ring) noexcept nogil:
    return uring_start(ring.uring) if ring.uring != NULL else 0


cdef void ring_close(Ring *ring) noexcept nogil:
    if ring.uring != NULL:
        uring_close(ring.uring)
    elif ring.epoll != NULL:
        epoll_close(ring.epoll)
    close(ring.wake.fd)
    free(ring)


cdef RingKind ring_kind(const Ring *ring) noexcept nogil:
    if ring.given != NULL:
        return RING_GIVEN
    return RING_URING if ring.uring != NULL else RING_EPOLL


cdef const char *ring_why(const Ring *ring) noexcept nogil:
    return ring.why


cdef void ring_stats(const Ring *ring, RingStats *out) noexcept nogil:
    if ring.uring != NULL:
        uring_stats(ring.uring, out)
    elif ring.given != NULL:
        memset(out, 0, sizeof(RingStats))
    else:
        epoll_stats(ring.epoll, out)


cdef int ring_wait(Ring *ring, int64_t timeout_ns) noexcept nogil:
    if ring.uring != NULL:
        return uring_wait(ring.uring, timeout_ns)
    if ring.given != NULL:
        return ring.given.op_wait(ring.given.context, timeout_ns)
    return epoll_wait(ring.epoll, timeout_ns)


cdef void ring_wake(Ring *ring) noexcept nogil:
    wake_up(&ring.wake)


cdef inline void submit(Ring *ring, Op *op) noexcept nogil:
    if ring.uring != NULL:
        uring_submit(ring.uring, op)
    elif ring.given != NULL:
        ring.given.op_submit(ring.given.context, op)
    else:
        epoll_submit(ring.epoll, op)


cdef void ring_accept(Ring *ring, Op *op, int fd) noexcept nogil:
    op.kind = OP_ACCEPT
    op.fd = fd
    submit(ring, op)


cdef void ring_recv(Ring *ring, Op *op, int fd, void *buf, size_t n) noexcept nogil:
    op.kind = OP_RECV
    op.fd = fd
    op.buf = buf
    op.length = n
    submit(ring, op)


cdef void ring_recv_any(Ring *ring, Op *op, int fd) noexcept nogil:
    op.kind = OP_RECV_ANY
    op.fd = fd
    op.buf = NULL
    submit(ring, op)


cdef void ring_sendmsg(Ring *ring, Op *op, int fd, msghdr *message) noexcept nogil:
    op.kind = OP_SENDMSG
    op.fd = fd
    op.buf = message
    submit(ring, op)


cdef void ring_writev(Ring *ring, Op *op, int fd, const iovec *iov, int n, int64_t offset, int rw_flags) noexcept nogil:
    op.kind = OP_WRITE
    op.fd = fd
    op.buf = <void *> iov
    op.length = <uint64_t> n
    op.offset = offset
    op.rw_flags = rw_flags
    submit(ring, op)


cdef void ring_readv(Ring *ring, Op *op, int fd, const iovec *iov, int n, int64_t offset) noexcept nogil:
    op.kind = OP_READ
    op.fd = fd
    op.buf = <void *> iov
    op.length = <uint64_t> n
    op.offset = offset
    op.rw_flags = 0
    submit(ring, op)


cdef void ring_fdatasync(Ring *ring, Op *op, int fd) noexcept nogil:
    op.kind = OP_FDATASYNC
    op.fd = fd
    submit(ring, op)


cdef void ring_cancel(Ring *ring, Op *op) noexcept nogil:
    if ring.uring != NULL:
        uring_cancel(ring.uring, op)
    elif ring.given != NULL:
        ring.given.op_cancel(ring.given.context, op)
    else:
        epoll_cancel(ring.epoll, op)

"""The io_uring engine (io_uring(7), liburing).

A submission is written straight into the submission queue; what does not fit waits in `backlog`. The kernel is entered from
uring_wait only. Completions of receives and the like that ask for another try (EINTR, EAGAIN, no buffer free) are submitted again from
the Op's own fields and never seen by its owner.

The descriptor of the wake-up is polled with one multishot request and never read: each write to it is an edge, and an edge is a completion.
"""
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EINVAL, ENOBUFS, ENOMEM, ENOSYS
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strerror
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close
from fastlog.native.ring cimport (
    Op, OP_MORE, RING_BUFFERS, RING_DEFER_TASKRUN, RING_MULTISHOT, RING_POLL_FIRST, RING_SINGLE_ISSUER, RING_COOP_TASKRUN, RingConfig,
    RingStats, iovec, msghdr)
from fastlog.native.ring_common cimport (
    FL_ASSERT, OP_ACCEPT, OP_FDATASYNC, OP_READ, OP_RECV, OP_RECV_ANY, OP_SENDMSG, OP_WRITE, RUN_MAX, STATE_ACTIVE, STATE_CANCEL,
    STATE_DRAINED, STATE_LISTED, STATE_POLL, STATE_THREAD, OpList, Wake, list_append, list_pop, list_remove, note_drained, op_finish,
    wake_awake, wake_may_sleep)

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *p, size_t n, int advice)
    int MADV_DONTFORK

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int SOCK_CLOEXEC
    int SOCK_NONBLOCK

cdef extern from "<poll.h>" nogil:
    short POLLIN

cdef extern from "<errno.h>" nogil:
    int errno
    int ECANCELED

cdef extern from "liburing.h" nogil:
    struct io_uring_sq:
        unsigned *kflags
    struct io_uring:
        io_uring_sq sq
        unsigned features
    struct io_uring_params:
        unsigned flags
        unsigned cq_entries
    struct io_uring_sqe:
        uint8_t flags
        uint16_t ioprio
        uint16_t buf_group
        int rw_flags
        uint64_t user_data
    struct io_uring_cqe:
        uint64_t user_data
        int32_t res
        uint32_t flags
    struct io_uring_buf_ring:
        pass
    struct io_uring_probe:
        pass
    struct timespec "__kernel_timespec":
        int64_t tv_sec
        long long tv_nsec
    unsigned IORING_SETUP_CQSIZE, IORING_SETUP_CLAMP, IORING_SETUP_R_DISABLED, IORING_SETUP_SUBMIT_ALL, IORING_SETUP_COOP_TASKRUN
    unsigned IORING_SETUP_TASKRUN_FLAG, IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_NO_SQARRAY
    unsigned IORING_FEAT_NODROP, IORING_FEAT_EXT_ARG, IORING_FEAT_FAST_POLL
    unsigned IORING_SQ_TASKRUN, IORING_SQ_CQ_OVERFLOW, IORING_FSYNC_DATASYNC
    unsigned IORING_CQE_F_BUFFER, IORING_CQE_F_MORE, IORING_CQE_F_SOCK_NONEMPTY, IORING_CQE_BUFFER_SHIFT
    unsigned IORING_RECVSEND_POLL_FIRST, IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY
    unsigned IOSQE_BUFFER_SELECT, IOSQE_ASYNC
    int IORING_OP_ACCEPT, IORING_OP_RECV, IORING_OP_SENDMSG, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV, IORING_OP_WRITEV
    int IORING_OP_SEND, IORING_OP_FSYNC, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_SENDMSG_ZC
    int io_uring_queue_init_params(unsigned entries, io_uring *ring, io_uring_params *params)
    void io_uring_queue_exit(io_uring *ring)
    int io_uring_ring_dontfork(io_uring *ring)
    int io_uring_enable_rings(io_uring *ring)
    int io_uring_register_ring_fd(io_uring *ring)
    int io_uring_register_files(io_uring *ring, const int *files, unsigned n)
    io_uring_probe *io_uring_get_probe_ring(io_uring *ring)
    int io_uring_opcode_supported(const io_uring_probe *probe, int op)
    void io_uring_free_probe(io_uring_probe *probe)
    io_uring_buf_ring *io_uring_setup_buf_ring(io_uring *ring, unsigned n, int group, unsigned flags, int *error)
    int io_uring_free_buf_ring(io_uring *ring, io_uring_buf_ring *buffers, unsigned n, int group)
    int io_uring_buf_ring_mask(uint32_t n)
    void io_uring_buf_ring_add(io_uring_buf_ring *buffers, void *p, unsigned length, unsigned short id, int mask, int offset)
    void io_uring_buf_ring_advance(io_uring_buf_ring *buffers, int n)
    io_uring_sqe *io_uring_get_sqe(io_uring *ring)
    unsigned io_uring_sq_ready(const io_uring *ring)
    unsigned io_uring_cq_ready(const io_uring *ring)
    unsigned io_uring_peek_batch_cqe(io_uring *ring, io_uring_cqe **out, unsigned n)
    void io_uring_cq_advance(io_uring *ring, unsigned n)
    int io_uring_submit(io_uring *ring)
    int io_uring_submit_and_wait(io_uring *ring, unsigned n)
    int io_uring_submit_and_wait_timeout(io_uring *ring, io_uring_cqe **out, unsigned n, timespec *ts, void *mask)
    int io_uring_submit_and_get_events(io_uring *ring)
    void io_uring_prep_accept(io_uring_sqe *sqe, int fd, void *address, void *length, int flags)
    void io_uring_prep_multishot_accept(io_uring_sqe *sqe, int fd, void *address, void *length, int flags)
    void io_uring_prep_recv(io_uring_sqe *sqe, int fd, void *buf, size_t n, int flags)
    void io_uring_prep_sendmsg(io_uring_sqe *sqe, int fd, const msghdr *message, unsigned flags)
    void io_uring_prep_send(io_uring_sqe *sqe, int fd, const void *buf, size_t n, int flags)
    void io_uring_prep_write(io_uring_sqe *sqe, int fd, const void *buf, unsigned n, uint64_t offset)
    void io_uring_prep_read(io_uring_sqe *sqe, int fd, void *buf, unsigned n, uint64_t offset)
    void io_uring_prep_writev(io_uring_sqe *sqe, int fd, const iovec *iov, unsigned n, uint64_t offset)
    void io_uring_prep_readv(io_uring_sqe *sqe, int fd, const iovec *iov, unsigned n, uint64_t offset)
    void io_uring_prep_fsync(io_uring_sqe *sqe, int fd, unsigned flags)
    void io_uring_prep_poll_add(io_uring_sqe *sqe, int fd, unsigned mask)
    void io_uring_prep_poll_multishot(io_uring_sqe *sqe, int fd, unsigned mask)
    void io_uring_prep_cancel(io_uring_sqe *sqe, void *data, int flags)

cdef enum:
    TOKEN_IGNORE = 0                # user_data of what nobody waits for: cancellations
    TOKEN_WAKE = 1                  # and of the wake-up's poll; all else is an Op, whose address is larger
    BUFFER_GROUP = 0
    BUFFERS_MAX = 32768             # the kernel's limit
    CQES_MIN = 4096
    ENTRIES_MIN = 32                # what a ring shrinks to at most when memory is short
    IN_LINE_MAX = 0x7FFFF000        # MAX_RW_COUNT: what one read or write moves at most

cdef struct Uring:
    io_uring ring
    Wake *wake
    uint32_t features               # RingFeature bits in use
    uint32_t entries
    bint started
    bint listening                  # the wake-up's poll is armed, or about to be submitted
    bint ended                      # closing: no done is called any more
    io_uring_buf_ring *buffers      # NULL: ring_recv_any polls, then receives into the one buffer
    uint8_t *memory
    size_t memory_bytes
    uint32_t buffer_count
    uint32_t buffer_bytes
    uint64_t inflight               # Ops that the kernel has, or that are in the submission queue
    OpList backlog                  # submitted by their owner, no room in the queue yet
    OpList cancels                  # in flight, and the request to cancel found no room
    OpList cancelled                # ended without ever getting to the kernel; done is owed
    RingStats stats


# ---- opening

cdef int uring_open(Uring **out, const RingConfig *config, uint32_t without, Wake *wake, char *why, size_t why_len) noexcept nogil:
    cdef int error
    cdef Uring *u = <Uring *> calloc(1, sizeof(Uring))
    if u == NULL:
        snprintf(why, why_len, b"io_uring: out of memory")
        return -ENOMEM
    u.wake = wake
    error = setup_ring(u, config.entries, without)
    if error < 0:
        snprintf(why, why_len, b"io_uring_setup: %s%s", strerror(-error), either(error == -ENOMEM, b" (RLIMIT_MEMLOCK?)", b""))
        free(u)
        return error
    error = check_opcodes(u)
    if error < 0:
        snprintf(why, why_len, b"io_uring: this kernel's lacks operations or features of Linux 6.1")
    if error == 0 and config.lock_fds_n > 0:
        error = io_uring_register_files(&u.ring, config.lock_fds, config.lock_fds_n)
        if error < 0:
            snprintf(why, why_len, b"io_uring: registering the lock files: %s", strerror(-error))
    if error == 0:
        error = setup_buffers(u, config, without)
        if error < 0:
            snprintf(why, why_len, b"io_uring: %u receive buffers of %u bytes: %s", config.recv_buffers, config.recv_buffer_bytes,
                     strerror(-error))
    if error < 0:
        uring_close(u)
        return error
    if not without & RING_MULTISHOT:
        u.features |= RING_MULTISHOT
    if not without & RING_POLL_FIRST:
        u.features |= RING_POLL_FIRST
    io_uring_ring_dontfork(&u.ring)
    describe(u, config.lock_fds_n > 0, why, why_len)
    out[0] = u
    return 0


cdef const char *either(bint first, const char *one, const char *other) noexcept nogil:
    return one if first else other


cdef void describe(const Uring *u, bint locked, char *why, size_t why_len) noexcept nogil:
    snprintf(why, why_len, b"%u entries, %s%s%s%s%s", u.entries, either(u.features & RING_SINGLE_ISSUER, b"single issuer, ", b""),
             either(u.features & RING_DEFER_TASKRUN, b"deferred task work, ", b""),
             either(u.features & RING_MULTISHOT, b"multishot accept, ", b""),
             either(u.features & RING_BUFFERS, b"receive buffers picked by the kernel", b"receive after poll"),
             either(locked, b", lock file registered", b""))


cdef int setup_ring(Uring *u, uint32_t entries, uint32_t without) noexcept nogil:
    """Asks for all set-up flags, and drops one after another, the newest first, while the kernel does not know them. Newer kernels count
    the queues as locked memory of the user (RLIMIT_MEMLOCK): where that is short, they get smaller."""
    cdef unsigned[5] optional
    cdef io_uring_params params
    cdef unsigned flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED
    cdef unsigned cqes = entries * 4 if entries * 4 > CQES_MIN else CQES_MIN
    cdef int error, i
    optional[0] = IORING_SETUP_NO_SQARRAY                                       # 6.6
    optional[1] = IORING_SETUP_DEFER_TASKRUN                                    # 6.1
    optional[2] = IORING_SETUP_SINGLE_ISSUER                                    # 6.0
    optional[3] = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG         # 5.19
    optional[4] = IORING_SETUP_SUBMIT_ALL                                       # 5.18
    if without & (RING_DEFER_TASKRUN | RING_SINGLE_ISSUER):
        optional[1] = 0                                                         # deferring needs a single issuer
    if without & RING_SINGLE_ISSUER:
        optional[2] = 0
    if without & RING_COOP_TASKRUN:
        optional[3] = 0 if optional[1] == 0 else IORING_SETUP_TASKRUN_FLAG
    for i in range(5):
        flags |= optional[i]
    i = 0
    while True:
        memset(&params, 0, sizeof(params))
        params.flags = flags
        params.cq_entries = cqes
        error = io_uring_queue_init_params(entries, &u.ring, &params)
        if error == -ENOMEM and entries > ENTRIES_MIN:
            entries //= 2
            cqes //= 2
        elif error == -EINVAL and i < 5:
            flags &= ~optional[i]
            i += 1
        else:
            break
    if error < 0:
        return error
    u.entries = entries
    if flags & IORING_SETUP_DEFER_TASKRUN:
        u.features |= RING_DEFER_TASKRUN
    if flags & IORING_SETUP_SINGLE_ISSUER:
        u.features |= RING_SINGLE_ISSUER
    if flags & IORING_SETUP_COOP_TASKRUN:
        u.features |= RING_COOP_TASKRUN
    return 0


cdef int check_opcodes(Uring *u) noexcept nogil:
    """Whether this is Linux 6.1 or has its features ported back: an operation that came with it stands for the flags of others that no
    probe shows (cancel any, poll first). Older io_uring is left alone."""
    cdef unsigned wanted = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL
    cdef int[12] ops
    cdef int i, error = 0
    cdef io_uring_probe *probe = io_uring_get_probe_ring(&u.ring)
    if probe == NULL or u.ring.features & wanted != wanted:
        error = -ENOSYS
    ops[:] = [IORING_OP_ACCEPT, IORING_OP_RECV, IORING_OP_SENDMSG, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV, IORING_OP_WRITEV,
              IORING_OP_FSYNC, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_SENDMSG_ZC,
              IORING_OP_SEND]
    for i in range(12):
        if error == 0 and not io_uring_opcode_supported(probe, ops[i]):
            error = -ENOSYS
    if probe != NULL:
        io_uring_free_probe(probe)
    return error


cdef int setup_buffers(Uring *u, const RingConfig *config, uint32_t without) noexcept nogil:
    """Registers the receive buffers, or makes the one that stands in where a kernel has no buffer rings."""
    cdef uint32_t n = 1, i
    cdef int error = -EINVAL
    u.buffer_bytes = config.recv_buffer_bytes
    while n < config.recv_buffers and n < BUFFERS_MAX:
        n *= 2
    if not without & RING_BUFFERS:
        u.buffers = io_uring_setup_buf_ring(&u.ring, n, BUFFER_GROUP, 0, &error)
        if u.buffers == NULL and error != -EINVAL and error != -ENOSYS and error != -ENOMEM:
            return error
    u.buffer_count = n if u.buffers != NULL else 1
    u.memory_bytes = <size_t> u.buffer_count * u.buffer_bytes
    u.memory = <uint8_t *> mmap(NULL, u.memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if <void *> u.memory == MAP_FAILED:
        u.memory = NULL
        return -ENOMEM
    madvise(u.memory, u.memory_bytes, MADV_DONTFORK)
    if u.buffers != NULL:
        u.features |= RING_BUFFERS
        for i in range(n):
            io_uring_buf_ring_add(u.buffers, u.memory + <size_t> i * u.buffer_bytes, u.buffer_bytes, <unsigned short> i,
                                  io_uring_buf_ring_mask(n), <int> i)
        io_uring_buf_ring_advance(u.buffers, <int> n)
    return 0


cdef int uring_start(Uring *u) noexcept nogil:
    """The ring is disabled until here, so that the thread that enables it becomes its one issuer."""
    cdef int error = io_uring_enable_rings(&u.ring)
    if error < 0:
        return error
    u.started = True
    io_uring_register_ring_fd(&u.ring)      # saves the lookup of the descriptor on each call; without it all works as well
    return 0


cdef void listen(Uring *u) noexcept nogil:
    """Arms the poll of the wake-up, if there is room."""
    cdef io_uring_sqe *sqe = io_uring_get_sqe(&u.ring)
    if sqe != NULL:
        io_uring_prep_poll_multishot(sqe, u.wake.fd, POLLIN)
        sqe.user_data = TOKEN_WAKE
        u.listening = True


# ---- closing

cdef void uring_close(Uring *u) noexcept nogil:
    cdef io_uring_sqe *sqe
    cdef timespec pause
    cdef io_uring_cqe *first
    u.ended = True
    pause.tv_sec = 0
    pause.tv_nsec = 20000000
    # Asked for again and again, as a request may be between two states; a write under way ends when the disk is done with it.
    while u.started and u.inflight:
        sqe = io_uring_get_sqe(&u.ring)
        if sqe != NULL:
            io_uring_prep_cancel(sqe, NULL, <int> (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY))
            sqe.user_data = TOKEN_IGNORE
        io_uring_submit_and_wait_timeout(&u.ring, &first, 1, &pause, NULL)
        reap(u)
    if u.buffers != NULL:
        io_uring_free_buf_ring(&u.ring, u.buffers, u.buffer_count, BUFFER_GROUP)
    io_uring_queue_exit(&u.ring)
    if u.memory != NULL:
        munmap(u.memory, u.memory_bytes)
    free(u)


# ---- submitting

cdef void uring_submit(Uring *u, Op *op) noexcept nogil:
    op.state = <uint8_t> ((op.state & STATE_DRAINED) | STATE_ACTIVE)
    u.stats.submitted += 1
    enqueue(u, op)


cdef void enqueue(Uring *u, Op *op) noexcept nogil:
    if u.backlog.first != NULL or not push(u, op):
        list_append(&u.backlog, op)
        if u.backlog.count > u.stats.backlog_max:
            u.stats.backlog_max = u.backlog.count


cdef bint push(Uring *u, Op *op) noexcept nogil:
    """Writes the Op into the submission queue, from its fields; False when that is full."""
    cdef io_uring_sqe *sqe = io_uring_get_sqe(&u.ring)
    cdef const iovec *iov
    cdef const msghdr *message
    cdef bint poll_first
    if sqe == NULL:
        return False
    poll_first = op.state & STATE_POLL or u.features & RING_POLL_FIRST and op.state & STATE_DRAINED and op.kind != OP_SENDMSG
    if op.kind == OP_RECV_ANY:
        if u.buffers == NULL:
            io_uring_prep_poll_add(sqe, op.fd, POLLIN)
        else:
            io_uring_prep_recv(sqe, op.fd, NULL, 0, 0)
            sqe.flags |= <uint8_t> IOSQE_BUFFER_SELECT
            sqe.buf_group = BUFFER_GROUP
            if poll_first:
                sqe.ioprio |= <uint16_t> IORING_RECVSEND_POLL_FIRST
    elif op.kind == OP_RECV:
        io_uring_prep_recv(sqe, op.fd, op.buf, op.length, 0)
        if poll_first:
            sqe.ioprio |= <uint16_t> IORING_RECVSEND_POLL_FIRST
    elif op.kind == OP_SENDMSG:
        message = <const msghdr *> op.buf
        if message.msg_iovlen == 1 and message.msg_controllen == 0 and message.msg_namelen == 0:
            io_uring_prep_send(sqe, op.fd, message.msg_iov.iov_base, message.msg_iov.iov_len, MSG_NOSIGNAL)    # nothing to copy
        else:
            io_uring_prep_sendmsg(sqe, op.fd, message, <unsigned> MSG_NOSIGNAL)
        if poll_first:
            sqe.ioprio |= <uint16_t> IORING_RECVSEND_POLL_FIRST
    elif op.kind == OP_WRITE or op.kind == OP_READ:
        iov = <const iovec *> op.buf
        if op.length == 1 and iov.iov_len <= IN_LINE_MAX:       # without the vector the kernel has nothing to copy
            if op.kind == OP_WRITE:
                io_uring_prep_write(sqe, op.fd, iov.iov_base, <unsigned> iov.iov_len, <uint64_t> op.offset)
            else:
                io_uring_prep_read(sqe, op.fd, iov.iov_base, <unsigned> iov.iov_len, <uint64_t> op.offset)
        elif op.kind == OP_WRITE:
            io_uring_prep_writev(sqe, op.fd, iov, <unsigned> op.length, <uint64_t> op.offset)
        else:
            io_uring_prep_readv(sqe, op.fd, iov, <unsigned> op.length, <uint64_t> op.offset)
        sqe.rw_flags = op.rw_flags
        if op.state & STATE_THREAD:
            sqe.flags |= <uint8_t> IOSQE_ASYNC
    elif op.kind == OP_FDATASYNC:
        io_uring_prep_fsync(sqe, op.fd, IORING_FSYNC_DATASYNC)
    elif u.features & RING_MULTISHOT and not op.state & STATE_POLL:
        io_uring_prep_multishot_accept(sqe, op.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
    else:
        io_uring_prep_accept(sqe, op.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
    sqe.user_data = <uint64_t> <uintptr_t> op
    u.inflight += 1
    return True


cdef bint push_cancel(Uring *u, Op *op) noexcept nogil:
    cdef io_uring_sqe *sqe = io_uring_get_sqe(&u.ring)
    if sqe == NULL:
        return False
    io_uring_prep_cancel(sqe, op, 0)
    sqe.user_data = TOKEN_IGNORE
    return True


cdef void uring_cancel(Uring *u, Op *op) noexcept nogil:
    """A cancellation goes in front of any later submission of the same Op: queue, then `cancels`, then `backlog`, each in order."""
    if not op.state & STATE_ACTIVE or op.state & STATE_CANCEL:
        return
    op.state |= STATE_CANCEL
    if op.state & STATE_LISTED:             # in the backlog: the kernel never saw it
        list_remove(&u.backlog, op)
        list_append(&u.cancelled, op)
    elif not push_cancel(u, op):
        list_append(&u.cancels, op)


cdef void fill(Uring *u) noexcept nogil:
    """Moves what waits into the submission queue, as far as there is room."""
    if not u.listening:
        listen(u)
    while u.cancels.first != NULL and push_cancel(u, u.cancels.first):
        list_pop(&u.cancels)
    while u.backlog.first != NULL and push(u, u.backlog.first):
        list_pop(&u.backlog)


# ---- completions

cdef int uring_wait(Uring *u, int64_t timeout_ns) noexcept nogil:
    cdef int ran, error
    fill(u)
    while u.backlog.first != NULL:          # the queue is full: more goes in once the kernel took it
        error = io_uring_submit(&u.ring)
        if error <= 0:
            break
        fill(u)
    ran = run_cancelled(u)
    if (ran or timeout_ns == 0 or u.backlog.first != NULL or not u.listening or io_uring_cq_ready(&u.ring)
            or not wake_may_sleep(u.wake)):
        if io_uring_sq_ready(&u.ring) or u.ring.sq.kflags[0] & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW):
            io_uring_submit_and_get_events(&u.ring)
    else:
        enter(u, timeout_ns)
        u.stats.waits += 1
    if wake_awake(u.wake):
        u.stats.wakes += 1
    ran += reap(u)
    return ran


cdef void enter(Uring *u, int64_t timeout_ns) noexcept nogil:
    """Submits and sleeps. Errors (a signal, the time-out, memory for the moment) end the wait; what was not submitted stays queued."""
    cdef timespec ts
    cdef io_uring_cqe *first
    if timeout_ns < 0:
        io_uring_submit_and_wait(&u.ring, 1)
    else:
        ts.tv_sec = timeout_ns // 1000000000
        ts.tv_nsec = timeout_ns % 1000000000
        io_uring_submit_and_wait_timeout(&u.ring, &first, 1, &ts, NULL)


cdef int run_cancelled(Uring *u) noexcept nogil:
    cdef uint64_t n = u.cancelled.count
    cdef uint64_t _i
    for _i in range(n):                     # those that are cancelled meanwhile have their turn next time
        op_finish(list_pop(&u.cancelled), -ECANCELED, 0)
    u.stats.completed += n
    return <int> n


cdef int reap(Uring *u) noexcept nogil:
    """Runs up to about RUN_MAX completions. A batch stays in the completion queue while it runs; nothing in it enters the kernel."""
    cdef io_uring_cqe *batch[64]
    cdef unsigned n, i
    cdef uint64_t data
    cdef uint64_t before = u.stats.completed
    while True:
        n = io_uring_peek_batch_cqe(&u.ring, batch, 64)
        for i in range(n):
            data = batch[i].user_data
            if data > TOKEN_WAKE:
                complete(u, <Op *> <uintptr_t> data, batch[i].res, batch[i].flags)
            elif data == TOKEN_WAKE and not batch[i].flags & IORING_CQE_F_MORE:
                u.listening = False         # the completion queue overflowed: armed again before the next sleep
        io_uring_cq_advance(&u.ring, n)
        if n < 64 or u.stats.completed - before >= RUN_MAX:
            return <int> (u.stats.completed - before)


cdef void again(Uring *u, Op *op) noexcept nogil:
    """Submits an Op once more that its owner need not hear of, unless it was cancelled meanwhile."""
    if op.state & STATE_CANCEL:
        finish(u, op, -ECANCELED, 0)
    else:
        enqueue(u, op)


cdef void finish(Uring *u, Op *op, int res, uint32_t flags) noexcept nogil:
    u.stats.completed += 1
    if res == -EINTR and op.state & STATE_CANCEL:
        res = -ECANCELED                    # how a worker of the kernel reports that it was stopped
    op_finish(op, res, flags)


cdef void complete(Uring *u, Op *op, int res, uint32_t cqe_flags) noexcept nogil:
    if not cqe_flags & IORING_CQE_F_MORE:
        u.inflight -= 1
        if op.state & STATE_LISTED:         # the request to cancel it is still waiting for room
            list_remove(&u.cancels, op)
    if op.kind == OP_RECV_ANY:
        complete_recv_any(u, op, res, cqe_flags)
    elif u.ended:
        if op.kind == OP_ACCEPT and res >= 0:
            close(res)
    elif op.kind == OP_ACCEPT:
        complete_accept(u, op, res, cqe_flags)
    elif res == -EINTR or res == -EAGAIN:
        op.state |= STATE_POLL if op.kind == OP_RECV or op.kind == OP_SENDMSG else STATE_THREAD
        again(u, op)
    else:
        if op.kind == OP_RECV:
            note_drained(op, res >= 0 and <uint64_t> res < op.length and not cqe_flags & IORING_CQE_F_SOCK_NONEMPTY)
        finish(u, op, res, 0)


cdef void complete_accept(Uring *u, Op *op, int res, uint32_t cqe_flags) noexcept nogil:
    cdef bint more = cqe_flags & IORING_CQE_F_MORE
    if res >= 0:
        if op.state & STATE_POLL:
            u.features &= ~<uint32_t> RING_MULTISHOT    # one shot works where multishot did not
        if not more and op.state & STATE_CANCEL:        # it ended by itself, and the cancellation will find nothing
            finish(u, op, res, OP_MORE)
            finish(u, op, -ECANCELED, 0)
            return
        if not more:                                    # one shot, or the kernel ended it early: goes on
            enqueue(u, op)
        finish(u, op, res, OP_MORE)
    elif more:
        return
    elif res == -EINVAL and u.features & RING_MULTISHOT and not op.state & STATE_POLL:
        op.state |= STATE_POLL                          # tried as one shot: it may be the descriptor that is wrong, or the kernel
        again(u, op)
    elif res == -EINTR or res == -EAGAIN or res == -ECONNABORTED:
        again(u, op)
    else:
        finish(u, op, res, 0)


cdef void complete_recv_any(Uring *u, Op *op, int res, uint32_t cqe_flags) noexcept nogil:
    cdef uint32_t id = 0
    if u.buffers == NULL:
        if not u.ended:
            recv_after_poll(u, op, res)
        return
    op.buf = NULL
    if cqe_flags & IORING_CQE_F_BUFFER:
        id = cqe_flags >> IORING_CQE_BUFFER_SHIFT
        FL_ASSERT(id < u.buffer_count)
        op.buf = u.memory + <size_t> id * u.buffer_bytes
    if u.ended:
        return
    if res == -ENOBUFS or res == -EINTR or res == -EAGAIN:
        # No buffer: those of the completions before this one are free again by the time that the queue is submitted.
        FL_ASSERT(op.buf == NULL)
        op.state &= ~STATE_DRAINED
        if res == -EAGAIN:
            op.state |= STATE_POLL
        again(u, op)
        return
    note_drained(op, res >= 0 and <uint32_t> res < u.buffer_bytes and not cqe_flags & IORING_CQE_F_SOCK_NONEMPTY)
    if op.buf == NULL:
        finish(u, op, res, 0)
        return
    finish(u, op, res, 0)                   # may free op
    io_uring_buf_ring_add(u.buffers, u.memory + <size_t> id * u.buffer_bytes, u.buffer_bytes, <unsigned short> id,
                          io_uring_buf_ring_mask(u.buffer_count), 0)
    io_uring_buf_ring_advance(u.buffers, 1)


cdef void recv_after_poll(Uring *u, Op *op, int res) noexcept nogil:
    cdef ssize_t n
    if res >= 0:
        n = recv(op.fd, u.memory, u.buffer_bytes, MSG_DONTWAIT)
        res = <int> n if n >= 0 else -errno
    if res == -EAGAIN or res == -EINTR:
        again(u, op)
        return
    op.buf = u.memory
    finish(u, op, res, 0)


cdef void uring_stats(const Uring *u, RingStats *out) noexcept nogil:
    out[0] = u.stats

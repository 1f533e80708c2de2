"""The epoll engine (epoll(7)), for hosts where io_uring is off.

A socket operation is put on the list `ready` and tried from epoll_wait, without blocking; one that would block is parked at its
descriptor until epoll says that it may go on, which puts it back on the list. Descriptors are armed for one event at a time
(EPOLLONESHOT) and only while something is parked there: so one that its owner closed and the kernel gave out again can't be mistaken.
File operations run on a few threads. A killed process keeps all its descriptors, the lock file's too, until the last of them has come
back from the kernel: nothing need be done for RingConfig.lock_fds.
"""
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, ENOENT, ENOMEM, ENOSYS, EPERM
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset, strerror
from posix.unistd cimport close
from fastlog.native.ring cimport Op, OP_MORE, RingConfig, RingStats, iovec, msghdr
from fastlog.native.ring_common cimport (
    OP_ACCEPT, OP_FDATASYNC, OP_RECV, OP_SENDMSG, OP_WRITE, RUN_MAX, STATE_ACTIVE, STATE_CANCEL, STATE_DRAINED,
    STATE_LISTED, STATE_POLL, STATE_THREAD, OpList, Wake, list_append, list_pop, list_remove, note_drained, op_finish, wake_awake,
    wake_may_sleep, wake_up)
from fastlog.native.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait,
    pthread_join, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_t,
    thread_start)

cdef extern from "<errno.h>" nogil:
    int errno
    int ECANCELED

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int accept4(int fd, void *address, void *length, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int SOCK_CLOEXEC
    int SOCK_NONBLOCK

cdef extern from "<sys/uio.h>" nogil:
    ssize_t preadv2(int fd, const iovec *iov, int n, int64_t offset, int flags)
    ssize_t pwritev2(int fd, const iovec *iov, int n, int64_t offset, int flags)

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)
    ssize_t read(int fd, void *buf, size_t n)
    long syscall(long number, ...)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_epoll_pwait2

cdef extern from "<sys/epoll.h>" nogil:
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int c_epoll_wait "epoll_wait"(int epfd, epoll_event *events, int n, int timeout_ms)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR, EPOLLHUP, EPOLLONESHOT

cdef enum:
    EVENTS = 256                    # taken from the kernel at once
    ACCEPTS = 64                    # connections taken from one listener before the others have their turn
    THREADS_MAX = 64

cdef struct Parked:                 # at one descriptor
    OpList readers
    OpList writers

cdef struct Epoll:
    int fd
    Wake *wake
    int sleep_ns                    # whether the kernel has epoll_pwait2 (5.11), with time-outs in ns
    uint8_t *memory                 # behind ring_recv_any: one buffer, as it is in use only inside a done
    uint32_t memory_bytes
    Parked *parked                  # by descriptor
    int parked_count
    OpList ready                    # sockets: to be tried
    OpList ended                    # done is owed, with op.res
    RingStats stats
    pthread_t[64] threads
    int threads_count
    # shared with the threads, under `lock`:
    pthread_mutex_t lock
    pthread_cond_t more
    OpList queue
    OpList finished
    int idle
    bint stop


# ---- opening and closing

cdef int epoll_open(Epoll **out, const RingConfig *config, Wake *wake, char *why, size_t why_len) noexcept nogil:
    cdef epoll_event event
    cdef int wanted = config.io_threads
    cdef int error = 0
    cdef Epoll *e = <Epoll *> calloc(1, sizeof(Epoll))
    if e == NULL:
        snprintf(why, why_len, b"epoll: out of memory")
        return -ENOMEM
    wanted = 1 if wanted < 1 else THREADS_MAX if wanted > THREADS_MAX else wanted
    e.wake = wake
    e.sleep_ns = 1
    pthread_mutex_init(&e.lock, NULL)
    pthread_cond_init(&e.more, NULL)
    e.memory_bytes = config.recv_buffer_bytes
    e.memory = <uint8_t *> calloc(1, e.memory_bytes)
    e.fd = epoll_create1(EPOLL_CLOEXEC)
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN
    event.data.u64 = <uint64_t> wake.fd
    if e.fd < 0 or epoll_ctl(e.fd, EPOLL_CTL_ADD, wake.fd, &event) < 0:
        error = -errno
    elif e.memory == NULL:
        error = -ENOMEM
    else:
        error = start_threads(e, wanted)
    if error < 0:
        snprintf(why, why_len, b"epoll: %s", strerror(-error))
        epoll_close(e)
        return error
    snprintf(why, why_len, b"file operations on %d thread%s", e.threads_count, b"" if e.threads_count == 1 else b"s")
    out[0] = e
    return 0


cdef int start_threads(Epoll *e, int wanted) noexcept nogil:
    cdef int error = 0
    while error == 0 and e.threads_count < wanted:
        error = thread_start(&e.threads[e.threads_count], work, e, b"fastlog-io")
        if error == 0:
            e.threads_count += 1
    return 0 if e.threads_count else error


cdef void epoll_close(Epoll *e) noexcept nogil:
    """A file operation that a thread has is waited for; the others, and all of sockets, are dropped."""
    cdef int i
    pthread_mutex_lock(&e.lock)
    e.stop = True
    memset(&e.queue, 0, sizeof(OpList))
    pthread_cond_broadcast(&e.more)
    pthread_mutex_unlock(&e.lock)
    for i in range(e.threads_count):
        pthread_join(e.threads[i], NULL)
    pthread_cond_destroy(&e.more)
    pthread_mutex_destroy(&e.lock)
    if e.fd >= 0:
        close(e.fd)
    free(e.parked)
    free(e.memory)
    free(e)


# ---- submitting

cdef void epoll_submit(Epoll *e, Op *op) noexcept nogil:
    op.state = <uint8_t> ((op.state & STATE_DRAINED) | STATE_ACTIVE)
    e.stats.submitted += 1
    if op.kind >= OP_WRITE:
        op.state |= STATE_THREAD
        e.stats.punted += 1
        pthread_mutex_lock(&e.lock)
        list_append(&e.queue, op)
        if e.queue.count > e.stats.backlog_max:
            e.stats.backlog_max = e.queue.count
        if e.idle:
            pthread_cond_signal(&e.more)
        pthread_mutex_unlock(&e.lock)
    else:
        list_append(&e.ready, op)


cdef void epoll_cancel(Epoll *e, Op *op) noexcept nogil:
    cdef bint found = True
    if op.kind >= OP_WRITE:
        cancel_file(e, op)
        return
    if not op.state & STATE_ACTIVE or op.state & STATE_CANCEL:
        return
    if op.state & STATE_POLL:
        list_remove(parked_list(e, op), op)
    elif op.state & STATE_LISTED:
        list_remove(&e.ready, op)
    else:
        found = False                           # inside its own done, as accept may be: seen when that returns
        op.state |= STATE_CANCEL
    if found:
        end(e, op, -ECANCELED)


cdef void cancel_file(Epoll *e, Op *op) noexcept nogil:
    """One that no thread has taken yet; what is being done ends by itself."""
    cdef bint found
    pthread_mutex_lock(&e.lock)
    found = op.state & STATE_THREAD and not op.state & STATE_POLL
    if found:
        list_remove(&e.queue, op)
    pthread_mutex_unlock(&e.lock)
    if found:
        end(e, op, -ECANCELED)


cdef void end(Epoll *e, Op *op, int res) noexcept nogil:
    """Its done is called from the next epoll_wait."""
    op.state = <uint8_t> ((op.state & STATE_DRAINED) | STATE_ACTIVE | STATE_CANCEL)
    op.res = res
    list_append(&e.ended, op)


# ---- parking

cdef inline OpList *parked_list(Epoll *e, const Op *op) noexcept nogil:
    return &e.parked[op.fd].writers if op.kind == OP_SENDMSG else &e.parked[op.fd].readers


cdef int grow(Epoll *e, int fd) noexcept nogil:
    cdef int n = 1024 if e.parked_count == 0 else e.parked_count
    cdef Parked *larger
    while n <= fd:
        n *= 2
    larger = <Parked *> realloc(e.parked, <size_t> n * sizeof(Parked))
    if larger == NULL:
        return -ENOMEM
    memset(larger + e.parked_count, 0, <size_t> (n - e.parked_count) * sizeof(Parked))
    e.parked = larger
    e.parked_count = n
    return 0


cdef int arm(Epoll *e, int fd) noexcept nogil:
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.events = EPOLLONESHOT
    event.data.u64 = <uint64_t> fd
    if e.parked[fd].readers.first != NULL:
        event.events |= EPOLLIN | EPOLLRDHUP
    if e.parked[fd].writers.first != NULL:
        event.events |= EPOLLOUT
    if epoll_ctl(e.fd, EPOLL_CTL_MOD, fd, &event) == 0:
        return 0
    if errno == ENOENT and epoll_ctl(e.fd, EPOLL_CTL_ADD, fd, &event) == 0:
        return 0
    return -errno


cdef void park(Epoll *e, Op *op) noexcept nogil:
    cdef int error = 0
    if op.fd < 0 or op.fd >= e.parked_count:
        error = grow(e, op.fd) if op.fd >= 0 else -ENOENT
    if error == 0:
        list_append(parked_list(e, op), op)
        op.state |= STATE_POLL
        error = arm(e, op.fd)
        if error < 0:
            list_remove(parked_list(e, op), op)
    if error < 0:
        end(e, op, error)


cdef void unpark(Epoll *e, OpList *list) noexcept nogil:
    cdef Op *op
    while list.first != NULL:
        op = list_pop(list)
        op.state &= ~STATE_POLL
        list_append(&e.ready, op)


cdef void wake_parked(Epoll *e, int fd, uint32_t events) noexcept nogil:
    cdef Parked *at = &e.parked[fd]
    if events & ~EPOLLOUT:
        unpark(e, &at.readers)
    if events & ~(EPOLLIN | EPOLLRDHUP):
        unpark(e, &at.writers)
    if at.readers.first != NULL or at.writers.first != NULL:
        arm(e, fd)


# ---- trying

cdef void try_op(Epoll *e, Op *op) noexcept nogil:
    cdef ssize_t n
    if op.kind == OP_ACCEPT:
        try_accept(e, op)
        return
    if op.kind != OP_SENDMSG and op.state & STATE_DRAINED:
        op.state &= ~STATE_DRAINED              # it is empty, in all likelihood: saves a try in vain
        park(e, op)
        return
    if op.kind == OP_SENDMSG:
        n = sendmsg(op.fd, <const msghdr *> op.buf, MSG_DONTWAIT | MSG_NOSIGNAL)
    elif op.kind == OP_RECV:
        n = recv(op.fd, op.buf, op.length, MSG_DONTWAIT)
        note_drained(op, n > 0 and <uint64_t> n < op.length)
    else:
        n = recv(op.fd, e.memory, e.memory_bytes, MSG_DONTWAIT)
        note_drained(op, n > 0 and <uint64_t> n < e.memory_bytes)
        op.buf = e.memory
    if n >= 0:
        finish(e, op, <int> n, 0)
    elif errno == EINTR:
        list_append(&e.ready, op)
    elif errno == EAGAIN:
        park(e, op)
    else:
        finish(e, op, -errno, 0)


cdef void try_accept(Epoll *e, Op *op) noexcept nogil:
    cdef int fd, _i
    for _i in range(ACCEPTS):
        fd = accept4(op.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
        if fd >= 0:
            finish(e, op, fd, OP_MORE)
            if op.state & STATE_CANCEL:         # by its own done
                finish(e, op, -ECANCELED, 0)
                return
        elif errno == EAGAIN:
            park(e, op)
            return
        elif errno != EINTR and errno != ECONNABORTED:
            finish(e, op, -errno, 0)
            return
    list_append(&e.ready, op)


cdef void finish(Epoll *e, Op *op, int res, uint32_t flags) noexcept nogil:
    e.stats.completed += 1
    op_finish(op, res, flags)


cdef void run_list(Epoll *e, OpList *list) noexcept nogil:
    """Those that are on the list now; what their done adds has its turn later."""
    cdef uint64_t left = list.count if list.count < RUN_MAX else RUN_MAX
    cdef Op *op
    while left and list.first != NULL:
        left -= 1
        op = list_pop(list)
        if list == &e.ready:
            try_op(e, op)
        else:
            finish(e, op, op.res, 0)


# ---- waiting

cdef int epoll_wait(Epoll *e, int64_t timeout_ns) noexcept nogil:
    cdef uint64_t before = e.stats.completed
    run_list(e, &e.ended)
    run_list(e, &e.ready)
    if e.stats.completed != before or e.ready.first != NULL or e.ended.first != NULL or not wake_may_sleep(e.wake):
        timeout_ns = 0
    elif timeout_ns != 0:
        e.stats.waits += 1
    poll_events(e, timeout_ns)
    if wake_awake(e.wake):
        e.stats.wakes += 1
    take_finished(e)
    run_list(e, &e.ended)
    run_list(e, &e.ready)                       # and what became ready; answers to it go out now rather than next time
    if e.ready.first != NULL:
        run_list(e, &e.ready)
    return <int> (e.stats.completed - before)


cdef void poll_events(Epoll *e, int64_t timeout_ns) noexcept nogil:
    cdef epoll_event[256] events
    cdef uint64_t counter
    cdef int n, i
    n = sleep_epoll(e, events, timeout_ns)
    for i in range(n):
        if events[i].data.u64 == <uint64_t> e.wake.fd:
            read(e.wake.fd, &counter, sizeof(counter))      # readable: does not block
        else:
            wake_parked(e, <int> events[i].data.u64, events[i].events)


cdef int sleep_epoll(Epoll *e, epoll_event *events, int64_t timeout_ns) noexcept nogil:
    cdef timespec ts
    cdef int64_t ms
    cdef long n
    if e.sleep_ns and timeout_ns > 0:
        ts.tv_sec = timeout_ns // 1000000000
        ts.tv_nsec = <long> (timeout_ns % 1000000000)
        n = syscall(SYS_epoll_pwait2, e.fd, events, <int> EVENTS, &ts, NULL, <size_t> 0)
        if n >= 0 or (errno != ENOSYS and errno != EPERM):
            return <int> n
        e.sleep_ns = 0
    ms = timeout_ns if timeout_ns <= 0 else (timeout_ns + 999999) // 1000000
    return c_epoll_wait(e.fd, events, EVENTS, -1 if ms < 0 else 2147483647 if ms > 2147483647 else <int> ms)


cdef void take_finished(Epoll *e) noexcept nogil:
    cdef OpList taken
    cdef Op *op
    pthread_mutex_lock(&e.lock)
    taken = e.finished
    memset(&e.finished, 0, sizeof(OpList))
    pthread_mutex_unlock(&e.lock)
    while taken.first != NULL:
        op = list_pop(&taken)
        op.state &= ~(STATE_THREAD | STATE_POLL)
        list_append(&e.ended, op)


cdef void epoll_stats(const Epoll *e, RingStats *out) noexcept nogil:
    out[0] = e.stats


# ---- the threads

cdef void *work(void *argument) noexcept nogil:
    cdef Epoll *e = <Epoll *> argument
    cdef Op *op
    cdef int res
    cdef bint first
    pthread_mutex_lock(&e.lock)
    while True:
        while e.queue.first == NULL and not e.stop:
            e.idle += 1
            pthread_cond_wait(&e.more, &e.lock)
            e.idle -= 1
        if e.stop:
            break
        op = list_pop(&e.queue)
        op.state |= STATE_POLL
        pthread_mutex_unlock(&e.lock)
        res = run_file(op)
        pthread_mutex_lock(&e.lock)
        op.res = res
        first = e.finished.first == NULL
        list_append(&e.finished, op)
        if first:                               # under the lock: the ring can't be closed between the two
            wake_up(e.wake)
    pthread_mutex_unlock(&e.lock)
    return NULL


cdef int run_file(const Op *op) noexcept nogil:
    cdef ssize_t n = -1
    while True:
        if op.kind == OP_FDATASYNC:
            n = fdatasync(op.fd)
        elif op.kind == OP_WRITE:
            n = pwritev2(op.fd, <const iovec *> op.buf, <int> op.length, op.offset, op.rw_flags)
        else:
            n = preadv2(op.fd, <const iovec *> op.buf, <int> op.length, op.offset, op.rw_flags)
        if n >= 0:
            return <int> n
        if errno != EINTR:
            return -errno

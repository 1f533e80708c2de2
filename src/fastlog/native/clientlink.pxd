"""One connection of the client to one broker: frames out in order, frames in. Not blocking; used by one thread only.

What is sent is pointers (`link_push`): the memory must stay until `link.sent` reached the position that `link.queued` had behind it. An
answer
is believed only up to `frame_max` bytes, and memory for it grows only as its bytes come. The times are those of CLOCK_MONOTONIC in
microseconds.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from fastlog.native.threads cimport pthread_cond_t, pthread_mutex_t

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdbool.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>
    static inline int64_t fl_clock_us(clockid_t which) {
        struct timespec t;
        clock_gettime(which, &t);
        return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
    }
    static inline int fl_cond_init(pthread_cond_t *cond) {
        pthread_condattr_t a;
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        const int error = pthread_cond_init(cond, &a);
        pthread_condattr_destroy(&a);
        return error;
    }
    static inline bool fl_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until_us) {
        struct timespec t = {until_us / 1000000, until_us % 1000000 * 1000};
        return pthread_cond_timedwait(cond, mutex, &t) == 0;
    }
    static inline int fl_epoll_set(int epoll, int operation, int fd, uint32_t events, void *data) {
        struct epoll_event e = {.events = events, .data.ptr = data};
        return epoll_ctl(epoll, operation, fd, &e);
    }
    static inline int fl_epoll_wait(int epoll, void **ready, uint32_t *events, int max, int timeout_ms) {
        struct epoll_event found[64];
        int n = epoll_wait(epoll, found, max < 64 ? max : 64, timeout_ms);
        for (int i = 0; i < n; i++) { ready[i] = found[i].data.ptr; events[i] = found[i].events; }
        return n;
    }
    static inline void fl_eventfd_set(int fd) { uint64_t one = 1; while (write(fd, &one, 8) < 0 && errno == EINTR) {} }
    static inline void fl_eventfd_clear(int fd) { uint64_t n; while (read(fd, &n, 8) < 0 && errno == EINTR) {} }
    """
    ctypedef int clockid_t
    enum:
        CLOCK_MONOTONIC
        CLOCK_REALTIME
        EPOLLIN
        EPOLLOUT
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
    int64_t clock_us "fl_clock_us"(clockid_t which) noexcept nogil
    int cond_init "fl_cond_init"(pthread_cond_t *cond) noexcept nogil
    # False when the time was over
    bint cond_wait_until "fl_cond_wait_until"(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until_us) noexcept nogil
    int epoll_set "fl_epoll_set"(int epoll, int operation, int fd, unsigned int events, void *data) noexcept nogil
    # fills `data` and events of at most 64 descriptors
    int epoll_ready "fl_epoll_wait"(int epoll, void **ready, unsigned int *events, int max, int timeout_ms) noexcept nogil
    void eventfd_set "fl_eventfd_set"(int fd) noexcept nogil
    void eventfd_clear "fl_eventfd_clear"(int fd) noexcept nogil
    int epoll_create1(int flags) nogil
    int eventfd(unsigned int initial, int flags) nogil
    int close(int fd) nogil
    enum:
        EPOLL_CLOEXEC
        EFD_CLOEXEC
        EFD_NONBLOCK
    ctypedef struct iovec "struct iovec":
        void *iov_base
        size_t iov_len

cdef enum:
    SLICE_US = 100000               # a thread of Python's cuts its waits into these, to look for signals

cdef int forks                      # of this process, counted in the child: nothing that was made before is its own

cdef struct Link:
    int fd
    int epoll
    int32_t node                    # broker id
    bint wants_write                # the kernel's buffer is full: EPOLLOUT is on
    uint64_t queued                 # bytes ever pushed, and sent
    uint64_t sent
    iovec *pieces
    int pieces_first
    int pieces_n
    int pieces_capacity
    uint8_t *inbox
    size_t inbox_at                 # bytes of frames already given out
    size_t inbox_used
    size_t inbox_capacity
    size_t frame_max
    int64_t heard_us                # when bytes came last

# 0 or -errno (ENOMEM, or why epoll does not take it). The descriptor is the link's then: a connected socket that does not block.
cdef int link_open(Link *link, int fd, int32_t node, int epoll, size_t frame_max) noexcept nogil
cdef void link_close(Link *link) noexcept nogil
# 0, or -ENOMEM
cdef int link_push(Link *link, const void *p, size_t n) noexcept nogil
# Sends what it can: 0, or -errno of a connection that is lost.
cdef int link_flush(Link *link) noexcept nogil
# Receives what there is, at most about 1 MiB: 0, or -errno; -EPIPE when the broker closed, -EBADMSG for a length that no answer has.
cdef int link_receive(Link *link) noexcept nogil
# The next whole frame, without its length, valid until the next link_receive.
cdef bint link_next(Link *link, const uint8_t **frame, size_t *n) noexcept nogil

"""epoll as the load generator uses it: edge-triggered, waits exact to the nanosecond."""
from libc.stdint cimport uint32_t

cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    /* Waits at most ns nanoseconds. */
    static inline int bench_wait(int ep, struct epoll_event *ev, int n, long long ns) {
        struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        return (int) syscall(SYS_epoll_pwait2, ep, ev, n, &t, NULL, 0);    /* its wrapper needs glibc 2.35, later than all else here */
    }
    static inline int bench_watch(int ep, int fd, unsigned tag) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = tag};
        return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
    static inline void bench_exact_timers(void) { prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); }
    """
    ctypedef union epoll_data:
        uint32_t u32
    ctypedef struct epoll_event "struct epoll_event":
        uint32_t events
        epoll_data data
    int EPOLLIN, EPOLLHUP, EPOLLERR, EPOLLRDHUP
    int epoll_create1(int flags) nogil
    int bench_wait(int ep, epoll_event *ev, int n, long long ns) noexcept nogil
    int bench_watch(int ep, int fd, unsigned tag) noexcept nogil
    void bench_exact_timers() noexcept nogil

cdef enum:
    EVENTS = 256
    SPIN_NS = 30000                 # a wait shorter than this is spent polling

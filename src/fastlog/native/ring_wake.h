/* Waking a thread that may be asleep in its ring, at the price of a system call only when it is.
 *
 * The sleeper says that it goes to sleep, then looks whether it was woken; the waker says that it wakes, then looks whether anyone
 * sleeps. Both orders are sequentially consistent, so at least one of them sees the other (Dekker). */
#ifndef FASTLOG_RING_WAKE_H
#define FASTLOG_RING_WAKE_H

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

struct fl_wake {
    _Alignas(64) uint32_t pending;  /* woken since the owner last looked */
    uint32_t sleeping;              /* the owner is in a system call that only a completion or the descriptor ends */
    int fd;                         /* eventfd */
    char fill[52];
};

/* Any thread; also from a signal handler. */
static inline void fl_wake_up(struct fl_wake *w) {
    if (__atomic_exchange_n(&w->pending, 1, __ATOMIC_SEQ_CST) || !__atomic_load_n(&w->sleeping, __ATOMIC_SEQ_CST))
        return;
    int saved = errno;
    uint64_t one = 1;
    while (write(w->fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    errno = saved;
}

/* The owner: whether it may sleep. */
static inline int fl_wake_may_sleep(struct fl_wake *w) {
    __atomic_store_n(&w->sleeping, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&w->pending, __ATOMIC_SEQ_CST))
        return 1;
    __atomic_store_n(&w->sleeping, 0, __ATOMIC_RELAXED);
    return 0;
}

/* The owner, after it slept or did not: whether it was woken. What the waker wrote before it woke is visible from here on. */
static inline int fl_wake_awake(struct fl_wake *w) {
    __atomic_store_n(&w->sleeping, 0, __ATOMIC_RELAXED);
    return __atomic_load_n(&w->pending, __ATOMIC_RELAXED) && __atomic_exchange_n(&w->pending, 0, __ATOMIC_SEQ_CST);
}

#endif

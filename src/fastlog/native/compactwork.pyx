"""See compactwork.pxd."""
from fastlog.native.files cimport file_memory
from fastlog.native.store cimport clock_ns

cdef extern from *:
    """
    #include <time.h>
    static void fl_sleep_ns(int64_t ns)
    {
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        nanosleep(&t, 0);
    }
    static inline int fl_load(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void fl_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    """
    void fl_sleep_ns(int64_t ns) nogil
    int fl_load(const int *p) nogil
    void fl_store(int *p, int v) nogil

cdef enum:
    SLICE_NS = 50000000             # slept at once, so that a cancel is seen soon


cdef uint8_t *piece_room(int64_t bytes) noexcept nogil:
    return <uint8_t *> file_memory(<size_t> bytes)


cdef int work_spend(Work *w, int64_t n) noexcept nogil:
    cdef int64_t left
    w.rate_bytes += n
    while w.rate:
        left = w.rate_from_ns + <int64_t> (<double> w.rate_bytes / <double> w.rate * 1e9) - clock_ns()
        if left <= 0 or fl_load(&w.cancelled):
            break
        fl_sleep_ns(left if left < SLICE_NS else SLICE_NS)
    return CANCELLED if fl_load(&w.cancelled) else 0


cdef void work_cancel(Work *w) noexcept nogil:
    fl_store(&w.cancelled, 1)

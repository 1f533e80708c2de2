"""A log-linear histogram of durations: 128 buckets per power of two, so a value is known to better than 0.8 % at any size.

The layout of HdrHistogram with two significant digits (G. Tene): fixed memory, one increment per value, values never lost.
"""
from libc.stdint cimport uint64_t

cdef enum:
    SUB_BITS = 7
    SUB_BUCKETS = 1 << SUB_BITS
    BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS

ctypedef struct Histogram:
    uint64_t total                  # values recorded
    uint64_t sum                    # of the values, ns
    uint64_t highest                # ns
    uint64_t counts[BUCKETS]


cdef extern from *:
    """
    #define bench_top_bit(v) (63 - __builtin_clzll(v))
    """
    int top_bit "bench_top_bit"(uint64_t v) noexcept nogil


cdef inline int bucket_of(uint64_t value) noexcept nogil:
    cdef int shift
    if value < SUB_BUCKETS:
        return <int> value
    shift = top_bit(value) - SUB_BITS
    return (shift << SUB_BITS) + <int> (value >> shift)


cdef inline uint64_t bucket_middle(int bucket) noexcept nogil:
    """A value that stands for the bucket's."""
    cdef int shift
    if bucket < 2 * SUB_BUCKETS:
        return <uint64_t> bucket
    shift = (bucket >> SUB_BITS) - 1
    return ((<uint64_t> (SUB_BUCKETS + (bucket & (SUB_BUCKETS - 1)))) << shift) + ((<uint64_t> 1 << shift) >> 1)


cdef inline void record(Histogram *h, uint64_t value) noexcept nogil:
    h.total += 1
    h.sum += value
    if value > h.highest:
        h.highest = value
    h.counts[bucket_of(value)] += 1


cdef object histogram_summary(const Histogram *h)
# The median and the 99th percentile, in ns, of what h has more than `before`, which then becomes a copy of h. Zero when nothing is new.
cdef void histogram_since(const Histogram *h, Histogram *before, uint64_t *p50, uint64_t *p99) noexcept nogil

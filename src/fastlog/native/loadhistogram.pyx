"""Reading a histogram: percentiles, and the counts themselves as raw samples."""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)


cdef object histogram_summary(const Histogram *h):
    """`{"count", "mean_us", "max_us", "p50_us", ..., "buckets": [[ns, count], ...]}`; without percentiles when empty."""
    cdef uint64_t seen = 0
    cdef int bucket, at = 0
    cdef list buckets = []
    cdef list wanted = [(f"p{p:g}_us", max(1, -int(-<double> h.total * p // 100))) for p in PERCENTILES]
    cdef dict summary = {"count": h.total}
    if h.total:
        summary["mean_us"] = round(h.sum / <double> h.total / 1000.0, 3)
        summary["max_us"] = round(h.highest / 1000.0, 3)
    for bucket in range(BUCKETS):
        if not h.counts[bucket]:
            continue
        seen += h.counts[bucket]
        buckets.append([bucket_middle(bucket), h.counts[bucket]])
        while at < len(wanted) and seen >= wanted[at][1]:
            summary[wanted[at][0]] = round(min(bucket_middle(bucket), h.highest) / 1000.0, 3)
            at += 1
    summary["buckets"] = buckets
    return summary


cdef void histogram_since(const Histogram *h, Histogram *before, uint64_t *p50, uint64_t *p99) noexcept nogil:
    cdef uint64_t total = h.total - before.total
    cdef uint64_t seen = 0
    cdef int bucket
    p50[0] = p99[0] = 0
    if total:
        for bucket in range(BUCKETS):
            if h.counts[bucket] == before.counts[bucket]:
                continue
            seen += h.counts[bucket] - before.counts[bucket]
            if not p50[0] and 2 * seen >= total:
                p50[0] = bucket_middle(bucket)
            if 100 * seen >= 99 * total:
                p99[0] = bucket_middle(bucket)
                break
        memcpy(before, h, sizeof(Histogram))


def summarize(values):
    """The summary of an iterable of durations in ns (for tests)."""
    cdef Histogram *h = <Histogram *> calloc(1, sizeof(Histogram))
    if h == NULL:
        raise MemoryError
    try:
        for value in values:
            record(h, value)
        return histogram_summary(h)
    finally:
        free(h)


def in_turns(first, then):
    """`(p50, p99)` in ns of the durations `then`, recorded after `first` into the same histogram (for tests)."""
    cdef Histogram *h = <Histogram *> calloc(2, sizeof(Histogram))
    cdef uint64_t p50 = 0, p99 = 0
    if h == NULL:
        raise MemoryError
    try:
        for values in (first, then):
            for value in values:
                record(&h[0], value)
            histogram_since(&h[0], &h[1], &p50, &p99)
        return p50, p99
    finally:
        free(h)

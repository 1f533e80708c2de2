"""The aborted transactions of one segment. See aborted.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset
from fastlog.native.bytes cimport get16, get64, put16, put64

cdef int64_t NONE = 0x7FFFFFFFFFFFFFFF


cdef void aborted_free(Aborted *a) noexcept nogil:
    free(a.at)
    memset(a, 0, sizeof(Aborted))


cdef int aborted_room(Aborted *a, int32_t n) noexcept nogil:
    cdef int32_t cap = a.cap * 2 if a.cap else 8
    cdef void *p
    if a.n + n <= a.cap:
        return 0
    if cap < a.n + n:
        cap = a.n + n
    p = realloc(a.at, <size_t> cap * sizeof(AbortedTxn))
    if p == NULL:
        return -1
    a.at = <AbortedTxn *> p
    a.cap = cap
    return 0


cdef void aborted_add(Aborted *a, int64_t producer_id, int64_t first_offset, int64_t last_offset, int64_t last_stable) noexcept nogil:
    cdef AbortedTxn *t = &a.at[a.n]
    t.producer_id = producer_id
    t.first_offset = first_offset
    t.last_offset = last_offset
    t.last_stable = last_stable
    a.n += 1


cdef int64_t aborted_least(const Aborted *a) noexcept nogil:
    cdef int64_t least = NONE
    cdef int32_t i
    for i in range(a.n):
        if a.at[i].first_offset < least:
            least = a.at[i].first_offset
    return least


cdef int aborted_collect(const Aborted *a, int64_t from_, int64_t to, Aborted *out) noexcept nogil:
    cdef int32_t low = 0
    cdef int32_t high = a.n
    cdef int32_t middle
    cdef const AbortedTxn *t
    while low < high:               # the first whose marker is not before the range
        middle = (low + high) >> 1
        if a.at[middle].last_offset < from_:
            low = middle + 1
        else:
            high = middle
    while low < a.n:
        t = &a.at[low]
        if t.first_offset < to:
            if aborted_room(out, 1) < 0:
                return -1
            aborted_add(out, t.producer_id, t.first_offset, t.last_offset, t.last_stable)
        if t.last_stable >= to:
            return 1
        low += 1
    return 0


cdef void aborted_cut(Aborted *a, int64_t offset) noexcept nogil:
    while a.n and a.at[a.n - 1].last_offset >= offset:
        a.n -= 1


cdef void aborted_forget(Aborted *a, int32_t n) noexcept nogil:
    cdef int32_t leaving = n - a.gone
    cdef void *p
    a.kept = n
    if leaving <= 0:
        return
    a.gone_last = a.at[leaving - 1].last_offset
    a.gone = n
    a.n -= leaving
    memmove(a.at, a.at + leaving, <size_t> a.n * sizeof(AbortedTxn))
    if a.cap > 64 and a.n < a.cap // 4:
        p = realloc(a.at, <size_t> (a.n + 8) * sizeof(AbortedTxn))
        if p != NULL:
            a.at = <AbortedTxn *> p
            a.cap = a.n + 8


cdef size_t aborted_encode(const Aborted *a, uint8_t *out) noexcept nogil:
    cdef int32_t first = a.kept - a.gone
    cdef int32_t i
    cdef const AbortedTxn *t
    for i in range(first, a.n):
        t = &a.at[i]
        put16(out, 0)
        put64(out + 2, <uint64_t> t.producer_id)
        put64(out + 10, <uint64_t> t.first_offset)
        put64(out + 18, <uint64_t> t.last_offset)
        put64(out + 26, <uint64_t> t.last_stable)
        out += ABORTED_ENTRY
    return <size_t> (a.n - first) * ABORTED_ENTRY


cdef int aborted_decode(Aborted *a, const uint8_t *data, size_t n, int64_t base_offset) noexcept nogil:
    cdef size_t i = 0
    cdef int64_t before = base_offset - 1
    cdef int64_t last
    aborted_free(a)
    if n % ABORTED_ENTRY or n // ABORTED_ENTRY > 0x7FFFFFFF or aborted_room(a, <int32_t> (n // ABORTED_ENTRY)) < 0:
        return -1
    while i < n:
        last = <int64_t> get64(data + i + 18)
        if get16(data + i) != 0 or last <= before or <int64_t> get64(data + i + 10) >= last:
            aborted_free(a)
            return -1
        aborted_add(a, <int64_t> get64(data + i + 2), <int64_t> get64(data + i + 10), last, <int64_t> get64(data + i + 26))
        before = last
        i += ABORTED_ENTRY
    return 0

"""Sparse offset and time indexes. See index.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset
from fastlog.native.aborted cimport AbortedTxn, aborted_cut, aborted_free
from fastlog.native.bytes cimport get32, get64, put32, put64


cdef void index_init(Index *ix, int64_t base_offset) noexcept nogil:
    memset(ix, 0, sizeof(Index))
    ix.base_offset = base_offset
    ix.last_time = -1
    ix.max_timestamp = -1
    ix.max_timestamp_offset = base_offset


cdef void index_free(Index *ix) noexcept nogil:
    free(ix.offsets)
    free(ix.times)
    aborted_free(&ix.aborted)
    index_init(ix, ix.base_offset)


cdef bint offsets_room(Index *ix, int32_t n) noexcept nogil:
    cdef int32_t cap = ix.offsets_cap
    cdef void *p
    if n <= cap:
        return True
    cap = cap * 2 if cap else 8
    if cap < n:
        cap = n
    p = realloc(ix.offsets, <size_t> cap * sizeof(OffsetEntry))
    if p == NULL:
        return False
    ix.offsets = <OffsetEntry *> p
    ix.offsets_cap = cap
    return True


cdef bint times_room(Index *ix, int32_t n) noexcept nogil:
    cdef int32_t cap = ix.times_cap
    cdef void *p
    if n <= cap:
        return True
    cap = cap * 2 if cap else 8
    if cap < n:
        cap = n
    p = realloc(ix.times, <size_t> cap * sizeof(TimeEntry))
    if p == NULL:
        return False
    ix.times = <TimeEntry *> p
    ix.times_cap = cap
    return True


cdef void add_time(Index *ix) noexcept nogil:
    if ix.max_timestamp > ix.last_time and times_room(ix, ix.times_n + 1):
        ix.last_time = ix.max_timestamp
        ix.times[ix.times_n].timestamp = ix.max_timestamp
        ix.times[ix.times_n].relative = <uint32_t> (ix.max_timestamp_offset - ix.base_offset)
        ix.times_n += 1


cdef void index_add(Index *ix, int64_t last_offset, int64_t position, int64_t max_timestamp, int64_t interval) noexcept nogil:
    if max_timestamp > ix.max_timestamp:
        ix.max_timestamp = max_timestamp
        ix.max_timestamp_offset = last_offset
    if position - ix.last_position <= interval or not offsets_room(ix, ix.offsets_n + 1):
        return
    ix.offsets[ix.offsets_n].relative = <uint32_t> (last_offset - ix.base_offset)
    ix.offsets[ix.offsets_n].position = <uint32_t> position
    ix.offsets_n += 1
    ix.last_position = position
    add_time(ix)


cdef void index_seal(Index *ix) noexcept nogil:
    add_time(ix)


cdef bint index_full(const Index *ix, int64_t index_bytes) noexcept nogil:
    return ix.offsets_gone + ix.offsets_n >= index_bytes // OFFSET_ENTRY or \
        ix.times_gone + ix.times_n >= index_bytes // TIME_ENTRY - 1


cdef bint index_covers(const Index *ix, int64_t offset) noexcept nogil:
    return ix.offsets_gone == 0 or (ix.offsets_n > 0 and offset >= ix.base_offset + ix.offsets[0].relative)


cdef bint index_covers_time(const Index *ix, int64_t timestamp) noexcept nogil:
    return ix.times_gone == 0 or (ix.times_n > 0 and timestamp > ix.times[0].timestamp)


cdef void index_forget(Index *ix, int32_t offsets, int32_t times) noexcept nogil:
    cdef int32_t n
    ix.offsets_kept = offsets
    ix.times_kept = times
    n = offsets - 1 - ix.offsets_gone
    if n > 0:
        memmove(ix.offsets, ix.offsets + n, <size_t> (ix.offsets_n - n) * sizeof(OffsetEntry))
        ix.offsets_n -= n
        ix.offsets_gone += n
    n = times - 1 - ix.times_gone
    if n > 0:
        memmove(ix.times, ix.times + n, <size_t> (ix.times_n - n) * sizeof(TimeEntry))
        ix.times_n -= n
        ix.times_gone += n
    shrink(ix)


cdef void shrink(Index *ix) noexcept nogil:
    """Gives memory back after many entries left."""
    cdef void *p
    if ix.offsets_cap > 64 and ix.offsets_n < ix.offsets_cap // 4:
        p = realloc(ix.offsets, <size_t> (ix.offsets_n + 8) * sizeof(OffsetEntry))
        if p != NULL:
            ix.offsets = <OffsetEntry *> p
            ix.offsets_cap = ix.offsets_n + 8
    if ix.times_cap > 64 and ix.times_n < ix.times_cap // 4:
        p = realloc(ix.times, <size_t> (ix.times_n + 8) * sizeof(TimeEntry))
        if p != NULL:
            ix.times = <TimeEntry *> p
            ix.times_cap = ix.times_n + 8


cdef void index_cut(Index *ix, int64_t offset) noexcept nogil:
    cdef int64_t relative = offset - ix.base_offset
    while ix.offsets_n and <int64_t> ix.offsets[ix.offsets_n - 1].relative >= relative:
        ix.offsets_n -= 1
    while ix.times_n and <int64_t> ix.times[ix.times_n - 1].relative >= relative:
        ix.times_n -= 1
    aborted_cut(&ix.aborted, offset)
    note_last(ix)


cdef void note_last(Index *ix) noexcept nogil:
    """What the last entries say about the segment so far."""
    ix.last_position = ix.offsets[ix.offsets_n - 1].position if ix.offsets_n else 0
    ix.max_timestamp = -1
    ix.max_timestamp_offset = ix.base_offset
    if ix.times_n:
        ix.max_timestamp = ix.times[ix.times_n - 1].timestamp
        ix.max_timestamp_offset = ix.base_offset + ix.times[ix.times_n - 1].relative
    ix.last_time = ix.max_timestamp


cdef int64_t index_position(const Index *ix, int64_t offset) noexcept nogil:
    cdef int64_t relative = offset - ix.base_offset
    cdef int32_t low = 0
    cdef int32_t high = ix.offsets_n
    cdef int32_t middle
    while low < high:               # the first entry past the offset
        middle = (low + high) >> 1
        if <int64_t> ix.offsets[middle].relative <= relative:
            low = middle + 1
        else:
            high = middle
    return ix.offsets[low - 1].position if low else 0


cdef int64_t index_bound(const Index *ix, int64_t position) noexcept nogil:
    cdef int32_t low = 0
    cdef int32_t high = ix.offsets_n
    cdef int32_t middle
    while low < high:               # the first entry that is not before the position
        middle = (low + high) >> 1
        if <int64_t> ix.offsets[middle].position < position:
            low = middle + 1
        else:
            high = middle
    return ix.base_offset + ix.offsets[low].relative if low < ix.offsets_n else -1


cdef int64_t index_time(const Index *ix, int64_t timestamp) noexcept nogil:
    cdef int32_t low = 0
    cdef int32_t high = ix.times_n
    cdef int32_t middle
    while low < high:               # the first entry that is not earlier than the timestamp
        middle = (low + high) >> 1
        if ix.times[middle].timestamp < timestamp:
            low = middle + 1
        else:
            high = middle
    return ix.base_offset + (ix.times[low - 1].relative if low else 0)


cdef size_t index_bytes_held(const Index *ix) noexcept nogil:
    return <size_t> ix.offsets_cap * sizeof(OffsetEntry) + <size_t> ix.times_cap * sizeof(TimeEntry) + \
        <size_t> ix.aborted.cap * sizeof(AbortedTxn)


cdef int32_t index_encode_offsets(const Index *ix, uint8_t *out) noexcept nogil:
    cdef int32_t i = ix.offsets_kept - ix.offsets_gone
    cdef int32_t n = ix.offsets_n - i
    while i < ix.offsets_n:
        put32(out, ix.offsets[i].relative)
        put32(out + 4, ix.offsets[i].position)
        out += OFFSET_ENTRY
        i += 1
    return n


cdef int32_t index_encode_times(const Index *ix, uint8_t *out) noexcept nogil:
    cdef int32_t i = ix.times_kept - ix.times_gone
    cdef int32_t n = ix.times_n - i
    while i < ix.times_n:
        put64(out, <uint64_t> ix.times[i].timestamp)
        put32(out + 8, ix.times[i].relative)
        out += TIME_ENTRY
        i += 1
    return n


cdef bint only_zeroes(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if p[i]:
            return False
    return True


cdef int index_decode(Index *ix, const uint8_t *offsets, size_t offsets_len, const uint8_t *times, size_t times_len, int64_t size,
                      int64_t next_offset) noexcept nogil:
    cdef size_t i
    cdef int64_t relative
    cdef int64_t position
    cdef int64_t timestamp
    cdef int64_t last_relative = -1
    cdef int64_t last_position = -1
    cdef int64_t limit = next_offset - ix.base_offset
    cdef int bad = 0
    if limit > <int64_t> 1 << 31:
        limit = <int64_t> 1 << 31
    index_free(ix)
    if not offsets_room(ix, <int32_t> (offsets_len // OFFSET_ENTRY)) or not times_room(ix, <int32_t> (times_len // TIME_ENTRY)):
        return -1
    i = 0
    while i + OFFSET_ENTRY <= offsets_len:
        relative = get32(offsets + i)
        position = get32(offsets + i + 4)
        if relative <= last_relative or position <= last_position or position >= size or relative >= limit or \
                (last_position >= 0 and relative == 0):
            break
        ix.offsets[ix.offsets_n].relative = <uint32_t> relative
        ix.offsets[ix.offsets_n].position = <uint32_t> position
        ix.offsets_n += 1
        last_relative = relative
        last_position = position
        i += OFFSET_ENTRY
    # The first entry of a preallocated, empty index reads as offset 0 at position 0, which no writer ever makes.
    if ix.offsets_n == 1 and ix.offsets[0].relative == 0 and ix.offsets[0].position == 0:
        ix.offsets_n = 0
        i = 0
    if i < offsets_len and not only_zeroes(offsets + i, offsets_len - i):
        bad = -1
    last_relative = -1
    timestamp = -1
    i = 0
    while i + TIME_ENTRY <= times_len:
        relative = get32(times + i + 8)
        position = <int64_t> get64(times + i)
        if position <= timestamp or relative < last_relative or relative >= limit or (position == 0 and relative == 0 and
                                                                                      only_zeroes(times + i, times_len - i)):
            break
        ix.times[ix.times_n].timestamp = position
        ix.times[ix.times_n].relative = <uint32_t> relative
        ix.times_n += 1
        timestamp = position
        last_relative = relative
        i += TIME_ENTRY
    if i < times_len and not only_zeroes(times + i, times_len - i):
        bad = -1
    note_last(ix)
    if ix.times_n == 0 and size > 0:
        bad = -1                    # an inactive segment has at least its largest timestamp
    return bad

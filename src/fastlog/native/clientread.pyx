"""See clientread.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from fastlog.native.batch cimport ATTR_CODEC, ATTR_CONTROL, ATTR_LOG_APPEND_TIME, ATTR_TRANSACTIONAL, BATCH_HEADER, PEEK_MORE, PEEK_OK, \
    BatchInfo, PeekResult, batch_crc_ok, batch_peek
from fastlog.native.bytes cimport get16
from fastlog.native.compression cimport FL_END, FL_MEMORY, FL_MORE, FL_SNAPPY_WINDOW, FlInflate, inflate_close, inflate_next, inflate_open

cdef extern from *:
    """
    #define fl_ref(p) __atomic_add_fetch((p), 1, __ATOMIC_RELAXED)
    #define fl_unref(p) __atomic_sub_fetch((p), 1, __ATOMIC_ACQ_REL)
    """
    int ref "fl_ref"(int *p) noexcept nogil
    int unref "fl_unref"(int *p) noexcept nogil

cdef enum:
    CHUNK_BYTES = 256 << 20         # of one column: offsets are 32 bits
    RECORD_MIN = 7                  # bytes of the smallest record


cdef Chunk *chunk_new() noexcept nogil:
    cdef Chunk *c = <Chunk *> calloc(1, sizeof(Chunk))
    if c == NULL:
        return NULL
    c.refs = 1
    if not begin(&c.keys) or not begin(&c.values) or not begin(&c.headers):
        chunk_unref(c)
        return NULL
    return c


cdef bint begin(Strings *s) noexcept nogil:
    if not grow(&s.ends, 4):
        return False
    (<int32_t *> s.ends.p)[0] = 0
    s.ends.used = 4
    return True


cdef void chunk_ref(Chunk *c) noexcept nogil:
    ref(&c.refs)


cdef void drop(Strings *s) noexcept nogil:
    free(s.data.p)
    free(s.ends.p)
    free(s.valid.p)


cdef void chunk_unref(Chunk *c) noexcept nogil:
    if unref(&c.refs):
        return
    free(c.offsets.p)
    free(c.times.p)
    drop(&c.keys)
    drop(&c.values)
    drop(&c.headers)
    free(c)


cdef bint grow(Bytes *b, size_t more) noexcept nogil:
    """Room for `more` bytes; False without memory."""
    cdef size_t wanted
    cdef uint8_t *made
    if b.capacity - b.used >= more:
        return True
    wanted = max(b.used + more, 2 * b.capacity)
    made = <uint8_t *> realloc(b.p, max(wanted, <size_t> 256))
    if made == NULL:
        return False
    b.p = made
    b.capacity = max(wanted, <size_t> 256)
    return True


cdef inline int64_t varint(const uint8_t **p, const uint8_t *end, bint *bad) noexcept nogil:
    """Zigzag."""
    cdef const uint8_t *at = p[0]
    cdef uint64_t v = 0
    cdef int shift = 0
    if at < end and at[0] < 0x80:
        p[0] = at + 1
        return <int64_t> ((<uint64_t> at[0] >> 1) ^ (~(<uint64_t> at[0] & 1) + 1))
    while at < end and shift < 70:
        v |= <uint64_t> (at[0] & 0x7F) << shift
        if at[0] < 0x80:
            p[0] = at + 1
            return <int64_t> ((v >> 1) ^ (~(v & 1) + 1))
        at += 1
        shift += 7
    bad[0] = True
    return 0


cdef bint add_null(Strings *s, int64_t row) noexcept nogil:
    """Row `row` is null; bits that were never written are ones."""
    cdef size_t bytes_ = <size_t> (row // 8 + 1)
    if s.valid.used < bytes_:
        if not grow(&s.valid, bytes_ - s.valid.used):
            return False
        memset(s.valid.p + s.valid.used, 0xFF, bytes_ - s.valid.used)
        s.valid.used = bytes_
    s.valid.p[row // 8] &= <uint8_t> ~(1 << (row & 7))
    s.nulls += 1
    return True


cdef inline bint add(Strings *s, int64_t row, const uint8_t *p, int64_t n) noexcept nogil:
    """A value, or null (n < 0). `ends` has room."""
    if n > 0:
        if s.data.capacity - s.data.used < <size_t> n and not grow(&s.data, <size_t> n):
            return False
        memcpy(s.data.p + s.data.used, p, n)
        s.data.used += <size_t> n
    elif n < 0 and not add_null(s, row):
        return False
    (<int32_t *> (s.ends.p + s.ends.used))[0] = <int32_t> s.data.used
    s.ends.used += 4
    return True


cdef bint skip_headers(const uint8_t **p, const uint8_t *end, int64_t count) noexcept nogil:
    cdef bint bad = False
    cdef int64_t n
    while count > 0 and not bad:
        n = varint(p, end, &bad)                            # the name
        if bad or n < 0 or n > end - p[0]:
            return False
        p[0] += n
        n = varint(p, end, &bad)
        if bad or n > end - p[0]:
            return False
        p[0] += max(n, <int64_t> 0)
        count -= 1
    return not bad


cdef ReadResult read_records(Chunk *c, const uint8_t *p, const uint8_t *end, const BatchInfo *info, int64_t from_offset) noexcept nogil:
    cdef int64_t _, length, when, offset, key_n, value_n, count
    cdef const uint8_t *key
    cdef const uint8_t *value
    cdef const uint8_t *headers
    cdef const uint8_t *record_end
    cdef bint bad = False
    cdef bint appended = info.attributes & ATTR_LOG_APPEND_TIME
    cdef size_t rows = <size_t> info.count
    if info.count > (end - p) // RECORD_MIN + 1:
        return READ_CORRUPT
    if not (grow(&c.offsets, rows * 8) and grow(&c.times, rows * 8) and grow(&c.keys.ends, rows * 4) and grow(&c.values.ends, rows * 4)
            and grow(&c.headers.ends, rows * 4) and grow(&c.values.data, <size_t> (end - p))):
        return READ_MEMORY
    c.append_times = c.append_times or appended
    for _ in range(info.count):
        length = varint(&p, end, &bad)
        if bad or length < RECORD_MIN - 1 or length > end - p:
            return READ_CORRUPT
        record_end = p + length
        p += 1                                              # attributes: none are defined
        when = varint(&p, record_end, &bad)
        offset = varint(&p, record_end, &bad)
        key_n = varint(&p, record_end, &bad)
        key = p
        if bad or key_n > record_end - p:
            return READ_CORRUPT
        if key_n > 0:
            p += key_n
        value_n = varint(&p, record_end, &bad)
        value = p
        if bad or value_n > record_end - p:
            return READ_CORRUPT
        if value_n > 0:
            p += value_n
        headers = p
        count = varint(&p, record_end, &bad)
        if bad or count < 0 or (count and not skip_headers(&p, record_end, count)) or p != record_end:
            return READ_CORRUPT
        if offset < 0 or offset > info.last_offset_delta:
            return READ_CORRUPT
        offset += info.base_offset
        if offset < from_offset:
            continue
        (<int64_t *> (c.offsets.p + c.offsets.used))[0] = offset
        c.offsets.used += 8
        (<int64_t *> (c.times.p + c.times.used))[0] = info.max_timestamp if appended else info.base_timestamp + when
        c.times.used += 8
        if not (add(&c.keys, c.n, key, key_n) and add(&c.values, c.n, value, value_n)
                and add(&c.headers, c.n, headers, p - headers if count else 0)):
            return READ_MEMORY
        c.has_headers = c.has_headers or count > 0
        c.n += 1
    return READ_OK if p == end else READ_CORRUPT


cdef ReadResult inflate(const uint8_t *p, const BatchInfo *info, int64_t inflate_max, Bytes *scratch) noexcept nogil:
    """The batch's records into `scratch`, behind what decompression works in."""
    cdef FlInflate stream
    cdef const uint8_t *piece = NULL
    cdef size_t n = 0
    cdef int status
    cdef uint8_t window[131072]
    scratch.used = 0
    status = inflate_open(&stream, info.attributes & ATTR_CODEC, p + BATCH_HEADER, info.size - BATCH_HEADER, window,
                          FL_SNAPPY_WINDOW, <uint64_t> inflate_max)
    if status == FL_END:
        status = FL_MORE
    while status == FL_MORE:
        status = inflate_next(&stream, &piece, &n)
        if status == FL_MORE:
            if not grow(scratch, n):
                status = FL_MEMORY
                break
            memcpy(scratch.p + scratch.used, piece, n)
            scratch.used += n
    inflate_close(&stream)
    if status == FL_END:
        return READ_OK
    return READ_MEMORY if status == FL_MEMORY else READ_CORRUPT


cdef bint is_abort(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Whether a control batch's record ends a transaction by aborting it: its key is a version and a type, 0 for abort (KIP-98)."""
    cdef bint bad = False
    cdef int64_t key_n
    varint(&p, end, &bad)
    p += 1
    if p >= end:
        return False
    varint(&p, end, &bad)
    varint(&p, end, &bad)
    key_n = varint(&p, end, &bad)
    return not bad and key_n >= 4 and end - p >= 4 and get16(p + 2) == 0


cdef bint left_out(const uint8_t *p, const BatchInfo *info, const ReadRules *rules) noexcept nogil:
    """Whether a batch is no record of the user's: control, or of an aborted transaction. Keeps the list of those that go on."""
    cdef int32_t i
    if info.attributes & ATTR_CONTROL:
        if rules.committed and is_abort(p + BATCH_HEADER, p + info.size):
            for i in range(rules.aborted_n):
                if rules.aborted[i].producer_id == info.producer_id and rules.aborted[i].first_offset <= info.base_offset:
                    rules.aborted[i].producer_id = -1
        return True
    if rules.committed and info.attributes & ATTR_TRANSACTIONAL:
        for i in range(rules.aborted_n):
            if rules.aborted[i].producer_id == info.producer_id and \
                    rules.aborted[i].first_offset <= info.base_offset + info.last_offset_delta:
                return True
    return False


cdef ReadResult chunk_read(Chunk *c, const uint8_t **p, const uint8_t *end, int64_t from_offset, const ReadRules *rules,
                           Bytes *scratch) noexcept nogil:
    cdef BatchInfo info
    cdef PeekResult peeked
    cdef ReadResult status
    cdef int64_t n
    cdef size_t data
    while p[0] < end:
        peeked = batch_peek(p[0], <size_t> (end - p[0]), &info)
        if peeked == PEEK_MORE or (peeked == PEEK_OK and info.size > end - p[0]):
            return READ_OK
        if peeked != PEEK_OK or info.size < BATCH_HEADER or (info.attributes & ATTR_CODEC) > 4:
            return READ_CORRUPT
        if rules.check_crc and not batch_crc_ok(p[0], &info):
            return READ_CORRUPT
        if info.base_offset + info.last_offset_delta >= from_offset and not left_out(p[0], &info, rules):
            n = c.n
            data = max(c.values.data.used, c.keys.data.used, c.headers.data.used)
            if data + <size_t> info.size > CHUNK_BYTES and n:
                return READ_FULL
            if info.attributes & ATTR_CODEC:
                status = inflate(p[0], &info, rules.inflate_max, scratch)
                if status == READ_OK and data + scratch.used > CHUNK_BYTES and n:
                    return READ_FULL
                if status == READ_OK:
                    status = read_records(c, scratch.p, scratch.p + scratch.used, &info, from_offset)
            else:
                status = read_records(c, p[0] + BATCH_HEADER, p[0] + info.size, &info, from_offset)
            if status != READ_OK:
                return status
        c.next_offset = max(c.next_offset, info.base_offset + info.last_offset_delta + 1)
        p[0] += info.size
    return READ_OK

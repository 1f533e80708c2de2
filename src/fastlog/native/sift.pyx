"""See sift.pxd."""
from libc.errno cimport ENOMEM
from libc.stdint cimport INT32_MAX, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from fastlog.native.batch cimport (
    AT_ATTRIBUTES, AT_BASE_SEQUENCE, AT_BASE_TIMESTAMP, AT_COUNT, AT_CRC, AT_LEADER_EPOCH, AT_LENGTH, AT_MAGIC,
    AT_MAX_TIMESTAMP, AT_PRODUCER_EPOCH, AT_PRODUCER_ID,
    ATTR_CODEC, ATTR_CONTROL, ATTR_DELETE_HORIZON, ATTR_LOG_APPEND_TIME, BATCH_CRC_FROM, BATCH_HEADER, BATCH_PREFIX, BATCH_SCRATCH,
    BatchInfo, CODEC_NONE, batch_peek,
)
from fastlog.native.bytes cimport put16, put32, put64
from fastlog.native.compression cimport (
    FL_BAD, FL_BIG, FL_END, FL_MORE, FlDeflate, FlInflate, deflate_add, deflate_begin, deflate_drop, deflate_end, inflate_close,
    inflate_next, inflate_open,
)
from fastlog.native.crc32c cimport crc32c
from fastlog.native.keymap cimport keymap_free, keymap_get, keymap_hash, keymap_open, keymap_prefetch, keymap_put
from fastlog.native.zigzag cimport unzigzag

cdef enum:
    NO_TIMESTAMP = -1
    PLAIN_MAX = 1073741824          # bytes that a batch may decompress to
    HEAD_MAX = 16                   # bytes of a record before its offset delta: length, attributes, timestamp delta


cdef int sieve_open(Sieve *s, uint64_t keys, uint64_t bytes) noexcept nogil:
    memset(s, 0, sizeof(Sieve))
    s.latest = -1
    s.scratch = malloc(BATCH_SCRATCH)
    s.out = <uint8_t *> malloc(BATCH_HEADER)
    if s.scratch == NULL or s.out == NULL:
        return ENOMEM
    return keymap_open(&s.map, keys, bytes)


cdef void sieve_free(Sieve *s) noexcept nogil:
    keymap_free(&s.map)
    free(s.records)
    free(s.plain)
    free(s.made)
    free(s.scratch)
    free(s.out)
    memset(s, 0, sizeof(Sieve))


# ---- records

cdef inline uint64_t take(const uint8_t **at, const uint8_t *end, int bytes_max) noexcept nogil:
    """An unsigned varint; past the end, or too long, *at goes past `end`."""
    cdef const uint8_t *p = at[0]
    cdef uint64_t v = 0
    cdef int shift = 0
    while p < end and bytes_max:
        v |= <uint64_t> (p[0] & 0x7F) << shift
        p += 1
        if (p - 1)[0] < 0x80:
            at[0] = p
            return v
        shift += 7
        bytes_max -= 1
    at[0] = end + 1
    return 0


cdef inline int32_t take_int(const uint8_t **at, const uint8_t *end) noexcept nogil:
    return <int32_t> unzigzag(take(at, end, 5))


cdef inline bint read_record(const uint8_t **at, const uint8_t *end, SiftRecord *r) noexcept nogil:
    cdef const uint8_t *p = at[0]
    cdef int32_t n
    r.start = p
    n = take_int(&p, end)
    if p > end or n < 0 or n > end - p:
        return False
    end = p + n
    p += 1                          # attributes: none are defined
    r.timestamp_delta = unzigzag(take(&p, end, 10)) if p <= end else 0
    r.rest = p
    r.offset_delta = take_int(&p, end) if p <= end else 0
    n = take_int(&p, end) if p <= end else 0
    r.key = p
    r.key_length = n if n >= 0 else -1
    if p > end or n > end - p:
        return False
    p += n if n > 0 else 0
    r.has_value = take_int(&p, end) >= 0
    r.end = end
    at[0] = end
    return p <= end


cdef int room(uint8_t **p, size_t *cap, size_t n) noexcept nogil:
    cdef uint8_t *grown
    if n <= cap[0]:
        return 0
    if n < 2 * cap[0]:
        n = 2 * cap[0]
    grown = <uint8_t *> realloc(p[0], n)
    if grown == NULL:
        return SIFT_MEMORY
    p[0] = grown
    cap[0] = n
    return 0


cdef int inflate(Sieve *s, const uint8_t *p, const BatchInfo *info, size_t *n) noexcept nogil:
    cdef FlInflate stream
    cdef const uint8_t *piece = NULL
    cdef size_t length = 0
    cdef int status = inflate_open(&stream, info.attributes & ATTR_CODEC, p + BATCH_HEADER, <size_t> info.size - BATCH_HEADER, s.scratch,
                                   BATCH_SCRATCH, PLAIN_MAX)
    cdef int error = 0
    n[0] = 0
    if status == FL_END:
        status = FL_MORE
    while status == FL_MORE and not error:
        status = inflate_next(&stream, &piece, &length)
        if status == FL_MORE:
            error = room(&s.plain, &s.plain_cap, n[0] + length)
            if not error:
                memcpy(s.plain + n[0], piece, length)
                n[0] += length
    inflate_close(&stream)
    if error or status == FL_END:
        return error
    if status != FL_BAD and status != FL_BIG:
        return SIFT_MEMORY
    s.why = "records that can't be decompressed" if status == FL_BAD else "records that decompress to more than 1 GiB"
    return SIFT_BAD


cdef int read_records(Sieve *s, const uint8_t *p, const BatchInfo *info) noexcept nogil:
    """All records of a batch into s.records, their keys' hashes with them. 0 or an error."""
    cdef const uint8_t *at = p + BATCH_HEADER
    cdef const uint8_t *end = p + info.size
    cdef SiftRecord *r
    cdef void *grown
    cdef size_t n = 0
    cdef int32_t i
    cdef int error
    s.records_n = 0
    if info.count == 0:
        return 0
    if info.attributes & ATTR_CODEC != CODEC_NONE:
        error = inflate(s, p, info, &n)
        if error:
            return error
        at = s.plain
        end = s.plain + n
    if info.count > end - at:       # a record takes seven bytes at least
        s.why = "a batch with fewer records than it says"
        return SIFT_BAD
    if info.count > s.records_cap:
        grown = realloc(s.records, <size_t> info.count * sizeof(SiftRecord))
        if grown == NULL:
            return SIFT_MEMORY
        s.records = <SiftRecord *> grown
        s.records_cap = info.count
    for i in range(info.count):
        r = s.records + i
        if not read_record(&at, end, r) or not 0 <= r.offset_delta <= info.last_offset_delta:
            s.why = "a record whose lengths don't add up"
            return SIFT_BAD
        if r.key_length >= 0 and not info.attributes & ATTR_CONTROL:
            r.hash = keymap_hash(&s.map, r.key, <uint64_t> r.key_length)
            keymap_prefetch(&s.map, r.hash)
    s.records_n = info.count
    return 0


cdef int sieve_note(Sieve *s, const uint8_t *p, const BatchInfo *info, int64_t from_offset) noexcept nogil:
    cdef SiftRecord *r
    cdef int32_t i
    cdef int error = read_records(s, p, info)
    if error:
        return error
    for i in range(s.records_n):
        r = s.records + i
        if r.key_length >= 0 and info.base_offset + r.offset_delta >= from_offset and \
                not keymap_put(&s.map, r.hash, info.base_offset + r.offset_delta):
            return 1
    return 0


# ---- what stays

cdef inline bint stays(Sieve *s, const SiftRecord *r, const BatchInfo *info) noexcept nogil:
    cdef int64_t offset = info.base_offset + r.offset_delta
    if info.attributes & ATTR_CONTROL or offset > s.latest:
        return True
    if r.key_length < 0:
        s.keyless += 1
        return False
    return offset >= keymap_get(&s.map, r.hash) and \
        (r.has_value or not info.attributes & ATTR_DELETE_HORIZON or s.now_ms < info.base_timestamp)


cdef SiftResult sieve_batch(Sieve *s, const uint8_t *p, const BatchInfo *info, bint discard, bint keep_empty, bint marker) noexcept nogil:
    cdef SiftRecord *r
    cdef int32_t kept = 0
    cdef int32_t i
    cdef int error
    cdef bint tombstones = False
    s.records_read += <uint64_t> info.count
    if not discard:
        error = read_records(s, p, info)
        if error:
            return <SiftResult> error
        for i in range(s.records_n):
            r = s.records + i
            if stays(s, r, info):
                if not r.has_value:
                    tombstones = True
                s.records[kept] = r[0]
                kept += 1
    if kept == 0:
        if not keep_empty:
            return SIFT_GONE
        empty_header(s, p, info)
        return SIFT_MADE
    s.records_kept += <uint64_t> kept
    marker = (marker or tombstones) and not info.attributes & ATTR_DELETE_HORIZON
    if kept == s.records_n and not marker:
        return SIFT_SAME
    s.records_n = kept
    return make(s, p, info, marker)


cdef void empty_header(Sieve *s, const uint8_t *p, const BatchInfo *info) noexcept nogil:
    """The batch without its records, as Kafka leaves it: no codec, no delete horizon, its largest timestamp."""
    memcpy(s.out, p, BATCH_HEADER)
    put16(s.out + AT_ATTRIBUTES, <uint16_t> (info.attributes & 0x7F & ~(ATTR_CODEC | ATTR_DELETE_HORIZON)))
    put64(s.out + AT_BASE_TIMESTAMP, <uint64_t> <int64_t> NO_TIMESTAMP)
    put32(s.out + AT_COUNT, 0)
    finish(s, BATCH_HEADER)


cdef void sieve_placeholder(Sieve *s, int64_t last_offset, int32_t leader_epoch, int64_t timestamp) noexcept nogil:
    memset(s.out, 0, BATCH_HEADER)
    put64(s.out, <uint64_t> last_offset)
    put32(s.out + AT_LEADER_EPOCH, <uint32_t> leader_epoch)
    s.out[AT_MAGIC] = 2
    put64(s.out + AT_BASE_TIMESTAMP, <uint64_t> <int64_t> NO_TIMESTAMP)
    put64(s.out + AT_MAX_TIMESTAMP, <uint64_t> timestamp)
    put64(s.out + AT_PRODUCER_ID, <uint64_t> <int64_t> -1)
    put16(s.out + AT_PRODUCER_EPOCH, <uint16_t> <int16_t> -1)
    put32(s.out + AT_BASE_SEQUENCE, <uint32_t> <int32_t> -1)
    finish(s, BATCH_HEADER)


cdef void finish(Sieve *s, size_t n) noexcept nogil:
    """Length and CRC of the n bytes in `out`."""
    put32(s.out + AT_LENGTH, <uint32_t> (n - BATCH_PREFIX))
    put32(s.out + AT_CRC, crc32c(0, s.out + BATCH_CRC_FROM, n - BATCH_CRC_FROM))
    batch_peek(s.out, n, &s.out_info)


cdef inline uint8_t *put_varint(uint8_t *at, int64_t signed_) noexcept nogil:
    cdef uint64_t v = (<uint64_t> signed_ << 1) ^ <uint64_t> (signed_ >> 63)
    while v >= 0x80:
        at[0] = <uint8_t> (v | 0x80)
        at += 1
        v >>= 7
    at[0] = <uint8_t> v
    return at + 1


cdef inline int varint_size(int64_t signed_) noexcept nogil:
    cdef uint64_t v = (<uint64_t> signed_ << 1) ^ <uint64_t> (signed_ >> 63)
    cdef int n = 1
    while v >= 0x80:
        v >>= 7
        n += 1
    return n


cdef int rebase(Sieve *s, int64_t shift) noexcept nogil:
    """The kept records with timestamp deltas that are `shift` larger, in memory of the sieve's own."""
    cdef SiftRecord *r
    cdef uint8_t *at
    cdef uint8_t *began
    cdef size_t need = 0
    cdef int64_t delta
    cdef int64_t rest
    cdef int32_t i
    for i in range(s.records_n):
        need += <size_t> (s.records[i].end - s.records[i].rest) + HEAD_MAX + 5
    if room(&s.made, &s.made_cap, need):
        return SIFT_MEMORY
    at = s.made
    for i in range(s.records_n):
        r = s.records + i
        began = at
        delta = <int64_t> (<uint64_t> r.timestamp_delta + <uint64_t> shift)
        rest = <int64_t> (r.end - r.rest)
        at = put_varint(at, 1 + varint_size(delta) + rest)
        at[0] = 0
        at = put_varint(at + 1, delta)
        memcpy(at, r.rest, <size_t> rest)
        at += rest
        r.start = began
        r.end = at
    return 0


cdef SiftResult make(Sieve *s, const uint8_t *p, const BatchInfo *info, bint horizon) noexcept nogil:
    """The batch of the kept records; with a delete horizon, which takes the base timestamp's place, if asked for."""
    cdef FlDeflate stream
    cdef const uint8_t *run
    cdef int64_t base = info.base_timestamp
    cdef int64_t latest = NO_TIMESTAMP
    cdef int64_t at
    cdef uint64_t plain = 0
    cdef int32_t i
    cdef int status
    cdef int16_t attributes = info.attributes
    for i in range(s.records_n):
        at = <int64_t> (<uint64_t> base + <uint64_t> s.records[i].timestamp_delta)
        if at > latest:
            latest = at
    if info.attributes & ATTR_LOG_APPEND_TIME:
        latest = info.max_timestamp
    if horizon:
        base = s.now_ms + s.retention_ms
        attributes |= ATTR_DELETE_HORIZON
        if rebase(s, <int64_t> (<uint64_t> info.base_timestamp - <uint64_t> base)):
            return SIFT_MEMORY
    for i in range(s.records_n):
        plain += <uint64_t> (s.records[i].end - s.records[i].start)
    status = deflate_begin(&stream, info.attributes & ATTR_CODEC, 0, plain, BATCH_HEADER, INT32_MAX - BATCH_PREFIX)
    i = 0
    while status == FL_END and i < s.records_n:
        run = s.records[i].start
        while i + 1 < s.records_n and s.records[i + 1].start == s.records[i].end:
            i += 1
        status = deflate_add(&stream, run, <size_t> (s.records[i].end - run))
        i += 1
    if status == FL_END:
        status = deflate_end(&stream)
    if status != FL_END:
        deflate_drop(&stream)
        s.why = "a batch that would be larger than 2 GiB"
        return SIFT_BAD if status == FL_BIG else SIFT_MEMORY
    free(s.out)
    s.out = stream.out
    memcpy(s.out, p, BATCH_HEADER)
    put16(s.out + AT_ATTRIBUTES, <uint16_t> attributes)
    put64(s.out + AT_BASE_TIMESTAMP, <uint64_t> base)
    put64(s.out + AT_MAX_TIMESTAMP, <uint64_t> latest)
    put32(s.out + AT_COUNT, <uint32_t> s.records_n)
    finish(s, stream.used)
    return SIFT_MADE

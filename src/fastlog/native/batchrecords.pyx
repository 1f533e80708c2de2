"""See batchrecords.pxd."""
from libc.stdint cimport INT64_MAX, uint16_t
from libc.string cimport memset

from fastlog.native.batch cimport ATTR_CODEC, ATTR_LOG_APPEND_TIME, BATCH_HEADER, CODEC_NONE, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, NONE, \
    PEEK_OK, UNKNOWN_SERVER_ERROR, batch_peek
from fastlog.native.bytes cimport get16, get32
from fastlog.native.compression cimport FL_BAD, FL_BIG, FL_END, FL_MORE, inflate_close, inflate_next, inflate_open


cdef bint source_next(Source *s) noexcept nogil:
    cdef size_t n = 0
    if s.inflate == NULL or s.status != FL_MORE:
        return False
    s.before += <uint64_t> (s.end - s.piece)
    s.status = inflate_next(s.inflate, &s.piece, &n)
    s.p = s.piece
    s.end = s.piece + n
    return s.status == FL_MORE


cdef void source_skip(Source *s, uint64_t n) noexcept nogil:
    cdef uint64_t here
    while n:
        if s.p == s.end and not source_next(s):
            s.bad = True
            return
        here = min(n, <uint64_t> (s.end - s.p))
        s.p += here
        n -= here


cdef int16_t records_open(Source *s, FlInflate *inflate, const uint8_t *p, const BatchInfo *info, void *scratch, size_t scratch_len,
                          uint64_t inflate_max) noexcept nogil:
    cdef int codec = info.attributes & ATTR_CODEC
    cdef int status
    memset(s, 0, sizeof(Source))
    s.p = s.end = s.piece = p + BATCH_HEADER
    if codec == CODEC_NONE:
        s.end = p + info.size
        return NONE
    status = inflate_open(inflate, codec, p + BATCH_HEADER, info.size - BATCH_HEADER, scratch, scratch_len, inflate_max)
    if status != FL_END:
        inflate_close(inflate)
        return records_error(status)
    s.inflate = inflate
    s.status = FL_MORE
    return NONE


cdef void records_close(Source *s) noexcept nogil:
    if s.inflate != NULL:
        inflate_close(s.inflate)


cdef int16_t records_error(int status) noexcept nogil:
    if status == FL_BAD:
        return CORRUPT_MESSAGE
    if status == FL_BIG:
        return MESSAGE_TOO_LARGE
    return UNKNOWN_SERVER_ERROR


cdef const char *records_why(int16_t error) noexcept nogil:
    if error == CORRUPT_MESSAGE:
        return b"the records can't be decompressed"
    if error == MESSAGE_TOO_LARGE:
        return b"the records decompress to more than the broker allows"
    return b"no memory to decompress the records"


cdef int batch_marker(const uint8_t *p, size_t n, Marker *out) noexcept nogil:
    cdef Source s
    cdef int32_t length
    cdef uint16_t kind
    memset(&s, 0, sizeof(s))
    if n <= BATCH_HEADER:
        return -1
    s.p = s.piece = p + BATCH_HEADER
    s.end = p + n
    take_varint(&s)                 # of the record
    if s.p == s.end:
        return -1
    s.p += 1                        # attributes
    take_varlong(&s)
    take_varint(&s)
    length = take_varint(&s)
    if s.bad or length < 4 or length > s.end - s.p:
        return -1
    kind = get16(s.p + 2)
    if kind > 1:
        return -1
    s.p += length
    length = take_varint(&s)
    if s.bad or length < 6 or length > s.end - s.p:
        return -1
    out.commit = kind == 1
    out.coordinator_epoch = <int32_t> get32(s.p + 2)
    return 0


cdef int batch_find_time(const uint8_t *p, size_t n, int64_t timestamp, void *scratch, size_t scratch_len,
                         int64_t *offset, int64_t *found_ms) noexcept nogil:
    cdef Source source
    cdef FlInflate inflate
    cdef BatchInfo info
    cdef Record record
    cdef int64_t at
    cdef int32_t _i
    cdef int found = 0
    if batch_peek(p, n, &info) != PEEK_OK or <size_t> info.size > n:
        return -1
    if info.count == 0 or info.max_timestamp < timestamp:
        return 0
    if info.attributes & ATTR_LOG_APPEND_TIME:
        offset[0] = info.base_offset
        found_ms[0] = info.max_timestamp
        return 1
    if records_open(&source, &inflate, p, &info, scratch, scratch_len, INT64_MAX):
        return -1
    for _i in range(info.count):
        if not record_read(&source, &record):
            found = -1
            break
        at = <int64_t> (<uint64_t> info.base_timestamp + <uint64_t> record.timestamp_delta)
        if at >= timestamp:
            offset[0] = <int64_t> (<uint64_t> info.base_offset + <uint64_t> record.offset_delta)
            found_ms[0] = at
            found = 1
            break
    records_close(&source)
    return found

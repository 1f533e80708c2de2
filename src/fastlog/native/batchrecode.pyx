"""See batchrecode.pxd."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastlog.native.batch cimport (
    ATTR_CODEC, AT_ATTRIBUTES, AT_CRC, AT_LENGTH, BATCH_HEADER, BATCH_PREFIX, BATCH_SCRATCH, CODEC_PRODUCER, CORRUPT_MESSAGE,
    MESSAGE_TOO_LARGE, NONE, PEEK_OK, UNKNOWN_SERVER_ERROR, batch_crc, batch_header, batch_peek,
)
from fastlog.native.batchrecords cimport Source, records_close, records_error, records_open, records_why, source_next
from fastlog.native.bytes cimport put16, put32
from fastlog.native.compression cimport FL_BIG, FL_END, FL_MEMORY, FlDeflate, FlInflate, deflate_add, deflate_begin, deflate_drop, \
    deflate_end


cdef int copy_records(Source *s, FlDeflate *out) noexcept nogil:
    """All records' bytes from one codec to the other: FL_END or an error of either."""
    cdef int status = FL_END
    while s.p != s.end or source_next(s):
        status = deflate_add(out, s.p, <size_t> (s.end - s.p))
        if status != FL_END:
            return status
        s.p = s.end
    if s.inflate != NULL and s.status != FL_END:
        return s.status
    return deflate_end(out)


cdef int16_t recode_error(int status, const char **why) noexcept nogil:
    if status == FL_BIG:
        why[0] = b"the recompressed batch is larger than max.message.bytes"
        return MESSAGE_TOO_LARGE
    why[0] = b"no memory to recompress the batch"
    return UNKNOWN_SERVER_ERROR


cdef int16_t batch_recode(const uint8_t *p, size_t n, const BatchRules *rules, uint8_t **out, size_t *out_len,
                          BatchInfo *out_info, const char **why) noexcept nogil:
    cdef Source source
    cdef FlInflate inflate
    cdef FlDeflate deflate
    cdef BatchInfo info
    cdef void *scratch
    cdef uint64_t size
    cdef int codec = rules.codec
    cdef int status
    cdef int16_t error
    out[0] = NULL
    out_len[0] = 0
    why[0] = NULL
    if batch_peek(p, n, &info) != PEEK_OK or <size_t> info.size != n:
        why[0] = b"not one whole record batch"
        return CORRUPT_MESSAGE
    if codec == CODEC_PRODUCER:
        codec = info.attributes & ATTR_CODEC
    if rules.size_max < BATCH_HEADER:
        return recode_error(FL_BIG, why)
    scratch = malloc(BATCH_SCRATCH)
    if scratch == NULL:
        return recode_error(FL_MEMORY, why)
    error = records_open(&source, &inflate, p, &info, scratch, BATCH_SCRATCH, rules.inflate_max)
    if error:
        free(scratch)
        why[0] = records_why(error)
        return error
    size = 0 if source.inflate != NULL else n - BATCH_HEADER
    status = deflate_begin(&deflate, codec, rules.level, size, BATCH_HEADER, rules.size_max)
    if status == FL_END:
        status = copy_records(&source, &deflate)
    records_close(&source)
    free(scratch)
    if status != FL_END:
        deflate_drop(&deflate)
        if source.inflate != NULL and source.status < 0:
            why[0] = records_why(records_error(status))
            return records_error(status)
        return recode_error(status, why)
    memcpy(deflate.out, p, BATCH_HEADER)
    put32(deflate.out + AT_LENGTH, <uint32_t> (deflate.used - BATCH_PREFIX))
    put16(deflate.out + AT_ATTRIBUTES, <uint16_t> ((info.attributes & ~ATTR_CODEC) | codec))
    put32(deflate.out + AT_CRC, batch_crc(deflate.out, deflate.used))
    batch_header(deflate.out, out_info)
    out[0] = deflate.out
    out_len[0] = deflate.used
    return NONE

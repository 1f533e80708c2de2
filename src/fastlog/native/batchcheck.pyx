"""See batchcheck.pxd. What is refused, and with which error, follows Kafka 4.3 (ProduceRequest.validateRecords, UnifiedLog.append,
LogValidator, DefaultRecordBatch); where it differs, batchcheck.pxd says so."""
from libc.stdint cimport INT32_MAX, uint16_t

from fastlog.native.batch cimport (
    ATTR_LOG_APPEND_TIME, ATTR_TRANSACTIONAL, AT_ATTRIBUTES, AT_CRC, AT_LENGTH, AT_MAGIC, AT_MAX_TIMESTAMP, BATCH_HEADER, BATCH_PREFIX,
    BATCH_SCRATCH, CODEC_GZIP, CODEC_NONE, CODEC_ZSTD, CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, NONE,
    UNSUPPORTED_COMPRESSION_TYPE, batch_crc, batch_crc_ok, batch_header,
)
from fastlog.native.batchrecords cimport (
    Record, Source, record_read, records_close, records_error, records_open, records_why, source_next,
)
from fastlog.native.bytes cimport get32, put16, put32, put64
from fastlog.native.compression cimport FL_END, FlInflate

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition) noexcept

cdef enum:
    LENGTH_MIN = 14                 # of the oldest format's smallest batch: less is not a batch of any format
    MAGIC = 2
    NO_TIMESTAMP = -1

cdef enum:
    SLOW_GZIP = 8192                # bytes of a batch over which decompressing takes long, by codec
    SLOW_ZSTD = 32768
    SLOW_OTHER = 65536
    QUICK_INFLATE_MAX = 262144      # bytes that batch_check_quick decompresses at most


cdef void set_max_timestamp(uint8_t *p, BatchInfo *info, bint log_append_time, int64_t max_timestamp) noexcept nogil:
    """Patches header and CRC when something changes; as in Kafka, the attributes' unused bits are dropped then."""
    cdef int16_t attributes = info.attributes & 0x7F & ~ATTR_LOG_APPEND_TIME
    if log_append_time:
        attributes |= ATTR_LOG_APPEND_TIME
    if max_timestamp == info.max_timestamp and not (attributes ^ info.attributes) & ATTR_LOG_APPEND_TIME:
        return
    put16(p + AT_ATTRIBUTES, <uint16_t> attributes)
    put64(p + AT_MAX_TIMESTAMP, <uint64_t> max_timestamp)
    info.attributes = attributes
    info.max_timestamp = max_timestamp
    info.crc = batch_crc(p, info.size)
    put32(p + AT_CRC, info.crc)


cdef inline bint out_of_range(int64_t timestamp, const BatchRules *rules, int64_t now_ms) noexcept nogil:
    # two's complement, as in Kafka: a difference that overflows counts as it comes out
    cdef int64_t age = <int64_t> (<uint64_t> now_ms - <uint64_t> timestamp)
    return age > rules.before_max_ms or <int64_t> (0 - <uint64_t> age) > rules.after_max_ms


cdef inline bint timestamp_refused(int64_t timestamp, const BatchInfo *info, const BatchRules *rules, int64_t now_ms) noexcept nogil:
    if not rules.log_append_time and timestamp != NO_TIMESTAMP:
        return out_of_range(timestamp, rules, now_ms)
    return info.attributes & ATTR_LOG_APPEND_TIME   # that is for the broker to say


cdef int16_t walk(Source *s, const BatchInfo *info, const BatchRules *rules, int64_t now_ms, int64_t *max_timestamp, int32_t *refused,
                  int32_t refused_max, int32_t *n_refused, const char **why) noexcept nogil:
    """Reads all records. A broken one ends it; refused keys and timestamps are told only when the whole batch could be read.
    `refused`: room for the positions of up to `refused_max` of them."""
    cdef Record record
    cdef int64_t timestamp = info.max_timestamp
    cdef bint appended = (info.attributes & ATTR_LOG_APPEND_TIME) != 0
    cdef bint keyless = False, untimely = False
    cdef int32_t i
    cdef bint wrong
    max_timestamp[0] = NO_TIMESTAMP
    n_refused[0] = 0
    for i in range(info.count):
        if not record_read(s, &record):
            if s.inflate != NULL and s.status < 0:
                why[0] = records_why(records_error(s.status))
                return records_error(s.status)
            why[0] = b"a record's lengths or counts don't add up"
            return INVALID_RECORD
        if record.offset_delta != i:
            why[0] = b"the records' offsets are not 0, 1, 2, ..."
            return INVALID_RECORD
        if not appended:
            timestamp = <int64_t> (<uint64_t> info.base_timestamp + <uint64_t> record.timestamp_delta)
        if timestamp > max_timestamp[0]:
            max_timestamp[0] = timestamp
        wrong = False
        if rules.keys_required and not record.has_key:
            keyless = wrong = True
        elif timestamp_refused(timestamp, info, rules, now_ms):
            untimely = wrong = True
        if wrong and n_refused[0] < refused_max:
            refused[n_refused[0]] = i
            n_refused[0] += 1
    if s.p != s.end or source_next(s):
        why[0] = b"there is more in the batch than its record count says"
        return INVALID_RECORD
    if s.inflate != NULL and s.status != FL_END:
        why[0] = records_why(records_error(s.status))
        return records_error(s.status)
    if untimely:
        why[0] = b"One or more records have been rejected due to invalid timestamp"
        return INVALID_TIMESTAMP
    if keyless:
        why[0] = b"a compacted topic takes no record without a key"
        return INVALID_RECORD
    return NONE


cdef int16_t check_frame(const uint8_t *p, size_t n, const char **why) noexcept nogil:
    """Whether the n bytes are one whole batch of magic 2."""
    cdef uint32_t length
    if n < BATCH_PREFIX:
        why[0] = b"no record batch"
        return INVALID_RECORD
    length = get32(p + AT_LENGTH)
    if length < LENGTH_MIN or length > INT32_MAX - BATCH_PREFIX:
        why[0] = b"the batch's length is not one that a batch can have"
        return CORRUPT_MESSAGE
    if n <= AT_MAGIC:
        why[0] = b"no whole record batch"
        return INVALID_RECORD
    if p[AT_MAGIC] > MAGIC:
        why[0] = b"the batch's magic is none of 0, 1, 2"
        return CORRUPT_MESSAGE
    if n < <size_t> length + BATCH_PREFIX:
        why[0] = b"no whole record batch"
        return INVALID_RECORD
    if p[AT_MAGIC] != MAGIC:
        why[0] = b"message format 0 or 1 (clients before Kafka 0.11); this broker takes format 2 only"
        return INVALID_RECORD
    if n > <size_t> length + BATCH_PREFIX:
        why[0] = b"more than one record batch, or something behind it"
        return INVALID_RECORD
    if n < BATCH_HEADER:
        why[0] = b"the batch is shorter than its header"
        return CORRUPT_MESSAGE
    return NONE


cdef int16_t check_header(const uint8_t *p, const BatchInfo *info, const BatchRules *rules, const char **why) noexcept nogil:
    if info.base_offset != 0 and not rules.internal:
        why[0] = b"the batch's base offset is not 0"
        return INVALID_RECORD
    if <uint32_t> info.size > rules.size_max:
        why[0] = b"the batch is larger than max.message.bytes"
        return MESSAGE_TOO_LARGE
    if not batch_crc_ok(p, info):
        why[0] = b"the batch's CRC is wrong"
        return CORRUPT_MESSAGE
    if info.attributes & ATTR_CODEC > CODEC_ZSTD:
        why[0] = b"unknown compression type"
        return UNSUPPORTED_COMPRESSION_TYPE
    if info.count <= 0 or info.last_offset_delta != info.count - 1:
        why[0] = b"the batch's record count and last offset don't agree, or it has no records"
        return INVALID_RECORD
    if rules.internal:
        return NONE
    if info.attributes & ATTR_CONTROL:
        why[0] = b"clients write no control batches"
        return INVALID_RECORD
    if info.producer_id >= 0 and info.base_sequence < 0:
        why[0] = b"a producer id without a sequence number"
        return INVALID_RECORD
    if info.attributes & ATTR_TRANSACTIONAL and info.producer_id < 0:
        why[0] = b"a transactional batch without a producer id"
        return INVALID_RECORD
    return NONE


cdef int16_t check_within(uint8_t *p, size_t n, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len,
                          uint64_t inflate_max, BatchInfo *out, const char **why) noexcept nogil:
    cdef Source source
    cdef FlInflate inflate
    cdef int64_t max_timestamp
    cdef int32_t n_refused
    cdef int16_t error
    why[0] = NULL
    FL_ASSERT(scratch_len >= BATCH_SCRATCH)
    error = check_frame(p, n, why)
    if error:
        return error
    batch_header(p, out)
    error = check_header(p, out, rules, why)
    if error:
        return error
    if rules.look_inside or rules.keys_required:
        error = records_open(&source, &inflate, p, out, scratch, scratch_len, inflate_max)
        if error:
            why[0] = records_why(error)
            return error
        error = walk(&source, out, rules, now_ms, &max_timestamp, NULL, 0, &n_refused, why)
        records_close(&source)
        if error:
            return error
    else:
        max_timestamp = out.max_timestamp
        if timestamp_refused(max_timestamp, out, rules, now_ms):
            why[0] = b"One or more records have been rejected due to invalid timestamp"
            return INVALID_TIMESTAMP
    set_max_timestamp(p, out, rules.log_append_time, now_ms if rules.log_append_time else max_timestamp)
    return NONE


cdef int32_t batch_refused(const uint8_t *p, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len, int32_t *at,
                           int32_t at_max) noexcept nogil:
    cdef Source source
    cdef FlInflate inflate
    cdef BatchInfo info
    cdef int64_t max_timestamp
    cdef int32_t n = 0
    cdef const char *why = NULL
    FL_ASSERT(scratch_len >= BATCH_SCRATCH)
    batch_header(p, &info)
    if (rules.look_inside or rules.keys_required) and \
            records_open(&source, &inflate, p, &info, scratch, scratch_len, QUICK_INFLATE_MAX) == NONE:
        walk(&source, &info, rules, now_ms, &max_timestamp, at, at_max, &n, &why)
        records_close(&source)
    return n


cdef int16_t batch_check(uint8_t *p, size_t n, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len,
                         BatchInfo *out, const char **why) noexcept nogil:
    return check_within(p, n, rules, now_ms, scratch, scratch_len, rules.inflate_max, out, why)


cdef int16_t batch_check_quick(uint8_t *p, size_t n, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len,
                               BatchInfo *out, const char **why) noexcept nogil:
    cdef int16_t error
    if rules.inflate_max <= QUICK_INFLATE_MAX:
        return batch_check(p, n, rules, now_ms, scratch, scratch_len, out, why)
    error = check_within(p, n, rules, now_ms, scratch, scratch_len, QUICK_INFLATE_MAX, out, why)
    # of all that it refuses as too large, only what must be decompressed further may be right after all
    if error == MESSAGE_TOO_LARGE and n <= rules.size_max:
        why[0] = NULL
        return BATCH_UNDECIDED
    return error


cdef bint batch_is_slow(const BatchInfo *info, const BatchRules *rules) noexcept nogil:
    cdef int codec = info.attributes & ATTR_CODEC
    if batch_needs_recode(info, rules):
        return True
    if codec == CODEC_NONE or not (rules.look_inside or rules.keys_required):
        return False
    if codec == CODEC_GZIP:
        return info.size > SLOW_GZIP
    return info.size > (SLOW_ZSTD if codec == CODEC_ZSTD else SLOW_OTHER)

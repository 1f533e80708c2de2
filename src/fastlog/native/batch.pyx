"""See batch.pxd. What is refused, and with which error, follows Kafka 4.3 (ProduceRequest.validateRecords, UnifiedLog.append,
LogValidator, DefaultRecordBatch); where it differs, batch.pxd says so."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, INT64_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastlog.native.bytes cimport get16, get32, get64, put16, put32, put64
from fastlog.native.compression cimport FL_BAD, FL_BIG, FL_END, FL_MEMORY, FL_MORE, FlDeflate, FlInflate, deflate_add, deflate_begin, \
    deflate_drop, deflate_end, inflate_close, inflate_next, inflate_open
from fastlog.native.crc32c cimport crc32c

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition) noexcept

cdef enum:                          # Kafka's error codes
    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    CORRUPT_MESSAGE = 2
    MESSAGE_TOO_LARGE = 10
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_COMPRESSION_TYPE = 76
    INVALID_RECORD = 87

cdef enum:                          # where the header's fields are
    AT_LENGTH = 8
    AT_LEADER_EPOCH = 12
    AT_MAGIC = 16
    AT_CRC = 17
    AT_ATTRIBUTES = 21
    AT_LAST_OFFSET_DELTA = 23
    AT_BASE_TIMESTAMP = 27
    AT_MAX_TIMESTAMP = 35
    AT_PRODUCER_ID = 43
    AT_PRODUCER_EPOCH = 51
    AT_BASE_SEQUENCE = 53
    AT_COUNT = 57

cdef enum:
    LENGTH_MIN = 14                 # of the oldest format's smallest batch: less is not a batch of any format
    MAGIC = 2
    NO_TIMESTAMP = -1

cdef enum:
    SLOW_GZIP = 8192                # bytes of a batch over which decompressing takes long, by codec
    SLOW_ZSTD = 32768
    SLOW_OTHER = 65536
    QUICK_INFLATE_MAX = 262144      # bytes that batch_check_quick decompresses at most


# ---- header --------------------------------------------------------------------------------------------------------------------

cdef void read_header(const uint8_t *p, BatchInfo *out) noexcept nogil:
    out.base_offset = <int64_t> get64(p)
    out.size = <int32_t> get32(p + AT_LENGTH) + BATCH_PREFIX
    out.leader_epoch = <int32_t> get32(p + AT_LEADER_EPOCH)
    out.magic = <int8_t> p[AT_MAGIC]
    out.crc = get32(p + AT_CRC)
    out.attributes = <int16_t> get16(p + AT_ATTRIBUTES)
    out.last_offset_delta = <int32_t> get32(p + AT_LAST_OFFSET_DELTA)
    out.base_timestamp = <int64_t> get64(p + AT_BASE_TIMESTAMP)
    out.max_timestamp = <int64_t> get64(p + AT_MAX_TIMESTAMP)
    out.producer_id = <int64_t> get64(p + AT_PRODUCER_ID)
    out.producer_epoch = <int16_t> get16(p + AT_PRODUCER_EPOCH)
    out.base_sequence = <int32_t> get32(p + AT_BASE_SEQUENCE)
    out.count = <int32_t> get32(p + AT_COUNT)


cdef PeekResult batch_peek(const void *p, size_t n, BatchInfo *out) noexcept nogil:
    cdef const uint8_t *at = <const uint8_t *> p
    cdef uint32_t length
    if n < BATCH_HEADER:
        return PEEK_MORE
    length = get32(at + AT_LENGTH)
    if length < BATCH_HEADER - BATCH_PREFIX or length > INT32_MAX - BATCH_PREFIX or at[AT_MAGIC] != MAGIC:
        return PEEK_BAD
    read_header(at, out)
    return PEEK_OK if out.last_offset_delta >= 0 and out.count >= 0 else PEEK_BAD


cdef uint32_t crc_of(const uint8_t *p, size_t size) noexcept nogil:
    return crc32c(0, p + BATCH_CRC_FROM, size - BATCH_CRC_FROM)


cdef bint batch_crc_ok(const void *p, const BatchInfo *info) noexcept nogil:
    return crc_of(<const uint8_t *> p, info.size) == info.crc


cdef void batch_stamp(uint8_t *p, int64_t base_offset, int32_t leader_epoch) noexcept nogil:
    put64(p, <uint64_t> base_offset)
    put32(p + AT_LEADER_EPOCH, <uint32_t> leader_epoch)


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
    info.crc = crc_of(p, info.size)
    put32(p + AT_CRC, info.crc)


# ---- records -------------------------------------------------------------------------------------------------------------------

# The records' bytes: one piece of memory, or pieces as they are decompressed. As in bytes.pxd, the first read that can't be done
# sets `bad`, and every read from then on yields zero.
cdef struct Source:
    const uint8_t *p
    const uint8_t *end
    const uint8_t *piece            # start of this piece
    uint64_t before                 # bytes in the pieces before it
    FlInflate *inflate              # NULL: there is one piece only
    int status                      # of the last inflate_next
    bint bad

cdef struct Record:
    int64_t timestamp_delta
    int32_t offset_delta
    bint has_key


cdef bint next_piece(Source *s) noexcept nogil:
    """Goes to the next piece when this one is used up; False when there is none."""
    cdef size_t n = 0
    if s.inflate == NULL or s.status != FL_MORE:
        return False
    s.before += <uint64_t> (s.end - s.piece)
    s.status = inflate_next(s.inflate, &s.piece, &n)
    s.p = s.piece
    s.end = s.piece + n
    return s.status == FL_MORE


cdef inline uint64_t position(const Source *s) noexcept nogil:
    return s.before + <uint64_t> (s.p - s.piece)


cdef uint64_t take_long_varint(Source *s, int bytes_max) noexcept nogil:
    cdef uint64_t v = 0
    cdef uint8_t byte
    cdef int i
    for i in range(bytes_max):
        if s.p == s.end and not next_piece(s):
            break
        byte = s.p[0]
        s.p += 1
        v |= <uint64_t> (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return v
    s.bad = True
    return 0


cdef inline int64_t unzigzag(uint64_t v) noexcept nogil:
    return <int64_t> ((v >> 1) ^ (~(v & 1) + 1))


cdef inline int64_t take_varlong(Source *s) noexcept nogil:
    """Zigzag, at most 10 bytes; bits past the 64th are dropped, as everywhere."""
    cdef const uint8_t *at = s.p
    if at != s.end and at[0] < 0x80:
        s.p += 1
        return unzigzag(at[0])
    return unzigzag(take_long_varint(s, 10))


cdef inline int32_t take_varint(Source *s) noexcept nogil:
    """Zigzag, at most 5 bytes. Bits past the 32nd are refused: clients differ in how they read them."""
    cdef const uint8_t *at = s.p
    cdef uint64_t v
    if at != s.end and at[0] < 0x80:
        s.p += 1
        return <int32_t> unzigzag(at[0])
    if s.end - at >= 2 and at[1] < 0x80:
        s.p += 2
        return <int32_t> unzigzag((at[0] & 0x7F) | <uint64_t> at[1] << 7)
    v = take_long_varint(s, 5)
    if v >> 32:
        s.bad = True
        return 0
    return <int32_t> unzigzag(v)


cdef void skip_far(Source *s, uint64_t n) noexcept nogil:
    cdef uint64_t here
    while n:
        if s.p == s.end and not next_piece(s):
            s.bad = True
            return
        here = min(n, <uint64_t> (s.end - s.p))
        s.p += here
        n -= here


cdef inline int32_t skip_bytes(Source *s, int32_t within) noexcept nogil:
    """Over a length and as many bytes. Returns the length; negative, it stands for null. It can't be more than `within`."""
    cdef int32_t n = take_varint(s)
    if n <= 0:
        return n
    if n <= s.end - s.p:
        s.p += n
    elif n <= within:
        skip_far(s, <uint64_t> n)
    else:
        s.bad = True
    return n


cdef bint read_record(Source *s, Record *out) noexcept nogil:
    """Reads one record; False when it is not one, or not of the length that it says."""
    cdef int32_t length = take_varint(s)
    cdef uint64_t start = position(s)
    cdef int32_t headers
    if s.p == s.end and not next_piece(s):
        return False
    s.p += 1                        # attributes: none are defined
    out.timestamp_delta = take_varlong(s)
    out.offset_delta = take_varint(s)
    out.has_key = skip_bytes(s, length) >= 0
    skip_bytes(s, length)
    headers = take_varint(s)
    if headers < 0 or headers > length:     # a header takes two bytes at least
        return False
    while headers and not s.bad:
        if skip_bytes(s, length) < 0:       # a header's name is never null
            return False
        skip_bytes(s, length)
        headers -= 1
    return not s.bad and length >= 0 and position(s) - start == <uint64_t> length


cdef int16_t open_records(Source *s, FlInflate *inflate, const uint8_t *p, const BatchInfo *info, void *scratch, size_t scratch_len,
                          uint64_t inflate_max) noexcept nogil:
    """Starts at the first record. Where it gives 0, close_records must follow."""
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
        return codec_error(status)
    s.inflate = inflate
    s.status = FL_MORE
    return NONE


cdef void close_records(Source *s) noexcept nogil:
    if s.inflate != NULL:
        inflate_close(s.inflate)


cdef int16_t codec_error(int status) noexcept nogil:
    if status == FL_BAD:
        return CORRUPT_MESSAGE
    if status == FL_BIG:
        return MESSAGE_TOO_LARGE
    return UNKNOWN_SERVER_ERROR


cdef const char *codec_why(int16_t error) noexcept nogil:
    if error == CORRUPT_MESSAGE:
        return b"the records can't be decompressed"
    if error == MESSAGE_TOO_LARGE:
        return b"the records decompress to more than the broker allows"
    return b"no memory to decompress the records"


# ---- validation ----------------------------------------------------------------------------------------------------------------

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
        if not read_record(s, &record):
            if s.inflate != NULL and s.status < 0:
                why[0] = codec_why(codec_error(s.status))
                return codec_error(s.status)
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
    if s.p != s.end or next_piece(s):
        why[0] = b"there is more in the batch than its record count says"
        return INVALID_RECORD
    if s.inflate != NULL and s.status != FL_END:
        why[0] = codec_why(codec_error(s.status))
        return codec_error(s.status)
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
    read_header(p, out)
    error = check_header(p, out, rules, why)
    if error:
        return error
    if rules.look_inside or rules.keys_required:
        error = open_records(&source, &inflate, p, out, scratch, scratch_len, inflate_max)
        if error:
            why[0] = codec_why(error)
            return error
        error = walk(&source, out, rules, now_ms, &max_timestamp, NULL, 0, &n_refused, why)
        close_records(&source)
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
    read_header(p, &info)
    if (rules.look_inside or rules.keys_required) and \
            open_records(&source, &inflate, p, &info, scratch, scratch_len, QUICK_INFLATE_MAX) == NONE:
        walk(&source, &info, rules, now_ms, &max_timestamp, at, at_max, &n, &why)
        close_records(&source)
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


# ---- control batches -----------------------------------------------------------------------------------------------------------

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


# ---- search --------------------------------------------------------------------------------------------------------------------

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
    if open_records(&source, &inflate, p, &info, scratch, scratch_len, INT64_MAX):
        return -1
    for _i in range(info.count):
        if not read_record(&source, &record):
            found = -1
            break
        at = <int64_t> (<uint64_t> info.base_timestamp + <uint64_t> record.timestamp_delta)
        if at >= timestamp:
            offset[0] = <int64_t> (<uint64_t> info.base_offset + <uint64_t> record.offset_delta)
            found_ms[0] = at
            found = 1
            break
    close_records(&source)
    return found


# ---- recompression -------------------------------------------------------------------------------------------------------------

cdef int copy_records(Source *s, FlDeflate *out) noexcept nogil:
    """All records' bytes from one codec to the other: FL_END or an error of either."""
    cdef int status = FL_END
    while s.p != s.end or next_piece(s):
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
    error = open_records(&source, &inflate, p, &info, scratch, BATCH_SCRATCH, rules.inflate_max)
    if error:
        free(scratch)
        why[0] = codec_why(error)
        return error
    size = 0 if source.inflate != NULL else n - BATCH_HEADER
    status = deflate_begin(&deflate, codec, rules.level, size, BATCH_HEADER, rules.size_max)
    if status == FL_END:
        status = copy_records(&source, &deflate)
    close_records(&source)
    free(scratch)
    if status != FL_END:
        deflate_drop(&deflate)
        if source.inflate != NULL and source.status < 0:
            why[0] = codec_why(codec_error(status))
            return codec_error(status)
        return recode_error(status, why)
    memcpy(deflate.out, p, BATCH_HEADER)
    put32(deflate.out + AT_LENGTH, <uint32_t> (deflate.used - BATCH_PREFIX))
    put16(deflate.out + AT_ATTRIBUTES, <uint16_t> ((info.attributes & ~ATTR_CODEC) | codec))
    put32(deflate.out + AT_CRC, crc_of(deflate.out, deflate.used))
    read_header(deflate.out, out_info)
    out[0] = deflate.out
    out_len[0] = deflate.used
    return NONE


# ---- for Python: the control plane's small needs, and tests ----------------------------------------------------------------------

cdef class Held:
    """The memory of a bytes-like object, held for as long as this lives."""
    cdef Py_buffer view
    cdef uint8_t *p
    cdef size_t n

    def __cinit__(self, data, bint writable=False):
        PyObject_GetBuffer(data, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.p = <uint8_t *> self.view.buf
        self.n = <size_t> self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef void fill_rules(BatchRules *rules, dict given) except *:
    rules.size_max = given.get("size_max", 1 << 30)
    rules.before_max_ms = given.get("before_max_ms", INT64_MAX)
    rules.after_max_ms = given.get("after_max_ms", 3_600_000)
    rules.log_append_time = given.get("log_append_time", False)
    rules.keys_required = given.get("keys_required", False)
    rules.look_inside = given.get("look_inside", True)
    rules.internal = given.get("internal", False)
    rules.codec = given.get("codec", CODEC_PRODUCER)
    rules.level = given.get("level", 0)
    rules.inflate_max = given.get("inflate_max", 1 << 26)


cdef str reason(const char *why):
    return None if why == NULL else why.decode()


cdef dict described(const BatchInfo *info):
    return info[0]


def peek(data) -> dict[str, int] | None:
    """The fields of the batch header (BatchInfo) at the start of `data`, or None when it is not one or not whole."""
    cdef Held held = Held(data)
    cdef BatchInfo info
    return described(&info) if batch_peek(held.p, held.n, &info) == PEEK_OK else None


def check(data, now_ms: int, quick: bool = False, **rules) -> tuple[int, str | None, dict[str, int]]:
    """batch_check (batch_check_quick) on a writable bytes-like object: (Kafka error code, reason, BatchInfo). `rules` are BatchRules'
    fields."""
    cdef Held held = Held(data, True)
    cdef BatchRules filled
    cdef BatchInfo info
    cdef const char *why = NULL
    cdef int64_t now = now_ms
    cdef bint hurry = quick
    cdef int16_t error
    cdef void *scratch = malloc(BATCH_SCRATCH)
    if scratch == NULL:
        raise MemoryError
    memset(&info, 0, sizeof(info))
    try:
        fill_rules(&filled, rules)
        with nogil:
            if hurry:
                error = batch_check_quick(held.p, held.n, &filled, now, scratch, BATCH_SCRATCH, &info, &why)
            else:
                error = batch_check(held.p, held.n, &filled, now, scratch, BATCH_SCRATCH, &info, &why)
    finally:
        free(scratch)
    return error, reason(why), described(&info)


def is_slow(data, **rules) -> bool:
    """batch_is_slow on the header at the start of `data`; ValueError when it is not one."""
    cdef Held held = Held(data)
    cdef BatchRules filled
    cdef BatchInfo info
    fill_rules(&filled, rules)
    if batch_peek(held.p, held.n, &info) != PEEK_OK:
        raise ValueError("not a record batch")
    return batch_is_slow(&info, &filled)


def recode(data, **rules) -> tuple[int, str | None, bytes]:
    """batch_recode: (Kafka error code, reason, the new batch)."""
    cdef Held held = Held(data)
    cdef BatchRules filled
    cdef BatchInfo info
    cdef const char *why = NULL
    cdef uint8_t *out = NULL
    cdef size_t length = 0
    cdef int16_t error
    fill_rules(&filled, rules)
    with nogil:
        error = batch_recode(held.p, held.n, &filled, &out, &length, &info, &why)
    try:
        return error, reason(why), PyBytes_FromStringAndSize(<char *> out, <Py_ssize_t> length) if out != NULL else b""
    finally:
        free(out)


def stamp(data, base_offset: int, leader_epoch: int) -> None:
    """batch_stamp on a writable bytes-like object that holds a batch."""
    cdef Held held = Held(data, True)
    if held.n < BATCH_HEADER:
        raise ValueError("not a record batch")
    batch_stamp(held.p, base_offset, leader_epoch)


def find_time(data, timestamp: int) -> tuple[int, int] | None:
    """batch_find_time: (offset, timestamp in ms) of the first record at or after `timestamp`; ValueError when it can't be decoded."""
    cdef Held held = Held(data)
    cdef int64_t offset = -1, found_ms = -1, wanted = timestamp
    cdef int found
    cdef void *scratch = malloc(BATCH_SCRATCH)
    if scratch == NULL:
        raise MemoryError
    with nogil:
        found = batch_find_time(held.p, held.n, wanted, scratch, BATCH_SCRATCH, &offset, &found_ms)
    free(scratch)
    if found < 0:
        raise ValueError("the batch can't be decoded")
    return (offset, found_ms) if found else None

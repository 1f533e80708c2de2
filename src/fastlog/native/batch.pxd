"""Record batches, magic 2 (Kafka protocol guide, "Record Batch"): the header. What is inside is for batchrecords, batchcheck, batchrecode.

Pure: no I/O, no Python objects, no state outside the arguments. Everything here runs on bytes that a stranger sent.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t
from fastlog.native.bytes cimport get16, get32, get64
from fastlog.native.crc32c cimport crc32c

cdef enum:
    BATCH_HEADER = 61               # bytes before the first record
    BATCH_PREFIX = 12               # base offset and length: not counted by `length`
    BATCH_CRC_FROM = 21             # the CRC covers attributes (here) to the end

cdef enum:
    BATCH_SCRATCH = 131072          # bytes of working memory that decompressing takes

cdef enum Codec:
    CODEC_NONE = 0
    CODEC_GZIP = 1
    CODEC_SNAPPY = 2
    CODEC_LZ4 = 3
    CODEC_ZSTD = 4
    CODEC_PRODUCER = -1             # topic setting only: keep what was sent

cdef enum:
    ATTR_CODEC = 0x07
    ATTR_LOG_APPEND_TIME = 0x08
    ATTR_TRANSACTIONAL = 0x10
    ATTR_CONTROL = 0x20
    ATTR_DELETE_HORIZON = 0x40

cdef struct BatchInfo:
    int64_t base_offset             # as found in the bytes
    int32_t size                    # whole batch in bytes, prefix included
    int32_t leader_epoch
    int8_t magic
    uint32_t crc
    int16_t attributes
    int32_t last_offset_delta
    int64_t base_timestamp          # ms since the epoch
    int64_t max_timestamp           # ms since the epoch
    int64_t producer_id             # -1: none
    int16_t producer_epoch
    int32_t base_sequence           # -1: none
    int32_t count

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

cdef enum:                          # Kafka's error codes, of what can be wrong with a batch
    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    CORRUPT_MESSAGE = 2
    MESSAGE_TOO_LARGE = 10
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_COMPRESSION_TYPE = 76
    INVALID_RECORD = 87

cdef enum PeekResult:
    PEEK_OK = 0
    PEEK_MORE = 1                   # fewer bytes than the header (or, where asked, the whole batch) needs
    PEEK_BAD = 2                    # not a batch: magic, length or counts are out of range

# Reads a batch header. Checks magic == 2, size in [BATCH_HEADER, 2^31), last_offset_delta >= 0, count >= 0. Never reads past n.
# Does not look at the CRC.
cdef PeekResult batch_peek(const void *p, size_t n, BatchInfo *out) noexcept nogil

# Whether the CRC of the whole batch at p (info.size bytes, all present) is right.
cdef bint batch_crc_ok(const void *p, const BatchInfo *info) noexcept nogil

# Sets base offset and leader epoch (both outside the CRC).
cdef void batch_stamp(uint8_t *p, int64_t base_offset, int32_t leader_epoch) noexcept nogil


cdef inline void batch_header(const uint8_t *p, BatchInfo *out) noexcept nogil:
    """Of BATCH_HEADER bytes, whatever they are."""
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


cdef inline uint32_t batch_crc(const uint8_t *p, size_t size) noexcept nogil:
    """The CRC-32C that a whole batch should have."""
    return crc32c(0, p + BATCH_CRC_FROM, size - BATCH_CRC_FROM)

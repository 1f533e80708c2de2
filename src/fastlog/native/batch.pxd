"""Record batches, magic 2 (Kafka protocol guide, "Record Batch"): header, validation, stamping, recompression.

Pure: no I/O, no Python objects, no state outside the arguments. Everything here runs on bytes that a stranger sent.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BATCH_HEADER = 61               # bytes before the first record
    BATCH_PREFIX = 12               # base offset and length: not counted by `length`
    BATCH_CRC_FROM = 21             # the CRC covers attributes (here) to the end

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

cdef struct BatchRules:             # what a topic asks of a batch: from its settings, the same for all its partitions
    uint32_t size_max               # max.message.bytes
    int64_t before_max_ms           # message.timestamp.before.max.ms
    int64_t after_max_ms            # message.timestamp.after.max.ms
    bint log_append_time            # message.timestamp.type
    bint keys_required              # cleanup.policy has compact
    bint look_inside                # walk the records, compressed ones too
    bint internal                   # the broker's own append: transactional/control attributes allowed
    int8_t codec                    # compression.type (Codec)
    int8_t level                    # compression level for `codec`; 0: the codec's default
    uint64_t inflate_max            # bytes that one batch may decompress to, at most

cdef enum PeekResult:
    PEEK_OK = 0
    PEEK_MORE = 1                   # fewer bytes than the header (or, where asked, the whole batch) needs
    PEEK_BAD = 2                    # not a batch: magic, length or counts are out of range

# Reads a batch header. Checks magic == 2, size in [BATCH_HEADER, 2^31), last_offset_delta >= 0, count >= 0. Never reads past n.
# Does not look at the CRC.
cdef PeekResult batch_peek(const void *p, size_t n, BatchInfo *out) noexcept nogil

# Whether the CRC of the whole batch at p (info.size bytes, all present) is right.
cdef bint batch_crc_ok(const void *p, const BatchInfo *info) noexcept nogil

# Validates what a producer sent for one partition: `n` bytes that must be exactly one batch. Returns a Kafka error code (0: none)
# and, when not 0, a static English reason in `why`. `scratch` is working memory of `scratch_len` bytes for decompression, at least
# BATCH_SCRATCH; now_ms is the broker's clock. Where the topic's timestamps are the broker's, or the header's max timestamp is not
# the records', the batch is patched in place (attributes, max timestamp, CRC), as Kafka does.
#   CORRUPT_MESSAGE (2): CRC, a length that no batch has, magic above 2, records that can't be decompressed
#   MESSAGE_TOO_LARGE (10): over size_max, or over inflate_max when decompressed (clients split such a batch and try again)
#   INVALID_TIMESTAMP (32): a record's is out of range, or the producer claims log-append time
#   UNSUPPORTED_COMPRESSION_TYPE (76): codec above 4
#   INVALID_RECORD (87): no whole batch, more than one, magic 0 or 1, counts, lengths, offsets, missing keys, control bit, base offset,
#                        sequence, transactional without a producer id
#   UNKNOWN_SERVER_ERROR (-1): no memory
# That is Kafka 4.3's choice of code (a test asks its own classes), but: it answers -1 where a codec fails or is unknown, and takes
# some batches that are refused here, as each would lose data or stop consumers: uncompressed ones with offset deltas other than
# 0, 1, 2, ... or numbers of more than 32 bits, compressed ones with wrong record lengths or junk behind the compressed stream, half a
# batch behind the batch, and transactional ones without a producer id.
# Memory: uncompressed batches take none. Decompression runs through `scratch` and contexts kept per thread, of up to 300 KiB (gzip,
# zstd) or 8 MiB (lz4, where a client uses blocks of 4 MiB); more, freed at once, only for zstd frames with a window over 16 MiB
# (up to 128 MiB, touched as bytes come out) and for snappy blocks with back-references over 64 KiB: their decompressed size, at
# most 22 times the batch and inflate_max. Without look_inside only the header is looked at, unless keys are required.
cdef enum:
    BATCH_SCRATCH = 131072
cdef int16_t batch_check(uint8_t *p, size_t n, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len,
                         BatchInfo *out, const char **why) noexcept nogil

# The same for a thread that must not be held up: where a compressed batch comes out larger than 256 KiB, whatever its own size, it
# gives BATCH_UNDECIDED with the batch unchanged, and batch_check has to be called in the worker pool. So a bomb costs at most 0.1 ms
# here (0.5 with gzip).
cdef enum:
    BATCH_UNDECIDED = 32767         # not an error code of Kafka's
cdef int16_t batch_check_quick(uint8_t *p, size_t n, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len,
                               BatchInfo *out, const char **why) noexcept nogil

# Of a batch that batch_check refused: the positions of the records for whose key or timestamp it did, at most at_max; how many they
# are. None of what is decompressed beyond 256 KiB.
cdef int32_t batch_refused(const uint8_t *p, const BatchRules *rules, int64_t now_ms, void *scratch, size_t scratch_len, int32_t *at,
                           int32_t at_max) noexcept nogil

# Whether the topic asks for another codec than the batch has. Control batches stay as they are.
cdef inline bint batch_needs_recode(const BatchInfo *info, const BatchRules *rules) noexcept nogil:
    return rules.codec != CODEC_PRODUCER and (info.attributes & ATTR_CODEC) != rules.codec and not info.attributes & ATTR_CONTROL

# Whether batch_check or batch_recode on this header would take long (compressed and big enough, or must be recompressed): then it
# belongs in the worker pool (about 200 us is the line). Where it says no, batch_check_quick is still the one to call.
cdef bint batch_is_slow(const BatchInfo *info, const BatchRules *rules) noexcept nogil

# Rewrites a valid batch in rules.codec. Returns a Kafka error code (MESSAGE_TOO_LARGE: it is over size_max then); on 0 *out is
# malloc'ed memory of *out_len bytes that the caller frees, holding a whole valid batch, and out_info describes it.
cdef int16_t batch_recode(const uint8_t *p, size_t n, const BatchRules *rules, uint8_t **out, size_t *out_len,
                          BatchInfo *out_info, const char **why) noexcept nogil

cdef struct Marker:                 # what a control batch of a coordinator says (Kafka's EndTransactionMarker)
    bint commit                     # or aborted
    int32_t coordinator_epoch

# Reads the end of a transaction from the n bytes of a control batch. 0, or -1: it has no record, or one that ends none.
cdef int batch_marker(const uint8_t *p, size_t n, Marker *out) noexcept nogil

# Sets base offset and leader epoch (both outside the CRC).
cdef void batch_stamp(uint8_t *p, int64_t base_offset, int32_t leader_epoch) noexcept nogil

# The first record at or after `timestamp` in a whole valid batch: fills its absolute offset and timestamp and returns 1; 0 when there
# is none; -1 when the batch cannot be decoded. With log-append time every record has max_timestamp.
cdef int batch_find_time(const uint8_t *p, size_t n, int64_t timestamp, void *scratch, size_t scratch_len,
                         int64_t *offset, int64_t *found_ms) noexcept nogil

"""Validation of what producers send, by the rules of a topic."""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from fastlog.native.batch cimport ATTR_CODEC, ATTR_CONTROL, BatchInfo, CODEC_PRODUCER

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

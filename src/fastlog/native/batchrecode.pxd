"""A batch in the codec that its topic asks for."""
from libc.stdint cimport int16_t, uint8_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.batchcheck cimport BatchRules

# Rewrites a valid batch in rules.codec. Returns a Kafka error code (MESSAGE_TOO_LARGE: it is over size_max then); on 0 *out is
# malloc'ed memory of *out_len bytes that the caller frees, holding a whole valid batch, and out_info describes it.
cdef int16_t batch_recode(const uint8_t *p, size_t n, const BatchRules *rules, uint8_t **out, size_t *out_len,
                          BatchInfo *out_info, const char **why) noexcept nogil

"""See batch.pxd."""
from libc.stdint cimport INT32_MAX, uint64_t

from fastlog.native.bytes cimport put32, put64

cdef enum:
    MAGIC = 2


cdef PeekResult batch_peek(const void *p, size_t n, BatchInfo *out) noexcept nogil:
    cdef const uint8_t *at = <const uint8_t *> p
    cdef uint32_t length
    if n < BATCH_HEADER:
        return PEEK_MORE
    length = get32(at + AT_LENGTH)
    if length < BATCH_HEADER - BATCH_PREFIX or length > INT32_MAX - BATCH_PREFIX or at[AT_MAGIC] != MAGIC:
        return PEEK_BAD
    batch_header(at, out)
    return PEEK_OK if out.last_offset_delta >= 0 and out.count >= 0 else PEEK_BAD


cdef bint batch_crc_ok(const void *p, const BatchInfo *info) noexcept nogil:
    return batch_crc(<const uint8_t *> p, info.size) == info.crc


cdef void batch_stamp(uint8_t *p, int64_t base_offset, int32_t leader_epoch) noexcept nogil:
    put64(p, <uint64_t> base_offset)
    put32(p + AT_LEADER_EPOCH, <uint32_t> leader_epoch)

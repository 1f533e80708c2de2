"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), as Kafka's record batches v2 use it.

The fastest kernel that this CPU has is chosen once, at import: AVX-512 + VPCLMULQDQ or SSE4.2 + PCLMULQDQ (x86-64), the CRC
extension (aarch64), or a portable slicing-by-8 table. All give the same result.
"""
from libc.stdint cimport uint8_t, uint32_t

# The CRC of n bytes at p continuing `crc` (0 to start): crc32c(crc32c(0, a), b) == crc32c(0, a + b).
cdef uint32_t crc32c(uint32_t crc, const void *p, size_t n) noexcept nogil
# The name of the kernel chosen ("avx512+vpclmul", "sse4.2+pclmul", "sse4.2", "armv8+pmull", "armv8", "table"): a static string.
cdef const char *crc32c_kernel() noexcept nogil

"""A record's headers, from Python and to Python."""
from libc.stdint cimport int64_t, uint8_t

# Zigzag, from where it is known to be whole.
cdef int64_t take_varint(const uint8_t **p) noexcept nogil
# Of a record that was read, and checked then: [(name, value), ...].
cdef list decode_headers(bytes raw)

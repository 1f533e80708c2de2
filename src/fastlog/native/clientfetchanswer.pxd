"""Answers taken apart and made into chunks, which wait for the reader then."""
from libc.stdint cimport int64_t, uint8_t
from fastlog.native.clientfetch cimport Fetcher, Source
from fastlog.native.clientread cimport Bytes

# An answer; False when it is none. The next request goes out before its records are looked at. `scratch`: kept from call to call.
cdef bint fetch_answer(Fetcher *f, Source *s, const uint8_t *frame, size_t n, int64_t now, Bytes *scratch) noexcept nogil

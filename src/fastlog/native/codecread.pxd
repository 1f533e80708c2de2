"""Decoding: the bytes of a message to dicts."""
from fastlog.native.codecplan cimport Tables

# The message at the start of a bytes-like object, of at most `max_elements` in all arrays together; *size, unless NULL: bytes that it
# took. Raises DecodeError.
cdef dict decode_message(Tables t, object data, Py_ssize_t max_elements, Py_ssize_t *size)

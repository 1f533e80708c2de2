"""Encoding: dicts to the bytes of a message."""
from fastlog.native.codecplan cimport Tables

cdef enum:
    LEAST_ROOM = 256        # bytes to begin an output with
    MOST_ROOM = 1 << 20     # ... at the most, however large the last one was

# The bytes of a message. *expected: bytes of room to begin with, and afterwards what the next one may well need. Raises EncodeError.
cdef bytes encode_message(Tables t, object message, Py_ssize_t *expected)

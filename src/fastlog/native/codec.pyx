"""The codec of all messages but Produce and Fetch on the broker's side: bytes to dicts and back, driven by tables.

A `Codec` is one message in one version. It is made from a plan (codec.pyi) once, into two flat tables (`codecplan`), which decoding
(`codecread`) and encoding (`codecwrite`) walk; nothing is looked up by name but the fields of the dicts.

What is accepted is what Kafka's own generated code accepts, and no more than the encoding's description allows (protocol guide,
"Protocol Primitive Types"; KIP-482): null where it is not allowed, a negative length other than null's, a string that is not UTF-8
or longer than 32,767 bytes, tags out of order and a tagged field that does not fill its size are errors. Bytes behind a message are
ignored, as Kafka's broker and clients do; `decode_prefix` says where the message ended.

No input can make decoding cost more than a multiple of its size: a length is compared with the bytes that remain before anything is
allocated, an array's with the least that its elements take, and the elements of all arrays together are bounded (`max_elements`).
How deep structs nest is the schema's doing, and bounded too.
"""
cimport cython

from fastlog.native.codecplan cimport Tables
from fastlog.native.codecread cimport decode_message
from fastlog.native.codecwrite cimport LEAST_ROOM, encode_message

from fastlog.native.codecplan import CodecError, DecodeError, EncodeError

__all__ = ["MAX_ELEMENTS", "Codec", "CodecError", "DecodeError", "EncodeError"]

MAX_ELEMENTS = 1 << 20      # of all arrays of a message together, unless the caller says otherwise


@cython.final
cdef class Codec:
    """One message in one version. Not changed once made, so any thread may use it."""

    cdef Tables tables
    cdef Py_ssize_t expected    # bytes of room that the next output begins with

    def __cinit__(self, str name, tuple plan):
        self.tables = Tables(name, plan)
        self.expected = LEAST_ROOM

    @property
    def name(self):
        return self.tables.name

    def __repr__(self):
        return f"<Codec {self.name}>"

    def decode(self, data, *, Py_ssize_t max_elements=MAX_ELEMENTS):
        """The message at the start of `data` (bytes-like), with every field of every version: those that this version lacks have their
        defaults. `max_elements`: that all arrays of the message together may have. Raises DecodeError.
        """
        return decode_message(self.tables, data, max_elements, NULL)

    def decode_prefix(self, data, *, Py_ssize_t max_elements=MAX_ELEMENTS):
        """`decode`, and the number of bytes that the message took."""
        cdef Py_ssize_t size = 0
        message = decode_message(self.tables, data, max_elements, &size)
        return message, size

    def encode(self, message):
        """The bytes of a message (dict). Fields not given take their defaults.

        Raises EncodeError for a value that does not fit its type, a name that the message does not have, and a value other than the
        default of a field that this version lacks, unless that field is ignorable.
        """
        return encode_message(self.tables, message, &self.expected)

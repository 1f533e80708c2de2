"""See codecwrite.pxd."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Size
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_Check
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, INT8_MAX, INT8_MIN, UINT16_MAX, UINT32_MAX
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from fastlog.native.bytes cimport put16, put32, put64
from fastlog.native.codecplan cimport (
    BOOL, INT8, INT16, UINT16, INT32, UINT32, INT64, UUID_, STRING, BYTES, STRUCT, Layout, Op, Trail, enter, path_of,
)
from fastlog.native.zigzag cimport varint_size

from uuid import UUID

from fastlog.native.codecplan import EncodeError

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object mapping, object key) except? NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLongMask(object number) except? -1
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    int _PyBytes_Resize(PyObject **target, Py_ssize_t size) except -1
    void Py_XDECREF(PyObject *target)

ctypedef struct Output:
    PyObject *made          # bytes object being filled, owned; NULL after a failed growth
    uint8_t *at
    Py_ssize_t used
    Py_ssize_t room
    Trail trail


cdef bint same(object value, object default) except -1:
    """Whether a value given is the default; a struct's missing fields are defaults."""
    if isinstance(default, dict) and isinstance(value, dict):
        return all([name in default and same(inner, default[name]) for name, inner in (<dict> value).items()])
    if isinstance(default, list) and isinstance(value, tuple):
        return not value
    return value == default


cdef bytes encode_message(Tables t, object message, Py_ssize_t *expected):
    cdef Output w
    w.trail.depth = 0
    w.used = 0
    w.room = expected[0]
    w.made = NULL
    made = PyBytes_FromStringAndSize(NULL, w.room)
    Py_INCREF(made)
    w.made = <PyObject *> made
    del made
    w.at = <uint8_t *> PyBytes_AS_STRING(<object> w.made)
    try:
        write_struct(t, &w, t.root, message)
        _PyBytes_Resize(&w.made, w.used)
        expected[0] = min(max(w.used + (w.used >> 3), LEAST_ROOM), MOST_ROOM)
        return <object> w.made
    finally:
        Py_XDECREF(w.made)


cdef int refuse(Tables t, const Output *w, const Op *op, str reason) except -1:
    raise EncodeError(t.name, path_of(&w.trail, op), reason)


cdef inline uint8_t *room(Tables t, Output *w, const Op *op, Py_ssize_t n) except NULL:
    """Where the next n bytes go."""
    cdef uint8_t *at
    if n > w.room - w.used:
        grow(t, w, op, n)
    at = w.at + w.used
    w.used += n
    return at


cdef int grow(Tables t, Output *w, const Op *op, Py_ssize_t n) except -1:
    cdef Py_ssize_t room = max(2 * w.room, w.used + n)
    if w.used + n > INT32_MAX:
        refuse(t, w, op, "the message is larger than 2 GiB")
    _PyBytes_Resize(&w.made, room)
    w.at = <uint8_t *> PyBytes_AS_STRING(<object> w.made)
    w.room = room
    return 0


cdef inline int write_number(Tables t, Output *w, const Op *op, uint32_t number) except -1:
    """An unsigned varint."""
    cdef uint8_t *at = room(t, w, op, varint_size(number))
    while number >= 0x80:
        at[0] = <uint8_t> (number | 0x80)
        at += 1
        number >>= 7
    at[0] = <uint8_t> number
    return 0


cdef int write_length(Tables t, Output *w, const Op *op, bint array, int64_t length) except -1:
    """-1 is null."""
    if length < 0 and (not op.nullable or array != op.array):
        refuse(t, w, op, "None, which is not allowed here")
    if length > INT32_MAX - 1:
        refuse(t, w, op, f"a length of {length}")
    if op.compact:
        write_number(t, w, op, <uint32_t> (length + 1))
    elif op.kind == STRING and not array:
        put16(room(t, w, op, 2), <uint16_t> length)
    else:
        put32(room(t, w, op, 4), <uint32_t> length)
    return 0


cdef int write_struct(Tables t, Output *w, int32_t index, object message) except -1:
    cdef const Layout *layout = &t.layouts[index]
    cdef const Op *op = t.ops + layout.first
    cdef PyObject *found
    cdef Py_ssize_t seen = 0
    cdef int32_t i
    if not isinstance(message, dict):
        refuse(t, w, NULL, f"{type(message).__name__} instead of dict")
    for i in range(layout.count):
        found = PyDict_GetItemWithError(message, <object> op[i].name)
        if found != NULL:
            seen += 1
            write_field(t, w, &op[i], <object> found)
        else:
            write_field(t, w, &op[i], <object> op[i].default)
    if layout.flexible:
        seen += write_tagged(t, w, op + layout.count, layout.tagged, message)
    if seen != PyDict_Size(message):
        check_others(t, w, layout, message)
    return 0


cdef int check_others(Tables t, const Output *w, const Layout *layout, dict message) except -1:
    """What a message has beside the fields of this version must not matter in it."""
    for name, value in message.items():
        if name in <object> layout.known:
            continue
        absent = (<dict> layout.absent).get(name)
        if absent is None:
            refuse(t, w, NULL, f"there is no field {name!r}")
        default, ignorable = absent
        if not ignorable and not same(value, default):
            refuse(t, w, NULL, f"this version has no field {name!r}, whose value would be lost")
    return 0


cdef Py_ssize_t write_tagged(Tables t, Output *w, const Op *op, int32_t count, object message) except -1:
    """The tagged fields that are not their defaults; returns how many the message has at all."""
    cdef PyObject *found
    cdef uint64_t chosen = 0
    cdef uint32_t written = 0
    cdef Py_ssize_t seen = 0, start, size, width
    cdef int32_t i
    for i in range(count):
        found = PyDict_GetItemWithError(message, <object> op[i].name)
        if found != NULL:
            seen += 1
            if not same(<object> found, <object> op[i].default):
                chosen |= <uint64_t> 1 << i
                written += 1
    write_number(t, w, NULL, written)
    for i in range(count):
        if chosen & (<uint64_t> 1 << i):
            write_number(t, w, &op[i], <uint32_t> op[i].tag)
            start = w.used
            write_field(t, w, &op[i], (<dict> message)[<object> op[i].name])
            # the size goes in front, once it is known
            size = w.used - start
            width = varint_size(<uint32_t> size)
            room(t, w, &op[i], width)
            memmove(w.at + start + width, w.at + start, size)
            w.used = start
            write_number(t, w, &op[i], <uint32_t> size)
            w.used = start + width + size
    return seen


cdef int write_field(Tables t, Output *w, const Op *op, object value) except -1:
    if op.array:
        return write_array(t, w, op, value)
    if op.kind != STRUCT:
        return write_scalar(t, w, op, value)
    if op.nullable:
        if op.tagged:
            write_number(t, w, op, 0 if value is None else 1)
        else:
            room(t, w, op, 1)[0] = 0xFF if value is None else 1
        if value is None:
            return 0
    enter(&w.trail, op, -1)
    write_struct(t, w, op.layout, value)
    w.trail.depth -= 1
    return 0


cdef int write_array(Tables t, Output *w, const Op *op, object value) except -1:
    cdef Py_ssize_t i = 0, count
    if value is None:
        return write_length(t, w, op, True, -1)
    if not isinstance(value, (list, tuple)):
        refuse(t, w, op, f"{type(value).__name__} instead of list or tuple")
    count = len(value)
    write_length(t, w, op, True, count)
    enter(&w.trail, op, 0)
    for item in value:
        w.trail.frames[w.trail.depth - 1].index = i
        if op.kind == STRUCT:
            write_struct(t, w, op.layout, item)
        else:
            write_scalar(t, w, op, item)
        i += 1
    w.trail.depth -= 1
    if i != count:
        refuse(t, w, op, "the list was changed meanwhile")
    return 0


cdef int64_t integer(Tables t, const Output *w, const Op *op, object value, int64_t least, int64_t most) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if not PyLong_Check(value):
        refuse(t, w, op, f"{type(value).__name__} instead of int")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < least or number > most:
        refuse(t, w, op, f"{value} is not within {least} and {most}")
    return number


cdef int write_scalar(Tables t, Output *w, const Op *op, object value) except -1:
    """A value, or an array's element, of any type but struct."""
    cdef double number
    cdef uint64_t bits
    cdef int64_t n
    if op.kind == INT32:
        n = integer(t, w, op, value, INT32_MIN, INT32_MAX)
        put32(room(t, w, op, 4), <uint32_t> n)
    elif op.kind == INT16:
        n = integer(t, w, op, value, INT16_MIN, INT16_MAX)
        put16(room(t, w, op, 2), <uint16_t> n)
    elif op.kind == INT64:
        n = integer(t, w, op, value, INT64_MIN, INT64_MAX)
        put64(room(t, w, op, 8), <uint64_t> n)
    elif op.kind == INT8:
        n = integer(t, w, op, value, INT8_MIN, INT8_MAX)
        room(t, w, op, 1)[0] = <uint8_t> n
    elif op.kind == BOOL:
        if value is not True and value is not False:
            refuse(t, w, op, f"{type(value).__name__} instead of bool")
        room(t, w, op, 1)[0] = value is True
    elif op.kind == STRING:
        write_string(t, w, op, value)
    elif op.kind == BYTES:
        write_bytes(t, w, op, value)
    elif op.kind == UUID_:
        write_uuid(t, w, op, value)
    elif op.kind == UINT16:
        n = integer(t, w, op, value, 0, UINT16_MAX)
        put16(room(t, w, op, 2), <uint16_t> n)
    elif op.kind == UINT32:
        n = integer(t, w, op, value, 0, UINT32_MAX)
        put32(room(t, w, op, 4), <uint32_t> n)
    else:
        if not PyFloat_Check(value) and not PyLong_Check(value):
            refuse(t, w, op, f"{type(value).__name__} instead of float")
        number = value
        memcpy(&bits, &number, 8)
        put64(room(t, w, op, 8), bits)
    return 0


cdef int write_string(Tables t, Output *w, const Op *op, object value) except -1:
    cdef Py_ssize_t size = 0
    cdef const char *text = NULL
    if value is None:
        return write_length(t, w, op, False, -1)
    if not PyUnicode_Check(value):
        refuse(t, w, op, f"{type(value).__name__} instead of str")
    try:
        text = PyUnicode_AsUTF8AndSize(value, &size)
    except UnicodeEncodeError as error:
        refuse(t, w, op, f"cannot be UTF-8: {error.reason}")
    if size > INT16_MAX:
        refuse(t, w, op, f"a string of {size} bytes, more than {INT16_MAX}")
    write_length(t, w, op, False, size)
    memcpy(room(t, w, op, size), text, size)
    return 0


cdef int write_bytes(Tables t, Output *w, const Op *op, object value) except -1:
    cdef Py_buffer view
    if value is None:
        return write_length(t, w, op, False, -1)
    if PyBytes_Check(value):
        write_length(t, w, op, False, PyBytes_GET_SIZE(value))
        memcpy(room(t, w, op, PyBytes_GET_SIZE(value)), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        return 0
    if not isinstance(value, (bytearray, memoryview)):
        refuse(t, w, op, f"{type(value).__name__} instead of bytes")
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        write_length(t, w, op, False, view.len)
        memcpy(room(t, w, op, view.len), view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef int write_uuid(Tables t, Output *w, const Op *op, object value) except -1:
    cdef uint8_t *at
    if not isinstance(value, UUID):
        refuse(t, w, op, f"{type(value).__name__} instead of UUID")
    number = value.int
    at = room(t, w, op, 16)
    put64(at, PyLong_AsUnsignedLongLongMask(number >> 64))
    put64(at + 8, PyLong_AsUnsignedLongLongMask(number))
    return 0

"""See codecread.pxd."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_Copy
from cpython.float cimport PyFloat_FromDouble
from cpython.list cimport PyList_New
from cpython.long cimport PyLong_FromLong, PyLong_FromLongLong, PyLong_FromUnsignedLongLong
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT16_MAX
from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlog.native.bytes cimport get16, get32, get64, read_uvarint, reader_init
from fastlog.native.bytes cimport Reader as Bytes
from fastlog.native.codecplan cimport (
    BOOL, INT8, INT16, UINT16, INT32, UINT32, INT64, FLOAT64, UUID_, STRING, BYTES, STRUCT, Layout, Op, Trail, enter, path_of,
)

from uuid import UUID, SafeUUID

from fastlog.native.codecplan import DecodeError

cdef extern from "Python.h":
    int PyDict_SetItem(object mapping, object key, object value) except -1
    void PyList_SET_ITEM(object sequence, Py_ssize_t index, object value)
    int PyObject_GenericSetAttr(object target, object name, object value) except -1
    object PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)
    void PyObject_GC_UnTrack(void *target)

ctypedef struct Input:
    Bytes b
    const uint8_t *start
    int64_t budget          # elements that arrays may still have
    Trail trail

cdef object ZERO_UUID = UUID(int=0)
cdef object NEW_UUID = UUID.__new__
cdef object UNKNOWN_SAFETY = SafeUUID.unknown


cdef inline object make_uuid(const uint8_t *at):
    """uuid.UUID of 16 bytes without its constructor, which takes ten times as long."""
    cdef uint64_t high = get64(at), low = get64(at + 8)
    if high == 0 and low == 0:
        return ZERO_UUID
    made = NEW_UUID(UUID)
    PyObject_GenericSetAttr(made, "int", (PyLong_FromUnsignedLongLong(high) << 64) | PyLong_FromUnsignedLongLong(low))
    PyObject_GenericSetAttr(made, "is_safe", UNKNOWN_SAFETY)
    return made


cdef object fresh(object default):
    """A copy of a default that a caller may change."""
    if isinstance(default, list):
        return []
    if isinstance(default, dict):
        return {name: fresh(value) for name, value in (<dict> default).items()}
    return default


cdef dict decode_message(Tables t, object data, Py_ssize_t max_elements, Py_ssize_t *size):
    cdef Py_buffer view
    cdef Input r
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        reader_init(&r.b, view.buf, <size_t> view.len)
        r.start = r.b.p
        r.budget = max_elements
        r.trail.depth = 0
        message = read_struct(t, &r, t.root)
        if size != NULL:
            size[0] = r.b.p - r.start
        return message
    finally:
        PyBuffer_Release(&view)


cdef int fail(Tables t, const Input *r, const Op *op, const uint8_t *at, str reason) except -1:
    raise DecodeError(t.name, path_of(&r.trail, op), at - r.start, reason)


cdef inline const uint8_t *take(Tables t, Input *r, const Op *op, int64_t n) except NULL:
    cdef const uint8_t *at = r.b.p
    if n > r.b.end - at:
        fail(t, r, op, at, f"{n} bytes expected, {r.b.end - at} left")
    r.b.p = at + n
    return at


cdef inline uint32_t read_number(Tables t, Input *r, const Op *op) except? 0:
    """An unsigned varint."""
    cdef const uint8_t *at = r.b.p
    cdef uint32_t number = read_uvarint(&r.b)
    if r.b.bad:
        fail(t, r, op, at, "a varint is cut off, or longer than 32 bits")
    return number


cdef int64_t read_length(Tables t, Input *r, const Op *op, bint array) except? -1:
    """Of a string, bytes or an array; -1 is null, and allowed."""
    cdef const uint8_t *at = r.b.p
    cdef int64_t length
    if op.compact:
        length = <int64_t> read_number(t, r, op) - 1
    elif op.kind == STRING and not array:
        length = <int16_t> get16(take(t, r, op, 2))
    else:
        length = <int32_t> get32(take(t, r, op, 4))
    if length < 0:
        if length < -1:
            fail(t, r, op, at, f"a length of {length}")
        # an array's elements are never null
        if not op.nullable or array != op.array:
            fail(t, r, op, at, "null, which is not allowed here")
    return length


cdef dict read_struct(Tables t, Input *r, int32_t index):
    cdef const Layout *layout = &t.layouts[index]
    cdef const Op *op = t.ops + layout.first
    cdef dict message = PyDict_Copy(<object> layout.defaults)
    cdef int32_t i
    if layout.shared != NULL:
        for name, default in <list> layout.shared:
            message[name] = fresh(default)
    for i in range(layout.count):
        PyDict_SetItem(message, <object> op[i].name, read_field(t, r, &op[i]))
    if layout.flexible:
        read_tagged(t, r, op + layout.count, layout.tagged, message)
    return message


cdef int read_tagged(Tables t, Input *r, const Op *op, int32_t known, dict message) except -1:
    """The tagged fields at a struct's end; `op`: its known ones, in the order of their tags."""
    cdef const uint8_t *end = r.b.end
    cdef const uint8_t *at = r.b.p
    cdef int64_t number, previous = -1
    cdef uint32_t size
    cdef uint32_t count = read_number(t, r, NULL)
    if count == 0:
        return 0
    if count > (end - r.b.p) >> 1:
        fail(t, r, NULL, at, f"{count} tagged fields in {end - r.b.p} bytes")
    while count > 0:
        count -= 1
        at = r.b.p
        number = read_number(t, r, NULL)
        if number <= previous:
            fail(t, r, NULL, at, f"tag {number} comes after tag {previous}")
        previous = number
        size = read_number(t, r, NULL)
        if size > end - r.b.p:
            fail(t, r, NULL, at, f"tag {number} has {size} bytes, {end - r.b.p} are left")
        while known > 0 and op.tag < number:
            op += 1
            known -= 1
        if known > 0 and op.tag == number:
            r.b.end = r.b.p + size
            PyDict_SetItem(message, <object> op.name, read_field(t, r, op))
            if r.b.p != r.b.end:
                fail(t, r, op, at, f"tag {number} has {size} bytes, its value {size - (r.b.end - r.b.p)}")
            r.b.end = end
        else:
            r.b.p += size
    return 0


cdef object read_field(Tables t, Input *r, const Op *op):
    if op.array:
        return read_array(t, r, op)
    if op.kind != STRUCT:
        return read_scalar(t, r, op)
    if op.nullable:
        if op.tagged:
            if read_number(t, r, op) == 0:
                return None
        elif <int8_t> take(t, r, op, 1)[0] < 0:
            return None
    enter(&r.trail, op, -1)
    message = read_struct(t, r, op.layout)
    r.trail.depth -= 1
    return message


cdef object read_array(Tables t, Input *r, const Op *op):
    cdef const uint8_t *at = r.b.p
    cdef int64_t count = read_length(t, r, op, True)
    cdef int64_t i
    cdef list items
    if count < 0:
        return None
    if count > (r.b.end - r.b.p) // op.least:
        fail(t, r, op, at, f"{count} elements in {r.b.end - r.b.p} bytes")
    r.budget -= count
    if r.budget < 0:
        fail(t, r, op, at, f"{-r.budget} elements more than a message may have")
    items = PyList_New(count)
    if op.kind == INT32:   # partitions and brokers: most arrays are of these
        at = take(t, r, op, 4 * count)
        for i in range(count):
            item = PyLong_FromLong(<int32_t> get32(at + 4 * i))
            Py_INCREF(item)
            PyList_SET_ITEM(items, i, item)
        PyObject_GC_UnTrack(<PyObject *> items)
        return items
    enter(&r.trail, op, 0)
    for i in range(count):
        r.trail.frames[r.trail.depth - 1].index = i
        item = read_struct(t, r, op.layout) if op.kind == STRUCT else read_scalar(t, r, op)
        Py_INCREF(item)
        PyList_SET_ITEM(items, i, item)
    r.trail.depth -= 1
    if op.kind != STRUCT:
        PyObject_GC_UnTrack(<PyObject *> items)   # it cannot be part of a cycle, and collections would walk it
    return items


cdef object read_scalar(Tables t, Input *r, const Op *op):
    """A value, or an array's element, of any type but struct."""
    cdef const uint8_t *at
    cdef int64_t length
    cdef uint64_t bits
    cdef double number
    if op.kind == INT32:
        return PyLong_FromLong(<int32_t> get32(take(t, r, op, 4)))
    elif op.kind == INT16:
        return PyLong_FromLong(<int16_t> get16(take(t, r, op, 2)))
    elif op.kind == INT64:
        return PyLong_FromLongLong(<int64_t> get64(take(t, r, op, 8)))
    elif op.kind == INT8:
        return PyLong_FromLong(<int8_t> take(t, r, op, 1)[0])
    elif op.kind == BOOL:
        return take(t, r, op, 1)[0] != 0
    elif op.kind == UINT16:
        return PyLong_FromLong(get16(take(t, r, op, 2)))
    elif op.kind == UINT32:
        return PyLong_FromLongLong(get32(take(t, r, op, 4)))
    elif op.kind == FLOAT64:
        bits = get64(take(t, r, op, 8))
        memcpy(&number, &bits, 8)
        return PyFloat_FromDouble(number)
    elif op.kind == UUID_:
        return make_uuid(take(t, r, op, 16))
    at = r.b.p
    length = read_length(t, r, op, False)
    if length < 0:
        return None
    if op.kind == BYTES:
        return PyBytes_FromStringAndSize(<const char *> take(t, r, op, length), length)
    if length > INT16_MAX:
        fail(t, r, op, at, f"a string of {length} bytes, more than {INT16_MAX}")
    at = take(t, r, op, length)
    try:
        return PyUnicode_DecodeUTF8(<const char *> at, length, NULL)
    except UnicodeDecodeError as error:
        fail(t, r, op, at + <Py_ssize_t> error.start, f"not UTF-8: {error.reason}")

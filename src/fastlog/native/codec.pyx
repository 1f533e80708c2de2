"""The codec of all messages but Produce and Fetch on the broker's side: bytes to dicts and back, driven by tables.

A `Codec` is one message in one version. It is made from a plan (codec.pyi) once, into two flat tables: `Layout`s (structs) and
their `Op`s (fields). Decoding and encoding walk the tables; nothing is looked up by name but the fields of the dicts.

What is accepted is what Kafka's own generated code accepts, and no more than the encoding's description allows (protocol guide,
"Protocol Primitive Types"; KIP-482): null where it is not allowed, a negative length other than null's, a string that is not UTF-8
or longer than 32,767 bytes, tags out of order and a tagged field that does not fill its size are errors. Bytes behind a message are
ignored, as Kafka's broker and clients do; `decode_prefix` says where the message ended.

No input can make decoding cost more than a multiple of its size: a length is compared with the bytes that remain before anything is
allocated, an array's with the least that its elements take, and the elements of all arrays together are bounded (`max_elements`).
How deep structs nest is the schema's doing, and bounded too.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_Copy, PyDict_Size
from cpython.float cimport PyFloat_Check, PyFloat_FromDouble
from cpython.list cimport PyList_New
from cpython.long cimport PyLong_Check, PyLong_FromLong, PyLong_FromLongLong, PyLong_FromUnsignedLongLong
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, INT8_MAX, INT8_MIN
from libc.stdint cimport UINT16_MAX, UINT32_MAX, int16_t, int32_t, int64_t, int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from fastlog.native.bytes cimport get16, get32, get64, put16, put32, put64
from fastlog.native.bytes cimport Reader as Bytes
from fastlog.native.bytes cimport read_uvarint, reader_init

from operator import itemgetter
from sys import intern
from uuid import UUID, SafeUUID

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object mapping, object key) except? NULL
    int PyDict_SetItem(object mapping, object key, object value) except -1
    object PyList_GET_ITEM(object sequence, Py_ssize_t index)
    void PyList_SET_ITEM(object sequence, Py_ssize_t index, object value)
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLongMask(object number) except? -1
    int PyObject_GenericSetAttr(object target, object name, object value) except -1
    object PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    int _PyBytes_Resize(PyObject **target, Py_ssize_t size) except -1
    void PyObject_GC_UnTrack(void *target)
    void Py_XDECREF(PyObject *target)

cdef enum:
    MAX_DEPTH = 16          # structs within structs; Kafka's deepest message has 5
    MAX_TAGGED = 64         # tagged fields of one struct: one bit each while encoding
    LEAST_ROOM = 256        # bytes to begin an output with
    MOST_ROOM = 1 << 20     # ... at the most, however large the last one was

MAX_ELEMENTS = 1 << 20      # of all arrays of a message together, unless the caller says otherwise

cdef enum Kind:
    BOOL
    INT8
    INT16
    UINT16
    INT32
    UINT32
    INT64
    FLOAT64
    UUID_
    STRING
    BYTES
    STRUCT

KINDS = {
    "bool": BOOL, "int8": INT8, "int16": INT16, "uint16": UINT16, "int32": INT32, "uint32": UINT32, "int64": INT64,
    "float64": FLOAT64, "uuid": UUID_, "string": STRING, "bytes": BYTES, "records": BYTES, "struct": STRUCT,
}
WIDTHS = {BOOL: 1, INT8: 1, INT16: 2, UINT16: 2, INT32: 4, UINT32: 4, INT64: 8, FLOAT64: 8, UUID_: 16}

ctypedef struct Op:
    Kind kind               # of the field, or of an array's elements
    bint array
    bint nullable
    bint compact            # lengths are unsigned varints of one more than the length
    bint tagged
    int32_t tag
    int32_t layout          # of a struct: index among layouts; else -1
    int64_t least           # bytes that the value, or an array's element, takes at the least
    PyObject *name          # borrowed, as all objects here: `keep` owns them
    PyObject *default

ctypedef struct Layout:
    int32_t first           # its untagged fields: ops[first : first + count]
    int32_t count
    int32_t tagged          # and, behind them, its tagged fields in the order of their tags
    bint flexible
    PyObject *defaults      # dict of all fields, in order: what decoding starts from
    PyObject *shared        # list of (name, default) that messages must not share; NULL if none
    PyObject *known         # frozenset of the names that this version has
    PyObject *absent        # dict of those that it lacks: name -> (default, ignorable)

ctypedef struct Frame:
    const Op *op            # the field entered
    Py_ssize_t index        # the array's element, or -1

ctypedef struct Trail:
    int depth
    Frame frames[MAX_DEPTH]

ctypedef struct Input:
    Bytes b
    const uint8_t *start
    int64_t budget          # elements that arrays may still have
    Trail trail

ctypedef struct Output:
    PyObject *made          # bytes object being filled, owned; NULL after a failed growth
    uint8_t *at
    Py_ssize_t used
    Py_ssize_t room
    Trail trail

cdef object ZERO_UUID = UUID(int=0)
cdef object NEW_UUID = UUID.__new__
cdef object UNKNOWN_SAFETY = SafeUUID.unknown


class CodecError(ValueError):
    """What DecodeError and EncodeError share: `path` names the field ("topics[3].name"), `reason` says what is wrong."""

    def __init__(self, message, path, reason):
        super().__init__(message)
        self.path = path
        self.reason = reason


class DecodeError(CodecError):
    """Bytes are not the message they should be; `offset` is where, counted from the message's first byte."""

    def __init__(self, name, path, offset, reason):
        super().__init__(f"{name}: {path or 'message'} at byte {offset}: {reason}", path, reason)
        self.offset = offset


class EncodeError(CodecError):
    """A message has a value that its schema does not allow."""

    def __init__(self, name, path, reason):
        super().__init__(f"{name}: {path or 'message'}: {reason}", path, reason)


cdef str path_of(const Trail *trail, const Op *op):
    """The field's name with all it lies in; op NULL: what was entered last."""
    cdef list parts = []
    cdef const Frame *frame
    cdef int i
    for i in range(trail.depth):
        frame = &trail.frames[i]
        parts.append(<object> frame.op.name if frame.index < 0 else f"{<object> frame.op.name}[{frame.index}]")
    if op != NULL and (trail.depth == 0 or trail.frames[trail.depth - 1].op != op):
        parts.append(<object> op.name)
    return ".".join(parts)


cdef inline void enter(Trail *trail, const Op *op, Py_ssize_t index) noexcept:
    trail.frames[trail.depth].op = op
    trail.frames[trail.depth].index = index
    trail.depth += 1


cdef inline Py_ssize_t uvarint_width(uint32_t v) noexcept nogil:
    cdef Py_ssize_t width = 1
    while v >= 0x80:
        v >>= 7
        width += 1
    return width


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


cdef bint same(object value, object default) except -1:
    """Whether a value given is the default; a struct's missing fields are defaults."""
    if isinstance(default, dict) and isinstance(value, dict):
        return all([name in default and same(inner, default[name]) for name, inner in (<dict> value).items()])
    if isinstance(default, list) and isinstance(value, tuple):
        return not value
    return value == default


cdef tuple flatten(tuple plan, list ops, list layouts, int depth):
    """Appends a plan's layouts and ops, inner ones first; returns (index of its layout, least size)."""
    cdef list own = [], present = []
    if depth == MAX_DEPTH:
        raise ValueError(f"structs nest deeper than {MAX_DEPTH}")
    flexible, fields, absent = plan
    size = 1 if flexible else 0
    for name, kind, array, nullable, compact, tag, default, inner in fields:
        kind = KINDS[kind]
        layout, least = (-1, WIDTHS.get(kind, 1)) if inner is None else flatten(inner, ops, layouts, depth + 1)
        if kind in (STRING, BYTES) and not compact:
            least = 2 if kind == STRING else 4
        if tag < 0:
            size += (1 if compact else 4) if array else (1 if nullable and kind == STRUCT else least)
        own.append((tag, intern(name), kind, array, nullable, compact, layout, least, default))
    own.sort(key=itemgetter(0))   # stable: fields without a tag stay in order, and come first
    tagged = sum([field[0] >= 0 for field in own])
    if tagged > MAX_TAGGED:
        raise ValueError(f"a struct has more than {MAX_TAGGED} tagged fields")
    present = [field[1] for field in own]
    defaults = {name: default for _, name, *_, default in own} | {intern(name): default for name, (default, _) in absent.items()}
    shared = [(name, default) for name, default in defaults.items() if isinstance(default, (list, dict))]
    shared = [(name, default) for name, default in shared if name not in present[:len(own) - tagged]]
    layouts.append((len(ops), len(own) - tagged, tagged, flexible, defaults, shared, frozenset(present), absent))
    ops.extend(own)
    return len(layouts) - 1, max(size, 1)


@cython.final
cdef class Codec:
    """One message in one version. Not changed once made, so any thread may use it."""

    cdef readonly str name
    cdef Op *ops
    cdef Layout *layouts
    cdef int32_t root
    cdef list keep              # owns every object that the tables point to
    cdef Py_ssize_t expected    # bytes of room that the next output begins with

    def __cinit__(self, str name, tuple plan):
        cdef list ops = [], layouts = []
        cdef Op *op
        cdef Layout *layout
        self.name = name
        self.root = flatten(plan, ops, layouts, 0)[0]
        self.keep = [ops, layouts]
        self.expected = LEAST_ROOM
        self.ops = <Op *> PyMem_Calloc(max(len(ops), 1), sizeof(Op))
        self.layouts = <Layout *> PyMem_Calloc(len(layouts), sizeof(Layout))
        if self.ops == NULL or self.layouts == NULL:
            raise MemoryError()
        for i, field in enumerate(ops):
            op = &self.ops[i]
            op.tag, field_name, op.kind, op.array, op.nullable, op.compact, op.layout, op.least, default = field
            op.tagged = op.tag >= 0
            op.name = <PyObject *> field_name
            op.default = <PyObject *> default
        for i, struct in enumerate(layouts):
            layout = &self.layouts[i]
            layout.first, layout.count, layout.tagged, layout.flexible, defaults, shared, known, absent = struct
            layout.defaults = <PyObject *> defaults
            layout.shared = <PyObject *> shared if shared else NULL
            layout.known = <PyObject *> known
            layout.absent = <PyObject *> absent

    def __dealloc__(self):
        PyMem_Free(self.ops)
        PyMem_Free(self.layouts)

    def __repr__(self):
        return f"<Codec {self.name}>"

    # Decoding

    def decode(self, data, *, Py_ssize_t max_elements=MAX_ELEMENTS):
        """The message at the start of `data` (bytes-like), with every field of every version: those that this version lacks have their
        defaults. `max_elements`: that all arrays of the message together may have. Raises DecodeError.
        """
        return self.read_message(data, max_elements, NULL)

    def decode_prefix(self, data, *, Py_ssize_t max_elements=MAX_ELEMENTS):
        """`decode`, and the number of bytes that the message took."""
        cdef Py_ssize_t size = 0
        message = self.read_message(data, max_elements, &size)
        return message, size

    cdef dict read_message(self, object data, Py_ssize_t max_elements, Py_ssize_t *size):
        cdef Py_buffer view
        cdef Input r
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            reader_init(&r.b, view.buf, <size_t> view.len)
            r.start = r.b.p
            r.budget = max_elements
            r.trail.depth = 0
            message = self.read_struct(&r, self.root)
            if size != NULL:
                size[0] = r.b.p - r.start
            return message
        finally:
            PyBuffer_Release(&view)

    cdef int fail(self, const Input *r, const Op *op, const uint8_t *at, str reason) except -1:
        raise DecodeError(self.name, path_of(&r.trail, op), at - r.start, reason)

    cdef inline const uint8_t *take(self, Input *r, const Op *op, int64_t n) except NULL:
        cdef const uint8_t *at = r.b.p
        if n > r.b.end - at:
            self.fail(r, op, at, f"{n} bytes expected, {r.b.end - at} left")
        r.b.p = at + n
        return at

    cdef inline uint32_t read_number(self, Input *r, const Op *op) except? 0:
        """An unsigned varint."""
        cdef const uint8_t *at = r.b.p
        cdef uint32_t number = read_uvarint(&r.b)
        if r.b.bad:
            self.fail(r, op, at, "a varint is cut off, or longer than 32 bits")
        return number

    cdef int64_t read_length(self, Input *r, const Op *op, bint array) except? -1:
        """Of a string, bytes or an array; -1 is null, and allowed."""
        cdef const uint8_t *at = r.b.p
        cdef int64_t length
        if op.compact:
            length = <int64_t> self.read_number(r, op) - 1
        elif op.kind == STRING and not array:
            length = <int16_t> get16(self.take(r, op, 2))
        else:
            length = <int32_t> get32(self.take(r, op, 4))
        if length < 0:
            if length < -1:
                self.fail(r, op, at, f"a length of {length}")
            # an array's elements are never null
            if not op.nullable or array != op.array:
                self.fail(r, op, at, "null, which is not allowed here")
        return length

    cdef dict read_struct(self, Input *r, int32_t index):
        cdef const Layout *layout = &self.layouts[index]
        cdef const Op *op = self.ops + layout.first
        cdef dict message = PyDict_Copy(<object> layout.defaults)
        cdef int32_t i
        if layout.shared != NULL:
            for name, default in <list> layout.shared:
                message[name] = fresh(default)
        for i in range(layout.count):
            PyDict_SetItem(message, <object> op[i].name, self.read_field(r, &op[i]))
        if layout.flexible:
            self.read_tagged(r, op + layout.count, layout.tagged, message)
        return message

    cdef int read_tagged(self, Input *r, const Op *op, int32_t known, dict message) except -1:
        """The tagged fields at a struct's end; `op`: its known ones, in the order of their tags."""
        cdef const uint8_t *end = r.b.end
        cdef const uint8_t *at = r.b.p
        cdef int64_t number, previous = -1
        cdef uint32_t size
        cdef uint32_t count = self.read_number(r, NULL)
        if count == 0:
            return 0
        if count > (end - r.b.p) >> 1:
            self.fail(r, NULL, at, f"{count} tagged fields in {end - r.b.p} bytes")
        while count > 0:
            count -= 1
            at = r.b.p
            number = self.read_number(r, NULL)
            if number <= previous:
                self.fail(r, NULL, at, f"tag {number} comes after tag {previous}")
            previous = number
            size = self.read_number(r, NULL)
            if size > end - r.b.p:
                self.fail(r, NULL, at, f"tag {number} has {size} bytes, {end - r.b.p} are left")
            while known > 0 and op.tag < number:
                op += 1
                known -= 1
            if known > 0 and op.tag == number:
                r.b.end = r.b.p + size
                PyDict_SetItem(message, <object> op.name, self.read_field(r, op))
                if r.b.p != r.b.end:
                    self.fail(r, op, at, f"tag {number} has {size} bytes, its value {size - (r.b.end - r.b.p)}")
                r.b.end = end
            else:
                r.b.p += size
        return 0

    cdef object read_field(self, Input *r, const Op *op):
        if op.array:
            return self.read_array(r, op)
        if op.kind != STRUCT:
            return self.read_scalar(r, op)
        if op.nullable:
            if op.tagged:
                if self.read_number(r, op) == 0:
                    return None
            elif <int8_t> self.take(r, op, 1)[0] < 0:
                return None
        enter(&r.trail, op, -1)
        message = self.read_struct(r, op.layout)
        r.trail.depth -= 1
        return message

    cdef object read_array(self, Input *r, const Op *op):
        cdef const uint8_t *at = r.b.p
        cdef int64_t count = self.read_length(r, op, True)
        cdef int64_t i
        cdef list items
        if count < 0:
            return None
        if count > (r.b.end - r.b.p) // op.least:
            self.fail(r, op, at, f"{count} elements in {r.b.end - r.b.p} bytes")
        r.budget -= count
        if r.budget < 0:
            self.fail(r, op, at, f"{-r.budget} elements more than a message may have")
        items = PyList_New(count)
        if op.kind == INT32:   # partitions and brokers: most arrays are of these
            at = self.take(r, op, 4 * count)
            for i in range(count):
                item = PyLong_FromLong(<int32_t> get32(at + 4 * i))
                Py_INCREF(item)
                PyList_SET_ITEM(items, i, item)
            PyObject_GC_UnTrack(<PyObject *> items)
            return items
        enter(&r.trail, op, 0)
        for i in range(count):
            r.trail.frames[r.trail.depth - 1].index = i
            item = self.read_struct(r, op.layout) if op.kind == STRUCT else self.read_scalar(r, op)
            Py_INCREF(item)
            PyList_SET_ITEM(items, i, item)
        r.trail.depth -= 1
        if op.kind != STRUCT:
            PyObject_GC_UnTrack(<PyObject *> items)   # it cannot be part of a cycle, and collections would walk it
        return items

    cdef object read_scalar(self, Input *r, const Op *op):
        """A value, or an array's element, of any type but struct."""
        cdef const uint8_t *at
        cdef int64_t length
        cdef uint64_t bits
        cdef double number
        if op.kind == INT32:
            return PyLong_FromLong(<int32_t> get32(self.take(r, op, 4)))
        elif op.kind == INT16:
            return PyLong_FromLong(<int16_t> get16(self.take(r, op, 2)))
        elif op.kind == INT64:
            return PyLong_FromLongLong(<int64_t> get64(self.take(r, op, 8)))
        elif op.kind == INT8:
            return PyLong_FromLong(<int8_t> self.take(r, op, 1)[0])
        elif op.kind == BOOL:
            return self.take(r, op, 1)[0] != 0
        elif op.kind == UINT16:
            return PyLong_FromLong(get16(self.take(r, op, 2)))
        elif op.kind == UINT32:
            return PyLong_FromLongLong(get32(self.take(r, op, 4)))
        elif op.kind == FLOAT64:
            bits = get64(self.take(r, op, 8))
            memcpy(&number, &bits, 8)
            return PyFloat_FromDouble(number)
        elif op.kind == UUID_:
            return make_uuid(self.take(r, op, 16))
        at = r.b.p
        length = self.read_length(r, op, False)
        if length < 0:
            return None
        if op.kind == BYTES:
            return PyBytes_FromStringAndSize(<const char *> self.take(r, op, length), length)
        if length > INT16_MAX:
            self.fail(r, op, at, f"a string of {length} bytes, more than {INT16_MAX}")
        at = self.take(r, op, length)
        try:
            return PyUnicode_DecodeUTF8(<const char *> at, length, NULL)
        except UnicodeDecodeError as error:
            self.fail(r, op, at + <Py_ssize_t> error.start, f"not UTF-8: {error.reason}")

    # Encoding

    def encode(self, message):
        """The bytes of a message (dict). Fields not given take their defaults.

        Raises EncodeError for a value that does not fit its type, a name that the message does not have, and a value other than the
        default of a field that this version lacks, unless that field is ignorable.
        """
        cdef Output w
        w.trail.depth = 0
        w.used = 0
        w.room = self.expected
        w.made = NULL
        made = PyBytes_FromStringAndSize(NULL, w.room)
        Py_INCREF(made)
        w.made = <PyObject *> made
        del made
        w.at = <uint8_t *> PyBytes_AS_STRING(<object> w.made)
        try:
            self.write_struct(&w, self.root, message)
            _PyBytes_Resize(&w.made, w.used)
            self.expected = min(max(w.used + (w.used >> 3), LEAST_ROOM), MOST_ROOM)
            return <object> w.made
        finally:
            Py_XDECREF(w.made)

    cdef int refuse(self, const Output *w, const Op *op, str reason) except -1:
        raise EncodeError(self.name, path_of(&w.trail, op), reason)

    cdef inline uint8_t *room(self, Output *w, const Op *op, Py_ssize_t n) except NULL:
        """Where the next n bytes go."""
        cdef uint8_t *at
        if n > w.room - w.used:
            self.grow(w, op, n)
        at = w.at + w.used
        w.used += n
        return at

    cdef int grow(self, Output *w, const Op *op, Py_ssize_t n) except -1:
        cdef Py_ssize_t room = max(2 * w.room, w.used + n)
        if w.used + n > INT32_MAX:
            self.refuse(w, op, "the message is larger than 2 GiB")
        _PyBytes_Resize(&w.made, room)
        w.at = <uint8_t *> PyBytes_AS_STRING(<object> w.made)
        w.room = room
        return 0

    cdef inline int write_number(self, Output *w, const Op *op, uint32_t number) except -1:
        """An unsigned varint."""
        cdef uint8_t *at = self.room(w, op, uvarint_width(number))
        while number >= 0x80:
            at[0] = <uint8_t> (number | 0x80)
            at += 1
            number >>= 7
        at[0] = <uint8_t> number
        return 0

    cdef int write_length(self, Output *w, const Op *op, bint array, int64_t length) except -1:
        """-1 is null."""
        if length < 0 and (not op.nullable or array != op.array):
            self.refuse(w, op, "None, which is not allowed here")
        if length > INT32_MAX - 1:
            self.refuse(w, op, f"a length of {length}")
        if op.compact:
            self.write_number(w, op, <uint32_t> (length + 1))
        elif op.kind == STRING and not array:
            put16(self.room(w, op, 2), <uint16_t> length)
        else:
            put32(self.room(w, op, 4), <uint32_t> length)
        return 0

    cdef int write_struct(self, Output *w, int32_t index, object message) except -1:
        cdef const Layout *layout = &self.layouts[index]
        cdef const Op *op = self.ops + layout.first
        cdef PyObject *found
        cdef Py_ssize_t seen = 0
        cdef int32_t i
        if not isinstance(message, dict):
            self.refuse(w, NULL, f"{type(message).__name__} instead of dict")
        for i in range(layout.count):
            found = PyDict_GetItemWithError(message, <object> op[i].name)
            if found != NULL:
                seen += 1
                self.write_field(w, &op[i], <object> found)
            else:
                self.write_field(w, &op[i], <object> op[i].default)
        if layout.flexible:
            seen += self.write_tagged(w, op + layout.count, layout.tagged, message)
        if seen != PyDict_Size(message):
            self.check_others(w, layout, message)
        return 0

    cdef int check_others(self, const Output *w, const Layout *layout, dict message) except -1:
        """What a message has beside the fields of this version must not matter in it."""
        for name, value in message.items():
            if name in <object> layout.known:
                continue
            absent = (<dict> layout.absent).get(name)
            if absent is None:
                self.refuse(w, NULL, f"there is no field {name!r}")
            default, ignorable = absent
            if not ignorable and not same(value, default):
                self.refuse(w, NULL, f"this version has no field {name!r}, whose value would be lost")
        return 0

    cdef Py_ssize_t write_tagged(self, Output *w, const Op *op, int32_t count, object message) except -1:
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
        self.write_number(w, NULL, written)
        for i in range(count):
            if chosen & (<uint64_t> 1 << i):
                self.write_number(w, &op[i], <uint32_t> op[i].tag)
                start = w.used
                self.write_field(w, &op[i], (<dict> message)[<object> op[i].name])
                # the size goes in front, once it is known
                size = w.used - start
                width = uvarint_width(<uint32_t> size)
                self.room(w, &op[i], width)
                memmove(w.at + start + width, w.at + start, size)
                w.used = start
                self.write_number(w, &op[i], <uint32_t> size)
                w.used = start + width + size
        return seen

    cdef int write_field(self, Output *w, const Op *op, object value) except -1:
        if op.array:
            return self.write_array(w, op, value)
        if op.kind != STRUCT:
            return self.write_scalar(w, op, value)
        if op.nullable:
            if op.tagged:
                self.write_number(w, op, 0 if value is None else 1)
            else:
                self.room(w, op, 1)[0] = 0xFF if value is None else 1
            if value is None:
                return 0
        enter(&w.trail, op, -1)
        self.write_struct(w, op.layout, value)
        w.trail.depth -= 1
        return 0

    cdef int write_array(self, Output *w, const Op *op, object value) except -1:
        cdef Py_ssize_t i = 0, count
        if value is None:
            return self.write_length(w, op, True, -1)
        if not isinstance(value, (list, tuple)):
            self.refuse(w, op, f"{type(value).__name__} instead of list or tuple")
        count = len(value)
        self.write_length(w, op, True, count)
        enter(&w.trail, op, 0)
        for item in value:
            w.trail.frames[w.trail.depth - 1].index = i
            if op.kind == STRUCT:
                self.write_struct(w, op.layout, item)
            else:
                self.write_scalar(w, op, item)
            i += 1
        w.trail.depth -= 1
        if i != count:
            self.refuse(w, op, "the list was changed meanwhile")
        return 0

    cdef int64_t integer(self, const Output *w, const Op *op, object value, int64_t least, int64_t most) except? -1:
        cdef int overflow = 0
        cdef int64_t number
        if not PyLong_Check(value):
            self.refuse(w, op, f"{type(value).__name__} instead of int")
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow or number < least or number > most:
            self.refuse(w, op, f"{value} is not within {least} and {most}")
        return number

    cdef int write_scalar(self, Output *w, const Op *op, object value) except -1:
        """A value, or an array's element, of any type but struct."""
        cdef double number
        cdef uint64_t bits
        cdef int64_t n
        if op.kind == INT32:
            n = self.integer(w, op, value, INT32_MIN, INT32_MAX)
            put32(self.room(w, op, 4), <uint32_t> n)
        elif op.kind == INT16:
            n = self.integer(w, op, value, INT16_MIN, INT16_MAX)
            put16(self.room(w, op, 2), <uint16_t> n)
        elif op.kind == INT64:
            n = self.integer(w, op, value, INT64_MIN, INT64_MAX)
            put64(self.room(w, op, 8), <uint64_t> n)
        elif op.kind == INT8:
            n = self.integer(w, op, value, INT8_MIN, INT8_MAX)
            self.room(w, op, 1)[0] = <uint8_t> n
        elif op.kind == BOOL:
            if value is not True and value is not False:
                self.refuse(w, op, f"{type(value).__name__} instead of bool")
            self.room(w, op, 1)[0] = value is True
        elif op.kind == STRING:
            self.write_string(w, op, value)
        elif op.kind == BYTES:
            self.write_bytes(w, op, value)
        elif op.kind == UUID_:
            self.write_uuid(w, op, value)
        elif op.kind == UINT16:
            n = self.integer(w, op, value, 0, UINT16_MAX)
            put16(self.room(w, op, 2), <uint16_t> n)
        elif op.kind == UINT32:
            n = self.integer(w, op, value, 0, UINT32_MAX)
            put32(self.room(w, op, 4), <uint32_t> n)
        else:
            if not PyFloat_Check(value) and not PyLong_Check(value):
                self.refuse(w, op, f"{type(value).__name__} instead of float")
            number = value
            memcpy(&bits, &number, 8)
            put64(self.room(w, op, 8), bits)
        return 0

    cdef int write_string(self, Output *w, const Op *op, object value) except -1:
        cdef Py_ssize_t size = 0
        cdef const char *text = NULL
        if value is None:
            return self.write_length(w, op, False, -1)
        if not PyUnicode_Check(value):
            self.refuse(w, op, f"{type(value).__name__} instead of str")
        try:
            text = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError as error:
            self.refuse(w, op, f"cannot be UTF-8: {error.reason}")
        if size > INT16_MAX:
            self.refuse(w, op, f"a string of {size} bytes, more than {INT16_MAX}")
        self.write_length(w, op, False, size)
        memcpy(self.room(w, op, size), text, size)
        return 0

    cdef int write_bytes(self, Output *w, const Op *op, object value) except -1:
        cdef Py_buffer view
        if value is None:
            return self.write_length(w, op, False, -1)
        if PyBytes_Check(value):
            self.write_length(w, op, False, PyBytes_GET_SIZE(value))
            memcpy(self.room(w, op, PyBytes_GET_SIZE(value)), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
            return 0
        if not isinstance(value, (bytearray, memoryview)):
            self.refuse(w, op, f"{type(value).__name__} instead of bytes")
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        try:
            self.write_length(w, op, False, view.len)
            memcpy(self.room(w, op, view.len), view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int write_uuid(self, Output *w, const Op *op, object value) except -1:
        cdef uint8_t *at
        if not isinstance(value, UUID):
            self.refuse(w, op, f"{type(value).__name__} instead of UUID")
        number = value.int
        at = self.room(w, op, 16)
        put64(at, PyLong_AsUnsignedLongLongMask(number >> 64))
        put64(at + 8, PyLong_AsUnsignedLongLongMask(number))
        return 0

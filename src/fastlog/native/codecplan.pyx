"""See codecplan.pxd; and what is wrong with a message or its bytes."""
from cpython.mem cimport PyMem_Calloc, PyMem_Free

from operator import itemgetter
from sys import intern

cdef enum:
    MAX_TAGGED = 64         # tagged fields of one struct: one bit each while encoding

KINDS = {
    "bool": BOOL, "int8": INT8, "int16": INT16, "uint16": UINT16, "int32": INT32, "uint32": UINT32, "int64": INT64,
    "float64": FLOAT64, "uuid": UUID_, "string": STRING, "bytes": BYTES, "records": BYTES, "struct": STRUCT,
}
WIDTHS = {BOOL: 1, INT8: 1, INT16: 2, UINT16: 2, INT32: 4, UINT32: 4, INT64: 8, FLOAT64: 8, UUID_: 16}


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
    cdef list parts = []
    cdef const Frame *frame
    cdef int i
    for i in range(trail.depth):
        frame = &trail.frames[i]
        parts.append(<object> frame.op.name if frame.index < 0 else f"{<object> frame.op.name}[{frame.index}]")
    if op != NULL and (trail.depth == 0 or trail.frames[trail.depth - 1].op != op):
        parts.append(<object> op.name)
    return ".".join(parts)


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


cdef class Tables:
    def __cinit__(self, str name, tuple plan):
        cdef list ops = [], layouts = []
        cdef Op *op
        cdef Layout *layout
        self.name = name
        self.root = flatten(plan, ops, layouts, 0)[0]
        self.keep = [ops, layouts]
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

"""Record batches for Python: the control plane's small needs, and tests."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int16_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastlog.native.batch cimport BATCH_HEADER, BATCH_SCRATCH, BatchInfo, CODEC_PRODUCER, PEEK_OK, batch_peek, batch_stamp
from fastlog.native.batchcheck cimport BatchRules, batch_check, batch_check_quick, batch_is_slow
from fastlog.native.batchrecode cimport batch_recode
from fastlog.native.batchrecords cimport batch_find_time


cdef class Held:
    """The memory of a bytes-like object, held for as long as this lives."""
    cdef Py_buffer view
    cdef uint8_t *p
    cdef size_t n

    def __cinit__(self, data, bint writable=False):
        PyObject_GetBuffer(data, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.p = <uint8_t *> self.view.buf
        self.n = <size_t> self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef void fill_rules(BatchRules *rules, dict given) except *:
    rules.size_max = given.get("size_max", 1 << 30)
    rules.before_max_ms = given.get("before_max_ms", INT64_MAX)
    rules.after_max_ms = given.get("after_max_ms", 3_600_000)
    rules.log_append_time = given.get("log_append_time", False)
    rules.keys_required = given.get("keys_required", False)
    rules.look_inside = given.get("look_inside", True)
    rules.internal = given.get("internal", False)
    rules.codec = given.get("codec", CODEC_PRODUCER)
    rules.level = given.get("level", 0)
    rules.inflate_max = given.get("inflate_max", 1 << 26)


cdef str reason(const char *why):
    return None if why == NULL else why.decode()


cdef dict described(const BatchInfo *info):
    return info[0]


def peek(data) -> dict[str, int] | None:
    """The fields of the batch header (BatchInfo) at the start of `data`, or None when it is not one or not whole."""
    cdef Held held = Held(data)
    cdef BatchInfo info
    return described(&info) if batch_peek(held.p, held.n, &info) == PEEK_OK else None


def check(data, now_ms: int, quick: bool = False, **rules) -> tuple[int, str | None, dict[str, int]]:
    """batch_check (batch_check_quick) on a writable bytes-like object: (Kafka error code, reason, BatchInfo). `rules` are BatchRules'
    fields."""
    cdef Held held = Held(data, True)
    cdef BatchRules filled
    cdef BatchInfo info
    cdef const char *why = NULL
    cdef int64_t now = now_ms
    cdef bint hurry = quick
    cdef int16_t error
    cdef void *scratch = malloc(BATCH_SCRATCH)
    if scratch == NULL:
        raise MemoryError
    memset(&info, 0, sizeof(info))
    try:
        fill_rules(&filled, rules)
        with nogil:
            if hurry:
                error = batch_check_quick(held.p, held.n, &filled, now, scratch, BATCH_SCRATCH, &info, &why)
            else:
                error = batch_check(held.p, held.n, &filled, now, scratch, BATCH_SCRATCH, &info, &why)
    finally:
        free(scratch)
    return error, reason(why), described(&info)


def is_slow(data, **rules) -> bool:
    """batch_is_slow on the header at the start of `data`; ValueError when it is not one."""
    cdef Held held = Held(data)
    cdef BatchRules filled
    cdef BatchInfo info
    fill_rules(&filled, rules)
    if batch_peek(held.p, held.n, &info) != PEEK_OK:
        raise ValueError("not a record batch")
    return batch_is_slow(&info, &filled)


def recode(data, **rules) -> tuple[int, str | None, bytes]:
    """batch_recode: (Kafka error code, reason, the new batch)."""
    cdef Held held = Held(data)
    cdef BatchRules filled
    cdef BatchInfo info
    cdef const char *why = NULL
    cdef uint8_t *out = NULL
    cdef size_t length = 0
    cdef int16_t error
    fill_rules(&filled, rules)
    with nogil:
        error = batch_recode(held.p, held.n, &filled, &out, &length, &info, &why)
    try:
        return error, reason(why), PyBytes_FromStringAndSize(<char *> out, <Py_ssize_t> length) if out != NULL else b""
    finally:
        free(out)


def stamp(data, base_offset: int, leader_epoch: int) -> None:
    """batch_stamp on a writable bytes-like object that holds a batch."""
    cdef Held held = Held(data, True)
    if held.n < BATCH_HEADER:
        raise ValueError("not a record batch")
    batch_stamp(held.p, base_offset, leader_epoch)


def find_time(data, timestamp: int) -> tuple[int, int] | None:
    """batch_find_time: (offset, timestamp in ms) of the first record at or after `timestamp`; ValueError when it can't be decoded."""
    cdef Held held = Held(data)
    cdef int64_t offset = -1, found_ms = -1, wanted = timestamp
    cdef int found
    cdef void *scratch = malloc(BATCH_SCRATCH)
    if scratch == NULL:
        raise MemoryError
    with nogil:
        found = batch_find_time(held.p, held.n, wanted, scratch, BATCH_SCRATCH, &offset, &found_ms)
    free(scratch)
    if found < 0:
        raise ValueError("the batch can't be decoded")
    return (offset, found_ms) if found else None

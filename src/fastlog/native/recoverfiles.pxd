"""What recovery reads and writes of a log's files: segments, their indexes, snapshots. Those that return int: 0, or -1 with `error` and
`why` set, unless they say otherwise.
"""
from libc.stdint cimport int64_t
from fastlog.native.index cimport Index
from fastlog.native.recovery cimport Recovery
from fastlog.native.scan cimport Scan

# -1 always.
cdef int recover_failed(Recovery *r, const char *what, int err) noexcept nogil
cdef int recover_open(Recovery *r, const char *path, bint create, int *fd, bint *direct, int64_t *size) noexcept nogil
# A scan of a segment's first `size` bytes, from its first batch, which has this offset.
cdef void recover_scan(Scan *s, Recovery *r, int fd, int64_t size, Index *ix, int64_t offset) noexcept nogil
# 0 when the batches end exactly at `size`, 1 when not.
cdef int recover_walk_tail(Recovery *r, int fd, int64_t size, Index *ix, Scan *s) noexcept nogil
cdef int recover_walk_on(Recovery *r, int64_t size, Scan *s) noexcept nogil
cdef int recover_first_timestamp(Recovery *r, int fd) noexcept nogil
cdef int recover_partial(Recovery *r) noexcept nogil
cdef int recover_load_index(Recovery *r, Index *ix, int64_t base, int64_t size) noexcept nogil
# These three return an errno.
cdef int recover_write_index(Recovery *r, Index *ix) noexcept nogil
cdef int recover_keep_index(Recovery *r) noexcept nogil
cdef int recover_write_snapshot(Recovery *r, int64_t offset) noexcept nogil
cdef void recover_note_aborted(Recovery *r) noexcept nogil

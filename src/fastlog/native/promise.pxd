"""What a log has promised: appends that wait for their bytes to be written or durable, the high watermark that follows, and failure."""
from libc.stdint cimport int16_t, int64_t
from fastlog.native.log cimport Append
from fastlog.native.store cimport LogState, StoreState

# Fills an append's answer and calls done.
cdef void append_answer(LogState *log, Append *a, int16_t error, int64_t base_offset) noexcept nogil
# Takes an accepted append into account: waits for what it needs (Need), or with 0 is answered.
cdef void promise_add(LogState *log, Append *a, int need) noexcept nogil
# A duplicate whose original ends at log position `end`.
cdef void promise_repeat(LogState *log, Append *a, int need, int64_t base_offset, int64_t end) noexcept nogil
# Moves the last stable offset after the high watermark or the log start moved: to the start of the oldest transaction that is under way,
# or ended by a marker that is not visible yet.
cdef void promise_stable(LogState *log) noexcept nogil
# Answers what `written` and `durable` allow now, and moves the high watermark first.
cdef void promise_keep(LogState *log) noexcept nogil
# Fails appends that were not accepted.
cdef void parked_fail(LogState *log, int16_t error) noexcept nogil
# A write, a flush or what they rest on failed: the log goes offline, all that waits fails. Nothing is retried.
cdef void log_fail(LogState *log, const char *what, int error) noexcept nogil
# Looks for flushes that failed since it last looked, before anything is taken for durable: logs on such a device with bytes written, or
# being written, and not flushed go offline.
cdef void promise_doubt(StoreState *s) noexcept nogil

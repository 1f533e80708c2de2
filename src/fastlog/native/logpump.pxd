"""Appends without Python in between, for benchmarks of the log."""
from libc.stdint cimport int64_t
from fastlog.native.logdrive cimport Drive

# Appends one batch `count` times, spread over logs (LocalLog), `in_flight` at once per log. Returns the number of appends that failed.
# Raises ValueError when it is no batch.
cdef int64_t log_pump(Drive s, list logs, batch, int64_t count, int acks, int in_flight) except -1

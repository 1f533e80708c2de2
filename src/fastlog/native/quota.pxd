"""Client quotas: how many bytes and how much time each client used in the last windows, and how long it must wait when that is too much.

One table for all shards, under a mutex: clients are counted together wherever their connections lie, as Kafka counts them for a broker.
`quota_on` is a plain load, and it is all that a request costs while no quota is set.

Rates are Kafka's: `samples` windows of `window_ms`, the first begun by what was counted first; the rate is what they hold over the time
since the oldest began, which counts as at least samples - 1 windows (Rate.windowSize); a client over its bound by x waits x / bound of that
time (QuotaUtils.throttleTime).
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum QuotaKind:
    QUOTA_PRODUCE = 0               # bytes of produce requests
    QUOTA_FETCH = 1                 # bytes of fetch responses
    QUOTA_REQUEST = 2               # nanoseconds
    QUOTA_KINDS = 3

cdef struct Quotas

cdef Quotas *quota_open(int32_t samples, int64_t window_ms) noexcept nogil          # NULL: no memory
cdef void quota_free(Quotas *q) noexcept nogil

# Bounds per second; negative: none. Shared: all clients that this bound holds for are counted together (a bound of the user's).
cdef void quota_begin(Quotas *q, const double *bounds, const bint *shared) noexcept nogil               # for clients that are not named
cdef int quota_name(Quotas *q, const uint8_t *client, uint32_t length, const double *bounds, const bint *shared) noexcept nogil
cdef void quota_end(Quotas *q) noexcept nogil

cdef bint quota_on(const Quotas *q, int kind) noexcept nogil
# Counts `amount` for the client; milliseconds that it must wait, 0 for none. Of a fetch that must wait nothing counts: it gets nothing.
cdef int32_t quota_record(Quotas *q, int kind, const uint8_t *client, int32_t length, double amount, int64_t now_ms) noexcept nogil
# The most that it can be given in one go; INT64_MAX: no bound.
cdef int64_t quota_window(Quotas *q, int kind, const uint8_t *client, int32_t length) noexcept nogil

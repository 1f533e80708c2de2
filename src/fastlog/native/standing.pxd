"""Answers that stand: while nothing has changed, a shard answers a request that it has seen before by itself, byte for byte.

A Standing is made by the control plane (StandingAnswer), which may take it back at any time, and filled by the shard that sends the
answer; from then on the connection holds it too. `valid` and `seen_ms` are atomic, all else belongs to the connection's shard. What the
control plane does after `revoke` is done after every answer given without it.
"""
from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp

cdef extern from *:
    """
    #include <stdint.h>
    static inline int64_t fl_standing_get(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void fl_standing_set(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline int64_t fl_standing_add(int64_t *p, int64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
    """
    int64_t standing_get "fl_standing_get"(const int64_t *p) noexcept nogil
    void standing_set "fl_standing_set"(int64_t *p, int64_t v) noexcept nogil
    int64_t standing_add "fl_standing_add"(int64_t *p, int64_t v) noexcept nogil

cdef enum:
    STANDING_BYTES_MAX = 4096       # of request and answer together: more is not kept

cdef struct Standing:
    int64_t refs
    int64_t valid
    int64_t seen_ms                 # CLOCK_MONOTONIC, when it was given last without the control plane; 0: never
    int16_t api_key
    int16_t version
    uint32_t asked                  # bytes of the request behind its correlation id
    uint32_t answered               # bytes of the answer's body
    uint8_t *data                   # the request's, then the answer's; NULL: not kept yet


cdef inline bint standing_answers(const Standing *s, int16_t api_key, int16_t version, const uint8_t *asked, uint32_t n) noexcept nogil:
    """Whether this request, from behind its correlation id, is the one."""
    return s.asked == n and s.api_key == api_key and s.version == version and memcmp(s.data, asked, n) == 0

# Keeps request and answer. False: too large, no memory, or taken back already.
cdef bint standing_keep(Standing *s, int16_t api_key, int16_t version, const uint8_t *asked, uint32_t n, const uint8_t *answer,
                        uint32_t m) noexcept nogil
cdef void standing_drop(Standing *s) noexcept nogil             # gives back one reference

cdef class StandingAnswer:
    cdef Standing *standing
    cdef Standing *hold(self) noexcept                          # with one more reference

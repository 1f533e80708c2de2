"""See standing.pxd."""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy


cdef bint standing_keep(Standing *s, int16_t api_key, int16_t version, const uint8_t *asked, uint32_t n, const uint8_t *answer,
                        uint32_t m) noexcept nogil:
    if s.data != NULL or not standing_get(&s.valid) or n > STANDING_BYTES_MAX or m > STANDING_BYTES_MAX - n:
        return False
    s.data = <uint8_t *> malloc(n + m + 1)
    if s.data == NULL:
        return False
    s.api_key = api_key
    s.version = version
    s.asked = n
    s.answered = m
    memcpy(s.data, asked, n)
    memcpy(s.data + n, answer, m)
    return True


cdef void standing_drop(Standing *s) noexcept nogil:
    if standing_add(&s.refs, -1) == 0:
        free(s.data)
        free(s)


cdef class StandingAnswer:
    """The control plane's end: given with a response (`DataPlane.respond`), which is then given to every further request of the same
    bytes on the same connection until `revoke`. Raises MemoryError."""

    def __cinit__(self):
        self.standing = <Standing *> calloc(1, sizeof(Standing))
        if self.standing == NULL:
            raise MemoryError
        self.standing.refs = 1
        self.standing.valid = 1

    def __dealloc__(self):
        if self.standing != NULL:
            standing_set(&self.standing.valid, 0)
            standing_drop(self.standing)

    cdef Standing *hold(self) noexcept:
        standing_add(&self.standing.refs, 1)
        return self.standing

    def revoke(self) -> None:
        """The next such request comes to the control plane again."""
        standing_set(&self.standing.valid, 0)

    @property
    def seen_ms(self) -> int:
        """When it was given last without the control plane, milliseconds of the monotonic clock; 0: not yet."""
        return standing_get(&self.standing.seen_ms)

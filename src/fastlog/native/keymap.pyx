"""See keymap.pxd."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "siphash.h" nogil:
    void siphash "fl_siphash128"(const uint64_t *key, const uint8_t *p, uint64_t n, uint64_t *a, uint64_t *b)

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/mman.h>
    #include <sys/random.h>
    static void *fl_map_pages(size_t n)
    {
        void *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return 0;
        madvise(p, n, MADV_HUGEPAGE);
        madvise(p, n, MADV_DONTFORK);
        return p;
    }
    static inline uint64_t fl_scale(uint64_t x, uint64_t n) { return (uint64_t) ((unsigned __int128) x * n >> 64); }
    """
    void *map_pages "fl_map_pages"(size_t n) noexcept nogil     # zeroed, on large pages where there are
    uint64_t scale "fl_scale"(uint64_t x, uint64_t n) noexcept nogil    # x of 2^64 in [0, n)
    int munmap(void *p, size_t n) noexcept nogil
    ssize_t getrandom(void *p, size_t n, unsigned int flags) noexcept nogil
    void __builtin_prefetch(const void *p) noexcept nogil

cdef enum:
    SPARSE = 2                      # slots for each key where memory allows
    FULL_OF = 10                    # and where not, nine of ten slots are used


cdef int keymap_open(KeyMap *m, uint64_t keys, uint64_t bytes) noexcept nogil:
    m.used = 0
    m.slots_n = bytes // sizeof(KeySlot)
    if m.slots_n > keys * SPARSE + FULL_OF:
        m.slots_n = keys * SPARSE + FULL_OF
    m.most = m.slots_n // FULL_OF * (FULL_OF - 1)
    m.slots = NULL
    if m.most == 0 or getrandom(m.secret, sizeof(m.secret), 0) != sizeof(m.secret):
        return ENOMEM
    m.slots = <KeySlot *> map_pages(m.slots_n * sizeof(KeySlot))
    return 0 if m.slots != NULL else ENOMEM


cdef void keymap_free(KeyMap *m) noexcept nogil:
    if m.slots != NULL:
        munmap(m.slots, m.slots_n * sizeof(KeySlot))
        m.slots = NULL


cdef KeyHash keymap_hash(const KeyMap *m, const uint8_t *key, uint64_t n) noexcept nogil:
    cdef KeyHash hash
    siphash(m.secret, key, n, &hash.a, &hash.b)
    return hash


cdef void keymap_prefetch(const KeyMap *m, KeyHash hash) noexcept nogil:
    __builtin_prefetch(m.slots + scale(hash.a, m.slots_n))


cdef inline KeySlot *slot_of(const KeyMap *m, KeyHash hash) noexcept nogil:
    """The key's slot, or the free one where it would be."""
    cdef KeySlot *slot = m.slots + scale(hash.a, m.slots_n)
    cdef KeySlot *end = m.slots + m.slots_n
    while slot.next_offset and (slot.hash.a != hash.a or slot.hash.b != hash.b):
        slot += 1
        if slot == end:
            slot = m.slots
    return slot


cdef bint keymap_put(KeyMap *m, KeyHash hash, int64_t offset) noexcept nogil:
    cdef KeySlot *slot = slot_of(m, hash)
    if slot.next_offset == 0:
        if m.used == m.most:
            return False
        m.used += 1
        slot.hash = hash
    slot.next_offset = offset + 1
    return True


cdef int64_t keymap_get(const KeyMap *m, KeyHash hash) noexcept nogil:
    return slot_of(m, hash).next_offset - 1


# ---- for tests

def siphash128(key: bytes, data: bytes) -> bytes:
    """SipHash-2-4 with 128 bits of `data` under a key of 16 bytes."""
    cdef Py_buffer view
    cdef uint64_t secret[2]
    cdef uint64_t out[2]
    secret[0] = int.from_bytes(key[:8], "little")
    secret[1] = int.from_bytes(key[8:16], "little")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    siphash(secret, <const uint8_t *> view.buf, <uint64_t> view.len, &out[0], &out[1])
    PyBuffer_Release(&view)
    return (<object> out[0]).to_bytes(8, "little") + (<object> out[1]).to_bytes(8, "little")


cdef class Map:
    """A KeyMap: Map(keys, bytes) takes put(key, offset) -> whether it was taken, get(key) -> offset or -1; `most` keys at most."""
    cdef KeyMap map

    def __cinit__(self, keys: int, bytes_max: int):
        if keymap_open(&self.map, keys, bytes_max):
            raise MemoryError

    def __dealloc__(self):
        keymap_free(&self.map)

    @property
    def most(self) -> int:
        return self.map.most

    def put(self, key: bytes, offset: int) -> bool:
        return keymap_put(&self.map, keymap_hash(&self.map, <const uint8_t *> <char *> key, len(key)), offset)

    def get(self, key: bytes) -> int:
        return keymap_get(&self.map, keymap_hash(&self.map, <const uint8_t *> <char *> key, len(key)))

"""The newest offset of each key, in memory of a fixed size: what compaction asks for every record. Pure: no I/O.

A key is held as a 128-bit hash of it, so memory does not depend on how long keys are. Two keys with the same hash would be taken for one,
and the older one's record would be lost; so the hash is SipHash-2-4 with 128 bits and a secret of the map's own: chance makes two of
n keys meet with probability n^2 / 2^129 (10^9 keys: 10^-21), and whoever chooses keys can't aim at it without the secret, as he could with
an unkeyed hash, broken MD5 included. It takes about 25 ns for a short key.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef struct KeyHash:
    uint64_t a
    uint64_t b

cdef struct KeySlot:
    KeyHash hash
    int64_t next_offset             # the key's offset + 1; 0: free

cdef struct KeyMap:
    KeySlot *slots
    uint64_t slots_n
    uint64_t used
    uint64_t most                   # keys that it takes
    uint64_t secret[2]

# Room for `keys` keys, within `bytes` bytes. 0 or ENOMEM.
cdef int keymap_open(KeyMap *m, uint64_t keys, uint64_t bytes) noexcept nogil
cdef void keymap_free(KeyMap *m) noexcept nogil
cdef KeyHash keymap_hash(const KeyMap *m, const uint8_t *key, uint64_t n) noexcept nogil
# Has the processor fetch the key's slot, while something else is done.
cdef void keymap_prefetch(const KeyMap *m, KeyHash hash) noexcept nogil
# The key was seen at `offset`, which grows from call to call. False: the map is full and does not know the key.
cdef bint keymap_put(KeyMap *m, KeyHash hash, int64_t offset) noexcept nogil
# Where the key was seen last, or -1.
cdef int64_t keymap_get(const KeyMap *m, KeyHash hash) noexcept nogil

"""A partition's directory: which segments and snapshots it has, and whose it is. Blocking, for worker threads.

Functions return 0 or a Kafka error code, then with the reason in `why` (LOG_WHY bytes).
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

cdef struct Numbers:                # offsets in names, sorted
    int64_t *at
    int32_t n
    int32_t cap

cdef struct Listing:                # zero it before use
    Numbers logs
    Numbers snapshots
    bint next_segment               # the provisional segment is there
    bint swaps                      # files of an interrupted swap are: swap_finish comes first, then this is read again

# Reads the directory. What an interrupted deletion or write left in it is removed.
cdef int16_t directory_list(const char *path, Listing *list, char *why) noexcept nogil
cdef void directory_free(Listing *list) noexcept nogil
# Adds the base offset of a segment that came last. An errno.
cdef int directory_add(Listing *list, int64_t base_offset) noexcept nogil
cdef bint directory_has_snapshot(const Listing *list, int64_t offset) noexcept nogil
# Removes snapshots but those at segments' starts and the newest up to `end`; one past the end speaks of what is gone.
cdef void directory_clean_snapshots(const char *path, const Listing *list, int64_t end) noexcept nogil
# Compares `partition.metadata` with a topic id (16 bytes); writes it, as Kafka does, when there is none.
cdef int16_t directory_check_topic(const char *path, const uint8_t *topic_id, char *why) noexcept nogil

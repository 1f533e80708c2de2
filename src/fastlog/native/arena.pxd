"""Chunks: the 64 KiB pieces of memory that hold a shard's unwritten appends, its tail cache and its cold reads.

An arena belongs to one shard's thread. A chunk holds the file window [k * CHUNK, (k + 1) * CHUNK) of one segment. With a path the
memory is a file on tmpfs that outlives a killed process: each chunk has a header there that says which partition and file position its
bytes belong to, and how many of them are valid and how many were written, so that recovery can put the rest into the log.

A chunk that nobody needs is free or listed for eviction; one that is pinned (a reader's), dirty (not yet written) or busy (being read
into) is neither. Memory is made ready in steps by the worker pool, and the chunk used last is used again first.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from fastlog.native.work cimport Home, Pool

cdef enum:
    CHUNK = 65536                   # bytes
    CHUNK_SHIFT = 16
    BLOCK = 4096                    # bytes; the unit of O_DIRECT
    ARENA_MAGIC = 0x31414C46        # "FLA1"
    ARENA_VERSION = 1

cdef enum ChunkKind:
    CHUNK_FREE = 0
    CHUNK_TAIL = 1                  # appended here, or read where appends go on
    CHUNK_COLD = 2                  # read from the disk

cdef struct ArenaFile:              # the first block of an arena on tmpfs
    uint32_t magic
    uint32_t version
    uint32_t chunk_bytes
    uint32_t chunks                 # at most; later ones may not be there yet
    uint64_t headers                # file position of the chunk headers
    uint64_t data                   # file position of chunk 0
    int32_t shard
    int32_t pid

cdef struct ChunkHeader:            # 64 bytes on tmpfs; holds nothing while end == 0
    uint8_t topic_id[16]
    int32_t partition
    uint32_t start                  # valid bytes of the chunk: [start, end); end is published after the copy
    uint32_t written                # bytes below are in the segment's file
    uint32_t end
    int64_t base_offset             # of the segment
    int64_t window                  # file position of the chunk's first byte
    int64_t reserved[2]

cdef struct ChunkSet:               # the chunks of one segment; zero it, then give it an id that no other set ever had
    uint64_t id
    Chunk *first
    uint32_t count

cdef struct Chunk:
    uint8_t *data
    ChunkHeader *header             # NULL: anonymous memory
    ChunkSet *set                   # NULL: its bytes are no segment's any more
    int64_t window
    uint32_t start                  # valid bytes: [start, end)
    uint32_t end
    uint32_t written                # tail: bytes below are in the file
    uint32_t doubt_from             # bytes [doubt_from, doubt_to) came from the disk, and no CRC has vouched for them yet
    uint32_t doubt_to
    uint32_t pins
    uint8_t kind
    uint8_t busy
    uint8_t dirty
    uint8_t listed
    void *owner                     # the log whose newest bytes it holds, or NULL
    Chunk *next                     # free list, eviction list
    Chunk *prev
    Chunk *chain                    # hash bucket
    Chunk *set_next
    Chunk *set_prev

cdef struct ChunkList:
    Chunk *first                    # used last
    Chunk *last
    uint32_t count

cdef struct Arena:
    uint8_t *map
    uint64_t map_bytes
    uint8_t *data
    int fd                          # -1: anonymous
    char *path
    Chunk *chunks
    Chunk **buckets
    uint32_t mask
    uint32_t capacity               # chunks
    uint32_t ready                  # chunks whose memory is there
    uint32_t cold                   # cold chunks
    uint32_t cold_max
    uint32_t cold_floor             # cold chunks that appends leave alone
    uint32_t pinned
    uint32_t free_count
    Chunk *free
    ChunkList tails
    ChunkList colds
    uint64_t evictions
    uint64_t released               # counts chunks that became free or listed: a waiter compares
    void (*evicting)(Chunk *c) noexcept nogil   # called before a chunk with an owner is evicted
    Pool *pool
    Home *home
    void *grow                      # the job that makes memory ready
    bint growing
    bint grow_failed

cdef int arena_open(Arena **out, uint64_t memory, const char *path, int shard, Pool *pool, Home *home,
                    void (*evicting)(Chunk *c) noexcept nogil, char *why, size_t why_len) noexcept nogil
# Unmaps; unlinks the file unless `leave`. No growth job may be out (arena_growing).
cdef void arena_close(Arena *arena, bint leave) noexcept nogil

cdef Chunk *arena_find(Arena *arena, const ChunkSet *set, int64_t window) noexcept nogil
# Chunks that a taker could have now, for appends or (cold) for reads.
cdef uint32_t arena_available(const Arena *arena, ChunkKind kind) noexcept nogil
# Starts making more memory ready, if there may be more and none is being made; `released` moves when it is there.
cdef void arena_grow(Arena *arena) noexcept nogil
# A chunk for a window, in no list, with start == end == 0, or NULL. The caller pins it, makes it dirty or busy, or settles it.
cdef Chunk *arena_take(Arena *arena, ChunkKind kind, ChunkSet *set, int64_t window) noexcept nogil
# Keeps a chunk from eviction: call before pinning it or setting dirty or busy.
cdef void arena_hold(Arena *arena, Chunk *c) noexcept nogil
# The opposite: lists it for eviction, or frees it, if nothing holds it.
cdef void arena_settle(Arena *arena, Chunk *c) noexcept nogil
cdef void arena_pin(Arena *arena, Chunk *c) noexcept nogil
cdef void arena_unpin(Arena *arena, Chunk *c) noexcept nogil
# Takes the chunk out of its set: it is free at once or when the last that holds it lets go. A dirty one becomes clean.
cdef void arena_drop(Arena *arena, Chunk *c) noexcept nogil
cdef void arena_drop_set(Arena *arena, ChunkSet *set) noexcept nogil
# A cold chunk becomes one for appends.
cdef void arena_promote(Arena *arena, Chunk *c) noexcept nogil
# Headers on tmpfs (nothing to do for anonymous memory).
cdef void chunk_label(Chunk *c, const uint8_t *topic_id, int32_t partition, int64_t base_offset) noexcept nogil
cdef void chunk_publish(Chunk *c) noexcept nogil
cdef void chunk_published_written(Chunk *c) noexcept nogil


cdef inline int64_t whole_blocks(int64_t bytes) noexcept nogil:
    """The bytes of as many blocks as these take."""
    return (bytes + BLOCK - 1) & ~(<int64_t> BLOCK - 1)

"""The consumer's core: a thread of its own that fetches ahead of the reader and makes columns of what comes, without Python.

Each broker has one Fetch request under way, sent before the answer of the last one is taken apart. A partition is left out of it while
it is
paused, while what was fetched of it waits (`buffered`), while it is open whether its leader has what was read under the leader before
(`proven`), and after an error that Python has to deal with. A seek, or a new assignment, raises its `generation`; what was fetched for an
older one is dropped. Looking things up is asked of Python's control thread by flags, as in clientproduce.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from fastlog.native.clientlink cimport Link
from fastlog.native.clientread cimport Chunk
from fastlog.native.threads cimport pthread_cond_t, pthread_mutex_t, pthread_t

cdef enum Asked:
    ASK_METADATA = 1
    ASK_LINK = 4
    ASK_PROOF = 8                   # partitions that are `fetcher_doubtful`
    ASK_ERROR = 16                  # partitions with an `error`

cdef enum FetchState:
    FETCH_ABSENT = 0
    FETCH_WANTED
    FETCH_CONNECTING
    FETCH_HANDED
    FETCH_UP

cdef enum:
    EPOCH_FROM = 9                  # versions of Fetch that say under which leader's epoch they ask
    FLEXIBLE_FROM = 12              # versions of Fetch with compact lengths and tagged fields
    CORRUPT_RECORDS = -110          # an error of our own: a batch that can't be read
    DIVERGED = -111                 # another: the leader's log is not the one that was read (KIP-320)

cdef struct FetchSettings:
    int32_t max_wait_ms
    int32_t min_bytes
    int32_t max_bytes
    int32_t partition_bytes
    size_t buffer_memory
    int64_t request_us
    int64_t backoff_us
    bint check_crc
    bint committed

cdef struct Place:                  # a partition that is, or was, assigned
    int32_t topic
    int32_t number
    int32_t leader
    int32_t epoch                   # the leader's; -1: unknown
    bint assigned
    bint paused
    bint fetching                   # in a request that is under way
    bint answered                   # since it was assigned or moved: `end` is known
    int64_t generation
    int64_t position                # what to fetch next; -1: not known yet
    int32_t position_epoch          # the leader's that wrote what is before it; -1: not known
    int32_t proven                  # the leader's that has all before it; -1: of none is that known
    int64_t taken                   # what the reader gets next
    int32_t taken_epoch             # the leader's that wrote what is before it, or a later one's of the same log
    int64_t parted                  # where the leader's log parts from the one that was read, when the error is DIVERGED; -1: unknown
    int32_t parted_epoch
    int64_t end                     # what it can read up to, as the last answer said
    int64_t high_watermark
    int64_t log_start
    size_t buffered
    int16_t error
    int64_t again_us

cdef struct Wish:                   # a partition in the request under way
    Place *place
    int64_t generation
    int64_t offset
    int32_t epoch                   # the leader's, by which it was asked; -1: none

cdef struct Source:                 # a broker
    Link link                       # first: epoll gives its address
    int32_t node
    FetchState state
    int fd
    int16_t version
    int64_t again_us
    bint busy
    bint held                       # of a partition it has more than the reader has taken
    int32_t correlation
    int64_t sent_us
    uint64_t turn
    char *request
    size_t request_capacity
    Wish *wishes
    int32_t wishes_n
    int32_t wishes_capacity

cdef struct Fetcher:
    FetchSettings set
    pthread_mutex_t lock
    pthread_cond_t ready
    pthread_cond_t control
    pthread_t thread
    bint started
    bint stopping
    bint sleeping
    int epoll
    int wake_fd
    int ready_fd                    # eventfd for an event loop; -1: none
    char *client_id
    int16_t client_id_n
    char **names                    # of topics
    int16_t *name_lengths
    int32_t topics_n
    Place **places
    int32_t places_n
    Source **sources
    int sources_n
    int wanted
    Chunk *first
    Chunk *last
    size_t buffered
    bint poked                      # the reader is to return: something other than records has happened
    uint64_t records
    uint64_t bytes
    uint64_t fetches

cdef Fetcher *fetcher_make(const FetchSettings *settings, const char *client_id, int16_t client_id_n) noexcept nogil
cdef void fetcher_free(Fetcher *f) noexcept nogil
# With the lock held, all of these.
cdef void fetcher_wake(Fetcher *f) noexcept nogil
cdef void fetcher_poke(Fetcher *f) noexcept nogil
cdef void fetcher_announce(Fetcher *f) noexcept nogil           # there may be something to take
cdef void fetcher_ask(Fetcher *f, int what) noexcept nogil      # Asked's bits, of the control thread
cdef int32_t fetcher_topic(Fetcher *f, const char *name, int16_t n) noexcept nogil
cdef Place *fetcher_place(Fetcher *f, int32_t topic, int32_t number) noexcept nogil
# To an offset; `epoch`: of the leader that wrote what is before it, -1 where that is not known.
cdef void fetcher_move(Fetcher *f, Place *p, int64_t offset, int32_t epoch) noexcept nogil
# Whether its leader has to be asked first if it has what is before the position. An epoch has one leader, which never cuts its own log.
cdef bint fetcher_doubtful(const Place *p) noexcept nogil
cdef Source *fetcher_source(Fetcher *f, int32_t node) noexcept nogil
# The next chunk of a partition that is not paused; NULL when there is none. It is the caller's then.
cdef Chunk *fetcher_take(Fetcher *f) noexcept nogil
# Puts back what was taken but not read.
cdef void fetcher_put_back(Fetcher *f, Chunk *c) noexcept nogil

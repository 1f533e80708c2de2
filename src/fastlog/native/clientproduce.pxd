"""The producer's core: batches gathered by partition, and a thread of its own that sends them and takes the answers, without Python.

Who does what: any thread of Python's appends (`core_append`, without the interpreter's lock). The network thread seals, compresses,
sends, retries
and completes. What needs a decision or a look-up (leaders, connections, producer ids, transactions) is asked for by flags that the control
thread, Python's, waits for (`wanted`). One lock guards all but sockets and batches that are being sent, which are the network thread's.

Order and duplicates: a partition's batches leave in order; one that is to be sent again goes before all behind it, and alone. Idempotent
batches are numbered when they leave. After a batch is given up, what follows in its partition begins a new epoch at sequence 0 (KIP-360),
as each partition knows only its own numbers.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from fastlog.native.clientbatch cimport OutBatch
from fastlog.native.clientcolumn cimport Column
from fastlog.native.clientlink cimport Link
from fastlog.native.threads cimport pthread_cond_t, pthread_mutex_t, pthread_t

cdef enum:                          # errors of our own, beside Kafka's codes
    LOST_TIME = -100                # delivery_timeout_ms is over
    LOST_CLOSED = -101              # closed, or aborted, before it was sent
    LOST_MEMORY = -102

cdef enum Wanted:                   # what the control thread is asked for
    WANT_METADATA = 1
    WANT_PRODUCER_ID = 2
    WANT_LINK = 4                   # peers with state PEER_WANTED
    WANT_TRANSACTION = 8            # partitions with `wants_transaction`

cdef enum PeerState:
    PEER_ABSENT = 0
    PEER_WANTED
    PEER_CONNECTING
    PEER_HANDED                     # a descriptor is there, not yet the network thread's
    PEER_UP

cdef struct Settings:
    int codec
    int level
    int16_t acks
    int16_t version                 # of Produce, at most
    int64_t linger_us
    size_t batch_size
    size_t max_request_size
    size_t buffer_memory
    int max_in_flight
    int64_t delivery_us
    int64_t request_us
    int64_t backoff_us
    int64_t backoff_max_us
    int32_t retries
    bint idempotent
    bint transactional
    int partitioner                 # 0: murmur2 (Java), 1: CRC-32 (librdkafka's consistent_random)

cdef struct Part:
    int32_t topic
    int32_t number
    int32_t leader                  # broker id; -1: unknown
    int32_t queued                  # batches
    int32_t in_flight
    int32_t sequence
    int16_t epochs                  # of our own, on top of the producer's
    bint bump
    bint proven                     # a batch of this producer and epoch was acknowledged
    bint in_transaction
    bint wants_transaction
    bint active
    OutBatch *open
    OutBatch *head
    OutBatch *tail
    size_t hint                     # capacity of the last full batch
    Part *before
    Part *after

cdef struct Topic:
    char *name
    int16_t name_n
    int32_t n
    Part **parts
    int32_t sticky                  # the partition of records without a key; -1: to be chosen
    size_t sticky_bytes

cdef struct Request:
    Request *next
    int32_t correlation
    OutBatch *first
    uint8_t *small                  # what of the request is not batches
    int64_t sent_us
    uint64_t end                    # link.sent when all of it left

cdef struct Peer:
    Link link                       # first: epoll gives its address
    int32_t node
    PeerState state
    int fd                          # handed over
    int16_t version
    int64_t again_us                # no connection is asked for before this
    Request *first
    Request *last
    int in_flight
    int32_t correlation
    OutBatch *picked                # for the next request, by topic
    size_t picked_bytes

cdef struct Segment:                # a run of a call's records in one batch
    OutBatch *batch
    int32_t index                   # of the first in the batch
    int32_t n

cdef struct Segments:
    Segment *items
    int64_t n
    int64_t capacity

cdef struct Core:
    Settings set
    pthread_mutex_t lock
    pthread_cond_t room
    pthread_cond_t done
    pthread_cond_t control
    pthread_t thread
    bint started
    bint stopping
    bint sleeping
    int waiting                     # the network thread wants the lock
    int epoll
    int wake_fd
    int done_fd                     # eventfd for an event loop; -1: none
    char *client_id
    int16_t client_id_n
    char *transactional_id          # NULL: none
    int16_t transactional_id_n
    Topic *topics
    int32_t topics_n
    Part *active
    Peer **peers
    int peers_n
    int wanted
    int flushing
    int short_of_room
    int64_t producer_id
    int16_t producer_epoch
    bint worn_out                   # no epoch is left: a new id comes when nothing has a number of the old one's
    int16_t transaction_error       # the first of the transaction's records; its others fail with it. 0: none
    int64_t serial
    int64_t incomplete              # batches not done
    size_t used                     # bytes charged
    OutBatch *done_first
    OutBatch *done_last
    uint8_t *pool                   # buffers of pool_size bytes, linked through their first word
    size_t pool_size
    size_t pooled
    uint64_t random
    uint64_t records                # counters
    uint64_t acked
    uint64_t failed
    uint64_t payload_acked
    uint64_t retried
    uint64_t requests
    uint64_t bytes

cdef enum Appended:
    APPEND_DONE = 0
    APPEND_AGAIN = 1                # no room for now: call again with what is left
    APPEND_CLOSED = 2
    APPEND_MEMORY = 3
    APPEND_PARTITION = 4            # no such partition

cdef Core *core_make(const Settings *settings, const char *client_id, int16_t client_id_n, const char *transactional_id,
                     int16_t transactional_id_n) noexcept nogil
cdef void core_free(Core *c) noexcept nogil
cdef void core_wake(Core *c) noexcept nogil     # with the lock held
cdef int core_set_topic(Core *c, int32_t handle, const char *name, int16_t name_n, const int32_t *leaders, int32_t n) noexcept nogil
# Appends rows at[0]..n; moves at[0] on. `wait_us`: how long to wait for room.
cdef Appended core_append(Core *c, int32_t topic, const Column *values, const Column *keys, const Column *headers, const int64_t *times,
                          const int32_t *partitions, int32_t partition, int64_t now_ms, int64_t *at, int64_t n, Segments *out,
                          int64_t wait_us) noexcept nogil
cdef void batch_unref(Core *c, OutBatch *b) noexcept nogil      # with the lock held
# With the lock held: fails all that waits, and all that were to be sent again in this transaction.
cdef void core_purge(Core *c, int16_t error) noexcept nogil

# For clientsend, with the lock held.
cdef void complete(Core *c, OutBatch *b, int16_t error, int64_t offset, int64_t append_ms) noexcept nogil
cdef void enqueue(Part *p, OutBatch *b) noexcept nogil
cdef OutBatch *dequeue(Part *p) noexcept nogil
cdef void close_open(Part *p) noexcept nogil
cdef void deactivate(Core *c, Part *p) noexcept nogil

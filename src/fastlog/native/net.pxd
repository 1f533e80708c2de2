"""The network side's types: what a shard is, and what its connections and requests are.

Life of a Request: parsed from its connection's receive buffer (which it holds); RUNNING while produce, fetch, offsets or the control
plane work on it; READY once its response is complete; sent when it is the oldest of its connection; then `release` gives back
what the response pointed to, and the struct goes back to the shard's slab. A Request outlives a dead connection until it is READY.

Life of a Conn: dealt to one shard, on whose thread everything about it happens. It is freed when it is closing, no operation of its
is with the kernel, and no Request is left.

Order: responses leave in request order. Produce, Fetch, ListOffsets and Metadata may be in progress together; any other request is
started when all before it have been answered, and holds back those behind it.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from fastlog.native.buf cimport Buf, Bufs
from fastlog.native.bytes cimport Reader
from fastlog.native.log cimport Partition, Store
from fastlog.native.mail cimport MailBox
from fastlog.native.quota cimport Quotas
from fastlog.native.ring cimport Op, Ring, iovec, msghdr
from fastlog.native.standing cimport Standing
from fastlog.native.table cimport Table
from fastlog.native.timer cimport Timer, Timers
from fastlog.native.work cimport Home, Pool

cdef extern from *:
    """
    #include <stdint.h>
    static inline int64_t fl_peek(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void fl_add(int64_t *p, int64_t v) { __atomic_store_n(p, __atomic_load_n(p, __ATOMIC_RELAXED) + v, __ATOMIC_RELAXED); }
    """
    # counters: written by one thread, read by any
    int64_t counter_get "fl_peek"(const int64_t *p) noexcept nogil
    void counter_add "fl_add"(int64_t *p, int64_t v) noexcept nogil

cdef struct Conn
cdef struct Shard

cdef enum Mail:
    MAIL_CONN = 1                   # number: listener, what: the descriptor
    MAIL_APPEND = 2                 # home -> owner; and its answer
    MAIL_APPENDED = 3
    MAIL_READ = 4
    MAIL_READ_DONE = 5
    MAIL_RELEASE = 6                # pins of a finished read
    MAIL_RELEASED = 7
    MAIL_WATCH = 8                  # answered by FIRED, unless an UNWATCH comes first
    MAIL_FIRED = 9
    MAIL_UNWATCH = 10               # always answered by UNWATCHED
    MAIL_UNWATCHED = 11
    MAIL_TIME = 12
    MAIL_TIMED = 13
    MAIL_COMMAND = 14               # control plane -> shard
    MAIL_REPLY = 15                 # control plane -> shard: the answer to a request handed over
    MAIL_REQUEST = 16               # shard -> control plane
    MAIL_COMMAND_DONE = 17
    MAIL_LOG = 18
    MAIL_TXN_ASK = 19               # home -> owner: does a transaction go on here? And its answer
    MAIL_TXN_ASKED = 20
    MAIL_TXN_CHECK = 21             # shard -> control plane: may one begin?
    MAIL_TXN_CHECKED = 22           # and its answer

cdef enum LogLevel:                 # Python's numbers
    LOG_DEBUG = 10
    LOG_INFO = 20
    LOG_WARNING = 30
    LOG_ERROR = 40

cdef struct LogLine:
    int level
    char text[504]

cdef struct Limits:                 # all from the memory budget and the broker's settings; fixed at start
    int64_t request_bytes_max       # socket.request.max.bytes
    int32_t requests_per_conn_max
    int64_t bytes_per_conn_max      # request bytes in progress
    int64_t answers_per_conn_max    # response bytes waiting to be sent
    int64_t conns_max               # of this shard
    int64_t idle_ms                 # connections.max.idle.ms
    int64_t stuck_ms                # pinned memory of a response that makes no progress is copied out after this
    int64_t fetch_bytes_max         # fetch.max.bytes
    int32_t sessions_max            # fetch sessions of this shard

cdef struct Counters:               # read by any thread
    int64_t conns
    int64_t conns_accepted
    int64_t conns_refused
    int64_t conns_closed_bad        # closed for what the peer sent
    int64_t requests
    int64_t bytes_in
    int64_t bytes_out
    int64_t produce_requests
    int64_t produce_batches
    int64_t produce_bytes
    int64_t produce_errors
    int64_t fetch_requests
    int64_t fetch_bytes
    int64_t fetch_parked
    int64_t fetch_woken
    int64_t offsets_requests
    int64_t handed_over             # requests that went to the control plane
    int64_t standing_answers        # requests that did not have to: their answer stood
    int64_t cross_appends           # requests to another shard's partitions
    int64_t cross_reads
    int64_t copied_out              # responses whose pinned memory had to be copied
    int64_t copied_out_bytes
    int64_t stalls                  # times a connection stopped being read (back-pressure)
    int64_t sends
    int64_t receives
    int64_t turns                   # of the loop
    int64_t log_dropped
    int64_t requests_live
    int64_t memory_buffers          # bytes of receive buffers in use
    int64_t sessions
    int64_t throttled               # requests after which their connection had to wait for a quota

cdef struct SendVec:                # what one sendmsg under way points to
    msghdr message
    SendVec *next
    iovec iov[128]

cdef enum:
    SEND_IOV = 128
    PEER_MAX = 72

cdef enum RequestState:
    REQ_RUNNING = 0
    REQ_READY = 1

cdef struct Request:
    Conn *conn
    Shard *shard
    Request *next
    Buf *frame                      # holds the bytes that `body` reads
    Reader body                     # after the header
    int16_t api_key
    int16_t version
    int32_t correlation
    int32_t client_id_length        # -1: null
    const uint8_t *client_id
    uint32_t frame_bytes
    uint8_t state
    bint flexible                   # response header has tagged fields
    bint barrier
    bint silent                     # acks=0: nothing is sent
    int32_t throttle_ms             # what the response says, and how long its connection is not read from when it is ready
    uint8_t *out                    # the response's own bytes
    uint32_t out_capacity
    iovec *iov                      # the whole response, in order
    int32_t n_iov
    int32_t iov_capacity
    int64_t out_bytes
    bint pinned                     # the iov points to memory of the log
    void *work                      # the state of who handles it
    void (*release)(Request *r) noexcept nogil      # NULL, or: the response was sent or dropped
    void (*abort)(Request *r) noexcept nogil        # NULL, or: end soon, the connection is gone
    bint (*unpin)(Request *r) noexcept nogil        # of a pinned one: copy the memory out and let go; False: no room for a copy
    iovec iov_small[2]
    uint8_t out_small[240]

cdef struct Conn:
    Shard *shard
    int fd
    uint32_t listener
    Op recv_op
    Op send_op
    SendVec *vec                    # while a send is under way
    Buf *rx                         # NULL: idle, the engine holds the buffers
    uint64_t rx_start               # unparsed bytes: rx[rx_start:rx_end]
    uint64_t rx_end
    uint64_t frame_typical          # size of recent large frames
    Request *first                  # oldest that is not sent
    Request *last
    int32_t n_requests
    int64_t bytes_in_progress
    int64_t answers_bytes           # READY, not sent
    int64_t sent_of_first           # bytes
    int64_t active_ns               # last received or sent
    bint receiving
    bint sending
    bint stalled                    # a whole frame waits unparsed
    bint paused                     # a produce of its is validated in the pool, or waits for the coordinator: parse nothing, to keep order
    bint barrier                    # a barrier request is in progress
    bint closing
    bint unpin                      # its send was cancelled so that pinned memory can be copied out
    bint muted                      # parse nothing until `mute` fires: a quota is used up
    Timer mute
    Standing *standing              # NULL, or the answer that stands for a request of its
    int64_t spent_ns                # by its last request; counted with the next, and only while a quota asks for it
    bint dirty                      # in the shard's list
    Conn *dirty_next
    Conn *next
    Conn *prev

cdef struct Shard:
    int index
    int n
    bint stop
    bint draining                   # no new requests; connections close as their last answer leaves
    Ring *ring
    Pool *pool
    Home *home
    Store *store
    Bufs bufs
    Table table
    Timers timers
    Limits limits
    Quotas *quotas                  # of all shards
    Counters counters
    int64_t now_ns                  # CLOCK_MONOTONIC, once per turn
    int64_t now_ms                  # wall clock, once per turn
    MailBox **out                   # [shard]: to another shard; [n]: to the control plane
    MailBox **inbox                 # [shard]: from another shard; [n]: from the control plane
    uint32_t out_dirty              # some mail was sent this turn
    int64_t sleeping                # atomic: the thread is in ring_wait
    Shard **peers                   # all shards
    Conn *conns
    Conn *dirty
    SendVec *vec_free
    Request *request_free
    int32_t request_free_n
    void *offsets_free
    int32_t offsets_free_n
    void *produce_free              # slabs of produce, fetch and offsets
    void *fetch_free
    int32_t produce_free_n
    int32_t fetch_free_n
    void *checks                    # produce: requests that wait for the coordinator
    uint64_t checks_n               # made so far
    void *sessions                  # fetch
    void *parked                    # fetch: requests that wait
    void *inner                     # shard: what only that room knows
    void *leaving                   # shard: topics that are going away
    void *scratch                   # BATCH_SCRATCH bytes
    int16_t flexible_from[128]      # per API key: first flexible request version, -1: none
    int64_t log_window_ns
    int32_t log_in_window
    void (*dispatch)(Request *r) noexcept nogil
    int control_fd                  # eventfd of the control plane
    int64_t *control_awake          # atomic: the control plane was told and has not looked yet

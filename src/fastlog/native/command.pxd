"""What the control plane tells a shard, and what comes back: one struct, sent by mail and returned by mail when done.

Made and freed by the bridge (control plane's thread); between sending and its return it belongs to the shard.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fastlog.native.log cimport Append, LogCtl, LogOpen, Partition, Read, TimeQuery
from fastlog.native.net cimport Request, Shard
from fastlog.native.standing cimport Standing
from fastlog.native.table cimport Topic

cdef enum CommandKind:
    CMD_OPEN = 1                    # log
    CMD_CONTROL = 2                 # log
    CMD_APPEND = 3
    CMD_READ = 4
    CMD_FIND_TIME = 5
    CMD_PUBLISH = 6                 # topic: the shard takes the reference
    CMD_UNPUBLISH = 7               # id: done when no request of the shard holds a partition of it
    CMD_FREE = 8                    # part
    CMD_LISTEN = 9                  # number: descriptor, index: listener
    CMD_UNLISTEN = 10
    CMD_DRAIN = 11                  # done when the shard has no connection any more
    CMD_STOP = 12                   # closes what is left and ends the loop

cdef struct Command:
    int kind
    int64_t cookie
    Shard *shard
    Command *next                   # in the shard's list of what waits
    LogOpen log
    LogCtl control
    Append append                   # each of these is found from its pointer by its place in Command
    Read read
    TimeQuery time
    Topic *topic
    uint8_t id[16]
    Partition *part
    char *path                      # malloc'ed
    uint8_t *data                   # malloc'ed: the batch to append, or what was read
    uint64_t data_length
    int64_t number
    int32_t index
    int32_t error

cdef struct TxnCheckPart:
    uint8_t topic_id[16]
    int32_t index
    uint16_t name_length
    char name[250]

cdef struct TxnCheck:               # a produce that begins a transaction in partitions; malloc'ed by the shard, freed by the bridge
    uint64_t token                  # of the shard: the request may have ended when the answer comes
    int shard
    int64_t producer_id
    int16_t producer_epoch
    bint add                        # the partitions are to be added to the transaction
    uint16_t id_length
    uint8_t *id                     # the transactional id, behind the parts
    int32_t n
    TxnCheckPart parts[1]

cdef struct TxnVerdict:             # the answer; malloc'ed by the bridge, freed by the shard
    uint64_t token
    int32_t n
    int16_t errors[1]

cdef struct Reply:                  # the control plane's answer to a request; malloc'ed, freed by the shard
    Request *request
    Standing *standing              # NULL, or what this answer becomes: the shard takes the reference
    int32_t throttle_ms
    uint32_t length
    uint8_t data[1]

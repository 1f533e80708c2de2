"""Produce (API key 0, versions 3 to 13): decode, validate, hand each batch to its partition's owner, answer.

Order: the batches of one connection reach a partition in the order sent. A batch that takes long to look into is validated in the
worker pool, and its connection parses nothing until that is done.

A transactional request (KIP-890) first asks the owners of its partitions whether the transaction goes on there. Where it does not, the
coordinator is asked, by way of the control plane, whether it may begin: once for all of them; the connection parses nothing meanwhile.
"""
from fastlog.native.net cimport Request, Shard

cdef void produce_start(Request *r) noexcept nogil
cdef void produce_append_here(Shard *owner, void *what) noexcept nogil      # MAIL_APPEND: on the owner's shard
cdef void produce_appended(Shard *home, void *what) noexcept nogil          # MAIL_APPENDED: back on the connection's shard
cdef void produce_ask_here(Shard *owner, void *what) noexcept nogil         # MAIL_TXN_ASK
cdef void produce_asked(Shard *home, void *what) noexcept nogil             # MAIL_TXN_ASKED
cdef void produce_checked(Shard *shard, void *what) noexcept nogil          # MAIL_TXN_CHECKED
cdef void produce_abandon(Shard *shard) noexcept nogil                      # the control plane answers no more
cdef void produce_free(Shard *shard) noexcept nogil

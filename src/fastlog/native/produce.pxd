"""Produce (API key 0, versions 3 to 13): decode, validate, hand each batch to its partition's owner, answer.

Order: the batches of one connection reach a partition in the order sent. A batch that takes long to look into is validated in the
worker pool, and its connection parses nothing until that is done.
"""
from fastlog.native.net cimport Request, Shard

cdef void produce_start(Request *r) noexcept nogil
cdef void produce_append_here(Shard *owner, void *what) noexcept nogil      # MAIL_APPEND: on the owner's shard
cdef void produce_appended(Shard *home, void *what) noexcept nogil          # MAIL_APPENDED: back on the connection's shard
cdef void produce_free(Shard *shard) noexcept nogil

"""Producers of a partition that asked whether they may begin a transaction there (KIP-890), between the question and their first batch.
Pure: no I/O.

A guard is the number of a question: only a batch that carries the newest one of its producer may begin a transaction, so an answer that
comes after the transaction was ended (and maybe another one begun elsewhere) begins none. A producer's first batch, or a marker, ends it.
Producers whose epoch grows with each transaction need none once the coordinator has added the partition: see `Append.added`.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t

cdef enum:
    VERIFICATIONS_MAX = 4096        # of a partition; then the oldest goes, and its producer has to ask again

cdef struct Verification:
    int64_t producer_id
    uint64_t guard
    int64_t since_ms
    int32_t lowest_sequence         # of the epoch: batches above it must wait for that one
    int16_t epoch
    bint bumps                      # the producer knows of transactions version 2
    Verification *next              # asked later

cdef struct Verifications:
    Verification *first
    Verification *last
    int32_t n
    uint64_t guards                 # given so far

cdef Verification *verify_find(const Verifications *v, int64_t producer_id) noexcept nogil
# The guard of a question: the one there is for this producer, or a new one. 0: no memory.
cdef uint64_t verify_ask(Verifications *v, int64_t producer_id, int16_t epoch, int32_t sequence, bint bumps, int64_t now_ms) noexcept nogil
cdef void verify_end(Verifications *v, int64_t producer_id) noexcept nogil
# Forgets questions from before a time.
cdef void verify_expire(Verifications *v, int64_t before_ms) noexcept nogil
cdef void verify_free(Verifications *v) noexcept nogil

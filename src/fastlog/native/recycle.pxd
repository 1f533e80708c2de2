"""Files of removed segments, kept as space for next ones: the pool of a data directory. Blocking, for jobs; nothing here runs on a shard.

A durable write is fast only onto blocks that were written before. New ones are zeroed for that, which writes each byte twice; those of a
removed segment were written before, and need no more than to be told from the log that comes to lie there:

- No batch of the former life is left whole. What of each batch lies from its magic on to the end of its header is zeroed, with the rest of
  the blocks around it, before the file is handed out. So past the end of the log, wherever a write was torn, nothing there is a batch: what
  the new log has not written of a header is zeroes, and of a body it fails the CRC as any torn write does.
- Only a file that nobody else has open, and that has no other name, is taken: no reader, cleaner or backup sees it change.
- The last block says what the file is, until the new log comes to there: recovery, and `fastlog log check`, know by it that bytes past the
  end are no loss.

A pool is files `NN.recycled` in the data directory, so a start finds it as it was; they are complete and durable before they are named so.
"""
from libc.stdint cimport int64_t

# Makes a sealed segment's file the pool's, as space for a segment of `bytes`, if the pool then holds no more than `limit` bytes. `path` is
# the file, in the directory `home`, one below the data directory. *written: bytes that had to be written for that. 0, or an errno: the file
# is not fit (EBUSY: somebody has it open) or failed, and may be removed.
cdef int recycle_put(const char *path, const char *home, int64_t bytes, int64_t limit, int64_t reserve, int64_t *written) noexcept nogil
# Puts a file with blocks for `bytes`, all of them written before, in place as `path`, durably, and opens it; False: there is none.
cdef bint recycle_take(const char *path, const char *home, int64_t bytes, int *fd, bint *direct) noexcept nogil
# Removes all that the pool has, for somebody needs the room; whether there was any.
cdef bint recycle_give_back(const char *home) noexcept nogil
# Whether an open file of so many bytes came from the pool, and was not yet written to its end.
cdef bint recycle_marked(int fd, int64_t size) noexcept nogil

"""One flush for many: durable writes of many logs on one device are written plainly, and one flush of the device covers all that ended.

Only for blocks that were written before (the runway), which owe no metadata: then all that a write needs to be durable is that the device's
cache goes to its medium, and a flush through any file of the file system has that done. The file flushed is a nameless one of each device.
"""
from fastlog.native.store cimport FlushGroup, LogState, StoreState, Write

# The group of the device that a log is on, or NULL: none can be had.
cdef FlushGroup *flushgroup_of(LogState *log) noexcept nogil
# Whether it pays: several durable writes are under way.
cdef bint flushgroup_pays(const FlushGroup *group) noexcept nogil
# A write whose bytes reached the device waits for a flush that begins from now on; then `write_flushed` of its store is called.
cdef void flushgroup_join(FlushGroup *group, Write *w) noexcept nogil
# Starts flushes that are waited for: once a turn, so that all that ended in it share one.
cdef void flushgroups_step(StoreState *s) noexcept nogil
cdef void flushgroups_free(StoreState *s) noexcept nogil

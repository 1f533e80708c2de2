"""Bugs that tests put in on purpose, to see that they would be found. None is ever in, outside of a process that asked for it by `plant`.

Only rooms off the hot path look here.
"""

cdef enum:
    PLANT_EARLY_DUPLICATE = 1       # a duplicate is acknowledged though its original is not yet as safe
    PLANT_TRUST_INDEX = 2           # recovery believes that what index entries point to is there
    PLANT_RECYCLE_WHOLE = 4         # recycled blocks keep the batches of their former life

cdef unsigned planted

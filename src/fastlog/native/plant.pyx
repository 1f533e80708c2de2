"""Planted bugs. See plant.pxd."""

NAMES = {"early duplicate": PLANT_EARLY_DUPLICATE, "trusted index": PLANT_TRUST_INDEX, "recycled blocks left whole": PLANT_RECYCLE_WHOLE}


def plant(*names):
    """These bugs are in from now on, and no others."""
    global planted
    planted = 0
    for name in names:
        planted |= <unsigned> NAMES[name]

"""The compiled core's one door to Python: names of the rooms behind it, and no logic of its own."""
from fastlog.native.bridge import DONE, LOG, REQUEST, DataPlane

__all__ = ["DONE", "LOG", "REQUEST", "DataPlane"]

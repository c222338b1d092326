"""One profile for hypothesis: the same examples every time, and no deadline on a shared machine."""

from hypothesis import settings

settings.register_profile("poolswap", deadline=None, derandomize=True)
settings.load_profile("poolswap")

"""The allocator keeps the memory of tensors that are no longer needed."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's numbers for them
_MOST = 2**31 - 1
_LARGEST_KEPT = 2**30


def keep_freed_memory() -> None:
    """Let malloc keep freed memory for what comes next, instead of giving it back to the system.

    The steps of training ask for tensors of the same sizes again and again. Those over 32 MB would each time be made
    of new pages, which the system clears one by one: a quarter of the CPU time of recipes/smoke.toml, whose batches
    are large, and 6 % of SASRec's in the demo (two cores). The process then stays at its greatest size until it ends;
    that size grew by a quarter in the first, not at all in the second.

    Does nothing where the user has set how malloc is to behave, or malloc is not glibc's.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # macOS, Windows, musl
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_TRIM_THRESHOLD, _MOST)

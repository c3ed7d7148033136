"""Threads of a server share few heaps: with one for each, memory that a picture took is kept where nobody looks again.

glibc gives threads heaps of their own, up to eight for each core, and a heap that was large stays so. gradio works in
forty threads. Two heaps are what MALLOC_ARENA_MAX=2 gives, which counts here as well; other C libraries have none.
"""

import ctypes
import os
import sys


HEAPS = 2
M_ARENA_MAX = -8  # of malloc.h


def share_heaps() -> bool:
    """Let threads that begin from now on share `HEAPS` heaps, unless MALLOC_ARENA_MAX is set; whether glibc took that.

    Heaps that are there stay.
    """
    if sys.platform != "linux" or os.environ.get("MALLOC_ARENA_MAX"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_ARENA_MAX, HEAPS) == 1

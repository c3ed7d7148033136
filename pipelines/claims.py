"""What holds the state of one call: a scheduler counts the steps of one run only."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


PLACE_OF_CLAIM = "_mg_claim"  # in the `__dict__` of a scheduler, during a call


class Claim:
    """A thread's claim on a scheduler; a copy of the scheduler is claimed by nobody."""

    def __init__(self) -> None:
        self.lock, self.depth = threading.RLock(), 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


@contextlib.contextmanager
def claimed(scheduler: Any) -> Iterator[None]:
    """A scheduler for the length of a `with` block; nothing stays on it.

    Raises:
        RuntimeError: if another thread has it.
    """
    while True:
        claim = scheduler.__dict__.setdefault(PLACE_OF_CLAIM, Claim())
        if not claim.lock.acquire(blocking=False):
            raise RuntimeError(
                "The scheduler is at work in another thread, and counts the steps of one call only. Give each thread a "
                "pipeline of its own, which may share everything else: "
                '`type(pipe)(**{**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)})`.'
            )
        if scheduler.__dict__.get(PLACE_OF_CLAIM) is claim:
            break
        claim.lock.release()  # the call that it was of has just ended
    claim.depth += 1
    try:
        yield
    finally:
        claim.depth -= 1
        if not claim.depth:  # a callback may have made another picture meanwhile
            scheduler.__dict__.pop(PLACE_OF_CLAIM, None)
        claim.lock.release()

"""Progress of edits that are computed at a picture's own resolution."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


PARTS = 100  # of a picture


def check_callback(callback: Any) -> None:
    """Raise a ValueError for what cannot be told the share that is done."""
    if callback is not None and not callable(callback):
        raise ValueError(f"`callback` is a function that is told the share that is done, or `None`; got {callback!r}.")


@contextmanager
def progress(
    pipe: Any, count: int = 1, callback: Callable[[float], None] | None = None
) -> Iterator[Callable[[float], None]]:
    """A function to call with the share of the current picture that is done, in [0, 1], of `count` pictures in turn.

    It moves the pipeline's progress bar and tells `callback` the share of all of them; what that raises stops the work.
    """
    with pipe.progress_bar(total=PARTS * count) as bar:
        picture = last = shown = 0

        def step(share: float) -> None:
            nonlocal picture, last, shown
            if share < last or last >= 1:  # the next one
                picture += 1
            last = share
            if callback is not None:
                callback((picture + share) / count)
            now = int(PARTS * (picture + share))
            bar.update(now - shown)
            shown = now

        yield step

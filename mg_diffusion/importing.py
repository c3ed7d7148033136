"""Import diffusers and transformers in half the time, and without a word about packages that nothing here needs."""

import contextlib
import functools
import gc
import importlib.metadata
import logging
from collections.abc import Iterator


IMAGE_PROCESSORS = "transformers.utils.import_utils"  # the logger of what is said when an image processor is asked for
LIST = importlib.metadata.packages_distributions


def _is_about_us(record: logging.LogRecord) -> bool:
    """Not that, without torchvision, an image processor is the one that works without: diffusers asks, nobody else did."""
    return "requires torchvision" not in record.getMessage()


@contextlib.contextmanager
def swiftly() -> Iterator[None]:
    """What the block imports, it imports swiftly and silently; all is as it was behind it, also after an error.

    A process that imports them for the first time makes a million objects that stay. Looking for garbage among them takes
    a fifth of the time. diffusers and transformers both list all installed packages; the second is given the list of the
    first.
    """
    collects, lists = gc.isenabled(), importlib.metadata.packages_distributions is LIST
    told = logging.getLogger(IMAGE_PROCESSORS)
    told.addFilter(_is_about_us)
    gc.disable()
    if lists:  # and no block around this one has done it
        importlib.metadata.packages_distributions = functools.cache(LIST)
    try:
        yield
    finally:
        if lists:
            importlib.metadata.packages_distributions = LIST
        if collects:
            gc.enable()
        told.removeFilter(_is_about_us)

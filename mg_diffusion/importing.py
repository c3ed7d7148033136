"""Import modules of ours when they are needed, and diffusers and transformers swiftly and without a word."""

import contextlib
import functools
import gc
import importlib.metadata
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any


IMAGE_PROCESSORS = "transformers.utils.import_utils"  # the logger of what is said when an image processor is asked for
LIST = importlib.metadata.packages_distributions
LOCK = threading.Lock()


def _is_about_us(record: logging.LogRecord) -> bool:
    """Not that, without torchvision, an image processor is the one that works without: diffusers asks, nobody else did."""
    return "requires torchvision" not in record.getMessage()


@contextlib.contextmanager
def swiftly() -> Iterator[None]:
    """What the block imports, it imports swiftly and silently; all is as it was behind it, also after an error.

    Imports make a million objects that stay, among which no garbage need be looked for. diffusers and transformers both
    list all installed packages; the second is given the list of the first.
    """
    told = logging.getLogger(IMAGE_PROCESSORS)
    # Each only if no block around this one has done it.
    collects, lists = gc.isenabled(), importlib.metadata.packages_distributions is LIST
    tells = _is_about_us not in told.filters
    gc.disable()
    if lists:
        importlib.metadata.packages_distributions = functools.cache(LIST)
    if tells:
        told.addFilter(_is_about_us)
    try:
        yield
    finally:
        if tells:
            told.removeFilter(_is_about_us)
        if lists:
            importlib.metadata.packages_distributions = LIST
        if collects:
            gc.enable()


class LateModule(ModuleType):
    """Stands in `sys.modules` for a module until something of it is asked for.

    There diffusers looks for the modules that a `model_index.json` names; it imports none.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "__all__":  # asked of every module there is, as by `inspect.getmodule`
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module = really_import(self.__name__)
        vars(self).update(vars(module))  # for `from it import *`
        return getattr(module, name)

    def __dir__(self) -> list[str]:
        return dir(really_import(self.__name__))


def import_later(name: str) -> None:
    """Have a module found in `sys.modules` that is not imported yet."""
    module = importlib.util.module_from_spec(importlib.util.find_spec(name))
    module.__class__ = LateModule
    sys.modules.setdefault(name, module)


def really_import(name: str) -> ModuleType:
    """The module of this name, in place of what stood for it."""
    with LOCK:  # not while it is imported: Python has a lock for that, which knows of deadlocks
        if isinstance(sys.modules.get(name), LateModule):
            del sys.modules[name]
    with swiftly():
        return importlib.import_module(name)

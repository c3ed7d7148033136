"""The code that a saved class needs, as one file."""

import inspect
import sys
from pathlib import Path
from types import ModuleType


def bundler_of(module: str) -> ModuleType | None:
    """What makes one file out of a module of an installed package of ours; remote code is one file already."""
    return sys.modules.get(f"{module.partition('.')[0]}.bundling")


def shippable_source(kind: type) -> str:
    """The text of one file that defines a class: a bundle, what a bundle was run from, or the class's file as it is."""
    bundler = bundler_of(kind.__module__)
    if bundler is not None:
        return bundler.bundle_of(kind)
    return vars(kind).get("_shipped_source") or Path(inspect.getsourcefile(kind)).read_text(encoding="utf-8")

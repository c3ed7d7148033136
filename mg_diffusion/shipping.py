"""The code that a saved class needs, as one file."""

import inspect
import sys
from pathlib import Path
from types import ModuleType


def bundler_of(module: str) -> ModuleType | None:
    """What makes one file out of a module of an installed package of ours; remote code is one file already."""
    return sys.modules.get(f"{module.partition('.')[0]}.bundling")


def shippable_source(kind: type) -> str:
    """The text of one file that defines a class: a bundle, or its own file as it is."""
    bundler = bundler_of(kind.__module__)
    return (
        Path(inspect.getsourcefile(kind)).read_text(encoding="utf-8") if bundler is None else bundler.bundle_of(kind)
    )

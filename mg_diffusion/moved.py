"""Functions by the modules they lay in before, `modeling_mg_encoder` and `modeling_mg_adapter`; they warn."""

import importlib
import warnings
from types import ModuleType
from typing import Any


MOVED = {
    "modeling_mg_encoder": "encoder.views encoder.color encoder.texture encoder.shape encoder.structure encoder.distances "
    "encoder.filling encoder.reading encoder.references encoder.granularity_cards",
    "modeling_mg_adapter": "adapter.strengths adapter.quilting adapter.sketch adapter.layers adapter.attention",
}


def forward_moved_names(module: ModuleType) -> None:
    """Let a module find what lay in it and lies elsewhere now, until the next version."""
    root, _, name = module.__name__.rpartition(".")

    def find(attribute: str) -> Any:
        for place in MOVED[name].split():
            found = vars(importlib.import_module(f"{root}.{place}")).get(attribute)
            if found is not None and not attribute.startswith("_"):
                warnings.warn(f"`{attribute}` lies in `{root}.{place}` now.", FutureWarning, stacklevel=2)
                return found
        raise AttributeError(f"module {module.__name__!r} has no attribute {attribute!r}")

    module.__getattr__ = find

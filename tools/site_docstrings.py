"""An extension of griffe, which reads our files without running them: docstrings that are put together at import are imported."""

import importlib
import inspect
from typing import Any

import griffe


class AtImport(griffe.Extension):
    """Takes the docstrings of the calls of pipelines, whose arguments are said once for all of them, from the class."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        module, _, kind = func.parent.path.rpartition(".") if func.parent else ("", "", "")
        if func.name != "__call__" or not module.startswith("pipelines.pipeline_"):
            return
        text = inspect.getdoc(getattr(importlib.import_module(f"mg_diffusion.{module}"), kind).__call__)
        func.docstring = griffe.Docstring(text or "", parent=func)

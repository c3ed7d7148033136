"""What ComfyUI lends while a node runs: its progress bar, its stop button, its device. Without it all of them are absent."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


class Progress:
    """The bar that named edits move (`mg_diffusion.edits.progress`), shown by ComfyUI where it runs."""

    def __init__(self, total: int):
        utils = sys.modules.get("comfy.utils")  # loaded long before any node runs, or not there at all
        self.bar = None if utils is None else utils.ProgressBar(total)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def update(self, count: int) -> None:
        stop_if_asked()
        if self.bar is not None:
            self.bar.update(count)


def stop_if_asked() -> None:
    """Raise what ComfyUI wants raised where its user has pressed stop."""
    management = sys.modules.get("comfy.model_management")
    if management is not None:
        management.throw_exception_if_processing_interrupted()


def device() -> torch.device:
    """ComfyUI's device where that is CUDA, else the CPU: other devices lack some of what is computed."""
    management = sys.modules.get("comfy.model_management")
    found = torch.device("cpu") if management is None else torch.device(management.get_torch_device())
    return found if found.type == "cuda" else torch.device("cpu")


def without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """A node's function outside of the inference mode in which ComfyUI runs nodes, but without gradients.

    Weights that are loaded in inference mode, and views that are remembered from it, would be refused by autograd later.
    """

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return function(*arguments, **named)

    return run

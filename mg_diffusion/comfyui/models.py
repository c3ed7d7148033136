"""The two small networks that nodes use: the encoder that reads references, and the detail network. No base model."""

import functools
import json
from pathlib import Path
from typing import Any

import torch

from . import host


CATEGORY = "MG-Diffusion"


class Networks:
    """What a pipeline is to the library's functions: `mg_encoder`, `mg_detail`, a progress bar. Loaded on first use.

    In float32, on the CPU, whatever ComfyUI has made torch's default type and device by then: they are kept for all nodes.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @functools.cached_property
    def mg_encoder(self) -> Any:
        from mg_diffusion import MGEncoder

        return self._loaded(MGEncoder, "mg_encoder")

    @property
    def mg_detail(self) -> Any:
        return None if self._detail is None else self._detail.to(host.device())

    @functools.cached_property
    def _detail(self) -> Any:
        if not (self.folder / "mg_detail").is_dir():
            return None
        from diffusers import UNet2DModel

        return self._loaded(UNet2DModel, "mg_detail")

    def _loaded(self, kind: Any, name: str) -> Any:
        options = {"low_cpu_mem_usage": False, "use_safetensors": True, "torch_dtype": torch.float32}
        with torch.device("cpu"):
            return kind.from_pretrained(self.folder, subfolder=name, **options).eval()

    def progress_bar(self, total: int) -> host.Progress:
        return host.Progress(total)


@functools.cache
def embedded() -> Networks:
    """Those that come with the package."""
    from mg_diffusion.loading import embedded_model

    return Networks(embedded_model())


def open_networks(folder: str) -> Networks:
    """Those of a folder that `save_pretrained` or `mg-diffusion export` wrote; the embedded ones of an empty name.

    Raises:
        ValueError: for a folder without a model of ours.
    """
    if not folder.strip():
        return embedded()
    place = Path(folder.strip()).expanduser()
    try:
        index = json.loads((place / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        index = {}
    if "mg_encoder" not in index or not (place / "mg_encoder").is_dir():
        raise ValueError(
            f"`folder` must be a folder with a model of MG-Diffusion, as `save_pretrained` and `mg-diffusion export` write "
            f"them, got {folder!r}, which has no encoder. Leave it empty for the model that comes with the package."
        )
    return Networks(place)


class MGModel:
    """The encoder and the detail network of a model of your own, for the other nodes."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Encoder and detail network of a model of your own. Without this node the others use the embedded one."
    )
    FUNCTION = "load"
    RETURN_TYPES = ("MG_MODEL",)
    RETURN_NAMES = ("mg_model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = (
            "A folder that save_pretrained or mg-diffusion export wrote; empty: the model that comes with the package."
        )
        return {"required": {"folder": ("STRING", {"default": "", "tooltip": tip})}}

    def load(self, folder: str) -> tuple[Networks]:
        return (open_networks(folder),)


def given(mg_model: Networks | None) -> Networks:
    return embedded() if mg_model is None else mg_model

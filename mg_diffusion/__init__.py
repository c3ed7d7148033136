"""MG-Diffusion: steer a diffusion UNet by the color, the texture and the shape of reference images.

Names are imported on first use: torch, diffusers and transformers take seconds, and a mistyped flag need not wait for them.
diffusers' own `_LazyModule` cannot do this, since it comes with all three.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import bundling  # noqa: F401 (what saves a class of ours looks for it, see `shipping`)
from .importing import import_later, really_import
from .moved import MOVED, forward_moved_names


if TYPE_CHECKING:  # what editors read
    from diffusers import ModelMixin

    from .composition import compose
    from .modeling_autoencoder_haar import AutoencoderHaar
    from .modeling_mg_adapter import MGAdapter
    from .modeling_mg_encoder import MGEncoder
    from .pipelines import MGInpaintPipeline, MGPipeline, MGXLInpaintPipeline, MGXLPipeline


__version__ = "0.1.0"
__all__ = [
    "AutoencoderHaar",
    "MGAdapter",
    "MGEncoder",
    "MGInpaintPipeline",
    "MGPipeline",
    "MGXLInpaintPipeline",
    "MGXLPipeline",
    "ModelMixin",
    "compose",
]

_PLACES = {
    "AutoencoderHaar": f"{__name__}.modeling_autoencoder_haar",
    "MGAdapter": f"{__name__}.modeling_mg_adapter",
    "MGEncoder": f"{__name__}.modeling_mg_encoder",
    # `mg_diffusion.pipelines` is there only where the package is installed.
    **dict.fromkeys(
        ("MGInpaintPipeline", "MGPipeline", "MGXLInpaintPipeline", "MGXLPipeline"), f"{__name__}.pipelines"
    ),
    "compose": f"{__name__}.composition",
    "ModelMixin": "diffusers",  # diffusers looks it up in the module that `model_index.json` names
}


class _Package(ModuleType):
    """This package. Modules that bundles hold cannot forward what lay in them; they can be made to once they are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in MOVED and isinstance(value, ModuleType):  # Python binds a module here when it has run
            forward_moved_names(value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
for _model in ("AutoencoderHaar", "MGAdapter", "MGEncoder"):
    import_later(_PLACES[_model])


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        globals()[name] = value = getattr(really_import(_PLACES[name]), name)  # asked for once
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:  # a module that is not imported yet
        return really_import(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

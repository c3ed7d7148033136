"""Find a checkout of ComfyUI, and make it importable."""

import sys
from pathlib import Path


KEPT = []  # declarations of operators live as long as this
NEEDED = ("execution.py", "nodes.py", "folder_paths.py", "comfy/sd.py", "comfy/samplers.py")


def find_checkout(place: str | None) -> Path:
    """The folder `place`, a checkout of ComfyUI.

    Raises:
        ValueError: if it is not given, or lacks files.
    """
    remedy = "Give a checkout of https://github.com/comfyanonymous/ComfyUI: make test-comfyui COMFYUI=path"
    if not place:
        raise ValueError(f"COMFYUI is not set. {remedy}")
    root = Path(place).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"COMFYUI={place}: there is no such folder. {remedy}")
    missing = [name for name in NEEDED if not (root / name).is_file()]
    if missing:
        raise ValueError(f"COMFYUI={place} is not a checkout of ComfyUI: {missing[0]} is missing. {remedy}")
    return root


def prepare(checkout: Path) -> None:
    """Let what is imported from now on find ComfyUI, which is to use the CPU."""
    sys.path.insert(0, str(checkout))
    from comfy.cli_args import args

    args.cpu = True  # read when comfy.model_management is imported
    _declare_missing_operators()


def _declare_missing_operators():
    """A torchvision built for CUDA beside a torch without it cannot be imported; ComfyUI needs it to be, and no more."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)

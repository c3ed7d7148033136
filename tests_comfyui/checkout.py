"""Find a checkout of ComfyUI."""

from pathlib import Path


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

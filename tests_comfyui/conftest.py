"""A ComfyUI on the CPU, without its server and its page, with our folder as a custom node.

Run by `make test-comfyui COMFYUI=path`; see docs/comfyui.md.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import pytest


HERE = Path(__file__).resolve().parent
NODES = HERE.parent / "mg_diffusion" / "comfyui"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(HERE))

from checkout import find_checkout, prepare  # noqa: E402


def pytest_configure(config):
    try:
        checkout = find_checkout(os.environ.get("COMFYUI"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    prepare(checkout)


@pytest.fixture(scope="session")
def comfy():
    """What runs graphs, with our nodes loaded as ComfyUI loads those of `custom_nodes`."""
    import folder_paths
    import nodes
    from comfy_extras import nodes_model_advanced
    from running import HELPERS, Comfy

    with tempfile.TemporaryDirectory(prefix="mg-diffusion-comfyui-") as folder:
        root = Path(folder)
        for name in ("input", "output", "temp"):
            (root / name).mkdir()
            getattr(folder_paths, f"set_{name}_directory")(str(root / name))
        (root / "custom_nodes").mkdir()
        link = root / "custom_nodes" / "mg-diffusion"
        link.symlink_to(NODES, target_is_directory=True)
        assert asyncio.run(nodes.load_custom_node(str(link))), "ComfyUI could not load the folder"
        nodes.NODE_CLASS_MAPPINGS.update({**HELPERS, **nodes_model_advanced.NODE_CLASS_MAPPINGS})
        yield Comfy(root)


@pytest.fixture(scope="session")
def checkpoint(comfy) -> str:
    """The name of a very small checkpoint of the family of Stable Diffusion 1, of random weights."""
    import folder_paths
    from checkpoints import save_tiny_checkpoint

    folder_paths.add_model_folder_path("checkpoints", str(comfy.root))
    save_tiny_checkpoint(comfy.root / "tiny.safetensors")
    return "tiny.safetensors"

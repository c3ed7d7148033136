"""What ComfyUI asks of every node, and what it finds in the folder."""

import importlib.util
import inspect
import json
import subprocess
import sys
import tomllib

import pytest

from mg_diffusion import __version__
from mg_diffusion.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS


TYPES = {"IMAGE", "MASK", "MODEL", "VAE", "STRING", "INT", "FLOAT", "MG_MODEL", "MG_REFERENCES"}
NODES = sorted(NODE_CLASS_MAPPINGS.items())
FOLDER = "mg_diffusion/comfyui"


def inputs_of(node) -> dict[str, tuple]:
    given = node.INPUT_TYPES()
    return {**given["required"], **given.get("optional", {})}


@pytest.mark.parametrize(("name", "node"), NODES, ids=[name for name, _ in NODES])
def test_a_node_is_what_comfyui_expects(name, node):
    assert node.CATEGORY == "MG-Diffusion" and node.DESCRIPTION and NODE_DISPLAY_NAME_MAPPINGS[name]
    assert node.RETURN_TYPES and set(node.RETURN_TYPES) <= TYPES
    assert len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)) == len(node.RETURN_TYPES)
    kinds, signature = node.INPUT_TYPES(), inspect.signature(getattr(node, node.FUNCTION)).parameters
    inputs = inputs_of(node)
    assert list(inputs)[: len(kinds["required"])] == list(kinds["required"])
    assert set(signature) - {"self"} == set(inputs)
    for key, (kind, *options) in inputs.items():
        assert isinstance(kind, list) or kind in TYPES
        default = dict(*options).get("default", kind[0] if isinstance(kind, list) else inspect.Parameter.empty)
        if key in kinds.get("optional", {}):  # which ComfyUI leaves out where nothing is connected
            assert signature[key].default in (None, "")
        elif signature[key].default is not inspect.Parameter.empty and kind not in ("MODEL", "VAE", "IMAGE", "MASK"):
            assert name == "MGViews" or signature[key].default == default


def test_every_node_has_a_name_and_a_row_in_the_table(repository):
    assert set(NODE_DISPLAY_NAME_MAPPINGS) == set(NODE_CLASS_MAPPINGS)
    page = (repository / "docs" / "comfyui.md").read_text(encoding="utf-8")
    assert not [name for name in NODE_CLASS_MAPPINGS if f"| `{name}` |" not in page]


def test_the_folder_loads_under_a_foreign_name(repository):
    """As ComfyUI loads what lies in `custom_nodes`."""
    name = "/somewhere/custom_nodes/mg-diffusion"
    spec = importlib.util.spec_from_file_location(name, repository / FOLDER / "__init__.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        assert set(module.NODE_CLASS_MAPPINGS) == set(NODE_CLASS_MAPPINGS)
        assert module.NODE_CLASS_MAPPINGS["MGCompose"].__module__ == f"{name}.composing"
    finally:
        for loaded in [one for one in sys.modules if one.startswith(name)]:
            del sys.modules[loaded]


def test_the_registry_finds_what_it_asks_for(repository):
    node = tomllib.loads((repository / FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
    assert node["project"]["name"] == "mg-diffusion" and node["project"]["version"] == __version__
    assert node["project"]["dependencies"] == [f"mg-diffusion=={__version__}"]
    requirements = (repository / FOLDER / "requirements.txt").read_text(encoding="utf-8")
    assert requirements.split() == node["project"]["dependencies"]
    # Filled in by whoever publishes.
    assert set(node["project"]["urls"]) == {"Repository"} and "PublisherId" in node["tool"]["comfy"]
    assert node["tool"]["comfy"]["DisplayName"] == "MG-Diffusion"


PATCH = """
import sys
sys.modules["diffusers"] = None  # whatever imports it fails
import torch
from mg_diffusion.comfyui import NODE_CLASS_MAPPINGS
from tests.comfyui.stand_ins import ModelPatcher, VAE
image = torch.rand(1, 40, 56, 3)
node = NODE_CLASS_MAPPINGS["MGFeatureGuidance"]()
(patched,) = node.patch(ModelPatcher(), VAE(), color=image, texture=image, shape=image)
before = torch.randn(1, 4, 8, 8)
assert not torch.equal(patched.after_guidance(before, 3.0), before)
"""


def test_the_model_patch_needs_no_diffusers(repository):
    done = subprocess.run([sys.executable, "-c", PATCH], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- workflows ----------------------------------------------------------------------------------------------------------
def workflows(repository) -> dict[str, dict]:
    files = sorted((repository / FOLDER / "api_workflows").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def test_workflows_connect_outputs_with_inputs_of_their_types(repository):
    found = workflows(repository)
    assert len(found) == 4
    for name, graph in found.items():
        ours = {key: NODE_CLASS_MAPPINGS.get(node["class_type"]) for key, node in graph.items()}
        assert any(ours.values()), name
        for key, kind in ours.items():
            if kind is None:  # one of ComfyUI, which `make test-comfyui` runs
                continue
            given, inputs = graph[key]["inputs"], inputs_of(kind)
            assert set(kind.INPUT_TYPES()["required"]) <= set(given) <= set(inputs), (name, key)
            for socket, value in given.items():
                source = ours.get(value[0]) if isinstance(value, list) else None
                if source is not None:
                    assert source.RETURN_TYPES[value[1]] == inputs[socket][0], (name, key, socket)
                elif not isinstance(value, list) and isinstance(inputs[socket][0], list):
                    assert value in inputs[socket][0], (name, key, socket)

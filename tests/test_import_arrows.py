"""Who may import whom (CONTRIBUTING.md), read from the syntax trees of `mg_diffusion/`, `pipelines/` and `demo/`."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("mg_diffusion", "pipelines", "demo")
OURS = {"mg_diffusion", "pipelines", "demo", "hub_cards", "tests"}
OUTSIDE = set(sys.stdlib_module_names) | {
    "torch",
    "numpy",
    "PIL",
    "diffusers",
    "transformers",
    "safetensors",
    "huggingface_hub",
}
GRANULARITIES = r"mg_diffusion\.granularities"  # a tuple of words, for everyone
# What bundles hold besides models and pipelines: small modules that both may need.
SHARED = r"mg_diffusion\.(arrays|color_profiles|default_device|depths|features|granularities|hex_colors|masks|noise_level|octaves|pictures|reference_pictures|restoring|shipping|sizes|unread_form)"
MODELS = r"mg_diffusion\.(modeling_\w+|model_files|encoder|adapter)"
TRAINING_NEEDS = (
    SHARED,
    MODELS,
    r"mg_diffusion\.bundling",
    r"mg_diffusion\.training",
    r"mg_diffusion\.pipelines",
    r"mg_diffusion\.export",
    r"mg_diffusion\.model_card",
    r"mg_diffusion\.loading",
    r"mg_diffusion\.decoding",
    r"mg_diffusion\.metadata",
)
# What help, versions and errors of usage need; the rest is imported when a command runs.
PARSER = r"mg_diffusion\.(cli\.(parser|flags|native_flags|refusals|values)|(data|mg_bench)\.flags|granularities|importing|moved|sides)"
DATA_NEEDS = (SHARED, r"mg_diffusion\.data", r"mg_diffusion\.mg_bench\.flags", r"mg_diffusion\.(decoding|metadata)")
# A model of ComfyUI is steered without diffusers: by views of the encoder, which are functions.
COMFYUI_PATCH = tuple(
    f"mg_diffusion/comfyui/{name}.py" for name in ("decoders", "guidance", "images", "looking", "references")
)
COMFYUI_PATCH_NEEDS = (
    r"mg_diffusion\.comfyui",
    r"mg_diffusion\.encoder\.(color|references|shape|structure|texture|views)",
    GRANULARITIES,
)

EVALUATION_ENTRY = "mg_diffusion/evaluation/__main__.py"  # runs the command line; no judge imports it


@dataclass(frozen=True)
class Arrow:
    """The files `governs` accepts (by path from the root) import only the dotted names `allows` accepts."""

    name: str
    governs: Callable[[str], bool]
    allows: Callable[[str], bool]


def root_of(name: str) -> str:
    return name.partition(".")[0]


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages (regular expressions) or lies inside one."""
    return any(re.fullmatch(rf"{package}(\..+)?", name) for package in packages)


def is_model(path: str) -> bool:
    """Whether a file is bundled with a model, or with models and pipelines."""
    return within(path.removesuffix(".py").replace("/", "."), MODELS, SHARED)


def is_pipeline(path: str) -> bool:
    return re.fullmatch(r"pipelines/(?!__init__)\w+\.py", path) is not None


def is_public(name: str) -> bool:
    """Ours, without an underscore, and a modelling class by way of `mg_diffusion`; or not ours at all."""
    private = any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    return root_of(name) not in OURS or not (private or within(name, MODELS))


ARROWS = (
    Arrow("models", is_model, lambda n: root_of(n) in OUTSIDE or within(n, MODELS, SHARED)),
    Arrow("pipelines", is_pipeline, lambda n: root_of(n) in OUTSIDE or within(n, r"mg_diffusion\.pipelines", SHARED)),
    Arrow(
        "evaluation",
        lambda path: path.startswith("mg_diffusion/evaluation/") and path != EVALUATION_ENTRY,
        lambda n: root_of(n) not in OURS or within(n, r"mg_diffusion\.evaluation", GRANULARITIES),
    ),
    Arrow(
        "training",
        lambda path: path.startswith("mg_diffusion/training/"),
        lambda n: root_of(n) not in OURS or within(n, *TRAINING_NEEDS),
    ),
    Arrow(
        "data",
        lambda path: path.startswith("mg_diffusion/data/"),
        lambda n: root_of(n) != "torch" and (root_of(n) not in OURS or within(n, *DATA_NEEDS)),
    ),
    Arrow("public names", lambda path: path.startswith(("mg_diffusion/cli/", "demo/")), is_public),
    Arrow(
        "parser",
        lambda path: within(path.removesuffix(".py").replace("/", "."), PARSER),
        lambda n: root_of(n) in sys.stdlib_module_names or within(n, PARSER, r"mg_diffusion\.__version__"),
    ),
    Arrow(
        "not cli",
        lambda path: not path.startswith("mg_diffusion/cli/") and path != EVALUATION_ENTRY,
        lambda n: not within(n, r"mg_diffusion\.cli"),
    ),
    Arrow("not demo", lambda path: not path.startswith("demo/"), lambda n: root_of(n) != "demo"),
    Arrow("installed name of pipelines", lambda path: True, lambda n: root_of(n) != "pipelines"),
    Arrow(
        "model patch of ComfyUI",
        lambda path: path in COMFYUI_PATCH,
        lambda n: root_of(n) in OUTSIDE - {"diffusers"} or within(n, *COMFYUI_PATCH_NEEDS),
    ),
    Arrow(
        "nodes of ComfyUI",
        lambda path: path.startswith("mg_diffusion/comfyui/"),
        lambda n: root_of(n) not in {"comfy", "nodes", "execution", "folder_paths"},
    ),
    Arrow(
        "not nodes",
        lambda path: not path.startswith("mg_diffusion/comfyui/"),
        lambda n: not within(n, r"mg_diffusion\.comfyui"),
    ),
    Arrow(
        "accelerate",
        lambda path: not path.startswith("mg_diffusion/training/") and path != "mg_diffusion/cli/folders.py",
        lambda n: root_of(n) != "accelerate",
    ),
    Arrow(
        "gradio",
        lambda path: path != "demo/app.py" and not path.startswith("demo/page/"),
        lambda n: root_of(n) != "gradio",
    ),
    Arrow(
        "work without the page",
        lambda path: path.startswith("demo/") and path != "demo/app.py" and not path.startswith("demo/page/"),
        lambda n: not within(n, r"demo\.app", r"demo\.page"),
    ),
)
BY_NAME = {arrow.name: arrow for arrow in ARROWS}


def package_of(path: str) -> list[str]:
    """The package a file belongs to once installed: ["mg_diffusion", "pipelines"] for pipelines/pipeline_mg.py."""
    folders = path.split("/")[:-1]
    return ["mg_diffusion", *folders] if folders[0] == "pipelines" else folders


def imported_names(source: str, path: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of each import, relative ones resolved: `from . import cli` -> mg_diffusion.cli."""
    package = package_of(path)
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = [*above, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*module, alias.name])) for alias in node.names)


def violations(arrow: Arrow, source: str, path: str) -> list[str]:
    if not arrow.governs(path):
        return []
    return [f"{path}:{line}: {name}" for line, name in imported_names(source, path) if not arrow.allows(name)]


def sources() -> dict[str, str]:
    files = (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: arrow.name)
def test_arrow_holds(arrow):
    found = [line for path, source in sources().items() for line in violations(arrow, source, path)]
    assert not found, f"{arrow.name} (see CONTRIBUTING.md):\n" + "\n".join(found)


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: arrow.name)
def test_arrow_governs_a_file(arrow):
    """A file that was moved or renamed must not leave an arrow pointing at nothing."""
    assert any(arrow.governs(path) for path in sources())


@pytest.mark.parametrize(
    ("name", "path", "source"),
    [
        ("models", "mg_diffusion/modeling_x.py", "import einops"),
        ("models", "mg_diffusion/encoder/x.py", "from ..model_card import main"),
        ("models", "mg_diffusion/adapter/x.py", "from ..pipelines.call import Call"),
        ("models", "mg_diffusion/modeling_x.py", "def f():\n    import cv2"),
        ("pipelines", "pipelines/pipeline_x.py", "from mg_diffusion import A"),
        ("pipelines", "pipelines/x.py", "from ..modeling_mg_adapter import MGAdapter"),
        ("evaluation", "mg_diffusion/evaluation/x.py", "from mg_diffusion import A"),
        ("evaluation", "mg_diffusion/evaluation/x.py", "from ..export import save"),
        ("evaluation", "mg_diffusion/evaluation/x.py", "import pipelines.pipeline_mg"),
        ("training", "mg_diffusion/training/x.py", "from ..evaluation import score"),
        ("training", "mg_diffusion/training/x.py", "from mg_diffusion import MGEncoder"),
        ("training", "mg_diffusion/training/x.py", "from mg_diffusion import *"),
        ("data", "mg_diffusion/data/x.py", "from ..training.pictures import load_pictures"),
        ("data", "mg_diffusion/data/x.py", "import torch"),
        ("public names", "mg_diffusion/cli/x.py", "from mg_diffusion.export import _write"),
        ("public names", "demo/inference.py", "from mg_diffusion.modeling_mg_encoder import MGEncoder"),
        ("parser", "mg_diffusion/cli/flags.py", "from ..edits import recolor"),
        ("parser", "mg_diffusion/data/flags.py", "import PIL.Image"),
        ("not cli", "mg_diffusion/__init__.py", "from .cli import main"),
        ("not cli", "demo/inference.py", "from mg_diffusion import cli"),
        ("not demo", "mg_diffusion/cli/x.py", "import demo.app as app"),
        ("installed name of pipelines", "demo/inference.py", "from pipelines import MGPipeline"),
        ("model patch of ComfyUI", "mg_diffusion/comfyui/guidance.py", "from mg_diffusion import MGEncoder"),
        ("nodes of ComfyUI", "mg_diffusion/comfyui/host.py", "import comfy.utils"),
        ("not nodes", "mg_diffusion/edits/x.py", "from ..comfyui import images"),
        ("accelerate", "mg_diffusion/export.py", "from accelerate.utils import set_seed"),
        ("work without the page", "demo/inference.py", "from demo.page.values import path_of"),
        ("gradio", "demo/inference.py", "try:\n    import gradio as gr\nexcept ImportError:\n    pass"),
    ],
)
def test_a_violation_is_found(name, path, source):
    assert len(violations(BY_NAME[name], source, path)) == 1


def test_every_arrow_has_a_violation_above():
    (mark,) = (m for m in test_a_violation_is_found.pytestmark if m.name == "parametrize")
    assert {name for name, _, _ in mark.args[1]} == set(BY_NAME)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mg_diffusion/__init__.py", "from .modeling_mg_encoder import MGEncoder\nfrom .pipelines import MGPipeline"),
        (
            "mg_diffusion/modeling_x.py",
            "from __future__ import annotations\nimport math\nimport torch.nn.functional as F",
        ),
        ("pipelines/__init__.py", "from .pipeline_mg import MGPipeline"),
        ("pipelines/pipeline_x.py", "from diffusers import DiffusionPipeline\nfrom transformers import CLIPTextModel"),
        ("mg_diffusion/evaluation/x.py", "import skimage\nfrom .scores import psnr\nfrom . import scores"),
        ("mg_diffusion/evaluation/x.py", "from ..granularities import GRANULARITIES"),
        (
            "mg_diffusion/training/x.py",
            "import accelerate\nfrom ..modeling_mg_encoder import MGEncoder\nfrom . import ema",
        ),
        ("mg_diffusion/training/deep/x.py", "from ...export import save_repository\nfrom ..data import loader"),
        ("mg_diffusion/data/x.py", "from ..mg_bench.flags import whole\nfrom .sources import SOURCES"),
        (
            "mg_diffusion/cli/x.py",
            "from .. import MGEncoder, __version__\nfrom ..evaluation import score\nfrom torch import _C",
        ),
        (
            "demo/page/edit.py",
            "import gradio\nfrom demo.inference import generate\nfrom mg_diffusion.pipelines import MGPipeline",
        ),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert [line for arrow in ARROWS for line in violations(arrow, source, path)] == []


def test_the_table_for_contributors_names_what_is_shared(repository):
    (row,) = [line for line in (repository / "CONTRIBUTING.md").read_text().splitlines() if "`model_files.py`" in line]
    named = re.findall(r"`(\w+)`", row.split("of ours each other and")[1].split(", by `from")[0])
    assert named == re.search(r"\((.*)\)", SHARED)[1].split("|")

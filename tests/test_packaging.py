"""What is installed: the pipelines and the default model inside the package, from a checkout and from a wheel."""

import ast
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from mg_diffusion import __version__


EMBEDDED = "hub_cards/mg-bazaar"
# Folders of the package whose imports may come from an extra, and distributions that are imported by another name.
EXTRAS = {"training": "train", "evaluation": "eval", "bench": "eval", "data": "eval"}
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image"}
# For those who bring weights of Inception v3, or report to trackio; its absence is told, and tested.
# pyarrow is for `data check`, of metadata in parquet; onnxruntime of the extra `onnx`.
OPTIONAL = {"torchvision", "trackio", "pyarrow", "onnxruntime"}


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """A wheel, built from a copy so that no build folder of the checkout can put old files into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    for name in ("mg_diffusion", "pipelines", EMBEDDED):
        shutil.copytree(repository / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--no-deps", "--wheel-dir", folder, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def embedded_files(repository) -> set[str]:
    """Every file of the default model, by its path inside the Hub repository."""
    root = repository / EMBEDDED
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return {file for file in files if "__pycache__" not in file and not file.startswith(".")}


def test_pipelines_are_importable():
    from mg_diffusion.pipelines import pipeline_mg

    assert pipeline_mg.__name__ == "mg_diffusion.pipelines.pipeline_mg"


def test_default_model_is_locatable(repository):
    init = repository / EMBEDDED / "__init__.py"
    assert init.is_file(), f"{init} is missing; an editable install finds no mg_diffusion.embedded without it"
    embedded = importlib.resources.files("mg_diffusion.embedded")
    assert embedded.joinpath("model_index.json").is_file()
    assert embedded.joinpath("unet").joinpath("config.json").is_file()


def test_no_package_is_forgotten(project, repository):
    folders = {path.parent for path in (repository / "mg_diffusion").rglob("__init__.py")}
    packages = {".".join(folder.relative_to(repository).parts) for folder in folders}
    mapped = {"mg_diffusion.pipelines", "mg_diffusion.embedded"}
    assert set(project["tool"]["setuptools"]["packages"]) == packages | mapped


def names_of(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-") for requirement in requirements}


def imported(path) -> set[str]:
    """Distributions that a file imports, beside the standard library and this package."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    roots = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"mg_diffusion"}
    return {DISTRIBUTIONS.get(root, root).replace("_", "-") for root in roots}


@pytest.mark.parametrize("folder", ["mg_diffusion", "pipelines", *(f"mg_diffusion/{name}" for name in EXTRAS)])
def test_what_is_imported_is_declared(project, repository, folder):
    declared = names_of(project["project"]["dependencies"])
    declared |= names_of(project["project"]["optional-dependencies"].get(EXTRAS.get(folder.partition("/")[2]), []))
    missing = {path.name: imported(path) - declared - OPTIONAL for path in (repository / folder).glob("*.py")}
    assert not {name: found for name, found in missing.items() if found}


def test_direct_dependencies_are_pinned_with_torch_first(project, repository):
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = [pin.partition("==")[0].lower().replace("_", "-") for pin in pins]
    assert names[0] == "torch"

    wanted = project["project"]["dependencies"] + sum(project["project"]["optional-dependencies"].values(), [])
    assert names_of(wanted) - {"mg-diffusion"} <= set(names)


def test_wheel_holds_code_and_default_model(wheel, repository):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "mg_diffusion/__init__.py",
        "mg_diffusion/py.typed",
        "mg_diffusion/cli/__init__.py",
        "mg_diffusion/comfyui/__init__.py",
        "mg_diffusion/comfyui/README.md",
        "mg_diffusion/comfyui/api_workflows/feature_guidance.json",
        "mg_diffusion/comfyui/example_workflows/feature_guidance.json",
        "mg_diffusion/comfyui/pyproject.toml",
        "mg_diffusion/comfyui/requirements.txt",
        "mg_diffusion/data/read_me.md",
        "mg_diffusion/data/sources.toml",
        "mg_diffusion/mg_bench/lines.toml",
        "mg_diffusion/model_card/templates/model_card.md",
        "mg_diffusion/model_card/timed.toml",
        "mg_diffusion/training/templates/run_card.md",
        "mg_diffusion/pipelines/pipeline_mg.py",
    } <= names
    assert "mg_diffusion/embedded/model_index.json" in names
    assert {f"mg_diffusion/embedded/{file}" for file in embedded_files(repository)} <= names
    assert not [name for name in names if name.endswith(".pyc")]
    assert {name.split("/")[0] for name in names} == {
        "mg_diffusion",
        f"mg_diffusion-{__version__}.dist-info",
    }


def test_installed_wheel_finds_pipelines_and_default_model(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", site, wheel], check=True, capture_output=True)
    script = (
        "import importlib.resources, mg_diffusion.pipelines.pipeline_mg as m;"
        "print(m.__file__);"
        "print(importlib.resources.files('mg_diffusion.embedded').joinpath('model_index.json'))"
    )
    # Run elsewhere, with the wheel before whatever else is installed.
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(site / "mg_diffusion/pipelines/pipeline_mg.py"),
        str(site / "mg_diffusion/embedded/model_index.json"),
    ]

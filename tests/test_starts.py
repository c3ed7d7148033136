"""What starts at once: nothing heavy is imported before something of it is needed, and nothing is said meanwhile."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.pages import LOADING, rewritten
from benchmarks.starts import start, table


HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL")
MODELS = ("modeling_autoencoder_haar", "modeling_mg_adapter", "modeling_mg_encoder")
COMMAND = "import sys; from mg_diffusion.cli import main; sys.argv = ['mg-diffusion', *{}]; main()"


def run(code: str, repository) -> subprocess.CompletedProcess:
    """The code in a process of its own, where warnings are shown."""
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONWARNINGS": "always:::mg_diffusion"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def heavy_after(code: str, repository) -> set[str]:
    """The heavy packages that are imported when code has run, or has ended with `sys.exit`."""
    told = "\n".join(
        [
            "import atexit, json, sys",
            f"atexit.register(lambda: sys.stderr.write(chr(10) + json.dumps([n for n in {HEAVY} if n in sys.modules])))",
            code,
        ]
    )
    return set(json.loads(run(told, repository).stderr.splitlines()[-1]))


def test_the_package_imports_nothing_heavy_and_is_silent(repository):
    assert heavy_after("import mg_diffusion; dir(mg_diffusion)", repository) == set()
    done = run("import mg_diffusion", repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["generate", "--help"],
        ["recolor", "--help"],
        ["palette", "--help"],
        ["bench", "--help"],
        ["data", "check", "--help"],
        ["paint"],
        ["generate"],
        ["generate", "--seed", "x", "-o", "a.png"],
        ["encode", "a.png", "-g", "hue", "-o", "a.safetensors"],
    ],
    ids=" ".join,
)
def test_help_versions_and_errors_of_usage_import_nothing_heavy(arguments, repository):
    assert heavy_after(COMMAND.format(arguments), repository) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--shape", "nosuch.png", "-o", "a.png"],
        ["recolor", "nosuch.png", "--color", "#ff8800", "-o", "a.png"],
        ["palette", "nosuch.png"],
        ["data", "check", "nosuch"],
    ],
    ids=" ".join,
)
def test_what_names_a_file_in_vain_does_not_wait_for_torch(arguments, repository):
    assert heavy_after(COMMAND.format(arguments), repository) <= {"numpy", "PIL"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--size", "250x256"],
        ["generate", "--width", "33"],
        ["generate", "--size", "4096"],
        ["generate", "--shape", "a.png", "--width", "8192"],
        ["compose", "--shape", "a.png", "--size", "60x64"],
        ["compose", "--shape", "a.png", "--width", "32"],
        ["compose", "--shape", "a.png", "--size", "4096"],
        ["variation", "a.png", "--size", "5000"],
    ],
    ids=" ".join,
)
def test_sizes_that_cannot_be_are_told_before_torch_is_imported(arguments, repository):
    code = COMMAND.format([*arguments, "-o", "never.png"])
    assert heavy_after(code, repository) <= {"numpy", "PIL"}
    assert "multiple" in (told := run(code, repository).stderr) or "at most 4,194,304 pixels" in told


def test_all_names_come_on_first_use_without_a_word(repository):
    code = "from mg_diffusion import *; import mg_diffusion; print(*sorted(n for n in mg_diffusion.__all__ if n in globals()))"
    done = run(code, repository)
    assert done.stdout.split() == [
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
    assert done.stderr == ""


def test_what_is_borrowed_for_an_import_is_given_back(repository):
    code = """
import gc, importlib.metadata, logging
before = importlib.metadata.packages_distributions
from mg_diffusion import MGPipeline
assert gc.isenabled() and importlib.metadata.packages_distributions is before
assert not logging.getLogger("transformers.utils.import_utils").filters
import transformers, diffusers
assert transformers.logging.get_verbosity() == transformers.logging.WARNING
assert diffusers.utils.logging.get_verbosity() == diffusers.utils.logging.WARNING
"""
    done = run(code, repository)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_finds_what_an_index_names(name, repository):
    """It looks into `sys.modules`, and there for a parent class."""
    code = f"""
import sys, inspect, mg_diffusion
late = sys.modules["mg_diffusion.{name}"]
inspect.stack(), hasattr(late, "__file__"), hasattr(late, "__warningregistry__")
assert "torch" not in sys.modules
from diffusers import ModelMixin
assert late.ModelMixin is ModelMixin is mg_diffusion.ModelMixin
kind = next(n for n in mg_diffusion.__all__ if getattr(late, n, None) is not None and n != "ModelMixin")
assert sys.modules["mg_diffusion.{name}"] is mg_diffusion.{name} is not late
assert getattr(late, kind) is getattr(mg_diffusion, kind) is getattr(mg_diffusion.{name}, kind)
assert kind in dir(late) and not hasattr(late, "nothing")
"""
    done = run(code, repository)
    assert (done.returncode, done.stderr) == (0, "")


def test_modules_are_attributes_without_an_import_of_their_own(repository):
    code = "import mg_diffusion; print(mg_diffusion.granularities.GRANULARITIES, hasattr(mg_diffusion, 'nothing'))"
    assert run(code, repository).stdout == "('color', 'texture', 'shape') False\n"


def test_the_page_shows_the_figures():
    """If this fails, run `python -m benchmarks.pages`."""
    page = LOADING.read_text(encoding="utf-8")
    assert rewritten(page, LOADING) == page


def test_the_table_names_what_was_measured():
    settings = {"repeats": 5, "cores": 2, "versions": {"torch": "2.13.0", "diffusers": "0.42.1"}}
    text = table({"settings": settings, "starts": {"`import torch`": {"cpu": 2.104, "wall": 2.2}}})
    assert text.startswith("Median of 5 processes, 2 CPU cores, torch 2.13.0, diffusers 0.42.1:")
    assert text.endswith("| `import torch` | 2.10 | 2.20 |")


def test_an_error_does_not_pass_for_a_quick_start(tmp_path):
    assert start(["-c", "raise SystemExit(2)"], str(tmp_path), expected=2)["wall"] > 0
    with pytest.raises(ValueError, match="must end with status 0, it ended with 2"):
        start(["-c", "raise SystemExit(2)"], str(tmp_path))

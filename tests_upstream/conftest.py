"""Make the tests folder of diffusers importable as `diffusers_tests`, in place, and skip what does not apply to us.

Run by `make test-upstream DIFFUSERS_TESTS=path`; see docs/upstream-tests.md.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest


HERE = Path(__file__).resolve().parent
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="mg-diffusion-upstream-")  # read at import: no network, no user caches
os.environ["HF_HUB_OFFLINE"] = "1"
# Our tiny components, and the table of what does not apply.
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from not_applicable import NOT_APPLICABLE  # noqa: E402
from upstream import find_tests  # noqa: E402


def _import_in_place(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        "diffusers_tests", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["diffusers_tests"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["diffusers_tests"])


def pytest_configure(config):
    try:
        _import_in_place(find_tests(os.environ.get("DIFFUSERS_TESTS")))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_unconfigure(config):
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    found = set()
    for item in items:
        name = f"{item.cls.__name__}::{item.originalname}"
        found.add(name)
        if name in NOT_APPLICABLE:
            item.add_marker(pytest.mark.skip(reason=f"not applicable: {NOT_APPLICABLE[name]}"))
    stale = set(NOT_APPLICABLE) - found
    if stale and [Path(arg).resolve() for arg in config.args] == [HERE]:
        raise pytest.UsageError(f"not_applicable.py names tests that diffusers does not have: {sorted(stale)}")

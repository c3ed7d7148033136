"""What every test can rely on: no network, no user caches, the same random numbers every time."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest


# Read by the libraries at import, therefore set before any of them is imported; subprocesses inherit them.
_HF_HOME = tempfile.mkdtemp(prefix="mg-diffusion-tests-")
os.environ["HF_HOME"] = _HF_HOME
for cache in ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE"):  # would take precedence over HF_HOME
    os.environ.pop(cache, None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every subprocess and fork compiles our modules anew
os.environ["MPLBACKEND"] = "Agg"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_unconfigure(config):
    shutil.rmtree(_HF_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The folder of a very small untrained model; nothing may be written to it."""
    from tiny_repository import save_tiny_repository

    return save_tiny_repository(tmp_path_factory.mktemp("models") / "tiny-bazaar")


@pytest.fixture(scope="session")
def shipped(repository):
    """The base that is shipped, without octaves, as an `MGPipeline`, for tests of effects; nothing in it may be changed."""
    from mg_diffusion import MGPipeline
    from mg_diffusion.loading import load_pipeline

    pipeline = load_pipeline(MGPipeline, str(repository / "hub_cards" / "mg-bazaar"))
    pipeline = MGPipeline(**{**pipeline.components, "mg_detail": None})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

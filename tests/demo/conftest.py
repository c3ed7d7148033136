"""A studio with the shipped model, and pictures as a visitor would upload them."""

from pathlib import Path

import pytest

from demo import references
from demo.inference import Studio
from demo.models import Models
from demo.settings import GRANULARITIES, Settings
from demo.shelf import Shelf


def settings(**changes) -> Settings:
    """Few steps, everything else as the page starts."""
    return Settings(**{"scales": dict.fromkeys(GRANULARITIES, 1.0), "steps": 3, **changes})


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()


@pytest.fixture(scope="session")
def studio(models) -> Studio:
    studio = Studio(models, Shelf())
    yield studio
    studio.shelf.close()


@pytest.fixture(scope="session")
def uploads_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uploads")
    for name in ("weave", "leaf", "star"):
        references.reference(name).save(folder / f"{name}.png")
    references.scene().save(folder / "scene.png")
    return folder


@pytest.fixture
def given(uploads_folder) -> dict:
    """A palette, a texture and a shape."""
    return {
        "color": {"palette": "#023047, #219ebc:2, #8ecae6"},
        "texture": {"picture": str(uploads_folder / "weave.png")},
        "shape": {"picture": str(uploads_folder / "leaf.png")},
    }

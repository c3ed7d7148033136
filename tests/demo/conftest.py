"""A studio with the shipped model, and pictures as a visitor would upload them."""

import os
import socket
import threading
from pathlib import Path

import pytest

from demo import references
from demo.inference import Studio
from demo.models import Models
from demo.settings import Settings
from demo.shelf import Shelf
from mg_diffusion.granularities import GRANULARITIES


def settings(**changes) -> Settings:
    """Few steps, everything else as the page starts."""
    return Settings(**{"scales": dict.fromkeys(GRANULARITIES, 1.0), "steps": 3, "size": 64, **changes})


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


def unused_port() -> int:
    """One that no other worker takes meanwhile."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture(scope="session")
def served(studio, tmp_path_factory):
    """The address of a server with the page, in this process."""
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio").resolve())
    from demo.app import Page, launch

    page = Page(studio).build()
    _, url, _ = launch(page, prevent_thread_lock=True, quiet=True, server_port=unused_port())
    threading.Thread(target=studio.models.get).start()
    yield url.rstrip("/")
    page.close(verbose=False)
    del os.environ["GRADIO_TEMP_DIR"]

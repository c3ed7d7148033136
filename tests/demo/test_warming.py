"""The page makes a picture for itself when it starts, unless it is told not to, and leaves it for the first visitor."""

import os
import subprocess
import sys

import pytest

from demo import warming
from demo.inference import Studio
from demo.models import Models


@pytest.fixture
def counted(models, monkeypatch):
    """A studio that has made nothing yet, and the calls of its pipeline."""
    studio, calls = Studio(models), []
    pipe = type(models.get().pipe)
    original = pipe.__call__
    monkeypatch.setattr(pipe, "__call__", lambda self, **given: calls.append(given) or original(self, **given))
    yield studio, calls
    studio.shelf.close()


def test_a_picture_is_made_and_not_kept(counted):
    studio, calls = counted
    assert warming.warm_up(studio) and len(calls) == 1
    assert set(calls[0]["reference_image"]) == {"color", "texture", "shape"} and calls[0]["height"] == 256
    assert not list(studio.shelf.folder.iterdir())


def test_it_can_be_switched_off(counted, monkeypatch):
    studio, calls = counted
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert not warming.warm_up(studio)
    monkeypatch.delenv("SPACES_ZERO_GPU")
    monkeypatch.setenv("MG_WARM_UP", "0")
    assert not warming.warm_up(studio) and calls == []
    monkeypatch.setenv("MG_WARM_UP", "no")
    with pytest.raises(ValueError, match="MG_WARM_UP must be 1 .* or 0 .*, got 'no'"):
        warming.is_wanted()


def test_it_makes_way_for_a_visitor(counted):
    studio, calls = counted
    studio.is_wanted.set()
    assert not warming.warm_up(studio) and calls == []


def test_it_ends_between_two_steps(counted, monkeypatch):
    studio, _ = counted
    real, steps = warming.Job.after_step, []

    def after_step(job, *given):
        steps.append(1)
        studio.is_wanted.set()  # somebody comes during the first step
        return real(job, *given)

    monkeypatch.setattr(warming.Job, "after_step", after_step)
    warming.start(studio).join(60)
    assert steps == [1] and not studio.lock.locked()


def test_a_model_that_cannot_be_loaded_is_told(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    studio = Studio(Models([str(tmp_path / "model")]))
    assert not warming.warm_up(studio)
    assert "error: The model" in capsys.readouterr().err
    studio.shelf.close()


def test_what_the_page_cannot_read_ends_it(repository):
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    environment = {**os.environ, "MG_WARM_UP": "maybe", "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-m", "demo.app"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "error: MG_WARM_UP must be 1" in done.stderr

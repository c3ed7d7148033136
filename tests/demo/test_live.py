"""Runs that follow a strength: stale ones end, those of one move do not end each other, others are not kept waiting."""

import threading
import time
import uuid
from types import SimpleNamespace

import pytest
from conftest import settings

from demo.jobs import Stopped
from demo.shelf import Shelf, Turn


pytest.importorskip("gradio", reason="the page needs the extra `demo`")


@pytest.fixture
def work(studio):
    from demo.page.work import Work

    return Work(studio, {})


@pytest.fixture
def visitor():
    return SimpleNamespace(session_hash=uuid.uuid4().hex)


@pytest.fixture
def live(work):
    import gradio as gr

    from demo.page.live import Live

    with gr.Blocks():
        return Live(work)


@pytest.fixture
def values(uploads_folder) -> dict:
    """What the page sends."""
    scales = {f"{name}_scale": 1.0 for name in ("color", "texture", "shape")}
    numbers = {"seed": 0, "steps": 2, "guidance": 1.5, "count": 2, "size": "256"}
    return {"color_palette": "#023047, #8ecae6", **scales, **numbers, "live": True, "tab": "generate"}


def test_phases_only_grow():
    shelf = Shelf()
    turn, other = Turn(shelf, "a"), Turn(shelf, "b")
    for phase in (3, 5, 4):  # messages overtake each other
        turn.reach(phase)
    assert turn.reached == 5 and other.reached == 0
    shelf.close()


@pytest.mark.parametrize(("phase", "reached", "ends"), [(3, 3, False), (3, 4, True), (4, 5, True), (4, 3, False)])
def test_a_run_ends_when_the_page_has_gone_on(work, visitor, phase, reached, ends):
    work.turn(visitor).reach(reached)
    if ends:
        with pytest.raises(Stopped):
            work.run("generate", visitor, {}, settings(steps=2), phase=phase)
    else:
        assert len(work.run("generate", visitor, {}, settings(steps=2), phase=phase)) == 1


def test_a_run_ends_between_its_steps(work, visitor):
    began, ended = threading.Event(), []

    def run():
        began.set()
        try:
            work.run("generate", visitor, {}, settings(steps=50, count=4), phase=6)
        except Stopped:
            ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    time.sleep(0.3)
    work.turn(visitor).reach(7)
    thread.join()
    assert ended


def test_moved_gives_a_draft_and_let_go_the_picture(live, visitor, values):
    shown, files = live.generate_live(visitor, **values, phase=1)
    ((path, caption),) = shown
    assert caption == "draft" and files is None
    shown, files = live.generate_live(visitor, **values, phase=2)
    assert [caption for _, caption in shown] == ["seed-0", "seed-1"] and len(files) == 2
    import PIL.Image

    sides = [PIL.Image.open(place).size for place in (path, files[0])]
    assert sides == [(128, 128), (256, 256)]


def test_what_is_not_painted(live, work, visitor, values):
    def is_skipped(phase, **changes):
        return "value" not in live.generate_live(visitor, **{**values, **changes}, phase=phase)[0]

    assert is_skipped(2, live=False) and is_skipped(2, tab="edit")
    assert is_skipped(1, steps=20)  # would not come at once
    assert is_skipped(1, seed=-1)  # is told when the strength is let go
    with pytest.raises(ValueError, match="seed"):
        live.generate_live(visitor, **{**values, "seed": -1}, phase=2)
    with pytest.raises(ValueError, match="phase"):
        live.generate_live(visitor, **values, phase="x")
    work.run("generate", SimpleNamespace(session_hash="another"), {}, settings(steps=1))
    assert is_skipped(1)  # somebody else is at work
    work.turn(visitor).reach(9)
    assert is_skipped(8)  # stale


def test_stop_is_told(live, work, visitor, values):
    """Stop ends a run that is not stale, with its message."""
    thread = threading.Thread(target=lambda: (time.sleep(0.5), work.stop(visitor)))
    thread.start()
    with pytest.raises(Stopped):
        live.generate_live(visitor, **{**values, "steps": 50, "count": 4}, phase=2)
    thread.join()

"""The page starts from its file, too; `python -m demo.app` is what the tests of the commands in docs/demo.md run."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest


GRADIO = Path(sys.executable).with_name("gradio")


def test_its_file_starts_from_anywhere(repository, tmp_path):
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    command = [sys.executable, str(repository / "demo" / "app.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Serve the page" in done.stdout, done.stderr


@pytest.mark.skipif(not GRADIO.is_file(), reason="the page needs the extra `demo`")
def test_gradio_starts_it(repository):
    done = subprocess.run([GRADIO, "demo/app.py", "--", "--help"], cwd=repository, capture_output=True, text=True)
    assert "Serve the page" in done.stdout, done.stderr


def test_a_port_that_is_in_use_is_passed_over():
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    from demo.app import free_port

    with socket.socket() as taken:
        first = free_port("127.0.0.1")
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert free_port("127.0.0.1") != first

"""The opt-in run in ComfyUI: what it needs."""

import os
import runpy
import subprocess
import sys

import pytest


def test_what_is_no_checkout_is_refused(repository, tmp_path):
    module = runpy.run_path(str(repository / "tests_comfyui" / "checkout.py"))
    find_checkout = module["find_checkout"]
    with pytest.raises(ValueError, match="not set.*make test-comfyui"):
        find_checkout("")
    with pytest.raises(ValueError, match="no such folder"):
        find_checkout(str(tmp_path / "nosuch"))
    with pytest.raises(ValueError, match="execution.py is missing"):
        find_checkout(str(tmp_path))
    for name in module["NEEDED"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_checkout(str(tmp_path)) == tmp_path.resolve()


def test_the_run_says_what_it_needs(repository):
    command = [sys.executable, "-m", "pytest", "-c", "tests_comfyui/pytest.ini", "tests_comfyui"]
    environment = {name: value for name, value in os.environ.items() if name != "COMFYUI"}
    result = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "COMFYUI is not set" in result.stdout + result.stderr

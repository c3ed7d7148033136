"""The opt-in run of diffusers' testers: what it needs, and that its page lists what does not apply."""

import os
import re
import runpy
import subprocess
import sys

import pytest


@pytest.fixture
def find_tests(repository):
    return runpy.run_path(str(repository / "tests_upstream" / "upstream.py"))["find_tests"]


@pytest.fixture
def checkout(repository, tmp_path):
    """A folder with the files a checkout of diffusers must have, empty."""
    for name in runpy.run_path(str(repository / "tests_upstream" / "upstream.py"))["NEEDED"]:
        path = tmp_path / "diffusers" / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "diffusers"


def test_a_checkout_or_its_tests_folder_is_found(find_tests, checkout):
    assert find_tests(str(checkout)) == find_tests(str(checkout / "tests")) == checkout / "tests"


def test_what_is_no_checkout_is_refused(find_tests, checkout):
    with pytest.raises(ValueError, match="not set.*make test-upstream"):
        find_tests("")
    with pytest.raises(ValueError, match="no such folder"):
        find_tests(str(checkout / "nosuch"))
    (checkout / "tests" / "pipelines" / "pipeline_params.py").unlink()
    with pytest.raises(ValueError, match="pipelines/pipeline_params.py is missing"):
        find_tests(str(checkout))


def test_the_run_says_what_it_needs(repository):
    command = [sys.executable, "-m", "pytest", "-c", "tests_upstream/pytest.ini", "tests_upstream"]
    environment = {name: value for name, value in os.environ.items() if name != "DIFFUSERS_TESTS"}
    result = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "DIFFUSERS_TESTS is not set" in result.stdout + result.stderr


def test_page_lists_what_does_not_apply(repository):
    table = runpy.run_path(str(repository / "tests_upstream" / "not_applicable.py"))["NOT_APPLICABLE"]
    page = (repository / "docs" / "upstream-tests.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+::\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == table

"""Scripts in a fresh process in which our package cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path


PRELUDE = f"""
import sys

sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
from loading.worker import REFERENCES, Blocker, DiffusionPipeline, edit, sample, torch

sys.meta_path.insert(0, Blocker())
"""


def fresh_process(script: str, tmp_path: Path, *arguments: str, **environment: str) -> str:
    """Run a script after the prelude; its output."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf_home"), "PYTHONWARNINGS": "ignore", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

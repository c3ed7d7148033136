"""Scripts in a fresh process in which our package cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import torch


PRELUDE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mg_diffusion":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())

import torch
from diffusers import DiffusionPipeline

REFERENCES = {"color": ["#c1121f:2", "#fdf0d5"], "shape": torch.linspace(0, 1, 3 * 32 * 32).view(3, 32, 32) ** 2}
"""
REFERENCES = {"color": ["#c1121f:2", "#fdf0d5"], "shape": torch.linspace(0, 1, 3 * 32 * 32).view(3, 32, 32) ** 2}


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

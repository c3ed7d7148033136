"""Check the types of the public surface with mypy, as an installed package shows it: `python -m tools.types`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
USE = "tests/typed_use.py"


def lay_out(folder: Path) -> None:
    """The package as an installation has it, by links: `pipelines` lies elsewhere in a checkout, where mypy does not look."""
    package = folder / "mg_diffusion"
    package.mkdir()
    for child in (ROOT / "mg_diffusion").iterdir():
        (package / child.name).symlink_to(child)
    if not (package / "pipelines").exists():
        (package / "pipelines").symlink_to(ROOT / "pipelines")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", USE]
        # PYTHONPATH would make the package one of others, whose errors mypy does not tell.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            command, cwd=ROOT, env={**environment, "MYPYPATH": folder}, stdout=subprocess.PIPE, text=True
        )
    print(done.stdout.replace(f"{folder}/mg_diffusion/pipelines", "pipelines").replace(f"{folder}/", ""), end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

"""Prepare a release, or check that one could be: python -m tools.release [VERSION]

With a version, it is set in mg_diffusion/__init__.py, the one place that holds it, and what is [Unreleased] in
CHANGELOG.md becomes its section. Then, and without a version only this: sdist and wheel are built from what git knows,
checked by twine, counted, and the wheel is installed into an empty environment where it makes a picture.
"""

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path, PurePosixPath

from tools.versions import PLACE, released, version_of, with_version


ROOT = Path(__file__).resolve().parents[1]
FOREIGN = {"tests", "tests_upstream", "demo", "benchmarks", "docs", "outputs", "runs", "shared", "__pycache__", ".git"}
MOST_MB = 60  # of the wheel, weights of the embedded model included; the package index takes 100


def prepare(version: str, root: Path = ROOT, day: str | None = None) -> None:
    """Write version and changelog; nothing is written if either cannot be."""
    code, changes = root / PLACE, root / "CHANGELOG.md"
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    day = day or datetime.date.today().isoformat()
    texts = {
        code: with_version(code.read_text(encoding="utf-8"), version),
        changes: released(changes.read_text(encoding="utf-8"), version, day, project["urls"]["Repository"]),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def copy_sources(target: Path) -> None:
    """What git knows, as it lies here: no build folder, cache or result comes along."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def names_in(archive: Path) -> list[str]:
    """Files of an sdist, without its outermost folder, or of a wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return [name for name in wheel.namelist() if not name.endswith("/")]
    with tarfile.open(archive) as sdist:
        return [one.name.partition("/")[2] for one in sdist.getmembers() if one.isfile()]


def check_content(archive: Path) -> str:
    """A line that counts what an archive holds.

    Raises:
        ValueError: if it holds what nobody should be given, or lacks the package, its weights or its types.
    """
    names = names_in(archive)
    roots = {"mg_diffusion/tests", *FOREIGN}
    foreign = [name for name in names if roots & set(PurePosixPath(name).parts) or name.endswith((".pyc", ".npz"))]
    if foreign:
        raise ValueError(
            f"{archive.name} must hold the package alone, and holds {foreign[:3]} ({len(foreign)} in all)."
        )
    package = "mg_diffusion/embedded" if archive.suffix == ".whl" else "hub_cards/mg-bazaar"
    for needed in ("mg_diffusion/py.typed", f"{package}/model_index.json", f"{package}/unet/config.json"):
        if needed not in names:
            raise ValueError(f"{archive.name} must hold {needed}, and does not. See pyproject.toml and MANIFEST.in.")
    size = archive.stat().st_size / 2**20
    if size > MOST_MB:
        raise ValueError(f"{archive.name} has {size:.0f} MB; at most {MOST_MB} were expected. What came in?")
    return f"{archive.name}: {len(names)} files, {size:.1f} MB"


def build(target: Path) -> list[Path]:
    """An sdist, and a wheel that is built from it."""
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(Path(folder))
        run(sys.executable, "-m", "build", "--outdir", str(target), folder)
    archives = sorted([*target.glob("*.tar.gz"), *target.glob("*.whl")])
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, archives))
    for archive in archives:
        print(check_content(archive), flush=True)
    return archives


def try_out(wheel: Path, version: str) -> None:
    """Install the wheel into an empty environment, torch first as the Makefile does, and make a picture there."""
    pins = ROOT / "constraints.txt"
    (torch,) = re.findall(r"^torch==.+$", pins.read_text(encoding="utf-8"), re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "venv"), with_pip=True)
        commands = Path(folder, "venv", "bin")
        pip = [str(commands / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", str(pins)]
        run(*pip, torch)
        run(*pip, str(wheel))
        said = run(str(commands / "mg-diffusion"), "--version", cwd=folder)
        if version not in said:
            raise ValueError(f"The installed command says {said.strip()!r}; {version} was expected.")
        options = ("--color", "#c81e1e,#f5deb3", "--size", "64", "-o", "out.png")
        run(str(commands / "mg-diffusion"), "generate", *options, cwd=folder)
        print(
            f"installed into an empty environment: {said.strip()}, out.png of {Path(folder, 'out.png').stat().st_size} bytes"
        )


def run(*command: str, cwd: str | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ValueError(f"`{' '.join(command[:6])} ...` ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", nargs="?", help="that is set, and gets a section in CHANGELOG.md")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for sdist and wheel; emptied first")
    parser.add_argument(
        "--no-install", action="store_true", help="leave out the installation into an empty environment"
    )
    options = parser.parse_args(arguments)
    try:
        if options.version:
            prepare(options.version)
        version = version_of((ROOT / PLACE).read_text(encoding="utf-8"))
        shutil.rmtree(options.output, ignore_errors=True)
        *_, wheel = build(options.output.resolve())
        if not options.no_install:
            try_out(wheel, version)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{version} is ready in {options.output.name}/. Next: git commit -am 'Release {version}' && git tag v{version} "
        f"&& git push origin HEAD v{version}; the release that you make of the tag is published (.github/workflows/publish.yml)."
    )


if __name__ == "__main__":
    main()

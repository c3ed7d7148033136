"""Try the wheel with the oldest and with the newest versions that pyproject.toml claims: python -m tools.try_versions

The wheel is built as for a release and installed into two empty environments: in one, each dependency has the
oldest version that is claimed and has a wheel for this Python; in the other, the newest that pip finds. In both, the installed command
paints a picture of three references with the embedded model, without a network. Which versions took part is printed, and
how far the two pictures lie apart.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
from packaging.requirements import Requirement
from packaging.version import Version

from tools.release import ROOT, build, run


SIZE = 256
LEAST_SPREAD = 8.0  # of 255, standard deviation of the channel that varies most; one flat color has none
MOST_APART = 4.0  # mean difference in levels of 255; versions may round otherwise, and may not paint something else
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
VERSIONS = "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"


def dependencies(root: Path = ROOT) -> list[Requirement]:
    """What the package itself needs, without its extras."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(one) for one in project["dependencies"]]


def lower_bound(one: Requirement) -> str:
    """The oldest version that is claimed.

    Raises:
        ValueError: where any would do; nobody has tried the first one ever made.
    """
    found = [part.version for part in one.specifier if part.operator in (">=", "==", "~=")]
    if not found:
        raise ValueError(f"pyproject.toml must say which {one.name} is the oldest that works: `{one.name}>=...`.")
    return max(found, key=Version)


def lowest(one: Requirement, listed: str) -> str:
    """The oldest claimed version that there is a wheel of for this Python; `listed` is what `pip index versions` says."""
    _, _, versions = listed.partition("Available versions: ")
    claimed = [v for v in versions.splitlines()[0].split(", ") if v in one.specifier] if versions else []
    if not claimed:
        raise ValueError(f"The index must have a wheel of `{one}` for this Python, and has none.")
    return Version(min(claimed, key=Version)).public


def versions_of(name: str) -> str:
    """What pip says of the versions that it can install; its list of wheels alone, nothing is built."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions")
    return run(*pip, "--only-binary", ":all:", name)


def draw_references(folder: Path) -> list[str]:
    """Options of the command for three references: a palette, stripes and a ring, drawn here."""
    stripes = PIL.Image.new("RGB", (SIZE, SIZE), "#808080")
    ring = PIL.Image.new("RGB", (SIZE, SIZE), "white")
    pen = PIL.ImageDraw.Draw(stripes)
    for x in range(0, SIZE, 16):
        pen.rectangle((x, 0, x + 7, SIZE), fill="#404040")
    PIL.ImageDraw.Draw(ring).ellipse((48, 48, 208, 208), outline="black", width=28)
    stripes.save(folder / "stripes.png")
    ring.save(folder / "ring.png")
    return ["--color", "#c81e1e:3,#f5deb3", "--texture", "stripes.png", "--shape", "ring.png", "--seed", "0"]


def read_picture(path: Path) -> np.ndarray:
    """Its levels (H, W, 3).

    Raises:
        ValueError: if that is no picture of the expected size, or one flat color.
    """
    try:
        with PIL.Image.open(path) as image:
            levels = np.asarray(image.convert("RGB"), np.float64)
    except OSError as error:
        raise ValueError(f"{path.name} must be a picture, and cannot be read: {error}") from error
    spread = levels.std((0, 1)).max()
    if levels.shape != (SIZE, SIZE, 3) or spread < LEAST_SPREAD:
        raise ValueError(
            f"{path.name} must be a painted picture of {SIZE} x {SIZE}; it is {levels.shape[1]} x {levels.shape[0]}, and its "
            f"levels deviate by {spread:.1f}."
        )
    return levels


def describe(found: dict[str, str], bounds: dict[str, str]) -> str:
    """The versions in words; where one is not the bound, the bound beside it."""
    said = []
    for name, version in found.items():
        bound = bounds.get(name, version)
        is_other = Version(Version(version).public) != Version(Version(bound).public)
        said.append(f"{name} {version}" + (f" (claimed: {bound})" if is_other else ""))
    return ", ".join(said)


def try_out(wheel: Path, pins: dict[str, str], names: list[str]) -> tuple[dict[str, str], np.ndarray]:
    """Install the wheel with these versions into an empty environment, and paint there: the versions, the picture."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        constraints = folder / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
        venv.create(folder / "venv", with_pip=True)
        commands = folder / "venv" / "bin"
        pip = [str(commands / "python"), "-m", "pip", "--disable-pip-version-check"]
        run(*pip, "install", "-q", "--no-compile", "-c", str(constraints), str(wheel))
        run(*pip, "check")
        found = json.loads(
            subprocess.check_output([commands / "python", "-c", VERSIONS, *names], cwd=folder, text=True)
        )
        options = [*draw_references(folder), "--size", str(SIZE), "-o", "out.png"]
        said = run(str(commands / "mg-diffusion"), "generate", *options, cwd=place, env={**os.environ, **OFFLINE})
        for line in said.splitlines():
            if "warning" in line.lower():  # what is deprecated in the newest breaks in the one after
                print(f"  {line.strip()}", flush=True)
        return found, read_picture(folder / "out.png")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.try_versions", description=__doc__.splitlines()[0])
    for which, stead in (("oldest", "the lower bound"), ("newest", "the newest")):
        parser.add_argument(
            f"--{which}-torch",
            metavar="VERSION",
            help=f"in place of {stead}, where there is no build of that for CPUs alone: others bring gigabytes along",
        )
    options = parser.parse_args(arguments)
    pictures = {}
    try:
        needed = dependencies()
        bounds = {one.name: lower_bound(one) for one in needed}
        oldest = {"torch": options.oldest_torch} if options.oldest_torch else {}
        oldest |= {one.name: lowest(one, versions_of(one.name)) for one in needed if one.name not in oldest}
        newest = {"torch": options.newest_torch} if options.newest_torch else {}
        with tempfile.TemporaryDirectory() as folder:
            *_, wheel = build(Path(folder))
            for which, pins in (("oldest", oldest), ("newest", newest)):
                found, pictures[which] = try_out(wheel, pins, list(bounds))
                said = describe(found, bounds if which == "oldest" else {})
                print(f"{which}, Python {sys.version.split()[0]}: {said}; a picture was painted", flush=True)
        apart = float(np.abs(pictures["oldest"] - pictures["newest"]).mean())
        if apart > MOST_APART:
            raise ValueError(f"The two must paint the same picture; theirs lie {apart:.1f} levels of 255 apart.")
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    print(f"The two pictures lie {apart:.3f} levels of 255 apart on average.")


if __name__ == "__main__":
    main()

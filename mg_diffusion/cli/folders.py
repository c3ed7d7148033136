"""Many pictures by one command: which, where each goes, and one after another, whatever becomes of the others.

    jobs = plan(["a.jpg", "folder"], "out")
    status = work_through(jobs, lambda job: make(job.source, job.targets))

What is there already is not made again, and files appear whole: a run that was killed goes on where it was. Under
`accelerate launch` each process takes its share.
"""

import argparse
import functools
import glob
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import PIL.Image
from tqdm import tqdm

from ..granularities import GRANULARITIES
from ..picture_files import FORMATS
from ..pictures import HEIC
from ..recipe import part_name, prepare_output
from .refusals import sentence_of
from .sheets import sheet_path


# Of a folder; a file that is named may be any.
READ = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
INSTALL_HEIC = "pip install pillow-heif"
PATIENCE = timedelta(days=30)  # for which a process waits for the others


@dataclass(frozen=True)
class Job:
    """A picture to read, and the files to make of it."""

    source: Path
    targets: tuple[Path, ...]

    @property
    def is_done(self) -> bool:
        return all(target.is_file() for target in self.targets)


def numbered(path: Path, count: int) -> tuple[Path, ...]:
    """The path itself, or name-0.png, name-1.png, ... for several pictures."""
    names = [path.with_name(f"{path.stem}-{index}{path.suffix}") for index in range(count)]
    return (path,) if count == 1 else tuple(names)


def output_paths(options: argparse.Namespace, inputs: Sequence[str]) -> Sequence[Path]:
    """The output itself, or name-0.png, name-1.png, ... for several pictures; each can be written to."""
    paths = numbered(Path(options.output), options.num_images)
    for path in (*paths, *beside(options, paths)):
        prepare_output(path, FORMATS, inputs, options.force)
    return paths


def beside(options: argparse.Namespace, paths: Sequence[Path]) -> list[Path]:
    """What the flags have written beside pictures that go to these paths: attributions and a sheet."""
    return attributions(options, paths) + ([sheet_path(paths)] if options.sheet else [])


def attributions(options: argparse.Namespace, paths: Sequence[Path]) -> list[Path]:
    drawn = [attribution_path(path) for path in paths if getattr(options, "attribution", False)]
    if getattr(options, "attribution_maps", False):
        drawn += [attribution_path(path, name) for path in paths for name in GRANULARITIES]
    return drawn


def attribution_path(path: Path, granularity: str | None = None) -> Path:
    """NAME.attribution.png, or, of the map of one granularity, NAME.attribution-color.png."""
    of = "" if granularity is None else f"-{granularity}"
    return path.with_suffix(f".attribution{of}{path.suffix}")


def plan(
    given: Sequence[str],
    folder: str,
    count: int = 1,
    inputs: Iterable[str] = (),
    beside: Callable[[Sequence[Path]], Sequence[Path]] = lambda targets: (),
    force: bool = False,
) -> list[Job]:
    """What is to be made of files and of the pictures that lie in folders: NAME.png in `folder`, which is made.

    Args:
        count: of results of each picture; inputs: what is read beside.
        beside: what else is written along with results; force: whether it may be in the place of what is there.

    Raises:
        ValueError: for a folder without pictures, two pictures of one name, a result in the place of what is read or is
            there, and a folder that cannot be written to.
    """
    out, files = Path(folder), []
    for place in map(Path, given):
        if place.is_dir() and out.exists() and place.samefile(out):
            raise ValueError(
                f"{folder!r} is read and written to, so results would be worked on in turn. Name another folder."
            )
        files += _pictures_in(place) if place.is_dir() else [place]
    jobs = [Job(file, numbered(out / name, count)) for file, name in _result_names(files).items()]
    read, makers = {Path(file).resolve() for file in (*files, *inputs)}, {}
    for job in jobs:
        more = beside(job.targets)
        for target in job.targets:
            _check_target(target, force)
        for target in (*job.targets, *more):
            if target.exists() and not target.is_file():
                raise ValueError(
                    f"The output {str(target)!r} is a folder, or no file. Rename it, or name another folder."
                )
            if target.resolve() in read:
                raise ValueError(f"The output {str(target)!r} is an input of the same run. Name another folder.")
            if (other := makers.setdefault(target, job.source)) != job.source:
                raise ValueError(
                    f"{str(other)!r} and {str(job.source)!r} would both become {str(target)!r}. Rename one."
                )
        there = [one for one in more if os.path.lexists(one)]
        if there and not force and not job.is_done:
            raise ValueError(
                f"There is a file at {str(there[0])!r} already, and the pictures it belongs to are still to be made. Remove "
                f"it, or make all anew by --force."
            )
    prepare_output(jobs[0].targets[0], ".png")
    return jobs


def _result_names(files: Iterable[Path]) -> dict[Path, str]:
    """NAME.png for each; of files that differ by their suffixes alone, such as two forms of one picture, NAME.SUFFIX.png."""
    alike: dict[str, list[str]] = {}
    for file in dict.fromkeys(files):
        alike.setdefault(file.stem, []).append(file.name)

    def keeps(names: list[str]) -> bool:
        return len(names) == len(set(names)) > 1

    return {file: f"{file.name if keeps(alike[file.stem]) else file.stem}.png" for file in files}


def _check_target(target: Path, force: bool) -> None:
    """Raise a ValueError for what is in the place of a result and cannot be one, unless it may be overwritten."""
    if force or not os.path.lexists(target):
        return
    is_lost = not target.exists()
    if is_lost or (target.is_file() and target.stat().st_size == 0):
        what = "a link that leads nowhere" if is_lost else "an empty file"
        raise ValueError(
            f"There is {what} at {str(target)!r}, which is no picture that was made. Remove it, or make all anew by --force."
        )


def plan_of(options: argparse.Namespace, given: Sequence[str], inputs: Iterable[str] = ()) -> list[Job]:
    """As `plan`, by the flags; tells where there will be no attribution, which is drawn while a picture is made."""
    jobs = plan(
        given,
        options.output_dir,
        options.num_images,
        inputs,
        functools.partial(beside, options),
        options.force,
    )
    _tell_what_is_left_out(given)
    kept = [name for file, name in _result_names([job.source for job in jobs]).items() if name != f"{file.stem}.png"]
    if kept:
        print(
            f"{len(kept)} pictures have the names of others but for their suffixes, which their results keep: {kept[0]!r}, ...",
            file=sys.stderr,
        )
    drawn = [attributions(options, job.targets) for job in jobs if job.is_done]
    lacking = sum(bool(files) and not any(map(os.path.lexists, files)) for files in drawn)
    if lacking and not options.force:
        print(
            f"{lacking} pictures that are there already have no attribution, which is drawn while a picture is made: make them "
            f"anew by --force",
            file=sys.stderr,
        )
    return jobs


def _pictures_in(folder: Path) -> list[Path]:
    read = _suffixes()
    found = [file for file in _files_in(folder) if file.suffix.lower() in read]
    if not found:
        lacking = "" if HEIC[0] in read else f" HEIC takes the package pillow-heif: {INSTALL_HEIC}."
        raise ValueError(
            f"There is no picture in the folder {str(folder)!r}. Expected are files of {', '.join(read)}.{lacking}"
        )
    return found


def _files_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if not file.name.startswith(".") and file.is_file()]


def _suffixes() -> tuple[str, ...]:
    """Of the pictures that are read of a folder; those of phones only where there is what reads them."""
    return READ if importlib.util.find_spec("pillow_heif") is None else (*READ, *HEIC)


def _tell_what_is_left_out(given: Sequence[str]) -> None:
    """Print how many pictures of folders are not read, and what to do about it."""
    read, known = _suffixes(), PIL.Image.registered_extensions()
    shown = {suffix for suffix, kind in known.items() if kind in PIL.Image.OPEN} | set(HEIC)
    for folder in filter(Path.is_dir, map(Path, given)):
        left = [file for file in _files_in(folder) if file.suffix.lower() in shown.difference(read)]
        if left:
            is_heic = any(file.suffix.lower() in HEIC for file in left)
            remedy = (
                f"HEIC takes the package pillow-heif: {INSTALL_HEIC}" if is_heic else "name them to have them read"
            )
            print(
                f"{len(left)} pictures in {str(folder)!r} are left out, such as {left[0].name!r}: of a folder {', '.join(read)} "
                f"are read; {remedy}",
                file=sys.stderr,
            )


def work_through(
    jobs: Sequence[Job],
    make: Callable[[Job], Any],
    force: bool = False,
    complete: Callable[[Job], Any] = lambda job: None,
    is_other: Callable[[Job], bool] = lambda job: False,
) -> int:
    """Do all jobs that are not done, in this process or, each its share, in those of `accelerate launch`.

    Args:
        make: writes the targets of a job; what it raises is reported, and the next one begins.
        force: whether those that are done are done again.
        complete: adds to a job that is done what can be added without doing it again.
        is_other: whether a job was done with other settings, which is told.

    Returns:
        the exit status: 1 if any failed.
    """
    state = _processes()
    mine = jobs if state is None else jobs[state.process_index :: state.num_processes]
    made = there = other = 0
    failed: list[str] = []
    for job in tqdm(mine, unit="picture", file=sys.stderr, disable=state is not None and not state.is_main_process):
        is_there = job.is_done and not force
        try:
            if not is_there:
                _sweep(job)
            (complete if is_there else make)(job)
            made, there, other = made + (not is_there), there + is_there, other + (is_there and is_other(job))
        except Exception as error:  # of this picture, whatever it is: the others are none the worse
            failed.append(str(job.source))
            kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
            said = sentence_of(error).removeprefix(f"{str(job.source)!r}: ")  # which would stand there twice
            tqdm.write(f"error: {job.source}: {kind}{said}", file=sys.stderr)
    print(f"{made} made, {there} already there, {len(failed)} failed", file=sys.stderr)
    if other:
        print(
            f"{other} of those there already have other settings, or are of another picture: --force makes them anew, another "
            f"--output-dir keeps both",
            file=sys.stderr,
        )
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    if state is not None:
        state.wait_for_everyone()  # the launcher stops all when one ends with an error
    return 1 if failed else 0


def _sweep(job: Job) -> None:
    """What a run that was killed left of a file."""
    for target in job.targets:
        for part in glob.glob(f".{glob.escape(part_name(target))}.*.part", root_dir=target.parent):
            (target.parent / part).unlink(missing_ok=True)


def _processes() -> Any:
    """The processes of `accelerate launch`; none of a run in one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    import torch
    from accelerate import PartialState  # sets the GPU of this process, too

    # Where there is no accelerator it has to be told, or each process takes itself for the only one.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)

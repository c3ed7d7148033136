"""Files and folders that are there whole or not at all, whenever a process or a machine ends."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch says of any write that failed; it does not say why.
TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "iostream error")


class WriteError(OSError):
    """What a run must keep could not be written."""


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """The same for all that is in a folder."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def write_text(path: Path, text: str) -> None:
    """Write a file aside and put it in place of the old one."""
    aside = path.with_name(f"unfinished-{path.name}")
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the place of `folder`.

    A folder that is not empty cannot be replaced in one step: for a moment the old one is `previous-<name>`, which
    `tidy` brings back if the run ends there.
    """
    aside, previous = (folder.with_name(f"{state}-{folder.name}") for state in ("unfinished", "previous"))
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        sync_all(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(previous)
    aside.rename(folder)
    sync(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def tidy(output_dir: Path) -> None:
    """Remove what a run that was killed has left half-written; put back what it was about to replace."""
    for path in output_dir.glob("unfinished-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for previous in output_dir.glob("previous-*"):
        final = previous.with_name(previous.name.removeprefix("previous-"))
        shutil.rmtree(previous) if final.exists() else previous.rename(final)


def is_full(error: BaseException) -> bool:
    """Whether a disk, a quota or a limit of sizes is what ended a write by python, torch or safetensors."""
    if isinstance(error, SafetensorError):
        code = re.search(r"os error (\d+)", str(error))
        return bool(code) and int(code[1]) in FULL
    if isinstance(error, RuntimeError):
        return any(part in str(error) for part in TORCH_WRITER)
    return isinstance(error, OSError) and error.errno in FULL

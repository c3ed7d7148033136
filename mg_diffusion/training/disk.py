"""Files and folders that are there whole or not at all, whenever a process or a machine ends."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
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


_locked: dict[Path, int] = {}  # the folder that this process trains in


def lock(folder: Path, patience: float = 10.0) -> None:
    """Keep other processes out of a folder until this one ends, in whatever way, or locks another.

    `accelerate launch` that is ended by a signal may leave its process behind, which trains on.

    Args:
        patience: seconds to wait for what loads data for a killed process and notices late.

    Raises:
        ValueError: if another process has locked it. (Some network file systems do not know.)
    """
    if folder.resolve() in _locked:
        return
    while _locked:
        os.close(_locked.popitem()[1])
    handle, until = os.open(folder, os.O_RDONLY), time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                os.close(handle)
                raise ValueError(
                    f"Another process trains in {str(folder)!r}. End it first, or give another --output_dir."
                ) from error
            time.sleep(0.1)
            continue
        except OSError:
            pass  # a file system without locks
        break
    _locked[folder.resolve()] = handle


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

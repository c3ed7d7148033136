"""The resumable state of a run: how it is written, recognised as whole, found, and gone on with."""

import contextlib
import json
import shutil
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import load

from .disk import WriteError, is_full, sync, sync_all, write_text


MANIFEST = "manifest.json"  # written last


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder; 0 if it is none, as one that was not finished."""
    number = checkpoint.name.removeprefix("checkpoint-")
    is_one = number.isdecimal() and checkpoint.name != number and checkpoint.is_dir()
    return int(number) if is_one else 0


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Folders of checkpoints, oldest first; whether they are whole, `damage` knows."""
    return sorted((path for path in Path(output_dir).glob("checkpoint-*") if step_of(path)), key=step_of)


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


def _checksum(file: Path) -> int:
    value = 0
    with open(file, "rb") as opened:
        while part := opened.read(1 << 22):
            value = zlib.crc32(part, value)
    return value


def damage(checkpoint: Path, is_thorough: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words, or `None`.

    Args:
        is_thorough: whether all files are read and compared with their checksums, or only their sizes.
    """
    try:
        manifest = read_manifest(checkpoint)
        step, files = manifest["step"], manifest["files"].items()
    except FileNotFoundError:
        return f"{MANIFEST}, which is written last, is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    if step != step_of(checkpoint):
        return f"it was saved at step {step}, which is not that of its name"
    for name, (size, checksum) in files:
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes in place of {size}"
        if is_thorough and _checksum(file) != checksum:
            return f"{name} holds something else than what was written"
    return None


def good_checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoints with all their files at full size, oldest first."""
    return [path for path in checkpoints(output_dir) if damage(path, is_thorough=False) is None]


@contextlib.contextmanager
def writing(what: str, output_dir: str | Path) -> Iterator[None]:
    """Say what a run that cannot write leaves, and what to do.

    Raises:
        WriteError: if a disk, a quota or a limit of sizes ends a write inside.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        good = good_checkpoints(output_dir)
        free = shutil.disk_usage(output_dir).free / 1e6
        need = sum(file.stat().st_size for file in good[-1].rglob("*") if file.is_file()) / 1e6 if good else None
        raise WriteError(
            f"{what} could not be written to {str(output_dir)!r}, which has {free:.1f} MB free"
            + (f"; a checkpoint takes {need:.1f} MB" if good else "")
            + f" ({error}). "
            + (f"The last good checkpoint is {str(good[-1])!r}. " if good else "There is no checkpoint yet. ")
            + "Make room, raise the quota, or keep fewer by --checkpoints_total_limit; then go on with the same command "
            "and --resume_from_checkpoint latest."
        ) from error


def save_checkpoint(accelerator: Accelerator, flags: dict[str, Any], step: int, data: str | None = None) -> None:
    """Save the state of every rank aside, rename it, then remove what `checkpoints_total_limit` does not keep.

    Args:
        data: a fingerprint of the training data, kept with the flags for `resuming` to compare.

    Raises:
        WriteError: if the disk is full. What was written is removed, and the older checkpoints stay.
    """
    output = Path(flags["output_dir"])
    aside, final = output / f"unfinished-{step}", output / f"checkpoint-{step}"
    with writing(f"The checkpoint of step {step}", output):
        try:
            accelerator.save_state(str(aside), safe_serialization=True)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                write_manifest(aside, step, accelerator.num_processes, flags, data)
                sync_all(aside)
                shutil.rmtree(final, ignore_errors=True)  # there only if it is damaged
                aside.rename(final)
                sync(output)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    if accelerator.is_main_process:
        remove_old(output, step, flags["checkpoints_total_limit"])
    accelerator.wait_for_everyone()


def write_manifest(
    folder: Path, step: int, num_processes: int, settings: dict[str, Any], data: str | None = None
) -> None:
    """Names, sizes and checksums of the files of a checkpoint, and what the run was."""
    files = {
        file.relative_to(folder).as_posix(): [file.stat().st_size, _checksum(file)]
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    }
    manifest = {"step": step, "files": files, "num_processes": num_processes, "settings": settings, "data": data}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def remove_old(output: Path, step: int, limit: int | None) -> None:
    """Remove what is older than the last `limit` good checkpoints, of which the one of `step` is the newest."""
    good = [path for path in good_checkpoints(output) if step_of(path) <= step]
    if not limit or len(good) < limit:
        return
    for old in checkpoints(output):
        if step_of(old) < step_of(good[-limit]):
            gone = old.rename(output / f"unfinished-removal-{step_of(old)}")  # or half of it might remain
            shutil.rmtree(gone)


def find(output_dir: str, asked: str | None) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` asks for; `None` for a new run.

    `latest` takes the newest that is whole and warns of newer ones that are not.

    Raises:
        ValueError: if there is no such checkpoint, it is damaged, or it is not the newest of the folder.
    """
    if asked is None:
        return None
    named = checkpoints(output_dir)
    if asked != "latest":
        return _named(output_dir, Path(asked))
    reasons = []
    for path in reversed(named):
        reason = damage(path)
        if reason is None:
            return path
        reasons.append(f"{str(path)!r} is damaged: {reason}.")
        warnings.warn(f"{reasons[-1]} The checkpoint before it is used, if there is one.", stacklevel=2)
    if reasons:
        raise ValueError(
            f"No checkpoint in {output_dir!r} is whole. {' '.join(reasons)} To start from the beginning, give another "
            f"--output_dir, or --overwrite_output_dir instead of --resume_from_checkpoint."
        )
    return None


def _named(output_dir: str, path: Path) -> Path:
    good = good_checkpoints(output_dir)
    found = ", ".join(map(str, good)) or "none"
    if not step_of(path):
        raise ValueError(f"There is no finished checkpoint-<step> at {str(path)!r}; found: {found}.")
    reason = damage(path)
    if reason is not None:
        raise ValueError(f"{str(path)!r} is damaged: {reason}. Give another, or `latest`; found: {found}.")
    if path.resolve().parent == Path(output_dir).resolve() and step_of(good[-1]) > step_of(path):
        raise ValueError(
            f"{str(path)!r} is older than {str(good[-1])!r}. To go on from it give another --output_dir, or remove the "
            f"newer ones first: the continued run would mix with them."
        )
    return path


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> int:
    """Load the state of every rank; returns the step it was saved at.

    Raises:
        ValueError: if the random states do not fit this machine. (accelerate passes over that in silence.)
    """
    accelerator.load_state(str(checkpoint))
    stored = load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
    is_restored = torch.equal(stored["torch_manual_seed"], torch.get_rng_state())
    if accelerator.device.type == "cuda":
        states = stored.get("torch_cuda_manual_seed", [])
        index = accelerator.device.index or 0
        is_restored &= index < len(states) and torch.equal(states[index], torch.cuda.get_rng_state(index))
    if not is_restored:
        raise ValueError(
            f"The random states of {str(checkpoint)!r} cannot be restored on this machine: it was saved with other "
            f"devices. Give the run as many visible devices of the same kind as before."
        )
    return step_of(checkpoint)

"""The resumable state of a run: how it is written, found and gone on with."""

import re
import shutil
from argparse import Namespace
from pathlib import Path

from accelerate import Accelerator


def checkpoints(output_dir: str) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted((path for path in Path(output_dir).glob("checkpoint-*") if _step_of(path)), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    """The step a checkpoint was saved at; 0 if the folder is none, as one that was not finished."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match and checkpoint.is_dir() else 0


def save_checkpoint(accelerator: Accelerator, output_dir: str, step: int, limit: int | None) -> None:
    """Save the state of every rank aside, rename it, then remove the oldest beyond `limit`."""
    final = Path(output_dir, f"checkpoint-{step}")
    aside = Path(output_dir, f"unfinished-{step}")
    accelerator.save_state(str(aside), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        for old in [] if not limit else checkpoints(output_dir)[:-limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, args: Namespace) -> int:
    """Load the asked checkpoint; returns the step it was saved at (0 for a new run).

    Raises:
        ValueError: if the checkpoint does not exist.
    """
    if not args.resume_from_checkpoint:
        return 0
    if args.resume_from_checkpoint == "latest":
        found = checkpoints(args.output_dir)
        if not found:
            return 0
        path = found[-1]
    else:
        path = Path(args.resume_from_checkpoint)
        if not _step_of(path):
            found = ", ".join(str(found) for found in checkpoints(args.output_dir)) or "none"
            raise ValueError(f"There is no finished checkpoint-<step> at {str(path)!r}; found: {found}.")
    step = _step_of(path)
    if step > args.max_train_steps:
        raise ValueError(f"{str(path)!r} is beyond --max_train_steps {args.max_train_steps}; give a larger number.")
    accelerator.load_state(str(path))
    return step

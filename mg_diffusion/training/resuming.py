"""Whether a run may begin in a folder, and whether what goes on there is the run that was interrupted."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .checkpoints import checkpoints, find, read_manifest, step_of
from .disk import lock, tidy, write_text


LOG = "log.jsonl"
OF_A_RUN = (LOG, "weights", "environment.json", "grid-*.png", "stream-*.jsonl")
# What may change between the parts of a run, because no weight depends on it. All others must stay.
FREE = {
    "output_dir",
    "train_data_dir",  # it may have moved; what it holds is compared
    "resume_from_checkpoint",
    "overwrite_output_dir",
    "max_train_steps",  # of which `warn_of_length` warns, as of the next one, whose default depends on it
    "lr_warmup_steps",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "validation_steps",
    "num_validation_images",
    "dataloader_num_workers",
    "cache_dir",
    "report_to",
    "tracker_project_name",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "validation_at_start",
    "max_skipped_share",
}


def prepare_folder(accelerator: Accelerator, flags: dict[str, Any]) -> str | None:
    """Find what the run goes on from and clear away what a killed one left; before anything is loaded or written.

    Returns:
        The path of the checkpoint to go on from, or `None`.

    Raises:
        ValueError: if the folder holds a run that is not to be gone on with or overwritten, or another process trains in
            it, or see `find` and `compare`.
    """
    outcome: list[Any] = [None, None]
    folder = Path(flags["output_dir"])
    if accelerator.is_main_process:  # the others must not look at a folder that this one changes
        try:
            outcome[0] = _checkpoint_of(flags, accelerator.num_processes)
            folder.mkdir(parents=True, exist_ok=True)
            lock(folder)
            tidy(folder)
            if outcome[0] is None:  # now, because a new run writes its own reports before it clears the rest
                for report in folder.glob("skipped*.jsonl"):
                    report.unlink()
        except ValueError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise ValueError(outcome[1])
    return outcome[0]


def _checkpoint_of(flags: dict[str, Any], num_processes: int) -> str | None:
    output_dir, asked, length = (flags[name] for name in ("output_dir", "resume_from_checkpoint", "max_train_steps"))
    if asked is None and not flags["overwrite_output_dir"]:
        refuse_occupied(output_dir)
    path = find(output_dir, asked)
    if path is None:
        return None
    if step_of(path) > length:
        raise ValueError(f"{str(path)!r} is beyond --max_train_steps {length}; give a larger number.")
    if path.resolve().parent != Path(output_dir).resolve():
        refuse_occupied(output_dir)
    manifest = read_manifest(path)
    compare(manifest, flags, num_processes)
    warn_of_length(manifest["settings"], flags)
    return str(path)


def refuse_occupied(output_dir: str) -> None:
    """Raises a ValueError if a folder holds a run."""
    folder = Path(output_dir)
    found = [path.name for path in (folder / LOG, folder / "weights") if path.exists()]
    found += [path.name for path in checkpoints(folder)]
    if found:
        raise ValueError(
            f"{output_dir!r} holds a run already ({', '.join(found)}). To go on with it give --resume_from_checkpoint "
            f"latest, to keep it another --output_dir, to lose it --overwrite_output_dir."
        )


def clear(output_dir: str) -> None:
    """Remove the run that a folder holds."""
    for path in Path(output_dir).iterdir():
        if step_of(path) or any(path.match(pattern) for pattern in OF_A_RUN):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def compare(manifest: dict[str, Any], flags: dict[str, Any], num_processes: int) -> None:
    """Compare the settings that a checkpoint was saved under with those of now.

    Raises:
        ValueError: if one of them differs on which weights depend.
    """
    stored, now = manifest["settings"], {**flags}
    if now["resolution"] is None:
        del now["resolution"]  # the base's own, not known yet
    pairs = {f"--{name}": (stored[name], now[name]) for name in sorted(stored.keys() & now.keys() - FREE)}
    pairs["number of processes"] = manifest["num_processes"], num_processes
    changed = ", ".join(f"{name} {then} then, {value} now" for name, (then, value) in pairs.items() if then != value)
    if changed:
        raise ValueError(
            f"The run of the checkpoint has other settings: {changed}. A resumed run is the same run: give it the same "
            f"settings, or start a new one from its weights."
        )


def warn_of_length(stored: dict[str, Any], flags: dict[str, Any]) -> None:
    """Warn if a run of another length or warm-up has other learning rates from here on."""
    is_level = flags["lr_scheduler"] in ("constant", "constant_with_warmup")
    names = ["lr_warmup_steps"] if is_level else ["max_train_steps", "lr_warmup_steps"]
    changed = [f"--{n} was {stored[n]} and is {flags[n]}" for n in names if stored[n] != flags[n]]
    if changed:
        warnings.warn(
            f"{', '.join(changed)}: --lr_scheduler {flags['lr_scheduler']} goes on as if it had been so from the beginning, and "
            f"the learning rate jumps.",
            stacklevel=2,
        )


def compare_data(manifest: dict[str, Any], data: str | None) -> None:
    """Warn if the training data are others than those of the checkpoint; some data have no fingerprint."""
    if data is not None and manifest["data"] is not None and manifest["data"] != data:
        warnings.warn(
            "The training data are not those of the checkpoint (other pictures, captions, or decoders of pictures). The "
            "run goes on with them, but ends with other weights than it would have.",
            stacklevel=2,
        )


def continue_log(accelerator: Accelerator, output_dir: str, step: int) -> list[dict[str, float]]:
    """The records of the log up to a step; later ones are removed from it, to be made again.

    A line that a killed run did not finish is removed as well, and a run at step 0 begins a new log: no checkpoint tells
    whether the first validation was made under the settings of now.
    """
    path, outcome = Path(output_dir, LOG), [[]]
    if accelerator.is_main_process and path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        outcome[0] = [one for one in map(_record, lines) if one is not None and 0 < step >= one["step"]]
        write_text(path, "".join(json.dumps(record) + "\n" for record in outcome[0]))
    broadcast_object_list(outcome)
    return outcome[0]


def _record(line: str) -> dict[str, float] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None

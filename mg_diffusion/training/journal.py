"""What a run says of itself while it goes on: records of losses, speed and health, and a line of progress."""

import importlib.metadata
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm
from tqdm.std import EMA

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import EMBEDDED_NAME

from .checkpoints import good_checkpoints, writing
from .disk import write_text
from .resuming import LOG
from .settings import RunSettings
from .trackers import track_picture


PACKAGES = ("mg-diffusion", "torch", "diffusers", "transformers", "accelerate")
LINE_SECONDS = 30  # between two lines where the progress goes to a file
STARTED_FROM = {
    "base": "init_from",
    "adapter": "mg_model_name_or_path",
    "detail": "init_from",
    "distill": "init_from",
}  # flags that take weights


class Journal:
    """Log records: kept, sent to the trackers, appended to `log.jsonl`; beside it `environment.json`.

    Args:
        records: those of the run until it was interrupted, which the file holds already.
    """

    def __init__(self, accelerator: Accelerator, flags: dict[str, Any], records: Sequence[dict[str, float]] = ()):
        self.accelerator, self.folder = accelerator, Path(flags["output_dir"])
        self.records = [*records]
        if accelerator.is_main_process:
            text = json.dumps(environment(accelerator, flags), indent=2, sort_keys=True)
            with writing("The environment", self.folder):
                write_text(self.folder / "environment.json", text + "\n")

    def write(self, record: dict[str, float]) -> None:
        self.records.append(record)
        self.accelerator.log({k: v for k, v in record.items() if k != "step"}, step=int(record["step"]))
        if self.accelerator.is_main_process:
            with writing("A record of the log", self.folder), open(self.folder / LOG, "a") as log:
                log.write(json.dumps(record) + "\n")
                log.flush()
                os.fsync(log.fileno())  # a checkpoint that outlives a crash has its records

    def show_grid(self, step: int) -> None:
        """Send the grid of a step, if it was drawn, to the trackers."""
        path = self.folder / f"grid-{step:06d}.png"
        if self.accelerator.is_main_process and path.is_file():
            track_picture(self.accelerator.trackers, "grid", path, step)


def environment(accelerator: Accelerator, flags: dict[str, Any]) -> dict[str, Any]:
    """What a run's flags do not tell: versions, hardware, processes, and which model of the Hub it started from."""
    device = f"{os.cpu_count()} CPU cores"
    if accelerator.device.type == "cuda":
        device = torch.cuda.get_device_name(accelerator.device)
    starts = [flags.get(name) for name in ("pretrained_model_name_or_path", "init_from")]
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": device,
        "processes": accelerator.num_processes,
        "base_model": next((one for one in starts if one and one != EMBEDDED_NAME and not Path(one).exists()), None),
    }


class Meter:
    """Mean loss, speed and health of the steps since they were last read; all but the speed goes along with a checkpoint."""

    def __init__(self, samples_per_batch: int, max_grad_norm: float):
        self.samples_per_batch, self.max_grad_norm = samples_per_batch, max_grad_norm
        self.began = time.time()
        self._restart()

    def _restart(self) -> None:
        self.timed = 0
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.dropped: list[Sequence[float]] = []
        self.since = time.time()

    @property
    def samples_per_second(self) -> float:
        return self.timed * self.samples_per_batch / max(time.time() - self.since, 1e-9)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "norms": self.norms, "dropped": self.dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.norms, self.dropped = list(state["losses"]), list(state["norms"]), list(state["dropped"])

    def add(self, loss: float, norm: float | None, dropped: Sequence[float] = ()) -> None:
        """Count a batch.

        Args:
            norm: of the gradient before it was clipped; `None` where gradients are still accumulated.
            dropped: the share of samples without each reference, where there are references.
        """
        self.timed += 1
        self.losses.append(loss)
        if norm is not None:
            self.norms.append(norm)
        if dropped:
            self.dropped.append(dropped)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside, such as on validation, does not count as training."""
        begin = time.time()
        yield
        self.since += time.time() - begin

    def read(self) -> dict[str, float]:
        """`loss`, `samples_per_second`, `elapsed` (seconds since this process began, pauses included), and of health:

        - `grad_norm`: mean norm of the gradient before clipping; `clipped`: the share of steps in which it was cut;
        - `skipped`: in float16, the share of steps that its loss scaling left out;
        - `dropped_<granularity>`: the share of samples without that reference.
        """
        result = {
            "loss": sum(self.losses) / len(self.losses),
            "samples_per_second": round(self.samples_per_second, 2),
            "elapsed": round(time.time() - self.began, 1),
        }
        finite = [norm for norm in self.norms if math.isfinite(norm)]
        if finite:
            result["grad_norm"] = sum(finite) / len(finite)
            result["clipped"] = sum(norm > self.max_grad_norm for norm in finite) / len(finite)
        if len(finite) < len(self.norms):
            result["skipped"] = 1 - len(finite) / len(self.norms)
        if self.dropped:
            shares = [sum(column) / len(column) for column in zip(*self.dropped, strict=True)]
            result |= {f"dropped_{name}": share for name, share in zip(GRANULARITIES, shares, strict=True)}
        self._restart()
        return result


def health_line(record: dict[str, float]) -> str:
    """A log record's figures of health, for people."""
    parts = [f"step {record['step']:.0f}"]
    if "grad_norm" in record:
        parts.append(f"gradient {record['grad_norm']:.3g} (clipped {record['clipped']:.0%})")
    if "skipped" in record:
        parts.append(f"steps skipped {record['skipped']:.0%}")
    dropped = [f"{name} {record[f'dropped_{name}']:.0%}" for name in GRANULARITIES if f"dropped_{name}" in record]
    if dropped:
        parts.append(f"dropped {', '.join(dropped)}")
    return "; ".join([*parts, f"EMA distance {record['ema_distance']:.2%}", f"lr {record['lr']:.2e}"])


def stop_at_non_finite(settings: RunSettings, step: int, loss: float, norm: float | None) -> None:
    """Refuse to train on what is no number, before it reaches the weights.

    Raises:
        ValueError: if the loss or the norm of the gradient is not finite; names the step, the last checkpoint and ways
            out.
    """
    found = (("loss", loss), ("gradient", 0.0 if norm is None else norm))
    what = " and the ".join(f"{name} is {value}" for name, value in found if not math.isfinite(value))
    if not what:
        return
    now = settings.optimization
    precision = f" or --mixed_precision no (now {now.mixed_precision})" if now.mixed_precision != "no" else ""
    saved = good_checkpoints(settings.output_dir)
    where = f"The last checkpoint, {str(saved[-1])!r}, was" if saved else "No checkpoint was"
    # A resumed run must have the settings that it had.
    ways = (
        f"train anew with a lower --learning_rate (now {now.learning_rate:g}), a longer --lr_warmup_steps (now "
        f"{now.lr_warmup_steps}), a smaller --max_grad_norm (now {now.max_grad_norm:g}){precision}"
    )
    flag = STARTED_FROM.get(settings.stage)
    ways += f"; from its weights, in another folder: --{flag} {settings.output_dir}/weights" if saved and flag else ""
    raise ValueError(
        f"The {what} at step {step}. Training stopped; this step did not reach the weights. {where} saved before. The "
        f"same flags would come to the same point again. Ways out: {ways}."
    )


class Lines(tqdm):
    """A progress bar for files: whole lines, none of which is overwritten."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f"{self if msg is None else msg}\n")
        self.fp.flush()


class Progress:
    """Loss, samples a second, time left and the line of health, on stderr: in place on a terminal, else a line now and then.

    The time left assumes the mean speed since the start, which counts validation and saving as they come.
    """

    def __init__(self, stage: str, max_train_steps: int, step: int, is_shown: bool):
        self.loss, self.shown, self.health = EMA(smoothing=0.05), "", ""
        options = {"file": sys.stderr, "disable": not is_shown, "miniters": 1}
        own = {"total": max_train_steps, "initial": step, "desc": stage, "smoothing": 0}
        self.is_terminal = sys.stderr.isatty()
        if self.is_terminal:
            text = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
            self.bar = tqdm(**own, **options, bar_format=text, mininterval=1, dynamic_ncols=True)
            self.below = tqdm(**options, bar_format="{desc}", position=1, leave=False, dynamic_ncols=True)
        else:
            text = "{desc} {n_fmt}/{total_fmt}, {elapsed} gone, {remaining} left{postfix}"
            self.bar = Lines(**own, **options, bar_format=text, mininterval=LINE_SECONDS)

    def start_clock(self) -> None:
        """What was done before, such as validation at the start, does not count in the time left."""
        self.bar.unpause()

    def update(self, loss: float, samples_per_second: float) -> None:
        """Count a step."""
        self.shown = f"loss {self.loss(loss):.4f}, {samples_per_second:.1f} samples/s"
        self._compose()
        self.bar.update(1)

    def show_health(self, record: dict[str, float]) -> None:
        self.health = health_line(record)
        if self.is_terminal:
            self.below.set_description_str(self.health)
        self._compose()

    def _compose(self) -> None:
        parts = [self.shown] if self.is_terminal or not self.health else [self.shown, self.health]
        self.bar.set_postfix_str("; ".join(parts), refresh=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.bar.disable:
            return
        if self.is_terminal:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        with suppress(OSError):  # a last line that cannot be written must not hide why the run ends
            if self.is_terminal:
                self.below.close()
            self.bar.close()

"""What a run does between steps, with averaged weights in place: publish them, and judge them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from .averaging import Averaged
from .checkpoints import save_checkpoint, writing
from .disk import replacing
from .journal import Journal, Progress
from .settings import RunSettings
from .sharding import gathered, reshard
from .stopping import Stop


@dataclass
class Pauses:
    """What comes between steps. All processes take part; the first one writes.

    Attributes:
        data: a fingerprint of the training data, for checkpoints.
        validate: step -> losses of held-out samples, also draws the grid of that step.
        export: writes inference weights to a folder.
    """

    accelerator: Accelerator
    settings: RunSettings
    model: nn.Module
    averaged: Averaged
    journal: Journal
    progress: Progress
    data: str | None
    validate: Callable[[int], dict[str, float]]
    export: Callable[[Path], None]

    @contextlib.contextmanager
    def _averages(self) -> Iterator[None]:
        """Averaged weights inside. What is drawn there is given back: a run resumed from a checkpoint does not draw it."""
        device = self.accelerator.device
        with self.averaged, torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield

    def publish(self) -> None:
        """Put the averaged weights in the place of those in `weights/`.

        Raises:
            WriteError: if the disk is full.
        """
        with self._averages(), gathered(self.model):
            if self.accelerator.is_main_process:
                with writing("weights/", self.settings.output_dir):
                    with replacing(Path(self.settings.output_dir, "weights")) as folder:
                        self.export(folder)

    def judge(self, step: int) -> None:
        """Validate, and tell the journal.

        Raises:
            WriteError: if the disk is full.
        """
        with writing("The results of the validation", self.settings.output_dir), self._averages():
            losses = self.validate(step)
        reshard(self.model)  # or the next step would compute with the averages
        if losses:
            self.journal.write({"step": step, **losses})
            self.journal.show_grid(step)
            self.progress.say(f"validation at step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))

    def before(self, step: int) -> None:
        """What a run of a step that just began, or was killed after its checkpoint, still owes."""
        if step:
            self.publish()
        is_judged = any("val_loss" in record for record in self.journal.at(step))
        steps = self.settings.steps
        if not is_judged and (steps.is_due(step, steps.validation_steps) if step else steps.validation_at_start):
            self.judge(step)

    def after(self, step: int, stop: Stop) -> None:
        """What is due at a step. The checkpoint comes first, so that nothing that fails later can lose the work.

        Raises:
            WriteError: if the disk is full.
            SystemExit: after the checkpoint, if the run is told to stop.
        """
        steps = self.settings.steps
        is_stopping = step < steps.max_train_steps and stop.is_asked(self.accelerator)
        is_saved = steps.is_due(step, steps.checkpointing_steps)
        if is_stopping or is_saved:
            save_checkpoint(self.accelerator, self.settings.flags, step, self.data)
        if is_stopping:
            self.progress.close()  # before anything is said
            stop.leave(self.accelerator, step)
        if is_saved:
            self.publish()
        if steps.is_due(step, steps.validation_steps):
            self.judge(step)

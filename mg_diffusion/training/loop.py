"""The loop that all stages share: step 4 of the method, theta <- theta - alpha * grad L, and what keeps a run safe."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from torch import nn
from torch.utils.data import DataLoader

from .averaging import Averaged
from .checkpoints import load_checkpoint, read_manifest
from .journal import Journal, Meter, Progress, stop_at_non_finite
from .pauses import Pauses
from .resuming import clear, compare, compare_data, continue_log
from .seeding import SeededSamples
from .settings import Batches, Optimization, RunSettings
from .sharding import prepare_for_sharding, whole
from .stopping import Stop, outlive_one


RECORD_STEPS = 20  # between two records of the log
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
Loss = Callable[[nn.Module, dict[str, Any]], torch.Tensor]


def seen_by_all(accelerator: Accelerator, loss: torch.Tensor, batch: dict[str, Any]) -> tuple[float, list[float]]:
    """The loss, and the shares of samples without each reference, of all processes; all of them must call this.

    They have equally many samples, so the mean of their means is that of all samples.
    """
    shares = (~batch["present"]).float().mean(0) if "present" in batch else loss.new_zeros(0)
    loss, *dropped = accelerator.reduce(torch.cat([loss.detach().float().view(1), shares]), "mean").tolist()
    return loss, dropped


def build_optimizer(
    settings: Optimization, max_train_steps: int, model: nn.Module
) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW for what is trainable, and its learning rate schedule."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.adam_weight_decay,
        eps=settings.adam_epsilon,
        fused=True,
    )
    schedule = get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=max_train_steps,
    )
    return optimizer, schedule


def build_loader(settings: Batches, dataset: Any, collate: Collate) -> DataLoader:
    """Batches of the stream in its own order; accelerate gives each process its part of them."""
    return DataLoader(
        SeededSamples(dataset, settings.seed),
        batch_size=settings.train_batch_size,
        collate_fn=collate,
        num_workers=settings.dataloader_num_workers,
        worker_init_fn=outlive_one,
        drop_last=True,
        generator=torch.Generator(),  # or every new iterator would draw from the numbers that a resumed run restores
    )


@dataclass
class Updater:
    """theta <- theta - alpha * grad L for one batch after another, or a part of the gradient where it is accumulated."""

    accelerator: Accelerator
    settings: RunSettings
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_of: Loss
    meter: Meter

    def __call__(self, step: int, batch: dict[str, Any]) -> float:
        """The loss of a batch in a step; a ValueError as of `stop_at_non_finite`."""
        accelerator = self.accelerator
        with accelerator.accumulate(self.model):
            loss = self.loss_of(self.model, batch)
            accelerator.backward(loss)
            norm = None  # where gradients are still accumulated
            if accelerator.sync_gradients:
                limit = self.settings.optimization.max_grad_norm
                found = accelerator.clip_grad_norm_(self.model.parameters(), limit)
                norm = None if found is None else float(whole(found))  # DeepSpeed clips itself and may tell none
            value, dropped = seen_by_all(accelerator, loss, batch)
            self.meter.add(value, norm, dropped)
            # Loss scaling skips steps whose gradient overflows; that is how it finds its scale.
            stop_at_non_finite(self.settings, step, value, norm if accelerator.scaler is None else None)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return value


def train(
    accelerator: Accelerator,
    settings: RunSettings,
    model: nn.Module,
    dataset: Any,
    collate: Collate,
    loss_of: Loss,
    validate: Callable[[int], dict[str, float]],
    export: Callable[[Path], None],
) -> list[dict[str, float]]:
    """Minimise `loss_of` over the stream; returns the log records, also appended to `log.jsonl`.

    Killed at any moment and resumed, it ends with the weights of the run that was never killed. A checkpoint comes
    first at a step, so that nothing that fails in validation can lose the work; a resumed run makes up for what was
    still to come at its step.

    Args:
        dataset: map-style; item i of the run, so that skipping batches resumes exactly. Its `fingerprint`, if it has
            one, tells whether it is still the same data.
        loss_of: (prepared model, batch) -> scalar.
        validate: called every `validation_steps` and at the end, with averaged weights in place.
        export: writes inference weights to a folder; called at every checkpoint with averaged weights in place.

    Raises:
        WriteError: if the disk is full; the last good checkpoint stays.
        SystemExit: with `stopping.EXIT_CODE`, after a checkpoint, on SIGTERM or SIGINT.
    """
    prepare_for_sharding(accelerator, model)
    optimizer, schedule = build_optimizer(settings.optimization, settings.steps.max_train_steps, model)
    loader = build_loader(settings.batches, dataset, collate)
    prepared, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    averaged = Averaged(model, settings.optimization.ema_decay)
    meter = Meter(settings.batches.samples(accelerator.num_processes), settings.optimization.max_grad_norm)
    accelerator.register_for_checkpointing(averaged, meter)
    data = getattr(dataset, "fingerprint", None)
    step = begin(accelerator, settings.flags, data)
    skipped = step * settings.batches.gradient_accumulation_steps
    batches = accelerator.skip_first_batches(loader, skipped) if step else loader
    journal = Journal(accelerator, settings.flags, continue_log(accelerator, settings.output_dir, step))
    progress = Progress(settings.stage, settings.steps.max_train_steps, step, accelerator.is_local_main_process)
    pauses = Pauses(accelerator, settings, model, averaged, journal, progress, data, validate, export)
    update = Updater(accelerator, settings, prepared, optimizer, loss_of, meter)
    with meter.paused():
        pauses.before(step)
    progress.start_clock()
    with Stop() as stop, contextlib.closing(progress):
        for batch in batches:
            if step >= settings.steps.max_train_steps:
                break
            loss = update(step + 1, batch)
            if not accelerator.sync_gradients:
                continue
            schedule.step()
            averaged.step()
            step += 1
            progress.update(loss, meter.samples_per_second)
            if settings.steps.is_due(step, RECORD_STEPS):
                health = {"ema_distance": averaged.distance(), "lr": schedule.get_last_lr()[0]}
                record = {"step": step, **meter.read(), **health}
                journal.write(record)
                progress.show_health(record)
            with meter.paused():
                pauses.after(step, stop)
    accelerator.end_training()
    return journal.records


def begin(accelerator: Accelerator, flags: dict[str, Any], data: str | None) -> int:
    """Load the checkpoint that `start` has found, or make room for a new run; returns the step to go on from.

    Raises:
        ValueError: if the checkpoint is that of another run.
    """
    if flags["resume_from_checkpoint"]:
        checkpoint = Path(flags["resume_from_checkpoint"])
        manifest = read_manifest(checkpoint)
        compare(manifest, flags, accelerator.num_processes)  # again: now the resolution is known
        if accelerator.is_main_process:
            compare_data(manifest, data)
        return load_checkpoint(accelerator, checkpoint)
    if flags["overwrite_output_dir"] and accelerator.is_main_process:
        clear(flags["output_dir"])
    return 0

"""The loop that all stages share: step 4 of the method, theta <- theta - alpha * grad L, and what keeps a run safe."""

import contextlib
import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from torch import nn
from torch.utils.data import DataLoader

from .averaging import Averaged
from .checkpoints import load_checkpoint, read_manifest, writing
from .disk import write_text
from .hub import create_repository
from .journal import Journal, Meter, Progress, stop_at_non_finite
from .pauses import Pauses
from .resuming import clear, compare, compare_data, continue_log, prepare_folder
from .seeding import SeededSamples
from .sharding import prepare_for_sharding, whole
from .stopping import Stop
from .trackers import chosen_trackers, start_trackers


RECORD_STEPS = 20  # between two records of the log


def start(args: Namespace) -> Accelerator:
    """Accelerator, seed, output folder, and the resolved configuration written before anything else.

    Raises:
        ValueError: if the folder holds another run, or no checkpoint to go on from as asked; nothing is written then.
    """
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=chosen_trackers(args.report_to) or None,
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=f"{args.output_dir}/logs"),
        step_scheduler_with_optimizer=False,
        dataloader_config=DataLoaderConfiguration(split_batches=args.split_batches),
    )
    check_processes(accelerator, args)
    prepare_folder(accelerator, args)
    if args.push_to_hub and accelerator.is_main_process:
        try:
            args.hub_model_id = create_repository(args)
        except ValueError:
            with contextlib.suppress(OSError):  # it holds something
                Path(args.output_dir).rmdir()
            raise
    set_seed(args.seed)
    torch.set_flush_denormal(True)  # denormal numbers make CPU kernels many times slower
    write_configuration(accelerator, args)
    if args.report_to:
        start_trackers(accelerator, args)
    per_batch = samples_per_batch(accelerator, args)
    accelerator.print(f"{accelerator.num_processes} process(es), {per_batch} samples in a batch of all of them.")
    return accelerator


def write_configuration(accelerator: Accelerator, args: Namespace) -> None:
    """The resolved flags, as `training_config.json`."""
    if accelerator.is_main_process:
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with writing("The configuration", folder):
            write_text(folder / "training_config.json", json.dumps(vars(args), indent=2, sort_keys=True) + "\n")


def check_processes(accelerator: Accelerator, args: Namespace) -> None:
    """Refuse processes that do not know of each other, that cannot share a batch, or that cannot compute as asked.

    Raises:
        ValueError: if more processes were started than accelerate joined, for float16 on a CPU, or for the reason of
            `samples_per_batch`.
    """
    if args.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("--mixed_precision fp16 needs a GPU, and this is a CPU; give bf16 or no.")
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != accelerator.num_processes:
        raise ValueError(
            f"{started} processes were started, but accelerate joins {accelerator.num_processes}: each would train alone "
            f"and write over the others. Without a GPU set ACCELERATE_USE_CPU=true."
        )
    samples_per_batch(accelerator, args)


def samples_per_batch(accelerator: Accelerator, args: Namespace) -> int:
    """How many samples all processes read together before they accumulate or step.

    Raises:
        ValueError: if `--split_batches` cannot share a batch among the processes equally.
    """
    if not args.split_batches:
        return args.train_batch_size * accelerator.num_processes
    if args.train_batch_size % accelerator.num_processes:
        raise ValueError(
            f"--split_batches shares a batch among all processes equally, but --train_batch_size {args.train_batch_size} "
            f"is no multiple of {accelerator.num_processes} processes; give one that is."
        )
    return args.train_batch_size


def run_length(accelerator: Accelerator, args: Namespace) -> int:
    """How many samples a run draws."""
    return args.max_train_steps * args.gradient_accumulation_steps * samples_per_batch(accelerator, args)


def seen_by_all(accelerator: Accelerator, loss: torch.Tensor, batch: dict[str, Any]) -> tuple[float, list[float]]:
    """The loss, and the shares of samples without each reference, of all processes; all of them must call this.

    They have equally many samples, so the mean of their means is that of all samples.
    """
    shares = (~batch["present"]).float().mean(0) if "present" in batch else loss.new_zeros(0)
    loss, *dropped = accelerator.reduce(torch.cat([loss.detach().float().view(1), shares]), "mean").tolist()
    return loss, dropped


def build_optimizer(args: Namespace, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW for what is trainable, and its learning rate schedule."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
        fused=True,
    )
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps,
        num_training_steps=args.max_train_steps,
    )
    return optimizer, schedule


def build_loader(
    args: Namespace, dataset: Any, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
) -> DataLoader:
    """Batches of the stream in its own order; accelerate gives each process its part of them."""
    return DataLoader(
        SeededSamples(dataset, args.seed),
        batch_size=args.train_batch_size,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        drop_last=True,
        generator=torch.Generator(),  # or every new iterator would draw from the numbers that a resumed run restores
    )


def train(
    accelerator: Accelerator,
    args: Namespace,
    model: nn.Module,
    dataset: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    loss_of: Callable[[nn.Module, dict[str, Any]], torch.Tensor],
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
    optimizer, schedule = build_optimizer(args, model)
    loader = build_loader(args, dataset, collate)
    prepared, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    averaged = Averaged(model, args.ema_decay)
    meter = Meter(samples_per_batch(accelerator, args), args.max_grad_norm)
    accelerator.register_for_checkpointing(averaged, meter)
    data = getattr(dataset, "fingerprint", None)
    step = begin(accelerator, args, data)
    batches = accelerator.skip_first_batches(loader, step * args.gradient_accumulation_steps) if step else loader
    journal = Journal(accelerator, args, continue_log(accelerator, args.output_dir, step))
    progress = Progress(args, step, accelerator.is_local_main_process)
    pauses = Pauses(accelerator, args, model, averaged, journal, progress, data, validate, export)

    def update(batch: dict[str, Any]) -> float:
        """theta <- theta - alpha * grad L, or a part of the gradient; returns the loss."""
        with accelerator.accumulate(prepared):
            loss = loss_of(prepared, batch)
            accelerator.backward(loss)
            norm = None  # where gradients are still accumulated
            if accelerator.sync_gradients:
                found = accelerator.clip_grad_norm_(prepared.parameters(), args.max_grad_norm)
                norm = None if found is None else float(whole(found))  # DeepSpeed clips itself and may tell none
            value, dropped = seen_by_all(accelerator, loss, batch)
            meter.add(value, norm, dropped)
            # Loss scaling skips steps whose gradient overflows; that is how it finds its scale.
            stop_at_non_finite(args, step + 1, value, norm if accelerator.scaler is None else None)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return value

    with meter.paused():
        pauses.before(step)
    progress.start_clock()
    with Stop() as stop, contextlib.closing(progress):
        for batch in batches:
            if step >= args.max_train_steps:
                break
            loss = update(batch)
            if not accelerator.sync_gradients:
                continue
            schedule.step()
            averaged.step()
            step += 1
            progress.update(loss, meter.samples_per_second)
            if pauses.is_due(step, RECORD_STEPS):
                health = {"ema_distance": averaged.distance(), "lr": schedule.get_last_lr()[0]}
                record = {"step": step, **meter.read(), **health}
                journal.write(record)
                progress.show_health(record)
            with meter.paused():
                pauses.after(step, stop)
    accelerator.end_training()
    return journal.records


def begin(accelerator: Accelerator, args: Namespace, data: str | None) -> int:
    """Load the checkpoint that `start` has found, or make room for a new run; returns the step to go on from.

    Raises:
        ValueError: if the checkpoint is that of another run.
    """
    if args.resume_from_checkpoint:
        checkpoint = Path(args.resume_from_checkpoint)
        manifest = read_manifest(checkpoint)
        compare(manifest, args, accelerator.num_processes)  # again: now the resolution is known
        if accelerator.is_main_process:
            compare_data(manifest, data)
        return load_checkpoint(accelerator, checkpoint)
    if args.overwrite_output_dir and accelerator.is_main_process:
        clear(args.output_dir)
    return 0

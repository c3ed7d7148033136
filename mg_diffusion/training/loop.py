"""The loop that all stages share: step 4 of the method, theta <- theta - alpha * grad L, and what keeps a run safe."""

import contextlib
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from .checkpoints import load_checkpoint, read_manifest, save_checkpoint, writing
from .disk import replacing, write_text
from .journal import Journal, Meter
from .resuming import clear, compare, compare_data, continue_log, prepare_folder
from .stopping import Stop


def start(args: Namespace) -> Accelerator:
    """Accelerator, seed, output folder, and the resolved configuration written before anything else.

    Raises:
        ValueError: if the folder holds another run, or no checkpoint to go on from as asked; nothing is written then.
    """
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=args.report_to,
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=f"{args.output_dir}/logs"),
        step_scheduler_with_optimizer=False,
    )
    prepare_folder(accelerator, args)
    set_seed(args.seed)
    torch.set_flush_denormal(True)  # denormal numbers make CPU kernels many times slower
    write_configuration(accelerator, args)
    if args.report_to:
        plain = {k: v for k, v in vars(args).items() if isinstance(v, (int, float, str, bool))}
        accelerator.init_trackers("mg-diffusion", config=plain)
    return accelerator


def write_configuration(accelerator: Accelerator, args: Namespace) -> None:
    """The resolved flags, as `training_config.json`."""
    if accelerator.is_main_process:
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with writing("The configuration", folder):
            write_text(folder / "training_config.json", json.dumps(vars(args), indent=2, sort_keys=True) + "\n")


def run_length(accelerator: Accelerator, args: Namespace) -> int:
    """How many samples a run draws."""
    per_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    return args.max_train_steps * per_step


class Averaged:
    """Exponential moving average of the trained weights, saved and loaded with every checkpoint."""

    def __init__(self, model: nn.Module, decay: float):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.ema = EMAModel(self.parameters, decay=decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def step(self) -> None:
        self.ema.step(self.parameters)

    def __enter__(self) -> None:
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)

    def __exit__(self, *exception: Any) -> None:
        self.ema.restore(self.parameters)


def fork_rng(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """What is drawn inside is given back: a run resumed from a checkpoint does not draw it."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


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
    """Batches of the stream in its own order."""
    return DataLoader(
        dataset,
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
    optimizer, schedule = build_optimizer(args, model)
    loader = build_loader(args, dataset, collate)
    prepared, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    averaged = Averaged(model, args.ema_decay)
    meter = Meter(args.train_batch_size * accelerator.num_processes)
    accelerator.register_for_checkpointing(averaged.ema, meter)
    data = getattr(dataset, "fingerprint", None)
    step = begin(accelerator, args, data)
    averaged.ema.to(accelerator.device)  # what is loaded lies on the CPU
    batches = accelerator.skip_first_batches(loader, step * args.gradient_accumulation_steps) if step else loader
    journal = Journal(accelerator, args.output_dir, continue_log(accelerator, args.output_dir, step))
    hidden = not accelerator.is_local_main_process
    bar = tqdm(total=args.max_train_steps, initial=step, desc=args.stage, disable=hidden, mininterval=2)

    def publish() -> None:
        if accelerator.is_main_process:
            with writing("weights/", args.output_dir), averaged, fork_rng(accelerator.device):
                with replacing(Path(args.output_dir, "weights")) as folder:
                    export(folder)

    def judge() -> None:
        with writing("The results of the validation", args.output_dir), averaged, fork_rng(accelerator.device):
            losses = validate(step)
        if losses:
            journal.write({"step": step, **losses})

    def is_due(every: int) -> bool:
        return step % every == 0 or step == args.max_train_steps

    if step:
        publish()
        if is_due(args.validation_steps) and not any("val_loss" in record for record in journal.at(step)):
            judge()
    with Stop() as stop:
        for batch in batches:
            if step >= args.max_train_steps:
                break
            with accelerator.accumulate(prepared):
                loss = loss_of(prepared, batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(prepared.parameters(), args.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            meter.add(loss.detach().item())
            if not accelerator.sync_gradients:
                continue
            schedule.step()
            averaged.step()
            step += 1
            bar.update(1)
            if is_due(20):
                read = meter.read()
                journal.write({"step": step, **read, "grad_norm": float(norm), "lr": schedule.get_last_lr()[0]})
                bar.set_postfix(loss=f"{read['loss']:.4f}", samples_s=f"{read['samples_per_second']:.1f}")
            is_stopping = step < args.max_train_steps and stop.is_asked(accelerator)
            if is_stopping or is_due(args.checkpointing_steps):
                save_checkpoint(accelerator, args, step, data)
            if is_stopping:
                bar.close()
                stop.leave(accelerator, step)
            if is_due(args.checkpointing_steps):
                publish()
            if is_due(args.validation_steps):
                judge()
    bar.close()
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

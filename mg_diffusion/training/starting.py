"""How a run starts: what is settled and written before anything is loaded."""

import contextlib
import json
import os
from argparse import Namespace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration, set_seed

from .checkpoints import writing
from .disk import write_text
from .hub import create_repository
from .resuming import prepare_folder
from .settings import Batches
from .trackers import chosen_trackers, start_trackers


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
    check_processes(accelerator, args.mixed_precision)
    per_batch = Batches.of(args).samples(accelerator.num_processes)
    args.resume_from_checkpoint = prepare_folder(accelerator, vars(args))
    if args.push_to_hub and accelerator.is_main_process:
        try:
            args.hub_model_id = create_repository(args.output_dir, args.hub_model_id, args.hub_private_repo)
        except ValueError:
            with contextlib.suppress(OSError):  # it holds something
                Path(args.output_dir).rmdir()
            raise
    set_seed(args.seed)
    torch.set_flush_denormal(True)  # denormal numbers make CPU kernels many times slower
    write_configuration(accelerator, args)
    if args.report_to:
        start_trackers(accelerator, args.tracker_project_name, vars(args))
    accelerator.print(f"{accelerator.num_processes} process(es), {per_batch} samples in a batch of all of them.")
    return accelerator


def write_configuration(accelerator: Accelerator, args: Namespace) -> None:
    """The resolved flags, as `training_config.json`."""
    if accelerator.is_main_process:
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with writing("The configuration", folder):
            write_text(folder / "training_config.json", json.dumps(vars(args), indent=2, sort_keys=True) + "\n")


def check_processes(accelerator: Accelerator, mixed_precision: str) -> None:
    """Refuse processes that do not know of each other, or that cannot compute as asked.

    Raises:
        ValueError: if more processes were started than accelerate joined, or for float16 on a CPU.
    """
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("--mixed_precision fp16 needs a GPU, and this is a CPU; give bf16 or no.")
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != accelerator.num_processes:
        raise ValueError(
            f"{started} processes were started, but accelerate joins {accelerator.num_processes}: each would train alone "
            f"and write over the others. Without a GPU set ACCELERATE_USE_CPU=true."
        )

"""A model with its adapter is fitted to an objective, and shown on held-out pictures."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from .loop import train
from .objective import Objective
from .pictures import Pictures
from .settings import RunSettings
from .sharding import gathered
from .validation import save_grid, validation_loss


class HeldOut(NamedTuple):
    """Pictures that are not trained on, samples of them, and the objective that scores these."""

    pictures: Pictures
    samples: Dataset
    objective: Objective


def fit(
    accelerator: Accelerator,
    settings: RunSettings,
    model: torch.nn.Module,
    objective: Objective,
    samples: Dataset,
    held_out: HeldOut | None,
    pipeline: Any,
    export: Callable[[Path], None],
) -> list[dict[str, float]]:
    """Train a model with its adapter, if it has one, attached; it is detached while the pipeline draws the grid.

    Args:
        pipeline: of the very modules that are trained.
        export: writes inference weights to a folder.
    """
    if held_out is None:
        accelerator.print("No held-out pictures: the run reports the training loss only.")
    adapter = getattr(model, "mg_adapter", None)
    with contextlib.ExitStack() as attached:

        def attach() -> None:
            if adapter is not None:
                attached.enter_context(adapter.attach(model.unet))

        def validate(step: int) -> dict[str, float]:
            if held_out is None:
                return {}
            model.eval()
            with torch.no_grad(), accelerator.autocast():
                losses = validation_loss(held_out.objective, model, held_out.samples, accelerator.device)
            attached.close()
            with gathered(model):
                if accelerator.is_main_process:
                    save_grid(pipeline, held_out.pictures, Path(settings.output_dir, f"grid-{step:06d}.png"))
            attach()
            model.train()
            return losses

        attach()
        loss_of = objective.training_loss
        return train(accelerator, settings, model.train(), samples, objective.collate, loss_of, validate, export)

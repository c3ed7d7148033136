"""Checkpoints of a model of which a part is frozen hold what is trained, and not the base again and again."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file


TRAINED = "trained.safetensors"  # in a checkpoint


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is trained, by name."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def checkpoint_trained_parts(accelerator: Accelerator) -> None:
    """Let checkpoints hold `trained_state` alone; FSDP and DeepSpeed have their own format."""
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return

    def save(models: list[torch.nn.Module], weights: list[Any], folder: str) -> None:
        for model in models:
            if accelerator.is_main_process:
                state = trained_state(accelerator.unwrap_model(model))
                save_file({name: value.contiguous() for name, value in state.items()}, Path(folder, TRAINED))
            weights.pop()

    def load(models: list[torch.nn.Module], folder: str) -> None:
        while models:
            model = accelerator.unwrap_model(models.pop())
            stored, own = load_file(Path(folder, TRAINED)), trained_state(model)
            if stored.keys() != own.keys():
                raise ValueError(
                    f"{folder!r} is no checkpoint of such an adapter: other parameters are trained in it."
                )
            for name, value in own.items():
                value.copy_(stored[name])

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)

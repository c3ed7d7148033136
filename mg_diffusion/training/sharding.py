"""Weights that FSDP spreads over processes: how they are kept whole in checkpoints, exported and drawn with.

FSDP 2 shards in place: a parameter is a `DTensor` outside of the model's forward and backward. All modules are one group
(`NO_WRAP`), because the adapter reads the UNet's projections outside of the blocks they belong to.
"""

import contextlib
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def prepare_for_sharding(accelerator: Accelerator, model: nn.Module) -> None:
    """Lay out parameters as FSDP asks for: contiguous, scalars as vectors of one. Without FSDP nothing is done.

    Raises:
        ValueError: for FSDP 1, which does not shard in place, for more than one group, and for stage 3 of DeepSpeed.
    """
    if (
        accelerator.distributed_type == DistributedType.DEEPSPEED
        and accelerator.state.deepspeed_plugin.zero_stage == 3
    ):
        raise ValueError(
            "Stage 3 of DeepSpeed spreads the weights, which averages and exports need whole; use stage 2."
        )
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2 or plugin.auto_wrap_policy is not None:
        raise ValueError(
            f"Training needs `fsdp_version: 2` and `fsdp_auto_wrap_policy: NO_WRAP`, as docs/examples/fsdp.yaml has them; "
            f"got version {plugin.fsdp_version} and {plugin.auto_wrap_policy}."
        )
    model.to(memory_format=torch.contiguous_format)
    for module, name, parameter in list(_own_parameters(model)):
        if parameter.dim() == 0:
            one = nn.Parameter(parameter.detach().view(1), requires_grad=parameter.requires_grad)
            setattr(module, name, one)
            module.scalars = {*getattr(module, "scalars", ()), name}


def _own_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield module, name, parameter


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded as the example is."""
    if not isinstance(example, DTensor):
        return tensor
    return distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements)


def reshard(model: nn.Module) -> None:
    """Forget whole parameters that a forward without backward left behind."""
    if isinstance(model, FSDPModule):
        model.reshard()


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """All parameters whole and of their own shape inside, in every process, so that one of them can save or draw."""
    reshard(model)
    sharded = [(module, name, one) for module, name, one in _own_parameters(model) if isinstance(one, DTensor)]
    for module, name, one in sharded:
        value = whole(one.detach())
        value = value.view(()) if name in getattr(module, "scalars", ()) else value
        module._parameters[name] = nn.Parameter(value, requires_grad=one.requires_grad)
    try:
        yield
    finally:
        for module, name, one in sharded:
            module._parameters[name] = one

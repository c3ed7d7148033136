"""Configurations of accelerate that spread a run, and what is refused; runs with them are in test_processes.py."""

import os
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch import nn

from mg_diffusion.training.flags import flags_of, stages
from mg_diffusion.training.sharding import gathered, prepare_for_sharding


def read(path, prepare):
    """What the launcher tells the processes of a configuration, as their environment."""
    args = launch_command_parser().parse_args(["--config_file", str(path), "-m", "mg_diffusion.training", "base"])
    args, *_ = _validate_launch_command(args)
    args.deepspeed_fields_from_accelerate_config = ""
    return prepare(args)


def refused(kind, **state):
    return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(**state))


def test_deepspeed_reads_its_configuration_and_agrees_with_our_flags(repository, monkeypatch):
    told = read(repository / "docs" / "examples" / "deepspeed.yaml", prepare_deepspeed_cmd_env)[1]
    for name in set(told) - set(os.environ):
        monkeypatch.setenv(name, told[name])
    plugin = DeepSpeedPlugin()
    flags = flags_of(stages()["base"])
    assert plugin.zero_stage == 2 and told["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert float(plugin.gradient_clipping) == flags["max_grad_norm"].default
    assert int(plugin.gradient_accumulation_steps) == flags["gradient_accumulation_steps"].default
    prepare_for_sharding(refused(DistributedType.DEEPSPEED, deepspeed_plugin=plugin), nn.Linear(1, 1))


def test_stage_3_of_deepspeed_is_refused():
    accelerator = refused(DistributedType.DEEPSPEED, deepspeed_plugin=DeepSpeedPlugin(zero_stage=3))
    with pytest.raises(ValueError, match="Stage 3 of DeepSpeed spreads the weights.*use stage 2"):
        prepare_for_sharding(accelerator, nn.Linear(1, 1))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fsdp_version": 1}, "got version 1"),
        (
            {"fsdp_version": 2, "auto_wrap_policy": "transformer_based_wrap"},
            "`fsdp_auto_wrap_policy: NO_WRAP`, .*got version 2 and .*transformer",
        ),
    ],
)
def test_other_ways_to_shard_are_refused(options, message):
    accelerator = refused(DistributedType.FSDP, fsdp_plugin=FullyShardedDataParallelPlugin(**options))
    with pytest.raises(ValueError, match=message):
        prepare_for_sharding(accelerator, nn.Linear(1, 1))


def test_fsdp_reads_its_configuration(repository, monkeypatch):
    told = read(repository / "docs" / "examples" / "fsdp.yaml", prepare_multi_gpu_env)
    for name in set(told) - set(os.environ):
        monkeypatch.setenv(name, told[name])
    accelerator = refused(DistributedType.FSDP, fsdp_plugin=FullyShardedDataParallelPlugin())
    model = nn.Conv2d(2, 2, 1).to(memory_format=torch.channels_last)
    model.alpha = nn.Parameter(torch.tensor(0.5), requires_grad=False)
    prepare_for_sharding(accelerator, model)
    assert model.alpha.shape == (1,) and model.alpha.item() == 0.5 and not model.alpha.requires_grad
    assert model.weight.is_contiguous()


def test_without_sharding_nothing_changes():
    model = nn.Module()
    model.alpha = nn.Parameter(torch.tensor(0.5))
    before = model.alpha
    prepare_for_sharding(Accelerator(cpu=True), model)
    with gathered(model):
        assert model.alpha is before and before.shape == ()

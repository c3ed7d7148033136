"""Runs of several flags, one after another, in the processes that accelerate started: `two_processes.py RUNS.json`."""

import json
import os
import sys
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from mg_diffusion.training import __main__ as command


def shard_on_a_cpu() -> None:
    """What accelerate does with its FSDP configuration where there are GPUs; of CPUs it makes DDP without a word."""
    Accelerator()
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin()


def main(place: str) -> None:
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # it remembers the run before
    for port, arguments in json.loads(Path(place).read_text()):
        os.environ["MASTER_PORT"] = str(port)
        if os.environ.get("ACCELERATE_USE_FSDP"):
            shard_on_a_cpu()
        command.main(arguments)
        AcceleratorState._reset_state(reset_partial_state=True)  # a run ends with its processes' talk


if __name__ == "__main__":
    main(sys.argv[1])

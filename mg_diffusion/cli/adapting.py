"""From a folder of pictures to an adapter for your Stable Diffusion, by one command: check, train, export."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..loading import quiet


CARD = ("README.md", "curves.png", "grid.png")  # of a run, which the exported model keeps beside its own files


def adapt(options: argparse.Namespace) -> int:
    """`mg-diffusion adapt`: a run that was interrupted goes on, and what is done is not done again."""
    output = Path(options.output)
    run, model = output / "run", output / "model"
    if output.exists() and not output.is_dir():
        raise ValueError(f"{options.output!r} is a file. Name a folder: run, cache and model go there.")
    if model.exists() and not options.force:
        raise ValueError(
            f"{str(model)!r} is there already. Train on with --force, which exports anew, or name another folder."
        )
    if not options.unchecked:
        check_pictures(options.data)
    status = subprocess.run(launch(training_flags(options, run), options.num_processes), check=False).returncode
    if status:
        raise ValueError(
            f"The training ended with status {status}; it says above why. The same command goes on from its last checkpoint."
        )
    quiet()
    import torch

    from ..export import export

    size = export(run / "weights", model, getattr(torch, options.dtype), base=options.base, force=options.force)
    for name in CARD:
        if (run / "weights" / name).is_file():
            shutil.copyfile(run / "weights" / name, model / name)
    print(
        f"{model}: {size:.1f} MB of weights. Try it: mg-diffusion generate --model {model} --color PICTURE -o out.png"
    )
    return 0


def check_pictures(folder: str) -> None:
    """Raise a ValueError for pictures that would stop or spoil a run."""
    from ..data.check import check_folder

    problems = check_folder(folder, look_for_faces=False)["problems"]
    if problems:
        raise ValueError(
            f"The pictures of {folder!r} would stop or spoil the training: {'; '.join(problems)}. "
            f"`mg-diffusion data check {folder}` tells more; --unchecked trains nevertheless."
        )


def training_flags(options: argparse.Namespace, run: Path) -> list[str]:
    """Flags of stage `adapter`; those of the command line, behind `--`, come last and win."""
    import torch

    flags = [
        "--pretrained_model_name_or_path",
        options.base,
        "--train_data_dir",
        options.data,
        "--output_dir",
        str(run),
    ]
    flags += ["--cache_dir", str(run.parent / "cache"), "--cache_latents"]
    if torch.cuda.is_available():
        flags += ["--mixed_precision", "bf16", "--gradient_checkpointing"]
    if any(run.glob("checkpoint-*")):
        flags += ["--resume_from_checkpoint", "latest"]
    return [*flags, *options.training]


def launch(flags: Sequence[str], num_processes: int | None) -> list[str]:
    """The command that trains: by `accelerate launch` where there are GPUs or several processes.

    (On a CPU it would give the one process one thread.)
    """
    import torch

    module = ["-m", "mg_diffusion.training", "adapter"]
    if not torch.cuda.is_available() and num_processes in (None, 1):
        return [sys.executable, *module, *flags]
    number = [] if num_processes is None else ["--num_processes", str(num_processes)]
    number += ["--multi_gpu"] if (num_processes or 1) > 1 else []
    return [sys.executable, "-m", "accelerate.commands.launch", *number, *module, *flags]

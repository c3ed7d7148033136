"""The trackers of accelerate that a run may report to: which are there, and what each of them is told."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image


# Any one of its packages is enough for a tracker.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}


def chosen_trackers(report_to: str | None) -> list[str]:
    """What `--report_to` stands for; "all" are those that are installed.

    Raises:
        ValueError: if it is not installed.
    """
    if report_to is None:
        return []
    wanted = list(PACKAGES) if report_to == "all" else [report_to]
    found = [name for name in wanted if any(find_spec(package) for package in PACKAGES[name])]
    if not found:
        install = " or ".join(f"`pip install {name}`" for name in wanted)
        raise ValueError(f"--report_to {report_to}: it is not installed. Install it: {install}")
    return found


def start_trackers(accelerator: Any, project: str, flags: dict[str, Any]) -> None:
    """Begin a run of each tracker, named as the output folder. A resumed run goes on in trackio's run of that name."""
    name = Path(flags["output_dir"]).resolve().name
    plain = {key: value for key, value in flags.items() if isinstance(value, (int, float, str, bool))}
    options = {
        "wandb": {"name": name, "dir": flags["output_dir"]},
        "trackio": {"name": name, "resume": "allow" if flags["resume_from_checkpoint"] else "never", "embed": False},
    }
    accelerator.init_trackers(project, config=plain, init_kwargs=options)


def track_picture(trackers: list[Any], name: str, path: Path, step: int) -> None:
    """Show an image file in every tracker, by accelerate's `log_images` where its tracker has one."""
    for tracker in trackers:
        if tracker.name == "tensorboard":
            pixels = np.asarray(PIL.Image.open(path).convert("RGB"))
            tracker.log_images({name: pixels[None]}, step=step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [PIL.Image.open(path).convert("RGB")]}, step=step)
        else:
            import trackio

            tracker.log({name: trackio.Image(path)}, step=step)

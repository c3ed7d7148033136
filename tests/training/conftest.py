"""Drawn pictures and flags of runs that take seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from mg_diffusion.training.crossings import Crossings
from mg_diffusion.training.pictures import Pictures, load_pictures
from mg_diffusion.training.tiny import draw_pictures
from mg_diffusion.training.view_pool import ViewPool, build_pool


SIZE = 32  # the smallest side that training takes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imagefolder with four rendered pictures in each of train/ and val/."""
    path = tmp_path_factory.mktemp("pictures")
    draw_pictures(path, count=4, size=SIZE)
    return path


@pytest.fixture(scope="session")
def pictures(folder: Path) -> Pictures:
    return load_pictures(str(folder), "train", SIZE)


@pytest.fixture(scope="session")
def pool(pictures: Pictures) -> tuple[ViewPool, dict[str, Crossings]]:
    return build_pool(pictures, num_crossings=6, num_rendered=4, seed=0)


@pytest.fixture(scope="session")
def flags(folder: Path) -> Callable[..., list[str]]:
    """flags(stage, output_dir, name=value, ...): arguments of a very small run; `None` leaves one out."""

    def build(stage: str, output_dir: Path, **changed: object) -> list[str]:
        chosen = {
            "train_data_dir": folder,
            "output_dir": output_dir,
            "resolution": SIZE,
            "train_batch_size": 2,
            "max_train_steps": 4,
            "checkpointing_steps": 2,
            "validation_steps": 2,
            "num_validation_images": 2,
            "lr_warmup_steps": 1,
            "no-validation_at_start": "",
        }
        if stage != "adapter":
            chosen |= {"block_out_channels": "32 32"}
        if stage == "base":
            chosen |= {"text_width": 32}
        if stage != "vae":
            chosen |= {"num_crossings": 4, "num_rendered": 4}
        pairs = [(name, value) for name, value in {**chosen, **changed}.items() if value is not None]
        return [stage, *(part for name, value in pairs for part in (f"--{name}", *str(value).split()))]

    return build


@pytest.fixture(autouse=True, scope="module")
def _leave_the_process_as_it_was():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_flush_denormal(False)

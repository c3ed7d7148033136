"""Tiny pipelines; every test gets components of its own, so that it may change them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline

from .tiny import tiny_components


def _quiet(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DiffusionPipeline]:
    """make(text=..., is_inpainting=..., vae=..., kind=...) builds an `MGPipeline`, or a pipeline of another class."""

    def build(text: bool = True, kind: type = MGPipeline, **options) -> DiffusionPipeline:
        components = tiny_components(tmp_path if text else None, **options)
        return _quiet(kind(**components))

    return build


@pytest.fixture
def make_inpaint(make) -> Callable[..., MGInpaintPipeline]:
    return lambda **options: make(kind=MGInpaintPipeline, **options)

"""What a type checker sees of the public surface. `make types` checks this file strictly; it is never run."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import PIL.Image

import mg_diffusion
from mg_diffusion import (
    AutoencoderHaar,
    MGAdapter,
    MGEncoder,
    MGInpaintPipeline,
    MGPipeline,
    MGXLInpaintPipeline,
    MGXLPipeline,
)
from mg_diffusion.edits import recolor, remove
from mg_diffusion.loading import embedded_model, load_pipeline
from mg_diffusion.palettes import extract_palette
from mg_diffusion.recipe import read_recipe


assert_type(mg_diffusion.__version__, str)

encoder = assert_type(MGEncoder.from_pretrained("folder", subfolder="mg_encoder"), MGEncoder)
adapter = assert_type(MGAdapter.from_pretrained("folder", subfolder="mg_adapter"), MGAdapter)
encoder.save_card(Path("denim.safetensors"), "texture", "jacket.jpg")


def generate(pipe: MGPipeline) -> PIL.Image.Image:
    made = pipe(reference_image={"color": "sunset.jpg"}, granularity_scale={"color": 1.0}, num_inference_steps=4)
    first: PIL.Image.Image = made.images[0]
    return first


def edit(pipe: MGInpaintPipeline, photo: PIL.Image.Image) -> PIL.Image.Image | np.ndarray:
    pipe(image=photo, mask_image=photo, reference_image={"texture": "brick.jpg"})
    (recolored,) = recolor(pipe, photo, ["#1d3557:2", "#e9c46a"])
    (removed,) = remove(pipe, recolored, photo)
    return removed


def of_all(first: MGXLPipeline, second: MGXLInpaintPipeline, third: AutoencoderHaar) -> Any:
    first("a flower", reference_image={"shape": "leaf.png"})
    second("a flower", image="photo.png", mask_image="mask.png")
    return third.config


assert_type(embedded_model(), Path)
assert_type(extract_palette(encoder, "coffee.png", 4), list[str])
pipe = assert_type(load_pipeline(MGPipeline), MGPipeline)
recipe = read_recipe("out.png")

# What is wrong is told: a strength is a number, and there is no argument of this name.
MGPipeline.__call__(pipe, granularity_scale="strong")  # type: ignore[arg-type]
MGPipeline.__call__(pipe, refrence_image={})  # type: ignore[call-arg]

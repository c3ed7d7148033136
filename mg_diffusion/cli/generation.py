"""The commands that make pictures: generate, edit, and the edits that have a name."""

import argparse
import functools
import gc
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from .. import edits
from ..granularities import GRANULARITIES
from ..loading import load_pipeline, model_name, quiet
from ..recipe import describe_file, prepare_output, save_png
from .references import ReferenceArguments, parse_references, read_mask, read_picture, values_of


# Flags that go to the pipeline under its own names; where one is not given, the pipeline's default holds.
PIPELINE_FLAGS = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "texture_scale",
    "assignment",
    "num_detail_steps",
    "num_inference_steps",
    "guidance_scale",
    "strength",
    "padding_mask_crop",
    "mask_feather",
    "context_scale",
    "feature_guidance_window",
    "feature_guidance_decoder",
    "feature_guidance_full",
)


def load(name: str, options: argparse.Namespace) -> Any:
    """The pipeline of the class `name`, from the model of the flags."""
    quiet()
    from .. import pipelines  # brings most of diffusers with it, which a mistyped flag need not wait for

    try:
        pipe = load_pipeline(
            getattr(pipelines, name), options.model, trust_remote_code=options.trust_remote_code, device=options.device
        )
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(f"{error}\nHere: --trust-remote-code, if you know whose code it is.") from error
    if options.is_alone:
        gc.freeze()  # modules stay to the end, where Python would look through their million objects for a second
    return pipe


def pipeline_settings(pipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The flags that `pipe` knows, with its own defaults where they were not given."""
    parameters = inspect.signature(pipe.__call__).parameters
    given = {name: getattr(options, name, None) for name in PIPELINE_FLAGS if name in parameters}
    return {name: parameters[name].default if value is None else value for name, value in given.items()}


def native_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given of those that an edit that paints nothing knows under its own names."""
    if getattr(options, "select", None) is None and getattr(options, "tolerance", None) is not None:
        raise ValueError("--tolerance is that of --select: give both, or neither.")
    given = {
        name: getattr(options, name, None) for name in inspect.signature(getattr(edits, options.command)).parameters
    }
    elsewhere = {"image", *edits.SIDES, *GRANULARITIES}
    return {name: value for name, value in given.items() if value is not None and name not in elsewhere}


def generate(options: argparse.Namespace) -> None:
    """`mg-diffusion generate`."""
    if options.size is not None:
        if (options.width, options.height) != (None, None):
            raise ValueError("--size is width and height in one: give it, or --width and --height.")
        options.width = options.height = options.size
    arguments = parse_references(options)
    paths = _output_paths(options, arguments.files)
    pipe = load("MGPipeline", options)
    make = functools.partial(_call, pipe, options, paths, reference_image=values_of(arguments.references))
    _run(pipe, options, arguments, {"command": "generate"}, paths, make)


def edit(options: argparse.Namespace) -> None:
    """`mg-diffusion edit`, and the edits that have a name."""
    arguments = parse_references(options)
    paths = _output_paths(options, [options.image, *([options.mask] if options.mask else []), *arguments.files])
    image = read_picture(options.image)
    mask = read_mask(options.mask) if options.mask else None
    recipe = {
        "command": options.command,
        "image": describe_file(options.image),
        **({"mask": describe_file(options.mask)} if options.mask else {}),
        **{side: getattr(options, side) for side in edits.SIDES if getattr(options, side, None)},
    }
    pipe = load("MGInpaintPipeline", options)
    references = values_of(arguments.references)
    if options.command == "edit":
        pictures = {"image": image, "mask_image": mask, "reference_image": references}
        make = functools.partial(_call, pipe, options, paths, **pictures)
    else:
        added = [getattr(options, side, 0) for side in edits.SIDES]
        make = functools.partial(edits.named_edit, options.command, pipe, image, mask, references or {}, added)
    profile = image.info.get("icc_profile") if image.mode == "RGB" else None  # of other modes it would not fit RGB
    made = _run(pipe, options, arguments, recipe, paths, make, profile)
    if mask is not None:
        outside = np.asarray(mask) == 0
        changed = [(np.asarray(one) != np.asarray(image.convert("RGB"))).any(2) for one in made]
        print(f"pixels outside the mask that differ: {sum(int((one & outside).sum()) for one in changed)}")


def _output_paths(options: argparse.Namespace, inputs: Sequence[str]) -> list[Path]:
    """The output itself, or name-0.png, name-1.png, ... for several pictures; each can be written to."""
    path, count = Path(options.output), options.num_images
    numbered = [path.with_name(f"{path.stem}-{index}{path.suffix}") for index in range(count)]
    return [prepare_output(one, ".png", inputs) for one in ([path] if count == 1 else numbered)]


def _call(pipe: Any, options: argparse.Namespace, paths: Sequence[Path], **given: Any) -> list[PIL.Image.Image]:
    """Call the pipeline, warn of leaks and draw attributions, if the flags ask for it; returns the pictures."""
    from ..attribution import draw_attribution  # with it comes torch

    made = pipe(return_attribution=options.attribution, leak_guard=options.leak_guard, **given)
    if made.attribution == {}:
        print("nothing steered this call, so there is no attribution to draw", file=sys.stderr)
    for index, path in enumerate(paths if made.attribution else ()):
        path = path.with_suffix(f".attribution{path.suffix}")
        drawn = draw_attribution(made.images[index], made.attribution, index)
        save_png(drawn, path, {"command": "attribution", "model": model_name(options.model)})
        print(path)
    return made.images


def _run(
    pipe: Any,
    options: argparse.Namespace,
    arguments: ReferenceArguments,
    recipe: dict[str, Any],
    paths: Sequence[Path],
    make: Callable[..., list[PIL.Image.Image]],
    icc_profile: bytes | None = None,
) -> list[PIL.Image.Image]:
    """Make the pictures in one call, save them under `paths`, each with its recipe, and print the names.

    Args:
        make: called with what the flags say beside pictures and references.
    """
    import torch

    settings = native_settings(options) if options.command in edits.NATIVE else pipeline_settings(pipe, options)
    scales = {**dict.fromkeys(arguments.references, 1.0), **dict(options.scale)}
    steering = {
        "granularity_schedule": dict(options.schedule),
        "granularity_guidance": dict(options.guidance),
        "feature_guidance_scale": dict(options.feature_guidance),
    }
    steering = {name: value for name, value in steering.items() if value}
    # One generator for each picture: what a seed gives must not depend on how many pictures are made with it.
    seeds = [options.seed + index for index in range(len(paths))]
    images = make(
        **settings,
        **steering,
        negative_reference_image=values_of(arguments.negative),
        granularity_scale=scales,
        num_images_per_prompt=len(paths),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    recipe = {
        **recipe,
        **arguments.recipe,
        **settings,
        **{name: {key: _as_flag(value) for key, value in entries.items()} for name, entries in steering.items()},
        "granularity_scale": scales,
        "model": model_name(options.model),
    }
    for image, path, seed in zip(images, paths, seeds, strict=True):
        size = {"height": image.height, "width": image.width}
        save_png(image, path, {**recipe, **size, "seed": seed}, icc_profile)
        print(path)
    return images


def _as_flag(value: Any) -> Any:
    """A window as its flag has it, START:END: in JSON it could not be told from a curve."""
    return f"{value[0]:g}:{value[1]:g}" if isinstance(value, tuple) else value

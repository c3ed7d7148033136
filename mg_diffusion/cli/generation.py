"""The command that generates, and what commands that make pictures share."""

import argparse
import functools
import gc
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
from tqdm import tqdm

from .. import edits
from ..granularities import GRANULARITIES
from ..loading import check_place, load_pipeline, model_name, quiet
from ..picture_files import save_picture
from .doubts import tell_of_doubts
from .folder_references import make_for_each
from .folders import attribution_path
from .references import ReferenceArguments, values_of
from .sheets import check_sheet, save_sheet
from .sizes import check_generated_size, painted_size, split_size
from .steps import check_steps
from .values import check_seeds


# Flags that go to the pipeline under its own names; where one is not given, the pipeline's default holds.
PIPELINE_FLAGS = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "texture_scale",
    "assignment",
    "composed_start",
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
    places = [place for place in (options.model, options.adapter, options.encoder) if place is not None]
    for place in places:
        check_place(place)
    quiet()
    from .. import pipelines  # brings most of diffusers with it, which a mistyped flag need not wait for

    try:
        if options.model is not None and pipelines.pipeline_class(options.model) is pipelines.MGXLPipeline:
            name = name.replace("MG", "MGXL")
        pipe = load_pipeline(
            getattr(pipelines, name),
            options.model,
            adapter=options.adapter,
            encoder=options.encoder,
            trust_remote_code=options.trust_remote_code,
            device=options.device,
            many_steps=options.many_steps,
        )
    except OSError as error:
        remote = [place for place in places if not Path(place).exists()]
        if not remote:
            raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{' and '.join(map(repr, remote))}: no folder here, and not to be had from the Hub. This machine may be offline, or the "
            f"repository may not exist, be private or hold no such model ({why.rstrip('.')}). Download it where there is a "
            f"connection, `hf download OWNER/NAME --local-dir FOLDER`, and name that folder."
        ) from error
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
    settings = {name: parameters[name].default if value is None else value for name, value in given.items()}
    if settings["num_inference_steps"] == "auto":  # so that the recipe says how many there were
        settings["num_inference_steps"] = pipe.default_num_inference_steps
    return settings


def native_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given of those that an edit that paints nothing knows under its own names."""
    selecting = (getattr(options, "select", None), getattr(options, "hint", None))
    if selecting == (None, None) and getattr(options, "tolerance", None) is not None:
        raise ValueError("--tolerance is that of --select or --hint: give it with one of them, or not at all.")
    given = {
        name: getattr(options, name, None) for name in inspect.signature(getattr(edits, options.command)).parameters
    }
    elsewhere = {"image", "hint", *edits.SIDES, *GRANULARITIES}
    return {name: value for name, value in given.items() if value is not None and name not in elsewhere}


def generate(options: argparse.Namespace) -> int:
    """`mg-diffusion generate`; the status is 1 if some pictures of a folder failed."""
    split_size(options)
    check_generated_size(options)
    check_steps(options)
    check_sheet(options)
    check_seeds(options.seed, options.num_images)

    @functools.cache
    def pipe() -> Any:
        tell_of_doubts(options)
        loaded = load("MGPipeline", options)
        if options.output_dir is not None:
            loaded.set_progress_bar_config(disable=True)  # the pictures are counted
        return loaded

    def make(arguments: ReferenceArguments, paths: Sequence[Path]) -> None:
        arguments.check()
        references = values_of(arguments.references)
        sized = painted_size(pipe(), options, references)
        run(
            pipe(),
            sized,
            arguments,
            {"command": "generate"},
            paths,
            functools.partial(call, pipe(), options, paths, reference_image=references),
        )

    return make_for_each(
        options, make, lambda arguments: asked_recipe(options, arguments, {"command": "generate"}), PIPELINE_FLAGS
    )


def call(pipe: Any, options: argparse.Namespace, paths: Sequence[Path], **given: Any) -> list[PIL.Image.Image]:
    """Call the pipeline, warn of leaks and draw attributions, if the flags ask for it; returns the pictures."""
    is_asked = options.attribution or options.attribution_maps
    made = pipe(return_attribution=is_asked, leak_guard=options.leak_guard, **given)
    if made.attribution == {}:
        print("nothing steered this call, so there is no attribution to draw", file=sys.stderr)
    for index, path in enumerate(paths if made.attribution else ()):
        for place, drawn in _drawn_attribution(options, made, index, path).items():
            save_picture(drawn, place, {"command": "attribution", "model": model_name(options.model)})
            tqdm.write(str(place))
    return made.images


def _drawn_attribution(options: argparse.Namespace, made: Any, index: int, path: Path) -> dict[Path, PIL.Image.Image]:
    """What the flags ask for of the attribution of one picture, by the files that it goes to."""
    from ..attribution import draw_attribution, draw_maps  # with it comes torch

    image, attribution = made.images[index], made.attribution
    whole = {attribution_path(path): draw_attribution(image, attribution, index)} if options.attribution else {}
    maps = draw_maps(attribution, image.size, index) if options.attribution_maps else {}
    return whole | {attribution_path(path, name): one for name, one in maps.items()}


def run(
    pipe: Any,
    options: argparse.Namespace,
    arguments: ReferenceArguments,
    recipe: dict[str, Any],
    paths: Sequence[Path],
    make: Callable[..., list[PIL.Image.Image]],
) -> list[PIL.Image.Image]:
    """Make the pictures in one call, save them under `paths`, each with its recipe, and print the names.

    Args:
        make: called with what the flags say beside pictures and references.
    """
    import torch

    settings = native_settings(options) if options.command in edits.NATIVE else pipeline_settings(pipe, options)
    # One generator for each picture: what a seed gives must not depend on how many pictures are made with it.
    seeds = [options.seed + index for index in range(len(paths))]
    images = make(
        **settings,
        **_steering(options),
        negative_reference_image=values_of(arguments.negative),
        granularity_scale=_scales(options, arguments),
        num_images_per_prompt=len(paths),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    recipe = {**recipe, **_recipe_of(options, arguments, settings)}
    for image, path, seed in zip(images, paths, seeds, strict=True):
        size = {"height": image.height, "width": image.width}
        save_picture(image, path, {**recipe, **size, "seed": seed}, image.info.get("icc_profile"))
        tqdm.write(str(path))
    if options.sheet:
        save_sheet(images, paths, seeds)
    return images


def asked_recipe(options: argparse.Namespace, arguments: ReferenceArguments, recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe of the first picture of a call, as far as flags tell it; others are `None` that a pipeline has defaults for."""
    is_native = options.command in edits.NATIVE
    settings = (
        native_settings(options) if is_native else {name: getattr(options, name, None) for name in PIPELINE_FLAGS}
    )
    return {**recipe, **_recipe_of(options, arguments, settings), "seed": options.seed}


def _recipe_of(options: argparse.Namespace, arguments: ReferenceArguments, settings: dict[str, Any]) -> dict[str, Any]:
    """What flags and settings make of a recipe, whatever picture it is of."""
    return {
        **arguments.recipe,
        **settings,
        **{
            name: {key: _window_as_flag(value) for key, value in entries.items()}
            for name, entries in _steering(options).items()
        },
        "granularity_scale": _scales(options, arguments),
        "model": model_name(options.model),
        **{
            name: model_name(place) for name in ("adapter", "encoder") if (place := getattr(options, name)) is not None
        },
        **({"many_steps": True} if options.many_steps else {}),
        **({"convert": True} if options.convert else {}),
    }


def _scales(options: argparse.Namespace, arguments: ReferenceArguments) -> dict[str, float]:
    return {**dict.fromkeys(arguments.references, 1.0), **dict(options.scale)}


def _steering(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    steering = {
        "granularity_schedule": dict(options.schedule),
        "granularity_guidance": dict(options.guidance),
        "feature_guidance_scale": dict(options.feature_guidance),
    }
    return {name: value for name, value in steering.items() if value}


def _window_as_flag(value: Any) -> Any:
    """A window as its flag has it, START:END: in JSON it could not be told from a curve."""
    return f"{value[0]:g}:{value[1]:g}" if isinstance(value, tuple) else value

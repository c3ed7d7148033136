"""The commands that make no pictures: palette, encode, export, bench and data."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from ..granularities import GRANULARITIES
from ..loading import check_place, model_name, quiet
from ..recipe import prepare_output, replacing
from ..reference_pictures import check_reference
from ..sizes import CARD_SIDE, card_side
from .generation import load, pipeline_settings
from .references import in_usual_form, read_mask
from .values import check_seeds


def palette(options: argparse.Namespace) -> None:
    """`mg-diffusion palette`: prints what --color takes."""
    reference = _masked_reference(options)
    from ..palettes import extract_palette  # late, as all that comes with torch

    print(",".join(extract_palette(_load_encoder(options), reference, options.colors)))


def encode(options: argparse.Namespace) -> None:
    """`mg-diffusion encode`: writes a granularity card."""
    inputs = [options.picture, *([] if options.mask is None else [options.mask])]
    path = prepare_output(options.output, ".safetensors", inputs, options.force)
    side = _card_side(options)
    reference = _masked_reference(options)
    _load_encoder(options).save_card(path, options.granularity, reference, side)
    print(path)


def _card_side(options: argparse.Namespace) -> int:
    """Side of a square with the area of the largest picture that the card is to serve."""
    if options.size is None:
        return CARD_SIDE
    if options.granularity == "color":
        raise ValueError("A color card serves pictures of all sizes: leave --size out.")
    return card_side(options.size if isinstance(options.size, int) else math.ceil(math.sqrt(math.prod(options.size))))


def _masked_reference(options: argparse.Namespace) -> dict[str, Any]:
    """The picture of the flags, with the mask of the flags if there is one."""
    if not Path(options.picture).is_file():
        raise ValueError(f"There is no picture at {options.picture!r}.")
    mask = None if options.mask is None else read_mask(options.mask, "read")
    image = in_usual_form(options.picture) if options.convert else options.picture
    reference = {"image": image} | ({} if mask is None else {"mask": mask})
    check_reference(getattr(options, "granularity", "color"), reference)
    return reference


def _load_encoder(options: argparse.Namespace) -> Any:
    encoder = load("MGPipeline", options).mg_encoder
    if encoder is None:
        raise ValueError(f"The model {model_name(options.model)} has no encoder that reads references.")
    return encoder


def export(options: argparse.Namespace) -> None:
    """`mg-diffusion export`: writes a repository that loads without this package."""
    is_pair = options.base is not None and options.adapter is not None
    if (options.weights is None) != is_pair or (options.base is None) != (options.adapter is None):
        raise ValueError("Give either WEIGHTS, the folder of a saved pipeline, or both --base and --adapter.")
    for place in filter(None, (options.base, options.adapter)):
        check_place(place)
    quiet()
    import torch

    from ..export import export as write

    dtype = getattr(torch, options.dtype)
    size = write(
        options.weights or options.adapter, options.output, dtype, dict(options.strength), options.base, options.force
    )
    print(f"{options.output}: {size:.1f} MB of weights")


def bench(options: argparse.Namespace) -> None:
    """`mg-diffusion bench`."""
    output = prepare_output(options.output, ".json")
    check_seeds(options.seed, 2**16)  # more than any section draws
    try:
        from ..mg_bench.command import run
        from ..mg_bench.methods import PipelineMethod
    except ImportError as error:
        raise ValueError(f"bench needs more packages ({error}): pip install 'mg-diffusion[eval]'.") from error
    generator = load("MGPipeline", options)
    from ..pipelines import MGInpaintPipeline

    inpainter = MGInpaintPipeline(**generator.components)
    options.height = options.width = options.size
    settings = pipeline_settings(generator, options)  # of those, what a bench has flags for
    settings = {name: value for name, value in settings.items() if value is not None and hasattr(options, name)}
    scales = {**dict.fromkeys(GRANULARITIES, 1.0), **dict(options.scale)}
    method = PipelineMethod(generator, inpainter, settings, scales)
    run(options, method, generator.vae, model=model_name(options.model), output=output)


def data_check(options: argparse.Namespace) -> int:
    """`mg-diffusion data check`: the status is 1 if something would stop or spoil a run."""
    from ..data.check import check_folder
    from ..data.report import report_text

    output = None if options.json is None else prepare_output(options.json, ".json", (), options.force)
    report = check_folder(options.folder, options.caption_column, not options.no_faces)
    print(report_text(report))
    if output is not None:
        with replacing(output) as part:
            part.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if report["problems"] else 0


def data_bazaar(options: argparse.Namespace) -> None:
    """`mg-diffusion data bazaar128`."""
    from ..data.bazaar import build

    counts = build(options.output, resolution=options.resolution, cache_dir=options.cache_dir, given=options.source)
    print(f"{options.output}: {counts['train']} training and {counts['val']} validation pictures")

"""The command that lays references together: no model paints."""

import argparse

from tqdm import tqdm

from ..picture_files import save_picture
from .generation import output_paths, split_size
from .references import parse_references, values_of


def compose(options: argparse.Namespace) -> None:
    """`mg-diffusion compose`."""
    split_size(options)
    options.attribution = False
    arguments = parse_references(options)
    if not arguments.references:
        raise ValueError("There is nothing to compose. Give --color, --texture or --shape.")
    paths = output_paths(options, arguments.files)
    import torch

    from ..composition import compose as lay

    scales = {**dict.fromkeys(arguments.references, 1.0), **dict(options.scale)}
    settings = {
        "texture_scale": 1.0 if options.texture_scale is None else options.texture_scale,
        "assignment": options.assignment or "light",
    }
    seeds = [options.seed + index for index in range(len(paths))]
    images = lay(
        values_of(arguments.references),
        options.height,
        options.width,
        granularity_scale=scales,
        num_images=len(paths),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **settings,
    )
    recipe = {"command": "compose", **arguments.recipe, **settings, "granularity_scale": scales}
    for image, path, seed in zip(images, paths, seeds, strict=True):
        save_picture(image, path, {**recipe, "height": image.height, "width": image.width, "seed": seed})
        tqdm.write(str(path))

"""The command that lays references together: no model paints."""

import argparse
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..granularities import GRANULARITIES
from ..picture_files import save_picture
from ..sizes import check_composed_side, check_composed_size
from .folder_references import make_for_each
from .references import ReferenceArguments, values_of
from .sheets import check_sheet, save_sheet
from .sizes import split_size
from .values import check_seeds


PARTS = 100  # of a progress bar


def compose(options: argparse.Namespace) -> int:
    """`mg-diffusion compose`; the status is 1 if some pictures of a folder failed."""
    split_size(options)
    check_composed_size(options.height, options.width)
    if isinstance(options.size, int):
        check_composed_side(options.size)
    check_sheet(options)
    check_seeds(options.seed, options.num_images)
    options.attribution = False
    if not any(getattr(options, name) for name in GRANULARITIES) and not options.scale:
        raise ValueError("There is nothing to compose. Give --color, --texture or --shape.")
    return make_for_each(
        options,
        functools.partial(compose_one, options),
        lambda arguments: {**recipe_of(options, arguments), "seed": options.seed},
    )


def recipe_of(options: argparse.Namespace, arguments: ReferenceArguments) -> dict[str, Any]:
    """The recipe of a composition, whatever its size and seed."""
    return {
        "command": "compose",
        **arguments.recipe,
        "texture_scale": 1.0 if options.texture_scale is None else options.texture_scale,
        "assignment": options.assignment or "light",
        "granularity_scale": {**dict.fromkeys(arguments.references, 1.0), **dict(options.scale)},
        **({"convert": True} if options.convert else {}),
    }


def compose_one(options: argparse.Namespace, arguments: ReferenceArguments, paths: Sequence[Path]) -> None:
    """Lay the references together, save the results with their recipe and print the names."""
    arguments.check()
    import torch

    from ..composition import compose as lay
    from ..composition import composed_size

    recipe = recipe_of(options, arguments)
    references = values_of(arguments.references)
    height, width = options.height, options.width
    if isinstance(options.size, int):
        height, width = composed_size(None, None, references or {}, options.size)
    seeds = [options.seed + index for index in range(len(paths))]
    is_counted = options.output_dir is not None  # the pictures are
    with tqdm(total=PARTS, disable=is_counted) as bar:
        images = lay(
            references,
            height,
            width,
            num_images=len(paths),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            callback=lambda share: bar.update(int(PARTS * share) - bar.n),
            **{name: recipe[name] for name in ("texture_scale", "assignment", "granularity_scale")},
        )
    if len(images) > 1 and all(image == images[0] for image in images):
        warnings.warn(
            f"The {len(images)} pictures are the same: these references leave nothing open that a seed decides. --assignment free "
            f"leaves open which region gets which color.",
            stacklevel=2,
        )
    for image, path, seed in zip(images, paths, seeds, strict=True):
        save_picture(image, path, {**recipe, "height": image.height, "width": image.width, "seed": seed})
        tqdm.write(str(path))
    if options.sheet:
        save_sheet(images, paths, seeds)

"""What the flags of a bench mean (`mg_bench.flags`)."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mg_diffusion.evaluation.masks import centered_hole
from mg_diffusion.evaluation.quality import load_features

from .methods import Method
from .pools import read_pool, rendered_pool
from .run import reconstructor, run_bench
from .sections import NEEDS, QUICK, SECTIONS, Bench, Sizes


FLAGS = {"features": "--features FILE", "training": "--train-split NAME"}


def check_sections(options: argparse.Namespace) -> None:
    """Raise a ValueError for sections that do not exist, or that were asked for without what they need."""
    given = {"features": options.features, "training": options.train_split}
    for name in options.sections or ():
        if name not in SECTIONS:
            raise ValueError(f"There is no section {name!r}; known are {', '.join(SECTIONS)}.")
        for need in NEEDS.get(name, ()):
            if need in SECTIONS and need not in options.sections:
                raise ValueError(f"Section {name} judges the pictures of {need}: add that to --sections.")
            if need in given and given[need] is None:
                raise ValueError(f"Section {name} needs {FLAGS[need]}.")


def run(
    options: argparse.Namespace, method: Method, vae: torch.nn.Module, *, model: str, output: Path
) -> dict[str, Any]:
    """Run the asked sections with a method, whose pictures go through `vae`; `model` is its name in tables.

    Without `--sections` those run whose needs are met.

    Raises:
        ValueError: for an unknown section, one that is asked for and lacks what it needs, and for pictures or weights
            that are missing, or pictures that are too small.
    """
    sections = options.sections or list(SECTIONS)
    check_sections(options)
    centered_hole((options.size, options.size))  # refuses what is too small for the editing sections
    pictures = None if options.pictures is None else Path(options.pictures)
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise ValueError(f"--pictures is a folder to draw into, and {str(pictures)!r} is a file. Give another place.")
    sizes = QUICK if options.quick else Sizes()
    if options.triples is not None:
        sizes = replace(sizes, photographic_triples=options.triples)
    training = options.train_split
    bench = Bench(
        method,
        rendered_pool(sizes.rendered_pool, options.size, options.seed),
        read_pool(options.data, options.split, options.size),
        sizes,
        options.seed,
        options.batch_size,
        training=None if training is None else read_pool(options.data, training, options.size).pictures,
        features=None if options.features is None else load_features(options.features),
        reconstruct=reconstructor(vae),
    )
    return run_bench(bench, model=model, sections=sections, output=output, pictures=pictures, force=options.force)

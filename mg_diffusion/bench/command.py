"""What the flags of a bench mean (`bench.flags`)."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mg_diffusion.evaluation.quality import load_features

from .methods import Method
from .pools import read_pool, rendered_pool
from .run import reconstructor, run_bench
from .sections import QUICK, SECTIONS, Bench, Sizes


def run(
    options: argparse.Namespace, method: Method, vae: torch.nn.Module, *, model: str, output: Path
) -> dict[str, Any]:
    """Run the asked sections with a method, whose pictures go through `vae`; `model` is its name in tables.

    Raises:
        ValueError: for an unknown section, and for pictures or weights that are missing.
    """
    sections = options.sections or list(SECTIONS)
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise ValueError(f"There is no section {unknown[0]!r}; known are {', '.join(SECTIONS)}.")
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
    pictures = None if options.pictures is None else Path(options.pictures)
    return run_bench(bench, model=model, sections=sections, output=output, pictures=pictures)

"""The sections of MG-Bench: which pictures are asked for, and which module of `mg_diffusion.evaluation` judges them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mg_diffusion.evaluation.control import measure_control, random_triples
from mg_diffusion.evaluation.diversity import diversity
from mg_diffusion.evaluation.editing import measure_fidelity
from mg_diffusion.evaluation.editing_control import measure_hole_control, random_edits
from mg_diffusion.evaluation.leakage import leakage_matrix, random_cases
from mg_diffusion.evaluation.masks import random_masks
from mg_diffusion.evaluation.memorisation import memorisation_audit
from mg_diffusion.evaluation.metrics import Pictures
from mg_diffusion.evaluation.quality import image_quality
from mg_diffusion.evaluation.response import STRENGTHS, slider_response
from mg_diffusion.granularities import GRANULARITIES

from .methods import Method
from .pools import Pool, RenderedPool


@dataclass(frozen=True)
class Sizes:
    """How much of everything; what costs time is the number of pictures that the method makes."""

    rendered_pool: int = 512
    synthetic_triples: int = 512
    synthetic_seeds: int = 3
    photographic_triples: int = 400
    cases: int = 64
    response_triples: int = 24
    strengths: tuple[float, ...] = STRENGTHS
    diversity_triples: int = 24
    diversity_seeds: int = 6
    edits: int = 96


QUICK = Sizes(
    rendered_pool=128,
    synthetic_triples=96,
    synthetic_seeds=1,
    photographic_triples=96,
    cases=12,
    response_triples=6,
    strengths=(0.0, 0.5, 1.0),
    diversity_triples=8,
    diversity_seeds=3,
    edits=32,
)


@dataclass
class Bench:
    """One run: the method, what it is judged on, and the pictures it made so far.

    Args:
        photographs: held-out pictures that references are taken from.
        training: the pictures the model was trained on, for the memorisation audit; `None` leaves it out.
        features: pictures -> rows, as from `load_features`, for quality and diversity; `None` leaves them out.
        reconstruct: pictures through the method's autoencoder, or `None`.
    """

    method: Method
    rendered: RenderedPool
    photographs: Pool
    sizes: Sizes
    seed: int
    batch_size: int
    training: Pictures | None = None
    features: Callable[[Pictures], np.ndarray] | None = None
    reconstruct: Callable[[np.ndarray], np.ndarray] | None = None
    made: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by section, in the order of its triples

    def generate_and_keep(self, name: str) -> Callable[..., list[np.ndarray]]:
        """`generate`, which also keeps what it makes under `name`."""

        def generate(**asked: Any) -> list[np.ndarray]:
            pictures = self.method.generate(**asked)
            self.made.setdefault(name, []).extend(pictures)
            return pictures

        return generate

    @property
    def common(self) -> dict[str, int]:
        return {"seed": self.seed, "batch_size": self.batch_size}


def synthetic_triples(bench: Bench) -> list[dict[str, int]]:
    return random_triples(bench.sizes.synthetic_triples, len(bench.rendered.pictures), bench.seed)


def halves(bench: Bench) -> list[np.ndarray]:
    """Places of the photographs in two random halves: what outputs are compared with, and what references come from."""
    order = np.random.default_rng([9, bench.seed]).permutation(len(bench.photographs.pictures))
    return np.array_split(order, 2)


def photographic_triples(bench: Bench) -> list[dict[str, int]]:
    """References from one half only: with their own references among the real pictures, outputs would seem nearer."""
    sources = halves(bench)[1]
    triples = random_triples(bench.sizes.photographic_triples, len(sources), bench.seed)
    return [{name: int(sources[place]) for name, place in triple.items()} for triple in triples]


def retrieval_synthetic(bench: Bench) -> dict:
    return measure_control(
        bench.generate_and_keep("synthetic"),
        bench.rendered.pictures,
        synthetic_triples(bench),
        outputs_per_triple=bench.sizes.synthetic_seeds,
        oracle=bench.rendered.oracle,
        **bench.common,
    )


def retrieval_photographic(bench: Bench) -> dict:
    return measure_control(
        bench.generate_and_keep("photographic"),
        bench.photographs.pictures,
        photographic_triples(bench),
        **bench.common,
    )


def leakage_synthetic(bench: Bench) -> dict:
    cases = random_cases(bench.sizes.cases, len(bench.rendered.pictures), bench.seed)
    return leakage_matrix(
        bench.method.generate, bench.rendered.pictures, cases, oracle=bench.rendered.oracle, **bench.common
    )


def leakage_photographic(bench: Bench) -> dict:
    cases = random_cases(bench.sizes.cases, len(bench.photographs.pictures), bench.seed)
    return leakage_matrix(bench.method.generate, bench.photographs.pictures, cases, **bench.common)


def response(bench: Bench) -> dict:
    pictures = bench.photographs.pictures
    triples = random_triples(bench.sizes.response_triples, len(pictures), bench.seed)
    return slider_response(bench.method.generate, pictures, triples, strengths=bench.sizes.strengths, **bench.common)


def quality(bench: Bench) -> dict | None:
    """Outputs of crossed photographs against real ones of the same folder that are references of none."""
    if bench.features is None or "photographic" not in bench.made:
        return None
    real, sources = ([bench.photographs.pictures[place] for place in half] for half in halves(bench))
    rebuilt = None if bench.reconstruct is None else [bench.reconstruct(picture) for picture in sources]
    return image_quality(bench.made["photographic"], real, sources, rebuilt, bench.features, seed=bench.seed)


def editing_fidelity(bench: Bench) -> dict:
    pictures = bench.photographs.pictures
    order = np.random.default_rng([10, bench.seed]).permutation(len(pictures))[: bench.sizes.edits]
    images = [pictures[place] for place in order]
    masks = random_masks(len(images), images[0].shape[:2], bench.seed)
    return measure_fidelity(bench.method.edit, images, masks, **bench.common)


def editing_control(bench: Bench) -> dict:
    edits = random_edits(bench.sizes.edits, len(bench.photographs.pictures), bench.seed)
    return measure_hole_control(bench.method.edit, bench.photographs.pictures, edits, **bench.common)


def diversity_under_references(bench: Bench) -> dict | None:
    if bench.features is None:
        return None
    pictures, seeds = bench.photographs.pictures, bench.sizes.diversity_seeds
    groups = []
    for triple in random_triples(bench.sizes.diversity_triples, len(pictures), bench.seed):
        group = []
        for start in range(0, seeds, bench.batch_size):
            asked = range(bench.seed + start, bench.seed + min(start + bench.batch_size, seeds))
            references = {name: [pictures[triple[name]]] * len(asked) for name in GRANULARITIES}
            group += bench.method.generate(seeds=list(asked), **references)
        groups.append(group)
    settings = {"triples": len(groups), "seeds": seeds, "seed": bench.seed}
    return {"ratio": diversity(groups, pictures, bench.features, seed=bench.seed), "settings": settings}


def memorisation(bench: Bench) -> dict | None:
    if bench.training is None or "photographic" not in bench.made:
        return None
    return memorisation_audit(
        bench.made["photographic"],
        bench.training,
        bench.photographs.pictures,
        features=bench.features,
        seed=bench.seed,
    )


# In this order: the later ones judge pictures that the earlier ones made.
SECTIONS: Mapping[str, Callable[[Bench], dict | None]] = {
    "retrieval_synthetic": retrieval_synthetic,
    "retrieval_photographic": retrieval_photographic,
    "leakage_synthetic": leakage_synthetic,
    "leakage_photographic": leakage_photographic,
    "response": response,
    "quality": quality,
    "editing_fidelity": editing_fidelity,
    "editing_control": editing_control,
    "diversity": diversity_under_references,
    "memorisation": memorisation,
}

# What a section needs besides the method and pictures to borrow from: other sections, and fields of `Bench`.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "quality": ("features", "retrieval_photographic"),
    "diversity": ("features",),
    "memorisation": ("training", "retrieval_photographic"),
}

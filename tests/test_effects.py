"""What strengths and context do to pictures, with the model that is shipped (all figures: benchmarks/control_surface.py)."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from demo.references import reference
from mg_diffusion import MGInpaintPipeline
from mg_diffusion.evaluation.metrics import color_distance, describe, distances


STRENGTHS = np.linspace(0, 1, 9)
TRIPLES = (("coffee", "brick", "star"), ("cat", "grass", "leaf"), ("rocket", "gravel", "heart"))


def pixels(name: str) -> np.ndarray:
    return np.asarray(reference(name).resize((64, 64))).astype(np.float64) / 255


@pytest.mark.parametrize("place, name", enumerate(("color", "texture", "shape")))
def test_more_strength_is_more_likeness(shipped, place, name):
    found = np.zeros(len(STRENGTHS))
    for triple in TRIPLES:
        references = dict(zip(("color", "texture", "shape"), map(pixels, triple), strict=True))
        images = shipped(
            [""] * len(STRENGTHS),
            reference_image=references,
            granularity_scale={name: STRENGTHS.tolist()},
            generator=[torch.Generator().manual_seed(0) for _ in STRENGTHS],
            num_inference_steps=8,
            output_type="np",
        ).images
        own = describe(pixels(triple[place]))
        found += [distances(describe(image), own)[name] for image in images]
    assert spearmanr(STRENGTHS, found).statistic <= -0.9


def test_context_brings_an_edit_nearer_to_its_surroundings(shipped):
    inpaint = MGInpaintPipeline(**shipped.components)
    inpaint.set_progress_bar_config(disable=True)
    far = np.abs(np.indices((64, 64)) - 31.5).max(0)
    hole, ring = far < 12, (far >= 12) & (far < 20)
    images = [pixels(name).astype(np.float32) for name in ("coffee", "cat", "rocket", "astronaut")]

    def distance(scale: float) -> float:
        options = {"num_inference_steps": 8, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
        masks = [hole.astype(np.float32)] * len(images)
        made = inpaint(image=images, mask_image=masks, context_scale=scale, **options).images
        return float(np.mean([color_distance(patch(one, hole), patch(one, ring)) for one in made]))

    def patch(image: np.ndarray, where: np.ndarray) -> np.ndarray:
        chosen = image[where]
        return chosen[: len(chosen) // 16 * 16].reshape(16, -1, 3)

    assert distance(1.0) < 0.8 * distance(0.0)

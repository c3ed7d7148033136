"""A pipeline as the callables that `mg_diffusion.evaluation` asks for."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from tqdm.auto import tqdm


Pictures = Sequence[np.ndarray]
References = Mapping[str, Pictures]


class Method(Protocol):
    """Whatever makes pictures, as the bench asks for them.

    References are lists of pictures (H, W, 3) in [0, 1] by granularity; `scales` their strengths where they are not
    the method's own; masks are (H, W) of booleans, true is repainted; there is a seed, and a picture, for each sample.
    """

    settings: Mapping[str, Any]  # of every call, and
    scales: Mapping[str, float]  # the strengths where the bench sets none: both are reported
    progress: tqdm

    def generate(
        self, *, seeds: Sequence[int], scales: Mapping[str, float] | None = None, **references: Pictures
    ) -> list[np.ndarray]: ...

    def edit(
        self, images: Pictures, masks: Pictures, references: References, seeds: Sequence[int]
    ) -> list[np.ndarray]: ...


class PipelineMethod:
    """`generate` by a `MGPipeline` and `edit` by a `MGInpaintPipeline` of the same components.

    Args:
        generator, inpainter: the pipelines.
        settings: arguments of every call of either pipeline.
        scales: strength of each granularity where the benchmark does not set it.
    """

    def __init__(self, generator: Any, inpainter: Any, settings: Mapping[str, Any], scales: Mapping[str, float]):
        self.generator, self.inpainter = generator, inpainter
        self.settings, self.scales = dict(settings), dict(scales)
        self.progress = tqdm(desc="pictures", unit="", delay=1)  # an error that comes first has its line to itself
        for pipe in (generator, inpainter):
            pipe.set_progress_bar_config(disable=True)  # one bar for all batches is enough

    def generate(
        self, *, seeds: Sequence[int], scales: Mapping[str, float] | None = None, **references: Pictures
    ) -> list[np.ndarray]:
        return self._call(self.generator, references, seeds, scales)

    def edit(
        self, images: Pictures, masks: Pictures, references: References, seeds: Sequence[int]
    ) -> list[np.ndarray]:
        painted = [np.asarray(mask, np.float32) for mask in masks]
        return self._call(self.inpainter, references, seeds, None, image=list(images), mask_image=painted)

    def _call(
        self,
        pipe: Any,
        references: References,
        seeds: Sequence[int],
        scales: Mapping[str, float] | None,
        **pictures: Any,
    ) -> list[np.ndarray]:
        rows = {name: [[picture] for picture in row] for name, row in references.items()}
        made = pipe(
            reference_image=rows or None,
            granularity_scale={**self.scales, **(scales or {})},
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **pictures,
            **self.settings,
        ).images
        self.progress.update(len(made))
        return list(made)

"""Guidance as a guider of Modular Diffusers: classifier-free, and by each granularity on its own."""

from typing import Any

import torch
from diffusers import BaseGuidance
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import GuiderOutput

from .components import check_scale


class MultiGranularityGuidance(BaseGuidance):
    """Classifier-free guidance, and guidance by each granularity on its own.

    guided = uncond + s (cond - uncond) + sum over granularities of s_g (cond - cond without g): composed guidance (Liu
    et al., arXiv 2206.01714; InstructPix2Pix, Brooks et al., arXiv 2211.09800) over the references' granularities.

    Args:
        guidance_scale: how far to go beyond the prediction without prompt and references; 1 is off.
        granularity_guidance: by granularity, how far to go beyond the prediction without its reference; 0 is off. Each
            one that is on costs one more run of the UNet in each step.
        start, stop: fractions of the run between which there is any guidance.
        enabled: whether there is any guidance at all.

    Raises:
        ValueError: for scales that are no finite numbers from 0 to 100.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]  # and "pred_without_..." for each granularity

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 1.5,
        granularity_guidance: dict[str, float] | None = None,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(start, stop, enabled)
        if not isinstance(granularity_guidance, (dict, type(None))):
            raise ValueError(
                f'`granularity_guidance` is a dict such as {{"color": 1.0}}, got {type(granularity_guidance).__name__}.'
            )
        check_scale("guidance_scale", guidance_scale, off=1)
        for name, scale in (granularity_guidance or {}).items():
            check_scale(f"granularity_guidance[{name!r}]", scale)
        self.guidance_scale = guidance_scale
        self.is_told = False  # whether the UNet is distilled and told the scale, so that no row is needed for it
        self.contrasts = {name: scale for name, scale in (granularity_guidance or {}).items() if scale > 0}

    def _predictions(self) -> list[tuple[int, str]]:
        """Which predictions a step needs: place in the tuples of `prepare_inputs`, and argument of `forward`."""
        needed = [(0, "pred_cond")]
        if not self._is_on():
            return needed
        if self.guidance_scale > 1 and not self.is_told:
            needed.append((1, "pred_uncond"))
        return needed + [(place, f"pred_without_{name}") for place, name in enumerate(self.contrasts, start=2)]

    @property
    def told_scale(self) -> float:
        """What a distilled UNet is told in this step."""
        return self.guidance_scale if self._is_on() else 1.0

    def _is_on(self) -> bool:
        if not self._enabled or self._num_inference_steps is None:
            return self._enabled
        first, end = (int(share * self._num_inference_steps) for share in (self._start, self._stop))
        return first <= self._step < end

    def prepare_inputs(self, data: dict[str, Any]) -> list:
        """Inputs of each prediction.

        Args:
            data: tensors, which are the same for all predictions, and tuples (conditional, unconditional, then without
                each granularity of `contrasts`).
        """
        return [self._prepare_batch(data, place, name) for place, name in self._predictions()]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, str | tuple[str, ...]]) -> list:
        """As `prepare_inputs`, with names of what `data` holds."""
        return [
            self._prepare_batch_from_block_state(input_fields, data, place, name)
            for place, name in self._predictions()
        ]

    def forward(
        self, pred_cond: torch.Tensor, pred_uncond: torch.Tensor | None = None, **without: torch.Tensor
    ) -> GuiderOutput:
        """Predictions (B, C, h, w), those without a granularity as `pred_without_<granularity>`, to a guided one."""
        guided = pred_cond
        if pred_uncond is not None:
            guided = pred_uncond + self.guidance_scale * (pred_cond - pred_uncond)
        for name, pred in without.items():
            guided = guided + self.contrasts[name.removeprefix("pred_without_")] * (pred_cond - pred)
        return GuiderOutput(pred=guided, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        """Whether the prediction that models were last prepared for is any but the unconditional one."""
        return self._count_prepared > 0 and self._predictions()[self._count_prepared - 1][1] != "pred_uncond"

    @property
    def num_conditions(self) -> int:
        return len(self._predictions())

"""From features to what the UNet reads: strengths, guidance by a granularity, and the adapter's conditioning."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers

from .components import check_scale
from .references import has_region


@contextlib.contextmanager
def lora_scaled(model: torch.nn.Module, scale: float | None) -> Iterator[None]:
    """LoRA layers at the strength that `cross_attention_kwargs` asks for, where no call of diffusers sees to it."""
    if scale is None or scale == 1.0 or not USE_PEFT_BACKEND:
        yield
        return
    scale_lora_layers(model, scale)
    try:
        yield
    finally:
        unscale_lora_layers(model, scale)


class Conditioned:
    """What references are to the UNet in a call."""

    def check_contrasts(
        self,
        granularity_guidance: dict[str, float] | None,
        negative_reference_image: dict[str, Any] | None,
        given: Sequence[str],
        batch_size: int,
    ) -> dict[str, float]:
        """`granularity_guidance` by granularity; a negative reference without one has 1.

        Args:
            given: the granularities that have something to be guided by.

        Raises:
            ValueError: for guidance that is no number, or of a granularity that has neither reference nor negative one.
        """
        for name, entries in (
            ("granularity_guidance", granularity_guidance),
            ("negative_reference_image", negative_reference_image),
        ):
            if not isinstance(entries, (dict, type(None))):
                raise ValueError(f'`{name}` is a dict such as {{"color": ...}}, got {type(entries).__name__}.')
        negative = {name: one for name, one in (negative_reference_image or {}).items() if one is not None}
        scales = dict.fromkeys(negative, 1.0) | dict(granularity_guidance or {})
        if scales and self.mg_adapter is None:
            raise ValueError("Guidance by a granularity needs an adapter, which this pipeline was made without.")
        self.check_reference(negative or None, None, batch_size, "negative_reference_image")
        for name, reference in negative.items():
            if has_region(reference):
                raise ValueError(
                    f"`negative_reference_image[{name!r}]` has a region; what is avoided is avoided in the whole picture."
                )
        for name, scale in scales.items():
            if name not in self.mg_adapter.config.granularities:
                known = tuple(self.mg_adapter.config.granularities)
                raise ValueError(f"Unknown granularity {name!r} in `granularity_guidance`; known are {known}.")
            scales[name] = check_scale(f"granularity_guidance[{name!r}]", scale)
            if scales[name] > 0 and name not in given and name not in negative:
                raise ValueError(
                    f"`granularity_guidance[{name!r}]` needs a {name} reference, or a negative one, to tell what it "
                    f"should go beyond; given are {sorted(given)}."
                )
        return {name: scale for name, scale in scales.items() if scale > 0}

    def step_factors(
        self, granularity_schedule: dict[str, Any] | None, steps: int, given: Sequence[str]
    ) -> torch.Tensor | None:
        """`granularity_schedule` as factors (steps, G) of the strengths; `None` where they stay as they are.

        Args:
            given: the granularities that have a strength to be multiplied.

        Raises:
            ValueError: for a schedule that is none, of a granularity that is not given, or where there is no adapter.
        """
        if granularity_schedule is None:
            return None
        if self.mg_adapter is None:
            raise ValueError("`granularity_schedule` needs an adapter, which this pipeline was made without.")
        factors = self.mg_adapter.schedule(granularity_schedule, steps)
        for name in granularity_schedule:
            if name not in given:
                raise ValueError(
                    f"`granularity_schedule[{name!r}]` needs a {name} reference, whose strength it changes; given are "
                    f"{sorted(given)}."
                )
        return factors

    def prepare_conditioning(self, call: Any) -> Any:
        """What the UNet gets beside the text, for all steps at once; `None` where nothing has any strength."""
        with lora_scaled(self.bare_unet, (self.cross_attention_kwargs or {}).get("scale")):
            return self.mg_adapter.assemble_conditioning(
                self.bare_unet,
                call.features,
                call.strengths.repeat_interleave(call.given.num_images_per_prompt, dim=0),
                tuple(side // self.vae_scale_factor for side in call.size),
                call.given.fusion_scale,
                contrasts=[(name, call.negatives if name in call.negatives else None) for name in call.contrasts],
                factors=call.factors,
                is_unconditional=self.do_classifier_free_guidance,
                generator=call.given.generator,
                layout_size=call.layout_size,
                assignment=call.given.assignment,
                block_scales=self.mg_adapter.block_scales(call.given.granularity_scale),
            )

    def attach(self, conditioning: Any) -> contextlib.AbstractContextManager:
        """The adapter's attention processors for the length of a `with` block; nothing where nothing steers."""
        return contextlib.nullcontext() if conditioning is None else self.mg_adapter.attach(self.bare_unet)

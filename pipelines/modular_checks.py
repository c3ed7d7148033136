"""The first block of Modular Diffusers: it checks what a call is given, before anything is computed."""

import copy
from numbers import Integral
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import InputParam, ModularPipelineBlocks, OutputParam

from .components import (
    AUTO,
    FEW_STEPS,
    check_components,
    check_counts,
    check_numbers,
    check_scale,
    default_size,
    scale_factor,
)
from .composed_start import check_share, is_composed
from .modular_inputs import (
    MG_ADAPTER,
    MG_ENCODER,
    SCHEDULER,
    TEXT_ENCODER,
    UNET,
    VAE,
    fusion_input,
    generator_input,
    per_prompt_input,
    prompt_inputs,
    reference_input,
    scale_input,
    start_input,
    steps_input,
)
from .prompts import check_prompt
from .references import count_samples
from .schedulers import check_noising, set_steps


def check_given_numbers(given: Any) -> None:
    """As `check_numbers`, of what a block is given; without a number of steps they are as many as the UNet wants."""
    steps, found = given["num_inference_steps"], given.as_dict()
    checked = SimpleNamespace(**{**found, "num_inference_steps": AUTO if steps is None else steps})
    check_numbers(checked)
    for name in ("height", "width", "num_inference_steps"):  # whole numbers of Python by now
        if found.get(name) is not None:
            setattr(given, name, getattr(checked, name))


class MGInputStep(ModularPipelineBlocks):
    """Checks what a call is given, before anything is computed, and fills in the size."""

    description = "Checks the inputs; fills in height, width and batch size."
    expected_components = [UNET, VAE, SCHEDULER, TEXT_ENCODER, MG_ENCODER, MG_ADAPTER]
    intermediate_outputs = [OutputParam("batch_size", int), OutputParam("height", int), OutputParam("width", int)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            *prompt_inputs(),
            reference_input(),
            scale_input(),
            fusion_input(),
            start_input(),
            steps_input(),
            InputParam("height", int, description="in pixels; by default the UNet's native size"),
            InputParam("width", int, description="in pixels; by default the UNet's native size"),
            per_prompt_input(),
            generator_input(),
            InputParam("output_type", str, default="pil", description='"pil", "np", "pt" or "latent"'),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        self.check_components(components)
        check_given_numbers(given)
        scale = getattr(
            getattr(components, "guider", None), "guidance_scale", 1.0
        )  # those of diffusers take what they get
        check_scale("guider.guidance_scale", scale, off=1)
        self.check_references(components, given)
        trial, steps = copy.deepcopy(components.scheduler), given.num_inference_steps
        set_steps(trial, steps if isinstance(steps, Integral) else FEW_STEPS)
        given.batch_size = self.check_prompts(components, given)
        factor = scale_factor(components.vae)
        given.height, given.width = default_size(components.unet, factor, given.height, given.width)
        self.check_sizes(given, factor)
        if components.mg_adapter is not None:
            components.mg_adapter.strengths(given.granularity_scale, given.batch_size)  # checks them
            components.mg_adapter.block_scales(given.granularity_scale)
        if given.composed_start > 0:
            check_noising(components.scheduler, "`composed_start`", ", or set `composed_start=0`")
            reader = components.mg_encoder if components.mg_adapter is None else components.mg_adapter
            strengths = reader.strengths(given.granularity_scale, given.batch_size)
            is_composed(given.composed_start, strengths, reader.config.granularities, given.reference_image)
        self.set_block_state(state, given)
        return components, state

    def check_components(self, components: Any) -> None:
        """Raise a ValueError for components that are not there, or do not fit each other."""
        missing = [name for name in ("unet", "vae", "scheduler") if getattr(components, name) is None]
        if missing:
            raise ValueError(
                f"The components {missing} are not loaded. Call `load_components(trust_remote_code=True)` on a repository "
                f"with weights, or `update_components(**MGPipeline.from_pretrained(...).components)`."
            )
        check_components(components.unet, components.vae, components.mg_encoder, components.mg_adapter)

    def check_references(self, components: Any, given: Any) -> None:
        """Raise a ValueError for references of another type, or without the components they need."""
        references = given.reference_image
        if not isinstance(references, (dict, type(None))):
            raise ValueError(
                f'`reference_image` is a dict such as {{"color": ..., "shape": ...}}, got {type(references).__name__}.'
            )
        if check_share(given.composed_start) > 0 and not references:
            raise ValueError("`composed_start` needs references, and got none. Give them, or set it to 0.")
        needed = ("mg_encoder",) if given.composed_start > 0 else ("mg_adapter", "mg_encoder")
        missing = [name for name in needed if getattr(components, name) is None]
        if references and missing:
            raise ValueError(
                f"`reference_image` needs the components {missing}, which are not loaded. (Without an adapter, "
                f"`composed_start` still works.)"
            )

    def check_prompts(self, components: Any, given: Any) -> int:
        """The number of prompts, or, without any, of references given per sample.

        Raises:
            ValueError: for prompts that are no strings, have no text encoder, or do not match in number.
        """
        for name in ("prompt", "negative_prompt"):
            text = given[name]
            if text is not None and components.text_encoder is None:
                raise ValueError(f"`{name}` needs the component `text_encoder`, which is not loaded. Leave it out.")
            if text == []:
                raise ValueError(f"`{name}` must be a string or a list of strings, got an empty list. Leave it out.")
            if text is not None:
                check_prompt(text, name)
        counts = [count_samples(reference) for reference in (given.reference_image or {}).values()]
        batch_size = max(counts, default=1)
        if given.prompt is not None:
            batch_size = len(given.prompt) if isinstance(given.prompt, list) else 1
        if isinstance(given.negative_prompt, list) and len(given.negative_prompt) != batch_size:
            raise ValueError(
                f"`negative_prompt` is given for {len(given.negative_prompt)} samples, but this call has {batch_size}."
            )
        return batch_size

    def check_sizes(self, given: Any, factor: int) -> None:
        """Raise a ValueError for sizes, numbers of pictures and outputs that cannot be."""
        for name in ("height", "width"):
            if given[name] <= 0 or given[name] % factor:
                raise ValueError(f"`{name}` must be a positive multiple of {factor}, got {given[name]}.")
        check_counts(given, given.batch_size)

"""References as a call gets them: how many samples they are for, what they hold, and what cannot be."""

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..arrays import check_tensor
from ..default_device import on_cpu
from ..features import Features, check_features
from ..pictures import upright
from .components import check_numbers


def count_samples(reference: Any) -> int:
    """How many samples a reference is given for: a list of lists holds one list per sample, all else serves every one.

    A list of hex colors is one palette, not a list of references.
    """

    def is_list_of_references(entry: Any) -> bool:
        is_palette = isinstance(entry, (list, tuple)) and all(isinstance(x, str) and x.startswith("#") for x in entry)
        return isinstance(entry, (list, tuple)) and not is_palette

    is_nested = isinstance(reference, (list, tuple)) and any(is_list_of_references(entry) for entry in reference)
    return len(reference) if is_nested else 1


def shows_a_picture(reference: Any) -> bool:
    """Whether all that a reference holds are pictures, rather than palettes or granularity cards."""
    if isinstance(reference, (list, tuple)):
        return len(reference) > 0 and all(shows_a_picture(entry) for entry in reference)
    image = reference.get("image") if isinstance(reference, dict) else reference
    if isinstance(image, (str, os.PathLike)):
        return not os.fspath(image).startswith("#") and not os.fspath(image).lower().endswith(".safetensors")
    return not isinstance(image, (list, tuple))


def first_picture_size(reference: Any) -> tuple[int, int] | None:
    """(height, width) of the first picture that a reference holds, of any mode; `None` where it holds none that tells."""
    if isinstance(reference, (list, tuple)):
        return next((size for entry in reference if (size := first_picture_size(entry)) is not None), None)
    image = reference.get("image") if isinstance(reference, dict) else reference
    if has_region(reference) or image is None or not shows_a_picture(image):
        return None
    if isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        try:
            width, height = upright(image, "reference_image").size
        except ValueError:
            return None  # what is wrong with it is said where it is read
        return height, width
    if not isinstance(image, (np.ndarray, torch.Tensor)) or image.ndim not in (2, 3):
        return None
    return tuple(image.shape[:2] if isinstance(image, np.ndarray) else image.shape[-2:])


def has_region(reference: Any) -> bool:
    """Whether a reference, or one in a list of them, has a region."""
    if isinstance(reference, (list, tuple)):
        return any(has_region(entry) for entry in reference)
    return isinstance(reference, dict) and reference.get("region") is not None


def is_regional(reference: Any, embeds: Features | None) -> bool:
    """Whether what `given_references` gave for a granularity is for a region, as pictures or as features."""
    return any("region" in part for part in reference) if embeds else has_region(reference)


def given_references(reference_image: dict[str, Any] | None, reference_embeds: Features | None) -> dict[str, Any]:
    """What a call is given by granularity, as pictures or as features, without those that are `None`."""
    return {name: one for name, one in (reference_embeds or reference_image or {}).items() if one is not None}


class References:
    """Checks of references, and reading them."""

    def check_types(
        self,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
    ) -> None:
        """Raise a ValueError for arguments of another type; called before anything counts the samples they hold."""
        for name, embeds in (("prompt_embeds", prompt_embeds), ("negative_prompt_embeds", negative_prompt_embeds)):
            if embeds is not None:
                check_tensor(embeds, name, ("batch", "tokens", self.embeds_width), "encode_prompt")
        for name, given in (("reference_image", reference_image), ("reference_embeds", reference_embeds)):
            if not (given is None or isinstance(given, dict)):
                raise ValueError(
                    f'`{name}` is a dict such as {{"color": ..., "shape": ...}}, got {type(given).__name__}.'
                )
        for granularity, given in (reference_embeds or {}).items():
            check_features(granularity, given, f"reference_embeds[{granularity!r}]")

    def check_reference(
        self,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
        batch_size: int,
        name: str = "reference_image",
        feature_guided: Sequence[str] = (),
        is_composed: bool = False,
    ) -> None:
        """Raise a ValueError for references that are given twice, by an unknown name, or for another number of samples.

        Args:
            feature_guided: the granularities of feature guidance, which needs no adapter.
            is_composed: whether a composed start, which needs none either, reads them.
        """
        if reference_image is not None and reference_embeds is not None:
            raise ValueError("Pass `reference_image` or `reference_embeds`, not both.")
        name, given = (name, reference_image) if reference_embeds is None else ("reference_embeds", reference_embeds)
        if given is None:
            return
        missing = [part for part in ("mg_adapter", "mg_encoder") if getattr(self, part) is None]
        needed = {n for n, one in given.items() if one is not None} - set(feature_guided)
        if ("mg_adapter" in missing and not is_composed and (needed or not feature_guided)) or (
            "mg_encoder" in missing and reference_image is not None
        ):
            raise ValueError(
                f"`{name}` needs the components {missing}, which this pipeline was made without. (Without an adapter, "
                f"feature guidance and a composed start still work: `feature_guidance_scale`, `composed_start`.)"
            )
        reader = self.mg_encoder if self.mg_adapter is None else self.mg_adapter
        known = tuple(reader.config.granularities)
        sizes = reader.vector_sizes if self.mg_adapter is None else reader.config.vector_sizes
        for granularity, value in given.items():
            if granularity not in known:
                raise ValueError(f"Unknown granularity {granularity!r} in `{name}`; known are {known}.")
            vectors = [] if reference_embeds is None else [parts["vector"] for parts in value]
            for found in (vector.shape[1] for vector in vectors):
                if found != sizes[granularity]:
                    raise ValueError(
                        f"The {granularity} features have {found} numbers where the adapter expects "
                        f"{sizes[granularity]}. They were made by another encoder; make them anew with `encode_reference`."
                    )
            count = len(vectors[0]) if vectors else count_samples(value)
            if count not in (1, batch_size):
                raise ValueError(
                    f"`{name}[{granularity!r}]` is given for {count} samples, this call has {batch_size}."
                )

    def default_batch_size(
        self,
        prompt: str | list[str] | None,
        prompt_embeds: torch.Tensor | None,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
    ) -> int:
        """Samples of a call: the number of prompts or, without any, of references given per sample; 1 without both."""
        if isinstance(prompt, list) and not prompt:
            raise ValueError("`prompt` is an empty list, so there is nothing to make. Name one, or leave it out.")
        if prompt is not None:
            return len(prompt) if isinstance(prompt, list) else 1
        if prompt_embeds is not None:
            return prompt_embeds.shape[0]
        counts = [count_samples(reference) for reference in (reference_image or {}).values()]
        counts += [features[0]["vector"].shape[0] for features in (reference_embeds or {}).values()]
        return max(counts, default=1)

    @torch.no_grad()
    def encode_reference(
        self,
        reference_image: dict[str, Any],
        height: int | None = None,
        width: int | None = None,
        batch_size: int = 1,
        texture_scale: float = 1.0,
        is_composed: bool | None = None,
    ) -> Features:
        """Features of references, to be passed as `reference_embeds` to any number of calls of the same size.

        Args:
            reference_image: as in `__call__`.
            height, width: of the pictures to be made, in pixels; the shape is laid out over them.
            batch_size: number of prompts, which references given per sample must match.
            texture_scale: as in `__call__`.
            is_composed: whether they are for a `composed_start`; by default where there is no adapter.

        Returns:
            {granularity: [{name: tensor of batch 1 or `batch_size`}]}; with regions, such a dict for each.
        """
        call = SimpleNamespace(height=height, width=width, reference_image=reference_image)
        check_numbers(call)
        (height, width), output_size = self.sizes(call)
        latent_size = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        size = (height, width) if self.mg_adapter is None else self.mg_adapter.map_size(*latent_size)
        is_composed = self.mg_adapter is None if is_composed is None else is_composed
        layout_size = None if output_size == (height, width) else output_size
        layout_size = (output_size or (height, width)) if is_composed else layout_size
        with on_cpu():
            return self.mg_encoder.encode(reference_image, size, batch_size, layout_size, texture_scale)

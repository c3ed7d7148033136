"""Calls whose picture is settled by its sketch: octaves above the base read their colors from it, wherever they are slow."""

from types import SimpleNamespace

import torch

from .references import given_references, is_regional, shows_a_picture


SKETCHED_START = 0.75  # of the steps of a distilled base, of four of which one is left; docs/few-steps.md
# What acts through the base, step by step, or looks at its steps.
STEERING = (
    "granularity_schedule",
    "granularity_guidance",
    "negative_reference_image",
    "return_attribution",
    "control_image",
    "t2i_image",
    "ip_adapter_image",
    "ip_adapter_image_embeds",
    "timesteps",
    "sigmas",
)


def is_sketched_whole(given: SimpleNamespace, strengths: torch.Tensor) -> bool:
    """Whether the sketch of a call is whole: color and shape in full strength, all over each picture, and nothing else steers.

    Args:
        given: arguments of a call; strengths: of color and of shape, (B, 2).
    """
    found = given_references(given.reference_image, given.reference_embeds)
    if not {"color", "shape"} <= set(found) or not (strengths >= 1).all():
        return False
    if any(is_regional(one, given.reference_embeds) for one in found.values()):
        return False
    is_laid = bool(given.reference_embeds) or shows_a_picture(found["shape"])
    return is_laid and not any(_is_given(getattr(given, name)) for name in STEERING)


def _is_given(argument: object) -> bool:
    return not (argument is None or argument is False or (isinstance(argument, dict) and not argument))

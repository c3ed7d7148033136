"""Whether a result may be shown: a deployer's own check, and the safety checker of a base that brings one."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image


Check = Callable[[list[PIL.Image.Image], str], list[bool]]  # pictures, prompt -> which to hold back


def named_check(name: str | None) -> Check | None:
    """The check that MG_SAFETY_CHECK names as module:function.

    Raises:
        ValueError: if there is none of that name. A deployer who asked for a check must not go without one.
    """
    if not name:
        return None
    module, colon, function = name.partition(":")
    try:
        check = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"MG_SAFETY_CHECK must be module:function, got {name!r}: {error}.") from error
    if not colon or not callable(check):
        raise ValueError(f"MG_SAFETY_CHECK must be module:function, got {name!r}.")
    return check


def checker_of(place: str | os.PathLike) -> Check | None:
    """diffusers' safety checker, where a base (a folder or a Hub id) brings one along."""
    from diffusers import DiffusionPipeline  # late: the page opens without it

    listed = DiffusionPipeline.load_config(place).get("safety_checker")
    if not listed or listed[0] is None:
        return None
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    checker = StableDiffusionSafetyChecker.from_pretrained(place, subfolder="safety_checker").eval()
    processor = CLIPImageProcessor.from_pretrained(place, subfolder="feature_extractor")

    def check(images: list[PIL.Image.Image], prompt: str) -> list[bool]:
        pixels = processor(images, return_tensors="pt").pixel_values
        return checker(images=[np.array(image) for image in images], clip_input=pixels)[1]

    return check


def hold_back(checks: list[Check | None], images: list[PIL.Image.Image], prompt: str) -> None:
    """Refuse pictures that a check holds back.

    Raises:
        ValueError: if there is one.
    """
    held: list[Any] = [any(check(images, prompt)) for check in checks if check is not None]
    if any(held):
        raise ValueError("The safety check of this place held the result back. Try other words or references.")

"""Edits by their names, as the command line and the page call them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from . import native, painted
from .inputs import Picture, Pictures


NATIVE = ("recolor", "retexture", "remove", "outpaint")  # these paint nothing: no option of sampling means anything
OF_MASKS = (
    "strength",
    "padding_mask_crop",
    "mask_feather",
    "context_scale",
)  # options without meaning for a whole picture


def named_edit(
    name: str,
    pipe: Any,
    image: Picture,
    mask: Picture | None,
    references: dict[str, Any],
    added: Sequence[int],
    callback: Callable[[float], None] | None = None,
    **options: Any,
) -> Pictures:
    """The edit of this name, with what it takes of a mask, of references and of pixels added on each of `SIDES`.

    Args:
        callback: of those in `NATIVE`; the others take `callback_on_step_end`.
    """
    if name in NATIVE:
        edit = getattr(native, name)
        options = {key: value for key, value in options.items() if key in inspect.signature(edit).parameters}
        given = {
            "recolor": lambda: (references["color"], mask),
            "retexture": lambda: (references["texture"], mask),
            "remove": lambda: (mask,),
            "outpaint": lambda: added,
        }[name]()
        return edit(pipe, image, *given, **options, callback=callback)
    if name == "reshape":
        return painted.reshape(pipe, image, mask, **references, **options)
    return painted.variation(pipe, image, **{key: value for key, value in options.items() if key not in OF_MASKS})

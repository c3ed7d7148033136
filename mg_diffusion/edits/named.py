"""Edits by their names, as the command line and the page call them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..granularities import GRANULARITIES
from ..sides import SIDES
from . import filled, native, painted, restored
from .inputs import Picture, Pictures, is_one_color


# Those that paint nothing: options of sampling say nothing to them.
MODULES = {
    "recolor": native,
    "retexture": native,
    "remove": filled,
    "outpaint": filled,
    "denoise": restored,
    "enhance": restored,
    "enlarge": restored,
}
NATIVE = tuple(MODULES)
PAINTED = ("reshape", "variation")
OF_MASKS = ("strength", "padding_mask_crop", "mask_feather", "context_scale")  # say nothing of a whole picture


def is_drawn(name: str, assignment: str | None = None, color: Any = None) -> bool:
    """Whether pictures that this edit makes of several seeds differ: whether it draws anything at random.

    Args:
        assignment, color: what `recolor` is given, of which a single color leaves nothing to assign.
    """
    return name not in NATIVE or MODULES[name] is filled or (assignment == "free" and not is_one_color(color))


def check_name(name: str) -> None:
    """Raise a ValueError for a name that is none of an edit."""
    if name not in (*NATIVE, *PAINTED):
        raise ValueError(f"There is no edit {name!r}. There are {', '.join((*NATIVE, *PAINTED))}.")


def named_edit(
    name: str,
    pipe: Any,
    image: Picture,
    mask: Any,
    references: dict[str, Any],
    added: Sequence[int],
    callback: Callable[[float], None] | None = None,
    **options: Any,
) -> Pictures:
    """The edit of this name, with what it takes of a mask, of references and of pixels added on each of `SIDES`.

    Args:
        callback: of those in `NATIVE`; the others take `callback_on_step_end`.
    """
    check_name(name)
    if name in NATIVE:
        edit = getattr(MODULES[name], name)
        offered = {granularity: references.get(granularity) for granularity in GRANULARITIES}
        offered |= dict(zip(SIDES, added, strict=True)) | {"mask_image": mask, "callback": callback} | options
        return edit(
            pipe, image, **{key: value for key, value in offered.items() if key in inspect.signature(edit).parameters}
        )
    if name == "reshape":
        return painted.reshape(pipe, image, mask, **references, **options)
    return painted.variation(pipe, image, **{key: value for key, value in options.items() if key not in OF_MASKS})

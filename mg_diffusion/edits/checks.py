"""What is wrong with an edit, told before a pipeline is loaded: by the checks that the edits themselves make."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..sides import SIDES
from . import filled, native, painted, restored
from .hinted import read_strokes
from .inputs import Picture
from .named import check_name
from .sources import opened


CHECKS = {
    "recolor": native.check_recolor,
    "retexture": native.check_retexture,
    "remove": filled.hole_of,
    "outpaint": filled.check_added,
    "denoise": restored.check_denoise,
    "enhance": restored.check_enhance,
    "enlarge": restored.check_enlarge,
    "reshape": painted.reshaped_area,
}


def check_edit(
    name: str,
    image: Picture,
    mask: Any,
    references: Mapping[str, Any],
    added: Sequence[int] = (0, 0, 0, 0),
    **options: Any,
) -> None:
    """Raise the ValueError that `named_edit` would for what it is given, whatever the pipeline; torch is not imported.

    Arguments as of `named_edit`; options that say nothing to a check are left out.
    """
    check_name(name)
    source = opened(image, name, is_filled=False)
    offered = {**references, **dict(zip(SIDES, added, strict=True)), "mask": mask, "mask_image": mask, **options}
    if name in CHECKS:
        known = inspect.signature(CHECKS[name]).parameters
        CHECKS[name](source, **{key: value for key, value in offered.items() if key in known})
    if name not in ("outpaint", "enlarge", "variation"):
        source.area(mask)
    if options.get("hint") is not None:
        read_strokes(source, options["hint"])

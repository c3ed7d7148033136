"""What a recipe may say: it lies in a picture, which may be a stranger's. Checked before anything is done by it."""

import re
from collections.abc import Callable
from typing import Any

from ..granularities import GRANULARITIES
from ..recipe import told_path
from ..sides import SIDES
from .generation import PIPELINE_FLAGS


# Settings that recipes record. No others become flags: what may be overwritten, where to, and whose code runs, is said by
# whoever repeats a recipe, and never by the recipe.
SETTINGS = {
    *PIPELINE_FLAGS,
    *SIDES,
    "size",
    "seed",
    "many_steps",
    "select",
    "tolerance",
    "factor",
    "noise_level",
    "convert",
}
PLACED = ("model", "adapter", "encoder")


def check_recipe(found: dict[str, Any]) -> None:
    """Raise a ValueError for a recipe that holds what none of ours does where ours hold something else."""
    for key, value in found.items():
        is_one, wanted = FORMS.get(key, (_is_setting, "a number, a text, or a list of numbers"))
        if (key in FORMS or key in SETTINGS) and not is_one(value):
            raise ValueError(
                f"The recipe is damaged, or none of mg-diffusion: {key!r} must be {wanted}, got {value!r:.80}. "
                f"`mg-diffusion recipe PICTURE`, without -o, prints it, to type the command by hand."
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_number, value))


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str)) or _are_numbers(value)


def _is_told(value: Any) -> bool:
    """A path as `told_path` gives it on this system: what lies elsewhere than in folders that are named is nobody's business.

    What is a drive to Windows, `a:b.png`, is a name like any other elsewhere.
    """
    return isinstance(value, str) and value not in ("", ".", "..") and "\0" not in value and value == told_path(value)


def _is_file(value: Any) -> bool:
    is_described = isinstance(value, dict) and _is_told(value.get("file")) and isinstance(value.get("sha256"), str)
    return is_described and re.fullmatch(r"[0-9a-f]{64}", value["sha256"]) is not None


def _is_palette(value: Any) -> bool:
    # No comma: behind one, flags take the files of masks and regions.
    return isinstance(value, list) and all(isinstance(one, str) and re.fullmatch("#[^,]*", one) for one in value)


def _is_reference(value: Any) -> bool:
    if not isinstance(value, dict) or not (_is_palette(value["palette"]) if "palette" in value else _is_file(value)):
        return False
    allowed = {
        "mask": _is_file,
        "weight": _is_number,
        "scale": _is_number,
        "region": lambda one: _is_file(one) or _are_numbers(one),
    }
    return all(is_one(value[key]) for key, is_one in allowed.items() if key in value)


def _are_references(value: Any) -> bool:
    return isinstance(value, dict) and all(
        name in GRANULARITIES and isinstance(row, list) and all(map(_is_reference, row)) for name, row in value.items()
    )


def _by_granularity(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_one, value.values()))


def _is_versions(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


FILE = (_is_file, 'a file, {"file": its name, or its path below a folder, "sha256": its hash}')
REFERENCES = (_are_references, "lists of files and palettes, by color, texture and shape")
STRENGTHS = (_by_granularity(_is_number), "numbers by granularity")
FORMS = {
    "command": (_is_text, "a text"),
    **dict.fromkeys(("image", "mask", "hint"), FILE),
    **dict.fromkeys(("references", "negative_references"), REFERENCES),
    **dict.fromkeys(("granularity_scale", "granularity_guidance", "feature_guidance_scale"), STRENGTHS),
    "granularity_schedule": (
        _by_granularity(lambda one: _are_numbers(one) or _is_text(one)),
        "windows, START:END, or lists of factors, by granularity",
    ),
    "versions": (_is_versions, "texts by name"),
    **dict.fromkeys(PLACED, (_is_text, "a text")),
}

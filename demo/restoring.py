"""A result, dropped in, sets everything as it was: its recipe read back, as carefully as an upload."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

from demo import uploads
from demo.checked_references import DAMAGED, read_reference
from demo.edits import Edit, restore_edit
from demo.settings import ASPECT, ASSIGNMENTS, GUIDANCE, SIZE, Settings, choice, number, shown
from demo.shelf import Shelf
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import KEY, versions


MAX_PARTS = 10_000  # of a recipe; what is large in one is text
TABS = {"demo.compose": "compose", "compose": "compose", "demo.edit": "edit", "edit": "edit", "demo.mix": "cards"}


@dataclass
class Restored:
    """What to set: the tab, settings, references by granularity as in `demo.inference`, an edit, and what to tell."""

    tab: str
    settings: Settings
    given: dict[str, dict[str, Any]]
    model: str | None = None
    edit: Edit | None = None
    mixed: tuple[str, float, str, str] | None = None  # granularity, share of the second card, paths of both
    notes: list[str] = field(default_factory=list)


def read_recipe(content: bytes) -> tuple[dict[str, Any], PIL.Image.Image]:
    """The recipe that a PNG file holds, and its picture.

    Raises:
        ValueError: if it is no PNG file, is damaged, or holds no recipe.
    """
    image = uploads.decode(content, "The picture", 2 * uploads.MAX_EDIT_PIXELS)
    try:
        with PIL.Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            is_animated = opened.is_animated  # all frames would be decoded before the text is known
            text = "" if is_animated else opened.text[KEY]
        parts = sum(map(text.count, ",[{"))
        recipe = json.loads(text) if 0 < parts <= MAX_PARTS else None
    except Exception as error:  # no PNG, no such text, text that is too long, no JSON, JSON that is too deep
        raise ValueError(
            "This picture holds no recipe. Recipes are in the PNG files that are made here, until another program "
            "saves them without their metadata."
        ) from error
    if is_animated:
        raise ValueError(
            "The picture is animated; recipes are in still PNG files. Drop in the file that was made here."
        )
    if parts > MAX_PARTS:
        raise ValueError(
            f"The recipe has {parts:,} parts; at most {MAX_PARTS:,} are accepted. Drop in the file as it was made here."
        )
    if not isinstance(recipe, dict):
        raise ValueError(DAMAGED)
    return recipe, uploads.as_rgb(image, "The picture")


def restore(content: bytes, shelf: Shelf, models: list[str]) -> Restored:
    """Everything that the recipe of a result sets.

    Raises:
        ValueError: for a file without a recipe, or one that asks for what the page would refuse.
    """
    recipe, image = read_recipe(content)
    if recipe.get("command") in ("demo.sweep", "demo.explain"):
        raise ValueError("This is a sheet of several pictures. Drop in one of the pictures themselves.")
    scales = recipe.get("granularity_scale") or {}
    if not isinstance(scales, dict):
        raise ValueError(DAMAGED)
    settings = Settings(
        {name: scales.get(name, 1.0) for name in GRANULARITIES},
        recipe.get("prompt") or "",
        recipe.get("seed", 0),
        recipe.get("num_inference_steps", 20),
        guidance=recipe.get("guidance_scale", GUIDANCE),
        size=recipe.get("size", SIZE),
        aspect=recipe.get("aspect", ASPECT),
        coarseness=recipe.get("texture_scale", 1.0),
        assignment=recipe.get("assignment", ASSIGNMENTS[0]),
    )
    restored = Restored(TABS.get(str(recipe.get("command")), "generate"), settings, {})
    restored.given = {name: restore_slot(recipe, name, shelf, restored.notes) for name in GRANULARITIES}
    if "edit" in recipe:
        restored.edit = restore_edit(recipe["edit"], image)
        if restored.edit is None:
            restored.notes.append("The picture that was edited did not travel along; give it and the mask again.")
    if "mixed" in recipe:
        restored.mixed = restore_mix(recipe["mixed"], restored.given)
    if recipe.get("model") in models:
        restored.model = recipe["model"]
    else:
        restored.notes.append("It was made by another model, which is not here.")
    if recipe.get("versions") != versions():
        restored.notes.append("It was made by other versions; pixels may differ.")
    return restored


def restore_slot(recipe: dict[str, Any], name: str, shelf: Shelf, notes: list[str]) -> dict[str, Any]:
    """The references of one granularity, written where the page can take them up."""
    references = recipe.get("references") or {}
    row = references.get(name, []) if isinstance(references, dict) else None
    if not isinstance(row, list):
        raise ValueError(DAMAGED)
    slot: dict[str, Any] = {}
    for entry in row[:3]:
        reference = read_reference(entry, name)
        if reference is None:
            named = entry.get("file")
            notes.append(f"The {name} reference{f' ({shown(named, 60)})' if named else ''} must be given again.")
        elif reference.kind == "palette":
            slot["palette"] = ", ".join(reference.value)
        elif reference.kind == "picture":
            slot["picture"] = str(shelf.new(f"{name}.png"))
            reference.value.save(slot["picture"])
        else:
            kind, file = ("other_card", f"{name}-2") if "card" in slot else ("card", name)  # two are of a mix
            slot[kind] = str(shelf.new(f"{file}.safetensors"))
            Path(slot[kind]).write_bytes(reference.value)
    return slot


def restore_mix(recipe: Any, given: dict[str, dict[str, Any]]) -> tuple[str, float, str, str] | None:
    """Which granularity cards were mixed; they are taken out of `given`. `None` if they did not travel along."""
    if not isinstance(recipe, dict):
        raise ValueError(DAMAGED)
    name = choice(recipe.get("granularity"), "What was mixed", GRANULARITIES)
    share = number(recipe.get("share"), "The share of the second card", 0, 1)
    first, second = given[name].pop("card", None), given[name].pop("other_card", None)
    return (name, share, first, second) if first and second else None

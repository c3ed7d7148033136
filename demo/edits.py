"""Edits of a picture: which there are, what each needs, the mask, and how an edit travels in its result."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageChops
import PIL.ImageOps

from demo import layout, uploads
from demo.checked_references import DAMAGED, from_text, lossless, to_text
from demo.settings import MAX_ADDED, MAX_FEATHER, choice, whole
from mg_diffusion.edits import SIDES, named_edit


# What an edit does; whether it reads the mask: "needed", "optional" or "unused".
ACTIONS = {
    "repaint": ("the mask is painted anew from the references; what none gives is lent by the surroundings", "needed"),
    "recolor": ("other colors; every line, light and shade stay", "optional"),
    "retexture": ("another texture; colors, light and silhouettes stay", "optional"),
    "reshape": ("new content in the shape of the mask, or of the shape reference", "needed"),
    "remove": ("what is in the mask goes, its surroundings go on", "needed"),
    "variation": ("another picture of the same colors, texture and shape; of the whole picture", "unused"),
    "outpaint": ("a larger picture around the picture", "unused"),
    "denoise": ("noise goes, and of the blocks of JPEG about half", "optional"),
    "enhance": ("less noise, sharper; toned toward the color reference if there is one", "optional"),
    "enlarge": ("twice as large, with sharp edges; a texture reference lends its grain", "unused"),
}
MOST_ENLARGED = 3_000_000  # pixels of a picture to enlarge: four times as many come back
SCALED = ("variation", "enlarge")  # the result has another size, and shows all of the picture


def combine_masks(
    size: tuple[int, int], uploaded: bytes | None, strokes: list[bytes], invert: bool = False
) -> PIL.Image.Image | None:
    """An uploaded mask and what was painted, together; white is repainted. `None` if there is neither.

    Args:
        size: (width, height) of the picture; invert: whether black is repainted instead.
    """
    mask = PIL.Image.new("L", size) if uploaded is None else uploads.read_mask(uploaded, size)
    for layer in strokes:
        mask = PIL.ImageChops.lighter(mask, uploads.read_strokes(layer, size))
    if uploaded is None and mask.getbbox() is None:
        return None
    return PIL.ImageOps.invert(mask) if invert else mask


def show_mask(photo: PIL.Image.Image, mask: PIL.Image.Image | None, side: int = 400) -> tuple[PIL.Image.Image, str]:
    """The picture with what will be repainted hatched and outlined, and a sentence about it."""
    if mask is None:
        return PIL.ImageOps.contain(photo, (side, side)), "No mask yet: paint one, or upload one."
    hatched = layout.with_mask(PIL.ImageOps.contain(photo, (side, side)), mask)
    share = (np.asarray(mask) > 0).mean()
    return hatched, f"Hatched is repainted: {share:.0%} of the picture. All else stays bit for bit."


@dataclass(frozen=True)
class Edit:
    """An edit, checked.

    Args:
        photo: RGB; mask: of its size, 0 and 255, white is repainted.
        feather: width of the soft edge inside the mask, in pixels; added: pixels on each of `SIDES`, for outpaint.
        profile: the color profile of the photo's pixels.

    Raises:
        ValueError: for an unknown action, values out of range, or a mask that is missing or empty.
    """

    photo: PIL.Image.Image
    mask: PIL.Image.Image | None = None
    action: str = "repaint"
    feather: int = 0
    added: tuple[int, int, int, int] = (0, 0, 0, 0)
    profile: bytes | None = None

    def __post_init__(self):
        choice(self.action, "The edit", tuple(ACTIONS))
        object.__setattr__(self, "feather", whole(self.feather, "The soft edge", 0, MAX_FEATHER))
        sides = zip(SIDES, self.added, strict=True)
        added = tuple(whole(value, f"What is added {side}", 0, MAX_ADDED) for side, value in sides)
        object.__setattr__(self, "added", added)
        if ACTIONS[self.action][1] == "needed" and self.mask is None:
            raise ValueError(f"{self.action} needs a mask: paint one over the picture, or upload one.")
        if self.action == "enlarge" and self.photo.width * self.photo.height > MOST_ENLARGED:
            raise ValueError(
                f"The page enlarges pictures of up to {MOST_ENLARGED:,} pixels; crop it, or use the command."
            )
        if self.mask is not None and self.mask.getbbox() is None:
            raise ValueError("The mask is all black, so there is nothing to repaint. White is repainted.")

    def call_of(self, pipe: Any, given: set[str]) -> Callable[..., PIL.Image.Image]:
        """A function of references and options of the pipeline that gives the result.

        Raises:
            ValueError: if a reference is missing from `given`, the granularities that there are.
        """
        wanted = {"recolor": {"color"}, "retexture": {"texture"}}.get(self.action, set())
        if not wanted <= given:
            raise ValueError(f"{self.action} needs a {wanted.pop()} reference.")
        if self.action == "reshape" and not {"color", "texture"} & given:
            raise ValueError("reshape needs a color or a texture reference: what is the new content made of?")

        def call(reference_image: dict[str, Any] | None, **options: Any) -> PIL.Image.Image:
            if self.action == "repaint":
                options.pop("callback", None)
                made = pipe(image=self.photo, mask_image=self.mask, reference_image=reference_image, **options).images
            else:
                references = reference_image or {}
                made = named_edit(self.action, pipe, self.photo, self.mask, references, self.added, **options)
            return made[0]

        return call

    @property
    def repainted(self) -> PIL.Image.Image:
        """The mask that the edit in fact has; of outpaint, that of the picture: nothing in it is repainted."""
        if self.action == "outpaint":
            return PIL.Image.new("L", self.photo.size, 0)
        if self.mask is None or ACTIONS[self.action][1] == "unused":
            return PIL.Image.new("L", self.photo.size, 255)
        return self.mask

    @property
    def corner(self) -> tuple[int, int]:
        """Where in the result the picture lies."""
        return self.added[:2] if self.action == "outpaint" else (0, 0)

    def before(self, size: tuple[int, int]) -> PIL.Image.Image:
        """The picture at the result's size, (width, height); on a ground of it where the result shows more."""
        if self.action in SCALED:
            return self.photo.resize(size, PIL.Image.Resampling.BICUBIC)
        ground = PIL.Image.new("RGB", size, "#808080")
        ground.paste(self.photo, self.corner)
        return ground

    def count_outside(self, result: PIL.Image.Image) -> int:
        """Pixels outside the mask that differ from the picture."""
        if self.action in SCALED:
            return 0
        (left, top), (width, height) = self.corner, self.photo.size
        kept = np.asarray(result.crop((left, top, left + width, top + height)))
        differs = (kept != np.asarray(self.photo)).any(2)
        return int((differs & (np.asarray(self.repainted) == 0)).sum())

    def recipe(self, keep: bool) -> dict[str, Any]:
        """What the metadata of the result say; with `keep` all that is needed to make it again from the result."""
        said = {"action": self.action, "feather": self.feather, "added": list(self.added), "size": self.photo.size}
        if not keep:
            return said
        box = self.repainted.getbbox()
        covered = {"box": box, "pixels": to_text(lossless(self.photo.crop(box)))} if box else None
        mask = None if self.mask is None else to_text(mask_file(self.mask))
        return {**said, "covered": covered, "mask": mask}


def mask_file(mask: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    mask.convert("1").save(file, "PNG")
    return file.getvalue()


def restore_edit(recipe: Any, result: PIL.Image.Image) -> Edit | None:
    """The edit that made a result, from its metadata, checked like uploads; `None` if it did not travel along."""
    if not isinstance(recipe, dict):
        raise ValueError(DAMAGED)
    if "covered" not in recipe:
        return None
    try:
        added = tuple(whole(value, "What is added", 0, MAX_ADDED) for value in list_of(recipe["added"], 4))
        left, top = added[:2] if recipe["action"] == "outpaint" else (0, 0)
        is_scaled = recipe["action"] in SCALED  # all of the picture is then in what is covered
        limits = (uploads.MAX_EDIT_PIXELS,) * 2 if is_scaled else (result.width - left, result.height - top)
        sides = zip(list_of(recipe["size"], 2), limits, strict=True)
        size = tuple(whole(value, "A side", 1, most) for value, most in sides)
        if size[0] * size[1] > uploads.MAX_EDIT_PIXELS:
            raise ValueError(DAMAGED)
        if is_scaled and not recipe["covered"]:
            raise ValueError(DAMAGED)
        photo = PIL.Image.new("RGB", size) if is_scaled else result.crop((left, top, left + size[0], top + size[1]))
        if recipe["covered"]:
            corner = list_of(recipe["covered"]["box"], 4)[:2]
            corner = tuple(whole(value, "A corner", 0, side) for value, side in zip(corner, photo.size, strict=True))
            piece = uploads.decode(from_text(recipe["covered"]["pixels"]), "The recipe", uploads.MAX_EDIT_PIXELS)
            if piece.width > photo.width or piece.height > photo.height:
                raise ValueError(DAMAGED)
            photo.paste(piece.convert("RGB"), corner)
        mask = None if recipe["mask"] is None else uploads.read_mask(from_text(recipe["mask"]), photo.size)
        return Edit(photo, mask, recipe["action"], recipe["feather"], added)
    except (KeyError, TypeError, AttributeError, MemoryError) as error:
        raise ValueError(DAMAGED) from error


def list_of(value: Any, length: int) -> list[Any]:
    """A list of a recipe, of the length that it must have."""
    if not isinstance(value, (list, tuple)) or len(value) != length:
        raise ValueError(DAMAGED)
    return value

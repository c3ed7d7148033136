"""References of the flags: what the pipeline gets, the files it is read from, and what the recipe says."""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from .. import edits
from ..depths import check_depth
from ..granularities import GRANULARITIES
from ..hex_colors import read_palette
from ..pictures import UnreadablePicture, converted, read_upright
from ..recipe import describe_file, describe_reference
from ..reference_pictures import check_reference, is_card, read_scale
from ..unread_form import UnreadForm
from .values import number


OPTION = re.compile(r",(?P<key>mask|weight|region|scale)=(?P<value>[^,]*)$")


@dataclass
class ReferenceArgument:
    """One reference of the flags."""

    value: Any  # as a pipeline takes it
    files: list[str]
    recipe: dict[str, Any]


@dataclass
class ReferenceArguments:
    """All references of the flags, by granularity; several of one granularity are averaged."""

    references: dict[str, list[ReferenceArgument]]
    negative: dict[str, list[ReferenceArgument]]
    texture_scale: float = 1.0

    @property
    def files(self) -> list[str]:
        rows = [*self.references.values(), *self.negative.values()]
        return [file for row in rows for entry in row for file in entry.files]

    def check(self) -> None:
        """Raise a ValueError for what no reference can be; torch is not imported."""
        read_scale("texture", {}, self.texture_scale)
        for name, row in [*self.references.items(), *self.negative.items()]:
            for entry in row:
                check_reference(name, entry.value, self.texture_scale)

    @property
    def recipe(self) -> dict[str, Any]:
        kinds = {"references": self.references} | ({"negative_references": self.negative} if self.negative else {})
        return {
            kind: {name: [entry.recipe for entry in row] for name, row in rows.items()} for kind, rows in kinds.items()
        }


def values_of(rows: dict[str, list[ReferenceArgument]]) -> dict[str, list[Any]] | None:
    """References as the pipeline takes them."""
    return {name: [entry.value for entry in row] for name, row in rows.items()} or None


def parse_references(options: argparse.Namespace) -> ReferenceArguments:
    """The references of the flags, read as far as they are palettes.

    Raises:
        ValueError: for a reference that is none, and for the strength of one that is not given.
    """
    given = {name: getattr(options, name) for name in GRANULARITIES if getattr(options, name)}
    negative = {name: getattr(options, f"negative_{name}") for name in GRANULARITIES}
    # In an edit, the picture itself gives what no reference does.
    has_context = "images" in options and getattr(options, "context_scale", None) != 0
    for flag, entries in (("scale", options.scale), ("schedule", options.schedule)):
        for name, _ in entries:
            if name not in given and not has_context:
                raise ValueError(
                    f"--{flag} {name}=... is about the strength of a {name} reference, and none is given. Add "
                    f"--{name}, or leave this --{flag} out."
                )
    references, avoided = (
        {
            name: [parse_reference(name, text, options.convert) for text in texts]
            for name, texts in entries.items()
            if texts
        }
        for entries in (given, negative)
    )
    texture_scale = getattr(options, "texture_scale", None)
    return ReferenceArguments(references, avoided, 1.0 if texture_scale is None else texture_scale)


def parse_reference(name: str, text: str, converts: bool = False) -> ReferenceArgument:
    """What follows --color, --texture or --shape: a file, or, for color, hex colors between commas.

    Behind it ",mask=FILE", ",weight=X", ",scale=X" (of textures) and ",region=FILE" or ",region=LEFT:TOP:RIGHT:BOTTOM" may stand.

    Args:
        converts: whether a picture of an unusual form is converted.
    """
    text, written = split_reference(text)
    if text.startswith("#"):
        if name != "color":
            raise ValueError(f"Hex colors describe a palette: they serve as --color, not as --{name}. Got {text!r}.")
        image = [entry.strip() for entry in text.split(",")]
        read_palette(image)
    elif Path(text).is_file():
        image = text
    elif mistyped := re.search(r",(\w+)=", text):
        raise ValueError(
            f"Behind a reference may stand mask, weight, region and scale, got {mistyped[1]!r} in {text!r}."
        )
    else:
        hint = ' A palette begins with "#", in quotes: --color "#ff8800:3,#224466".' if name == "color" else ""
        raise ValueError(f"There is no reference picture at {text!r} (--{name}).{hint}")
    read = {"mask": lambda path: read_mask(path, "read"), "weight": number, "scale": number, "region": _region_of}
    try:
        fields = {key: read[key](value) for key, value in written.items()}
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"A reference's weight, scale and box are numbers, got {written}: {error}.") from error
    kept = {
        key: describe_file(value) if key == "mask" or isinstance(fields[key], str) else fields[key]
        for key, value in written.items()
    }
    files = [entry for entry in (image, written.get("mask"), fields.get("region")) if isinstance(entry, str)]
    shown = in_usual_form(image) if converts and isinstance(image, str) and not is_card(image) else image
    value = {"image": shown, **fields} if fields else shown
    return ReferenceArgument(value, files, {**describe_reference(image), **kept})


def in_usual_form(file: str) -> PIL.Image.Image | str:
    """A picture in 8 bits, as RGB or gray; the file itself where it is in such a form."""
    picture, is_converted = read_usual(file)
    return picture if is_converted else file


def read_usual(file: str) -> tuple[PIL.Image.Image, bool]:
    """The decoded picture of a file in 8 bits, as RGB or gray, and whether it had to be brought there, which is told."""
    try:
        is_deep, picture = False, read_picture(file, check_depth)
    except UnreadForm as error:
        if error.obstacle is not None:
            raise
        is_deep, picture = True, read_picture(file)
    usual = converted(picture)
    is_converted = is_deep or usual is not picture
    if is_converted:
        print(f"{file} is read in 8 bits as {usual.mode}, as --convert says", file=sys.stderr)
    return usual, is_converted


def split_reference(text: str) -> tuple[str, dict[str, str]]:
    """A picture, a palette or a folder of the flags, and what stands behind it."""
    if not text.strip():
        raise ValueError(
            "A reference is empty: a variable of the shell without a value? Name a file, colors, or leave it out."
        )
    written = {}
    # A file may have a name that looks like it.
    while (found := OPTION.search(text)) and (text.startswith("#") or not Path(text).is_file()):
        if found["key"] in written:
            raise ValueError(
                f"Behind a reference {found['key']} stands once, it is given twice. Leave one of them out."
            )
        written[found["key"]] = found["value"]
        text = text[: found.start()]
    return text, written


def _region_of(text: str) -> str | tuple[float, ...]:
    """What follows region=: a mask to lay over the output, or a box, LEFT:TOP:RIGHT:BOTTOM in fractions."""
    if text.count(":") == 3 and not Path(text).exists():
        return tuple(number(value) for value in text.split(":"))
    if not Path(text).is_file():
        raise ValueError(f"There is no mask at {text!r}. A region is a picture or LEFT:TOP:RIGHT:BOTTOM in fractions.")
    return text


def read_picture(path: str, check: Callable[[PIL.Image.Image], Any] | None = None) -> PIL.Image.Image:
    """The decoded picture of a file, upright; `check` as of `read_upright`."""
    try:
        return read_upright(path, check)
    except UnreadForm as error:
        raise error.about(repr(path)) from error
    except UnreadablePicture as error:
        is_missing = error.reason == "missing"
        raise ValueError(
            f"There is no picture at {path!r}." if is_missing else f"{path!r} cannot be read as a picture: {error}."
        ) from error


def read_mask(path: str, use: str = "edited") -> PIL.Image.Image:
    """A mask of black and white: drawn with soft edges or saved as JPEG, it is split at middle gray, which is told."""
    levels = edits.read_mask(read_picture(path), use=use)
    if ((levels > 0) & (levels < 255)).any():
        print(f"{path} is not only black and white: what is lighter than middle gray is {use}", file=sys.stderr)
    white = levels > 127
    if not white.any():
        raise ValueError(f"Nothing in the mask {path!r} is lighter than middle gray. White is {use}.")
    return PIL.Image.fromarray(255 * white.astype(np.uint8))

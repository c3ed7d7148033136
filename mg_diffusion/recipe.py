"""The recipe of a picture, stored in its file itself; and output files that are whole or not there at all."""

import contextlib
import hashlib
import io
import json
import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.PngImagePlugin

from . import __version__


KEY = "mg_diffusion"  # of the text chunk of a PNG file
DESCRIPTION = 0x010E  # EXIF's ImageDescription, in which files of other formats hold it
LONG_NAME = 200  # bytes; most systems have names of up to 255

Place = str | os.PathLike


def versions() -> dict[str, str]:
    """Versions of what decides the pixels."""
    import diffusers  # late, as torch: whoever asks has made pictures, and a check of arguments need not wait for them
    import torch

    return {"mg_diffusion": __version__, "diffusers": diffusers.__version__, "torch": torch.__version__}


def told_path(path: Place) -> str:
    """A path below the current folder as it was given; of any other the name alone, as the rest is about the machine."""
    place = Path(path)
    return place.name if place.drive or place.root or ".." in place.parts else place.as_posix()


def describe_file(path: Place) -> dict[str, str]:
    """Path or name (`told_path`) and SHA-256 of a file: enough to find and recognize it."""
    return {"file": told_path(path), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def describe_reference(reference: str | list[str]) -> dict[str, Any]:
    """A reference as the recipe records it: a palette in full, a file by name and SHA-256."""
    return {"palette": reference} if isinstance(reference, list) else describe_file(reference)


def save_png(image: PIL.Image.Image, path: Place, recipe: dict[str, Any], icc_profile: bytes | None = None) -> None:
    """Write a PNG file that holds its recipe; `path` is replaced in one step.

    Args:
        recipe: anything JSON can hold; `versions` are added.
        icc_profile: color profile of the pixels, for edits of a photograph that has one.
    """
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text(KEY, json.dumps({**recipe, "versions": versions()}, sort_keys=True))
    save_encoded(image, path, format="PNG", pnginfo=text, icc_profile=icc_profile)


def save_encoded(image: PIL.Image.Image, path: Place, **options: Any) -> None:
    """Write a picture as `PIL.Image.Image.save` does with these options; `path` is replaced in one step.

    Pillow's own writer of files takes no notice of a disk that is full, and leaves half a JPEG; Python's does.
    """
    encoded = io.BytesIO()
    image.save(encoded, **options)
    with replacing(path) as part:
        part.write_bytes(encoded.getbuffer())


def save_json(result: Mapping[str, Any], path: Place) -> None:
    """Write figures with sorted keys, so that two runs can be compared line by line; `path` is replaced in one step."""
    with replacing(path) as part:
        part.write_text(json.dumps(result, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_recipe(path: Place) -> dict[str, Any]:
    """The recipe a file holds.

    Raises:
        ValueError: if the file holds no recipe.
        OSError: if it cannot be read.
    """
    with PIL.Image.open(path) as image:
        is_png = image.format == "PNG"
        text = image.text.get(KEY) if is_png else image.getexif().get(DESCRIPTION)
    try:
        found = json.loads(text) if is_png else json.loads(text)[KEY]
        if not isinstance(found, dict):
            raise TypeError(f"a recipe is an object, got {type(found).__name__}")
        return found
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} holds no recipe. Recipes are in the files that mg-diffusion writes, until "
            f"another program saves them without their metadata."
        ) from error


def part_name(target: Path) -> str:
    """What temporary names of a file begin with: its own, unless what stands around that would make it too long."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= LONG_NAME else hashlib.sha256(name).hexdigest()


@contextlib.contextmanager
def replacing(path: Place) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` if the block succeeds and vanishes otherwise."""
    # Not `tempfile`: its files are readable by their owner only, and would stay so under their final name.
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{part_name(target)}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def check_free(path: Place, may_replace: bool = False) -> None:
    """Raise a ValueError for a file that is there already, unless it may be replaced, as `--force` says."""
    if not may_replace and os.path.lexists(path):
        raise ValueError(
            f"There is a file at {os.fspath(path)!r} already. Choose another name, or overwrite it by --force (in Python `force=True`)."
        )


def prepare_output(
    path: Place, suffix: str | Collection[str], inputs: Iterable[Place] = (), may_replace: bool = True
) -> Path:
    """Make sure, before any work is done, that its result can be written to `path`; makes missing folders.

    Args:
        suffix: the ending the file must have, such as ".png", or several.
        inputs: files that are read; none of them may be overwritten.
        may_replace: whether a file that is there already may be, as `--force` says.

    Raises:
        ValueError: for another ending, a folder in the place of the file, an input, a file that is there already, or a
            folder without permission.
    """
    path, suffixes = Path(path), [suffix] if isinstance(suffix, str) else list(suffix)
    named = suffixes[0] if len(suffixes) == 1 else f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"The output must be a {named} file, got {str(path)!r}: only that keeps what is written.")
    if path.is_dir():
        raise ValueError(f"The output {str(path)!r} is a folder. Name a {named} file in it.")
    for read in inputs:
        if path.exists() and Path(read).exists() and path.samefile(read):
            raise ValueError(f"The output {str(path)!r} is an input of the same run. Choose another name.")
    check_free(path, may_replace)
    folder = Path(os.path.realpath(path)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex}.part"  # permissions alone do not tell: try it
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"Nothing can be written to the folder of {str(path)!r}: {error}.") from error
    return path

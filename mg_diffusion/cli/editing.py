"""The commands that edit: `edit`, and the edits that have a name, of one picture or of many."""

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from tqdm import tqdm

from .. import edits
from ..color_profiles import in_srgb
from ..depths import check_depth
from ..edits.sources import opened
from ..picture_files import check_format, is_lossy
from ..pictures import editable_rgb, has_alpha
from ..recipe import describe_file
from ..unread_form import UnreadForm
from .doubts import tell_of_doubts
from .folders import Job, output_paths, plan_of, work_through
from .generation import PIPELINE_FLAGS, asked_recipe, call, load, native_settings, run
from .references import (
    ReferenceArguments,
    in_usual_form,
    parse_references,
    read_mask,
    read_picture,
    read_usual,
    values_of,
)
from .resumed import is_other
from .sheets import check_sheet, complete_sheet
from .sizes import check_generated_size, painted_size, split_size
from .steps import check_steps
from .values import check_seeds


UNKEPT = {"CMYK": "CMYK", "P": "of a palette", "PA": "of a palette"}  # modes in which no edit comes back


def edit(options: argparse.Namespace) -> int:
    """`mg-diffusion edit`, and the edits that have a name; the status is 1 if some of many pictures failed."""
    if getattr(options, "size", None) is not None:
        split_size(options)
        check_generated_size(options)
    if hasattr(options, "num_inference_steps"):  # of edits that paint
        check_steps(options)
    check_sheet(options)
    check_seeds(options.seed, options.num_images)
    arguments = parse_references(options)
    check_differ(options, arguments)
    hint = getattr(options, "hint", None)
    if options.command == "recolor" and (hint is None) == (not options.color):
        raise ValueError("`recolor` needs either --color or --hint, a picture with strokes of color.")
    if hint is not None and not Path(hint).is_file():
        raise ValueError(f"There is no picture at {hint!r}.")
    read = [*(file for file in (options.mask, hint) if file), *arguments.files]
    if options.output_dir is None:
        (image, *others) = options.images
        if others or Path(image).is_dir():
            raise ValueError("Several pictures, and folders, go to a folder: --output-dir DIR in place of -o.")
        with _notes_shown():
            edit_one(options, arguments, lambda: _load(options), image, output_paths(options, [image, *read]))
        return 0
    jobs = plan_of(options, options.images, read)
    if options.mask:
        read_mask(options.mask)  # which is that of all

    @functools.cache
    def pipe() -> Any:
        loaded = _load(options)
        loaded.set_progress_bar_config(disable=True)  # the pictures are counted
        return loaded

    def make(job: Job) -> None:
        edit_one(options, arguments, pipe, str(job.source), job.targets)

    defaulted = () if options.command in edits.NATIVE else PIPELINE_FLAGS

    def is_another(job: Job) -> bool:
        if not job.source.is_file():
            return False
        asked = asked_recipe(options, arguments, recipe_of(options, str(job.source)))
        return is_other(job.targets[0], asked, defaulted)

    return work_through(jobs, make, options.force, lambda job: complete_sheet(options, job.targets), is_another)


class _AboveBars(logging.Handler):
    """Notes beside a progress bar, which stays whole."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def _notes_shown() -> Iterator[None]:
    """What edits note of a picture, such as how noisy they take it to be; of a folder it would be a flood."""
    logger, handler = logging.getLogger(edits.__name__), _AboveBars()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _load(options: argparse.Namespace) -> Any:
    """The pipeline of the flags, once nothing is wrong with them."""
    tell_of_doubts(options)
    return load("MGInpaintPipeline", options)


def check_differ(options: argparse.Namespace, arguments: ReferenceArguments) -> None:
    """Raise a ValueError where several pictures are asked for that would be the same."""
    color = (values_of(arguments.references) or {}).get("color")
    if options.num_images == 1 or edits.is_drawn(options.command, getattr(options, "assignment", None), color):
        return
    where, other = "", ""
    if options.command == "recolor" and not options.hint:
        is_one = edits.is_one_color(color)
        where = " with a single color" if is_one else " here"
        other = f", or give {'two colors or more, and ' if is_one else ''}--assignment free"
    raise ValueError(
        f"`{options.command}` draws nothing at random{where}, so {options.num_images} pictures would be the same. Leave "
        f"--num-images out{other}."
    )


def edit_one(
    options: argparse.Namespace,
    arguments: ReferenceArguments,
    load_pipe: Callable[[], Any],
    path: str,
    paths: Sequence[Path],
) -> None:
    """Edit a picture, save the results, and tell what differs outside the mask.

    Args:
        load_pipe: called when all that can be checked without a pipeline is.
    """
    image = read_usual(path)[0] if options.convert else read_picture(path, check_depth)
    if image.mode in UNKEPT and (converted := in_srgb(image)) is not image:
        print(f"{path} is {UNKEPT[image.mode]}: it is edited in sRGB, by its color profile", file=sys.stderr)
        image = converted  # with which what was made is compared, too
    mask = read_mask(options.mask) if options.mask else None
    hint = getattr(options, "hint", None)
    own = {} if hint is None else {"hint": in_usual_form(hint) if options.convert else hint}
    references, added = values_of(arguments.references), [getattr(options, side, 0) for side in edits.SIDES]
    check_before(options, arguments, path, image, mask, added, **own)
    for target in paths:
        check_format(target, _mode_of_result(options.command, image))
    recipe = recipe_of(options, path)
    pipe = load_pipe()
    if getattr(options, "size", None) is not None:
        options = painted_size(pipe, options, None, image.width / image.height)
    if options.command == "edit":
        pictures = {"image": image, "mask_image": mask, "reference_image": references}
        make = functools.partial(
            _in_own_colors, image, mask, functools.partial(call, pipe, options, paths, **pictures)
        )
    else:
        make = functools.partial(edits.named_edit, options.command, pipe, image, mask, references or {}, added, **own)
    made = run(pipe, options, arguments, recipe, paths, make)
    if mask is not None:
        _tell_what_differs(path, image, mask, made, paths)


def recipe_of(options: argparse.Namespace, path: str) -> dict[str, Any]:
    """What the recipe of an edit says beside references and settings."""
    return {
        "command": options.command,
        "image": describe_file(path),
        **{name: describe_file(getattr(options, name)) for name in ("mask", "hint") if getattr(options, name, None)},
        **{
            name: _size_as_flag(getattr(options, name))
            for name in (*edits.SIDES, "size")
            if getattr(options, name, None)
        },
    }


def check_before(
    options: argparse.Namespace,
    arguments: ReferenceArguments,
    path: str,
    image: PIL.Image.Image,
    mask: Any,
    added: Sequence[int],
    **own: Any,
) -> None:
    """Raise a ValueError for what an edit refuses whatever the pipeline is, before one is loaded and torch imported.

    Args:
        own: what the edit takes beside references that are no settings.
    """
    arguments.check()
    try:
        if options.command != "edit":
            settings = native_settings(options) if options.command in edits.NATIVE else {}
            scales = {"granularity_scale": dict(options.scale)} if options.scale else {}
            references = values_of(arguments.references) or {}
            return edits.check_edit(options.command, image, mask, references, added, **settings, **scales, **own)
        editable_rgb(image)
        edits.read_mask(mask, image.size)
    except UnreadForm as error:
        raise error.about(repr(path)) from error


def _mode_of_result(command: str, image: PIL.Image.Image) -> str:
    """The mode that what an edit makes of a picture has; or of one of that kind: what formats differ in."""
    if command in ("edit", "variation"):
        return "RGB"
    return "RGBA" if has_alpha(image) else "I;16" if image.mode.startswith("I;16") else "RGB"


def _size_as_flag(value: int | tuple[int, int]) -> int | str:
    """A size as its flag has it, WIDTHxHEIGHT: in JSON it would be a list, as curves are."""
    return "{}x{}".format(*value) if isinstance(value, tuple) else value


def _in_own_colors(
    image: PIL.Image.Image, mask: PIL.Image.Image, make: Callable[..., list[PIL.Image.Image]], **given: Any
) -> list[PIL.Image.Image]:
    """What a pipeline makes of a picture, in the color profile of the picture if it has one.

    Args:
        make: gives pictures in sRGB; given: what it is called with.
    """
    made = make(**given)
    if image.info.get("icc_profile") is None or image.mode not in ("RGB", "RGBA"):
        return made
    source, area = opened(image.convert("RGB"), "edit"), np.asarray(mask)
    return [source.finish(np.asarray(one), area) for one in made]


def _tell_what_differs(
    path: str, image: PIL.Image.Image, mask: PIL.Image.Image, made: Sequence[PIL.Image.Image], paths: Sequence[Path]
) -> None:
    outside, count = np.asarray(mask) == 0, 0
    for one in made:
        before, after = (
            np.asarray(picture.convert(one.mode) if picture.mode != one.mode else picture) for picture in (image, one)
        )
        differs = before != after
        count += int(((differs if differs.ndim == 2 else differs.any(2)) & outside).sum())
    said = f"pixels outside the mask that differ: {count}"
    if any(map(is_lossy, paths)):
        said += " before it was saved: JPEG changes every pixel, .png none"
    tqdm.write(said)

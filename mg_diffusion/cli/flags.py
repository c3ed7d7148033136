"""Flags of the commands, but for those of MG-Bench and of data, which lie beside what they ask for."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ..granularities import GRANULARITIES
from ..mg_bench.flags import whole
from ..sides import SIDES
from .values import OneForEach, composed_share, number, scale, schedule_of_one, seed, size, strength_of_one, window


MOST_IMAGES = 10_000  # of one call, which holds all of them at once
TYPES = ("float16", "bfloat16", "float32")
FOLDER = " of a folder that one reference names in place of a picture"


def add_one_for_each(
    group: Any, flag: str, help: str, type: Callable[[str], Any] = strength_of_one, metavar: str = "NAME=X"
) -> None:
    """A flag that may be repeated, once for each granularity."""
    group.add_argument(flag, type=type, action=OneForEach, default=[], metavar=metavar, help=help)


def add_loading_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="FOLDER_OR_HUB_ID", help="default: the model that comes with the package")
    group.add_argument("--trust-remote-code", action="store_true", help="let code that --model brings along run")
    group.add_argument(
        "--many-steps",
        action="store_true",
        help="sample by the UNet that a distilled one has learned from, in 20 steps",
    )
    place = "FOLDER_OR_HUB_ID"
    purpose = "whose mg_adapter and mg_encoder steer --model, such as a Stable Diffusion; default: those of the model, if any"
    group.add_argument("--adapter", metavar=place, help=purpose)
    group.add_argument("--encoder", metavar=place, help="whose mg_encoder reads references")
    group.add_argument("--device", default="auto", help="auto (CUDA where there is some), cpu, cuda, mps")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    add_loading_flags(parser)
    group = parser.add_argument_group("sampling")
    group.add_argument("--steps", dest="num_inference_steps", type=whole(1), metavar="N", help="denoising steps")
    group.add_argument("--guidance-scale", type=scale, metavar="X", help="1 is off")
    group.add_argument("--seed", type=seed, default=0, help="default: 0")
    purpose = (
        "strength of color, texture or shape: 0 is off, 1 (default) as trained, above 1 extrapolates; one for each"
    )
    add_one_for_each(group, "--scale", purpose)


def add_assignment_flag(group: Any, where: str = "the shape reference") -> None:
    purpose = f"of colors to regions: light (default) keeps dark what is dark in {where}, free is up to the seed"
    group.add_argument("--assignment", choices=("light", "free"), help=purpose)


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what references did")
    purpose = (
        "draw where and when each reference moved the picture, beside the output as NAME.attribution.png (it takes no "
        "name of its own); costs time"
    )
    group.add_argument("--attribution", action="store_true", help=purpose)
    purpose = (
        "as that, the map of each reference alone, gray and of the size of the output, as NAME.attribution-color.png"
    )
    group.add_argument("--attribution-maps", action="store_true", help=purpose)
    leak = "the output follows the shape of its color or texture reference more than that of its shape reference"
    group.add_argument("--leak-guard", action="store_true", help=f"warn where {leak}")


def add_picture_flags(
    parser: argparse.ArgumentParser,
    needed: Sequence[str] = (),
    allowed: Sequence[str] = GRANULARITIES,
    of: str = "",
) -> None:
    """Flags of references, of how they count, and of what is written.

    Args:
        needed, allowed: which of color, texture, shape, mask and the four sides there are.
        of: where many pictures are read, if not as those to edit.
    """
    add_reference_flags(parser, needed, allowed)
    add_steering_flags(parser)
    group = parser.add_argument_group("text and output")
    group.add_argument("--prompt", type=str, help="what is to be seen")
    group.add_argument("--negative-prompt", type=str, help="what to steer away from")
    add_output_flags(group, of=of)


def add_edited_flag(parser: argparse.ArgumentParser) -> None:
    purpose = "the picture to edit, or several, or a folder of them; outside a mask no pixel changes"
    parser.add_argument("images", nargs="+", metavar="PICTURE", help=purpose)


def add_output_flags(group: Any, of: str = "") -> None:
    """What is written where; `of`: where many pictures are read, if not as those to edit."""
    group.add_argument(
        "--num-images", type=whole(1, MOST_IMAGES), default=1, metavar="N", help="seeds count up from --seed"
    )
    purpose = "of --num-images, lay all of them on one sheet, beside the output as NAME.sheet.png"
    group.add_argument("--sheet", action="store_true", help=purpose)
    places = group.add_mutually_exclusive_group(required=True)
    purpose = "PNG, WebP, TIFF or JPEG by its suffix; holds its recipe as metadata"
    places.add_argument("-o", "--output", metavar="FILE.png", help=purpose)
    purpose = f"where NAME.png goes of every picture{of}; what is there already is not made again"
    places.add_argument("--output-dir", metavar="DIR", help=purpose)
    add_force_flag(group)
    add_convert_flag(group)


def add_convert_flag(group: Any) -> None:
    purpose = (
        "read pictures of 16 bits, and of CMYK and the like without a color profile, in 8 bits as RGB or gray; refused otherwise "
        "where something would be lost"
    )
    group.add_argument("--convert", action="store_true", help=purpose)


def add_force_flag(group: Any) -> None:
    group.add_argument("--force", action="store_true", help="overwrite what is there already")


def add_reference_flags(
    parser: argparse.ArgumentParser, needed: Sequence[str], allowed: Sequence[str], is_avoiding: bool = True
) -> None:
    """Of `add_picture_flags`, the references and where they go, and, if `is_avoiding`, those to steer away from."""
    group = parser.add_argument_group(
        "references",
        "Each may be repeated; those of one kind are averaged. Behind each may stand ,weight=X, ,mask=PICTURE (only what "
        "is white is read), ,scale=X (of textures: 2 is twice as coarse) and ,region=PICTURE or ,region=LEFT:TOP:RIGHT:BOTTOM in fractions (where it counts in the "
        "output).",
    )
    metavars = {**dict.fromkeys(GRANULARITIES, "PICTURE"), "color": "PICTURE_OR_PALETTE"}
    wanted = {name: f"picture or card that lends its {name}" for name in GRANULARITIES}
    wanted["color"] = (
        'picture or card that lends its palette, or hex colors with weights in quotes: "#ff8800:3,#224466"'
    )
    for name, purpose in wanted.items():
        if name in (*needed, *allowed):
            required = name in needed
            group.add_argument(f"--{name}", action="append", metavar=metavars[name], help=purpose, required=required)
        else:
            parser.set_defaults(**{name: None})
    if "mask" in (*needed, *allowed):
        purpose = "of the same size; white is edited"
        parser.add_argument("--mask", metavar="PICTURE", required="mask" in needed, help=purpose)
    for side in SIDES:
        if side in allowed:
            parser.add_argument(f"--{side}", type=whole(0), default=0, metavar="PIXELS", help="to add on that side")
    for name, metavar in metavars.items():
        if not is_avoiding:
            parser.set_defaults(**{f"negative_{name}": None})
            continue
        purpose = f"whose {name} to steer away from"
        group.add_argument(f"--negative-{name}", action="append", metavar=metavar, help=purpose)


def add_steering_flags(parser: argparse.ArgumentParser) -> None:
    """Of `add_picture_flags`, how references count."""
    group = parser.add_argument_group("how references count")
    purpose = "how far to go beyond the picture without that reference, or with its negative one; 0 is off; costs time"
    add_one_for_each(group, "--guidance", purpose)
    purpose = (
        "when a strength holds, in fractions of the run, or factors from the first step to the last; one for each"
    )
    add_one_for_each(group, "--schedule", purpose, schedule_of_one, "NAME=START:END|X,Y,...")
    add_layout_flags(group)
    group = parser.add_argument_group(
        "without training (works without an adapter, where it is on by itself, and along with one)"
    )
    purpose = "how much of the composition of the references denoising starts with: 0 is off, 1 leaves one step, auto is .5 without an adapter"
    group.add_argument("--composed-start", type=composed_share, metavar="X", help=purpose)
    purpose = "how far each step goes toward the features of that reference; 0 is off, 1 a good start"
    add_one_for_each(group, "--feature-guidance", purpose)
    options = {"dest": "feature_guidance_window", "type": window, "metavar": "START:END"}
    group.add_argument("--feature-window", help="when, in fractions of the run; default: 0:1", **options)
    purpose = "what looks at the picture in each step: a linear map fitted once (default), or the whole VAE"
    options = {"dest": "feature_guidance_decoder", "choices": ("linear", "vae")}
    group.add_argument("--feature-decoder", help=purpose, **options)
    purpose = "let the gradient go on through the UNet: two to three times as slow"
    options = {"dest": "feature_guidance_full", "action": "store_true", "default": None}
    group.add_argument("--feature-full", help=purpose, **options)


def add_compose_flags(parser: argparse.ArgumentParser) -> None:
    add_reference_flags(parser, (), GRANULARITIES, is_avoiding=False)
    group = parser.add_argument_group("how references count")
    add_one_for_each(
        group, "--scale", "strength of color, texture or shape: 0 is off, 1 (default) is whole; one for each"
    )
    add_layout_flags(group)
    add_size_flags(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--seed", type=seed, default=0, help="of what the references leave open; default: 0")
    add_output_flags(group, of=FOLDER)


def add_layout_flags(group: Any) -> None:
    purpose = "how coarse textures are laid: 1 (default) keeps their size relative to the frame, 2 is twice as coarse"
    group.add_argument("--texture-scale", type=number, metavar="X", help=purpose)
    add_assignment_flag(group)


def add_size_flags(parser: argparse.ArgumentParser) -> None:
    for side in ("width", "height"):
        purpose = "default: the model's own size, in the aspect of the shape reference, which a side alone keeps, too"
        parser.add_argument(f"--{side}", type=whole(1), metavar="PIXELS", help=purpose)
    add_size_flag(parser, "the shape reference, or of a square without one")


def add_size_flag(parser: argparse.ArgumentParser, like: str) -> None:
    """A size of which one number says how much is painted, whatever command; `like`: whose aspect that has."""
    purpose = f"N: as many pixels as a square of that side, in the aspect of {like}, rounded as needed; WIDTHxHEIGHT: exactly that"
    parser.add_argument("--size", type=size, metavar="N|WIDTHxHEIGHT", help=purpose)


def add_octave_flags(parser: argparse.ArgumentParser) -> None:
    """How large an edit that goes by octaves paints."""
    add_size_flag(parser, "the picture")
    add_detail_steps_flag(parser)


def add_detail_steps_flag(parser: argparse.ArgumentParser) -> None:
    options = {"dest": "num_detail_steps", "type": whole(1), "metavar": "N"}
    parser.add_argument("--detail-steps", help="denoising steps of each octave above the base; default: 6", **options)


def add_edit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strength", type=number, metavar="X", help="1 (default) forgets what was under the mask")
    purpose = "compute only the mask and so much around it"
    parser.add_argument("--padding-mask-crop", type=whole(0), metavar="PIXELS", help=purpose)
    add_feather_flag(parser)
    purpose = "how much the surroundings lend what no reference gives: 1 (default), 0 is off"
    parser.add_argument("--context-scale", type=scale, metavar="X", help=purpose)


def add_feather_flag(parser: argparse.ArgumentParser) -> None:
    purpose = "soft edge, inside the mask"
    parser.add_argument("--feather", dest="mask_feather", type=whole(0), metavar="PIXELS", help=purpose)


def add_palette_flags(parser: argparse.ArgumentParser) -> None:
    _add_masked_picture_flags(parser)
    parser.add_argument("--colors", type=whole(1), default=5, metavar="N", help="how many at most; default: 5")
    add_loading_flags(parser)


def add_encode_flags(parser: argparse.ArgumentParser) -> None:
    _add_masked_picture_flags(parser)
    parser.add_argument("-g", "--granularity", required=True, choices=GRANULARITIES)
    purpose = (
        "of the largest picture that the card serves, or the side of a square of its area; default: 256, at most 1024"
    )
    parser.add_argument("--size", type=size, metavar="N|WIDTHxHEIGHT", help=purpose)
    parser.add_argument("-o", "--output", required=True, metavar="FILE.safetensors", help="holds no picture")
    add_force_flag(parser)
    add_loading_flags(parser)


def _add_masked_picture_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", metavar="PICTURE")
    parser.add_argument("--mask", metavar="PICTURE", help="of the same size; only what is white is read")
    add_convert_flag(parser)


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", metavar="PICTURE", help="a file that mg-diffusion wrote")
    purpose = "make it again: where to; without it the recipe is printed"
    parser.add_argument("-o", "--output", metavar="FILE.png", help=purpose)
    purpose = (
        "where its references lie, by name or content, if not below the current folder as when it was made, nor beside the "
        "picture, nor here; may be repeated"
    )
    parser.add_argument("--files", action="append", metavar="FOLDER", help=purpose)
    for name in ("model", "adapter", "encoder"):
        purpose = f"its {name}, if that is no default and not of the Hub"
        parser.add_argument(f"--{name}", metavar="FOLDER_OR_HUB_ID", help=purpose)
    purpose = "let code that --model brings along run; a model that the picture names never brings any"
    parser.add_argument("--trust-remote-code", action="store_true", help=purpose)
    add_force_flag(parser)


def add_adapt_flags(parser: argparse.ArgumentParser) -> None:
    place = "FOLDER_OR_HUB_ID"
    parser.add_argument(
        "--base", required=True, metavar=place, help="a Stable Diffusion 1, 2 or XL; it stays as it is"
    )
    parser.add_argument("--data", required=True, metavar="PICTURES", help="a folder of pictures, see docs/data.md")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where run, cache and model go")
    parser.add_argument("--num-processes", type=whole(1), metavar="N", help="one for each GPU; default: accelerate's")
    parser.add_argument("--dtype", choices=TYPES, default="float16", help="of the exported weights")
    parser.add_argument(
        "--unchecked", action="store_true", help="train whatever `data check` would say of the pictures"
    )
    add_force_flag(parser)
    purpose = "behind --, flags of stage adapter (docs/training-flags.md), such as --max_train_steps 2000"
    parser.add_argument("training", nargs="*", type=str, metavar="-- TRAINING FLAGS", help=purpose)


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="folder of a pipeline: the `weights` of a run")
    place = "FOLDER_OR_HUB_ID"
    parser.add_argument("--base", metavar=place, help="in place of WEIGHTS: a Stable Diffusion checkpoint, and")
    purpose = "the encoder and adapter for it, in mg_encoder and mg_adapter"
    parser.add_argument("--adapter", metavar=place, help=purpose)
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="what else is in it stays")
    parser.add_argument("--dtype", choices=TYPES, default="float16", help="of the weights")
    add_one_for_each(parser, "--strength", "the strength that the export calls 1; one for each")
    add_force_flag(parser)

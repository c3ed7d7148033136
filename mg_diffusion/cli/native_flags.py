"""Flags of the edits that paint nothing: each has those that mean something to it, and none of sampling."""

import argparse

from ..granularities import GRANULARITIES
from ..mg_bench.flags import whole
from ..sides import SIDES
from .flags import add_assignment_flag, add_feather_flag, add_loading_flags, add_one_for_each, add_output_flags
from .values import number, seed


COLOR = "picture or card that lends its palette, or hex colors with weights in quotes"
TEXTURE = "picture or card that lends its texture"
PURPOSES = {
    "recolor": "other colors, at the picture's own resolution; all else stays",
    "retexture": "another texture, at the picture's own resolution; colors, light and silhouettes stay",
    "remove": "what is in the mask goes, its surroundings go on, at the picture's own resolution",
    "outpaint": "a larger picture around the picture; what its edges show goes on",
    "denoise": "take noise away, and of the blocks of JPEG about half",
    "enhance": "less noise, sharper, and toned toward a color reference if one is given",
    "enlarge": "twice or four times as large, with sharp edges",
}


def add_native_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """Those of the edit of this name."""
    # What the other commands have: nothing of the kind; strengths are those of references that are given.
    parser.set_defaults(schedule=[], guidance=[], feature_guidance=[], scale=[], context_scale=0, mask=None, seed=0)
    parser.set_defaults(**{f"{kind}{each}": None for each in GRANULARITIES for kind in ("", "negative_")})
    ADDING[name](parser)
    add_output_flags(parser)
    add_loading_flags(parser)


def _recolor(parser: argparse.ArgumentParser) -> None:
    _reference(parser, "color", f"{COLOR}: a single one gives its shades")
    help = "in place of --color: strokes of color on a transparent layer, or over the picture, of its size; what is under a stroke gets its color"
    parser.add_argument("--hint", metavar="PICTURE", help=help)
    _mask(parser, "recolored")
    add_feather_flag(parser)
    parser.add_argument("--select", metavar="#RRGGBB", help="recolor only what has about this color")
    help = "of --select and --hint, Delta-E with lightness counted half; default: 20"
    parser.add_argument("--tolerance", type=number, metavar="X", help=help)
    add_one_for_each(parser, "--scale", "color=X: how far colors move; 0 is off, 1 (default) all the way")
    add_assignment_flag(parser, "the picture")
    _seed(parser, "of --assignment free")


def _retexture(parser: argparse.ArgumentParser) -> None:
    _reference(parser, "texture", TEXTURE, required=True)
    _texture_scale(parser)
    _mask(parser, "retextured")
    add_feather_flag(parser)
    add_one_for_each(parser, "--scale", "texture=X: how strong it is; 0 is off, 1 (default) as it is")


def _remove(parser: argparse.ArgumentParser) -> None:
    _mask(parser, "removed; without one, what is transparent is filled")
    help = "pixels around the mask that lend; default: as many as the mask is large, at least 64"
    parser.add_argument("--crop", dest="padding_mask_crop", type=whole(0), metavar="PIXELS", help=help)
    _seed(parser, "of the places that are tried")


def _outpaint(parser: argparse.ArgumentParser) -> None:
    for side in SIDES:
        parser.add_argument(f"--{side}", type=whole(0), default=0, metavar="PIXELS", help="to add on that side")
    _seed(parser, "of the places that are tried")


def _denoise(parser: argparse.ArgumentParser) -> None:
    _mask(parser, "restored")
    add_feather_flag(parser)
    _strength(parser, "of what was found goes")
    help = "deviation of the noise, of 255; default: estimated; 0: blocks of JPEG alone, the default where they show"
    parser.add_argument("--noise-level", type=number, metavar="X", help=help)


def _enhance(parser: argparse.ArgumentParser) -> None:
    _denoise(parser)
    _reference(parser, "color", COLOR)


def _times(text: str) -> float:
    """A number, a whole one where it is one: of a factor that is none, argparse then says which there are."""
    value = number(text)
    return int(value) if value.is_integer() else value


def _enlarge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factor", type=_times, choices=(2, 4), metavar="2|4", help="default: 2")
    _strength(parser, "of the network; 0 is bicubic interpolation")
    _reference(parser, "texture", f"{TEXTURE}, which the larger picture then has")
    _texture_scale(parser)
    add_one_for_each(parser, "--scale", "texture=X: how strong it is")


ADDING = {
    "recolor": _recolor,
    "retexture": _retexture,
    "remove": _remove,
    "outpaint": _outpaint,
    "denoise": _denoise,
    "enhance": _enhance,
    "enlarge": _enlarge,
}


def _reference(parser: argparse.ArgumentParser, name: str, purpose: str, required: bool = False) -> None:
    metavar = "PICTURE_OR_PALETTE" if name == "color" else "PICTURE"
    parser.add_argument(f"--{name}", action="append", metavar=metavar, required=required, help=purpose)


def _mask(parser: argparse.ArgumentParser, done: str) -> None:
    help = f"of the same size; white is {done}"
    parser.add_argument("--mask", metavar="PICTURE", help=help)


def _strength(parser: argparse.ArgumentParser, what: str) -> None:
    help = f"from 0 to 1 (default), how much {what}"
    parser.add_argument("--strength", type=number, metavar="X", help=help)


def _texture_scale(parser: argparse.ArgumentParser) -> None:
    help = "how coarse textures are laid: 1 (default) keeps their size relative to the frame, 2 is twice as coarse"
    parser.add_argument("--texture-scale", type=number, metavar="X", help=help)


def _seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=seed, default=0, help=f"{what}; default: 0")

"""Flags of `mg-diffusion data`. Imports nothing that reading pictures needs."""

import argparse

from ..mg_bench.flags import whole


SIDES = (16, 512)  # pixels; the sources have 240 to 500


def side(text: str) -> int:
    """A type for argparse: the side of a picture."""
    value = whole(SIDES[0])(text)
    if value > SIDES[1]:
        raise argparse.ArgumentTypeError(f"must be at most {SIDES[1]}: the sources are no larger, got {text!r}")
    return value


def archive(text: str) -> tuple[str, str]:
    """A type for argparse: NAME=FILE."""
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, got {text!r}")
    return name, file


def add_check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="pictures, or train/ and val/ with pictures")
    parser.add_argument("--json", metavar="FILE.json", help="write all that was found, for programs")
    parser.add_argument("--force", action="store_true", help="of --json, overwrite what is there already")
    parser.add_argument("--caption-column", metavar="NAME", help="of the metadata; default: as training finds it")
    purpose = "do not look for faces: saves about a third of the time"
    parser.add_argument("--no-faces", action="store_true", help=purpose)


def add_bazaar_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUT", help="folder to make; must not exist, or be empty")
    purpose = "16 to 512; default: 128. Above it only sources of 1.25 times the resolution are taken"
    parser.add_argument("--resolution", type=side, default=128, metavar="PIXELS", help=purpose)
    purpose = "where archives are kept; default: ~/.cache/mg-diffusion/data"
    parser.add_argument("--cache-dir", "--cache_dir", metavar="FOLDER", help=purpose)
    purpose = "an archive downloaded by hand, of flowers, clothing or grocery; may be repeated"
    parser.add_argument("--source", action="append", type=archive, default=[], metavar="NAME=FILE", help=purpose)

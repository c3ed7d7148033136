"""Flags of a bench, whatever it measures. Imports none of the extra packages that running it needs."""

import argparse
from collections.abc import Callable


def whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """A type for argparse: a whole number of at least `least`; of more than `most` nothing can be made."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {text!r}")
        return value

    return parse


def add_bench_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="FOLDER", help="pictures to borrow from, at least 32")
    purpose = "folder inside --data; default: val where there is one, else all"
    parser.add_argument("--split", metavar="NAME", help=purpose)
    purpose = "folder inside --data that the model was trained on: audit memorisation"
    parser.add_argument("--train-split", metavar="NAME", help=purpose)
    purpose = "weights of SqueezeNet 1.1 or Inception v3, to judge quality and diversity"
    parser.add_argument("--features", metavar="FILE", help=purpose)
    parser.add_argument("--quick", action="store_true", help="minutes instead of an hour, with wider intervals")
    parser.add_argument("--sections", nargs="+", metavar="NAME", help="only these; a wrong name lists all")
    purpose = "photographic triples, in place of the preset number"
    parser.add_argument("--triples", type=whole(1), metavar="N", help=purpose)
    # Of less a hole would be too small to judge, see `evaluation.masks.centered_hole`.
    parser.add_argument("--size", type=whole(26), default=64, metavar="PIXELS", help="of the pictures; default: 64")
    parser.add_argument("--batch-size", type=whole(1), default=16, metavar="N", help="default: 16")
    parser.add_argument("--pictures", metavar="FOLDER", help="draw grids of outputs, leakage matrices, slider curves")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.json", help="all figures, with their settings")
    purpose = "overwrite what is there already with other settings; with the same ones its sections stay"
    parser.add_argument("--force", action="store_true", help=purpose)

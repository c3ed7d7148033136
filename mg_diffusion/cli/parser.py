"""The commands with their flags."""

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from .. import __version__
from ..data.flags import add_bazaar_flags, add_check_flags
from ..granularities import GRANULARITIES
from ..mg_bench.flags import add_bench_flags
from . import flags
from .native_flags import PURPOSES, add_native_flags
from .values import filled


NEAR = 0.7  # of `difflib`, from which a word is taken for another one mistyped


class Late:
    """The functions of a module beside this one; it is imported when one of them runs, as it brings much with it.

    So help, versions and errors of usage come at once.
    """

    def __init__(self, module: str):
        self._module = module

    def __getattr__(self, name: str) -> Callable[[argparse.Namespace], Any]:
        return lambda options: getattr(import_module(f".{self._module}", __package__), name)(options)


adapting, commands, composing, editing, generation, repeating = (
    Late(name) for name in ("adapting", "commands", "composing", "editing", "generation", "repeating")
)
# The edits that have a name and are painted: what they do, the flags they need, those they may have.
NAMED_EDITS = {
    "reshape": ("new content in the mask, in its shape or that of a reference", (), ("mask", *GRANULARITIES)),
    "variation": ("another picture of the same colors, texture and shape", (), ()),
}


class Parser(argparse.ArgumentParser):
    """As the original, but errors look the same whether a flag or a file is wrong; what has no type must not be empty."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register("type", None, filled)

    def add_subparsers(self, **kwargs: Any) -> Any:
        group = super().add_subparsers(**kwargs)
        group.type = str  # of all that follows a command, to which its own flags see
        return group

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        found, unknown = super().parse_known_args(*args, **kwargs)
        if unknown and self._subparsers is None:  # of a command: its own help lists what it knows
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            for near in get_close_matches(str(value), map(str, action.choices), 1, NEAR):
                error.message += f": did you mean {near}?"
            raise

    def _meant(self, unknown: Sequence[str]) -> str:
        """The flags that were meant, as far as they are near to what was typed."""
        known = [flag.lstrip("-") for flag in self._option_string_actions]  # hyphens make all alike
        names = [one.partition("=")[0].lstrip("-") for one in unknown if one.startswith("--")]
        meant = [f"--{near}" for name in names for near in get_close_matches(name, known, 1, NEAR)]
        return f" (did you mean {', '.join(meant)}?)" if meant else ""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message}\n(see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mg-diffusion", description="Steer image generation by the color, texture and shape of reference images."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    names = (
        "generate",
        "compose",
        "edit",
        *PURPOSES,
        *NAMED_EDITS,
        "recipe",
        "palette",
        "encode",
        "adapt",
        "export",
        "bench",
        "data",
    )
    group = parser.add_subparsers(dest="command", required=True, metavar=" | ".join(names))
    _add_picture_commands(group)

    purpose = "print the recipe that a picture holds, or make it again"
    flags.add_recipe_flags(_add(group, "recipe", purpose, repeating.recipe))
    purpose = "print the palette of a picture, to edit and use as --color"
    flags.add_palette_flags(_add(group, "palette", purpose, commands.palette))
    purpose = "keep one granularity of a picture as a card, to use in its place"
    flags.add_encode_flags(_add(group, "encode", purpose, commands.encode))
    purpose = "train an adapter for a Stable Diffusion of yours and export it: check, cache, train, card"
    flags.add_adapt_flags(_add(group, "adapt", purpose, adapting.adapt))
    purpose = "write a repository that loads from disk or Hub without this package"
    flags.add_export_flags(_add(group, "export", purpose, commands.export))

    one = _add(group, "bench", "measure separate control of color, texture and shape", commands.bench)
    add_bench_flags(one)
    flags.add_model_flags(one)

    data = group.add_parser("data", help="check pictures before training; rebuild our training set")
    jobs = data.add_subparsers(dest="job", required=True, metavar="check | bazaar128")
    purpose = "report what would stop or spoil a run; status 1 if something would"
    add_check_flags(_add(jobs, "check", purpose, commands.data_check))
    purpose = "download and cut the pictures that the embedded model was trained on"
    add_bazaar_flags(_add(jobs, "bazaar128", purpose, commands.data_bazaar))
    return parser


def _add_picture_commands(group: Any) -> None:
    one = _add(group, "generate", "make a picture", generation.generate)
    flags.add_picture_flags(one, of=flags.FOLDER)
    flags.add_size_flags(one)
    flags.add_detail_steps_flag(one)
    flags.add_report_flags(one)
    flags.add_model_flags(one)

    one = _add(group, "compose", "lay palette, texture and shape together at once: no model paints", composing.compose)
    one.set_defaults(schedule=[])
    flags.add_compose_flags(one)

    one = _add(group, "edit", "repaint part of a picture", editing.edit)
    flags.add_edited_flag(one)
    flags.add_picture_flags(one, needed=("mask",))
    flags.add_edit_flags(one)
    flags.add_report_flags(one)
    flags.add_model_flags(one)

    for name, purpose in PURPOSES.items():
        one = _add(group, name, purpose, editing.edit)
        flags.add_edited_flag(one)
        add_native_flags(one, name)

    for name, (purpose, needed, allowed) in NAMED_EDITS.items():
        one = _add(group, name, purpose, editing.edit)
        one.set_defaults(mask=None)
        flags.add_edited_flag(one)
        flags.add_picture_flags(one, needed, allowed)
        flags.add_octave_flags(one)
        flags.add_model_flags(one)


def _add(group: Any, name: str, purpose: str, run: Callable[[argparse.Namespace], Any]) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=purpose, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser

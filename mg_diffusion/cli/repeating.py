"""The command that prints the recipe of a picture, and makes the picture again."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..granularities import GRANULARITIES
from ..loading import EMBEDDED_NAME, HUB_ID, model_name
from ..recipe import describe_file, read_recipe, told_path, versions
from .recorded import PLACED, SETTINGS, check_recipe


PER_GRANULARITY = {  # by their names in recipes
    "granularity_scale": "--scale",
    "granularity_schedule": "--schedule",
    "granularity_guidance": "--guidance",
    "feature_guidance_scale": "--feature-guidance",
}
ELSEWHERE = {
    "command",
    "versions",
    "references",
    "negative_references",
    "image",
    "mask",
    "hint",
    *PLACED,
    *PER_GRANULARITY,
}
SIZES = {"height", "width"}  # of an edit, which has them of its picture
Find = Callable[[dict[str, Any]], str]


def recipe(options: argparse.Namespace) -> int:
    """`mg-diffusion recipe`."""
    from .parser import build_parser  # which imports this module by name

    if not Path(options.picture).is_file():
        raise ValueError(f"There is no picture at {options.picture!r}.")
    found = read_recipe(options.picture)
    if options.output is None:
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0
    if options.trust_remote_code and options.model is None:
        raise ValueError(
            "--trust-remote-code is for a model that you name, not for one that a picture names. Add --model, if you know "
            "whose code it is."
        )
    check_recipe(found)
    parser = build_parser()
    flags = _flags_of(parser, str(found.get("command")))
    if missing := [place for place in options.files or () if not Path(place).is_dir()]:
        raise ValueError(f"--files names folders in which files of the recipe lie; {missing[0]!r} is none.")
    folders = [Path(place) for place in (*(options.files or ()), Path(options.picture).parent, ".")]
    arguments = arguments_of(
        found,
        flags,
        lambda described: _no_flag(find(described, folders)),
        {name: getattr(options, name) for name in PLACED},
    )
    arguments += ["-o", options.output, *(["--force"] if options.force else [])]
    arguments += ["--trust-remote-code"] if options.trust_remote_code else []
    print(_printable(f"mg-diffusion {shlex.join(arguments)}"), file=sys.stderr)
    here = versions()
    differing = [
        f"{name} {one} (here {here.get(name)})"
        for name, one in found.get("versions", {}).items()
        if one != here.get(name)
    ]
    if differing:
        print(_printable(f"made with {', '.join(differing)}: pixels may differ"), file=sys.stderr)
    again = parser.parse_args(arguments)
    again.is_alone = options.is_alone
    return again.run(again) or 0


def _flags_of(parser: argparse.ArgumentParser, command: str) -> dict[str, argparse.Action]:
    """The flags of a command that makes pictures, by the names that recipes have for them."""
    (group,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    makers = {name: one for name, one in group.choices.items() if any(a.dest == "num_images" for a in one._actions)}
    if command not in makers:
        raise ValueError(
            f"A recipe of the command {command!r} cannot be repeated here. Results of the page are restored by dropping them "
            f"onto it."
        )
    return {action.dest: action for action in makers[command]._actions if action.option_strings}


def arguments_of(
    found: dict[str, Any], flags: dict[str, argparse.Action], find: Find, places: dict[str, str | None]
) -> list[str]:
    """The command line that a recipe stands for, without its output.

    Args:
        find: from what `describe_file` says of a file to its place.
        places: of model, adapter and encoder, which a recipe names without their folders.
    """
    arguments = [found["command"], *([find(found["image"])] if "image" in found else [])]
    for kind, prefix in (("references", "--"), ("negative_references", "--negative-")):
        for name, entries in found.get(kind, {}).items():
            for entry in entries:
                arguments += [f"{prefix}{name}", _reference_text(entry, find)]
    arguments += [part for name in ("mask", "hint") if name in found for part in (f"--{name}", find(found[name]))]
    for key, flag in PER_GRANULARITY.items():
        for name, value in found.get(key, {}).items():
            if name in GRANULARITIES:  # a curve is a list, a window a string
                arguments += [flag, f"{name}={_text(value, ',')}"]
    for name in PLACED:
        arguments += _place_of(name, found, places.get(name))
    for key, value in found.items():
        if key in ELSEWHERE or value is None or value is False or (value == "auto" and "prompt" not in key):
            continue
        if key in flags and key in SETTINGS:
            flag = flags[key].option_strings[-1]
            arguments += [flag] if value is True and flags[key].nargs == 0 else [f"{flag}={_text(value)}"]
        elif key not in SIZES:
            print(_printable(f"{key} of the recipe is no flag here, and is left out"), file=sys.stderr)
    return arguments


def _place_of(name: str, found: dict[str, Any], place: str | None) -> list[str]:
    """The flag of a model, adapter or encoder that is not the default's."""
    named = str(found.get(name, ""))
    if place is None and named not in ("", model_name(None), EMBEDDED_NAME):
        if not HUB_ID.fullmatch(named) or Path(named).exists():  # no picture says which folder is loaded
            raise ValueError(
                f"The picture was made by the {name} {named!r}, whose place a recipe does not tell. Give it: --{name}."
            )
        print(f"the {name} {named!r} of the Hub is what the picture names: no code of its runs", file=sys.stderr)
        place = named
    return [] if place is None else [f"--{name}", place]


def _printable(text: str) -> str:
    """A text that may be a stranger's, without what terminals obey."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _no_flag(path: str) -> str:
    """A path that is not taken for a flag or a palette, whatever the name of the file."""
    return os.path.join(".", path) if path.startswith(("-", "#")) else path


def _reference_text(entry: dict[str, Any], find: Find) -> str:
    """A reference as its flag takes it.

    Raises:
        ValueError: for a file with a comma in its path: flags would take what follows for a file of its own.
    """

    def found(described: dict[str, Any]) -> str:
        path = find(described)
        if "," in path:
            raise ValueError(
                f"The recipe's file {path!r} has a comma in its path, at which references of the command line end. Copy it to "
                f"another name, and name its folder: --files FOLDER."
            )
        return path

    text = ",".join(entry["palette"]) if "palette" in entry else found(entry)
    for key in ("mask", "weight", "scale", "region"):
        if key in entry:
            value = entry[key]
            text += f",{key}={found(value) if isinstance(value, dict) else _text(value, ':')}"
    return text


def _text(value: Any, between: str | None = None) -> str:
    """A value as flags take it: windows START:END, curves X,Y,Z."""
    if isinstance(value, (list, tuple)):
        between = between or (":" if len(value) == 2 else ",")
        return between.join(map(repr, value))
    return repr(value) if isinstance(value, float) else str(value)


def find(described: dict[str, Any], folders: Sequence[Path]) -> str:
    """The place of a file in folders: as it was given, of its name, or of any name, and with its content.

    Raises:
        ValueError: where none has it.
    """
    told = told_path(described["file"])  # again: a file may come from anywhere
    named = [folder / path for path in (told, Path(told).name) for folder in folders]
    others = (path for folder in folders for path in sorted(folder.iterdir()))
    for path in (*named, *others):
        if os.access(path, os.R_OK) and path.is_file() and describe_file(path)["sha256"] == described["sha256"]:
            return str(path)
    changed = next((path for path in named if path.is_file()), None)
    why = f"{str(changed)!r} is another picture by now" if changed else "there is none"
    raise ValueError(
        f"The recipe needs the file {told!r} as it was (SHA-256 {described['sha256'][:12]}...), and {why}. Name "
        f"the folder that it lies in: --files FOLDER."
    )

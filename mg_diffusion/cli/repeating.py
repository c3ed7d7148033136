"""The command that prints the recipe of a picture, and makes the picture again."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..granularities import GRANULARITIES
from ..loading import EMBEDDED_NAME, model_name
from ..recipe import describe_file, read_recipe, versions


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
    "model",
    *PER_GRANULARITY,
}
SIZES = {"height", "width"}  # of an edit, which has them of its picture
Find = Callable[[dict[str, Any]], str]


def recipe(options: argparse.Namespace) -> int:
    """`mg-diffusion recipe`."""
    from .parser import build_parser  # which imports this module by name

    found = read_recipe(options.picture)
    if options.output is None:
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0
    parser = build_parser()
    flags = _flags_of(parser, str(found.get("command")))
    folders = [Path(place) for place in options.files or [Path(options.picture).parent, Path(".")]]
    arguments = arguments_of(found, flags, lambda described: find(described, folders), options.model)
    arguments += ["-o", options.output, *(["--force"] if options.force else [])]
    print(f"mg-diffusion {shlex.join(arguments)}", file=sys.stderr)
    here = versions()
    differing = [
        f"{name} {one} (here {here.get(name)})"
        for name, one in found.get("versions", {}).items()
        if one != here.get(name)
    ]
    if differing:
        print(f"made with {', '.join(differing)}: pixels may differ", file=sys.stderr)
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
    found: dict[str, Any], flags: dict[str, argparse.Action], find: Find, model: str | None = None
) -> list[str]:
    """The command line that a recipe stands for, without its output.

    Args:
        find: from what `describe_file` says of a file to its place.
        model: the place of the model, which a recipe names without its folder.
    """
    arguments = [found["command"], *([find(found["image"])] if "image" in found else [])]
    for kind, prefix in (("references", "--"), ("negative_references", "--negative-")):
        for name, entries in found.get(kind, {}).items():
            for entry in entries:
                arguments += [f"{prefix}{name}", _reference_text(entry, find)]
    arguments += [part for name in ("mask", "hint") if name in found for part in (f"--{name}", find(found[name]))]
    for key, flag in PER_GRANULARITY.items():
        for name, value in found.get(key, {}).items():
            if name in GRANULARITIES:
                arguments += [flag, f"{name}={_text(value)}"]
    arguments += _model_of(found, model)
    for key, value in found.items():
        if key in ELSEWHERE or value is None or value is False or value == "auto":
            continue
        if key in flags:
            arguments += [flags[key].option_strings[-1], *([] if value is True else [_text(value)])]
        elif key not in SIZES:
            print(f"{key} of the recipe is no flag here, and is left out", file=sys.stderr)
    return arguments


def _model_of(found: dict[str, Any], model: str | None) -> Iterator[str]:
    named = str(found.get("model", ""))
    if model is None and named not in ("", model_name(None), EMBEDDED_NAME) and "/" not in named:
        raise ValueError(
            f"The picture was made by the model {named!r}, whose place a recipe does not tell. Give it: --model."
        )
    place = model or (named if "/" in named else None)
    return iter([] if place is None else ["--model", place])


def _reference_text(entry: dict[str, Any], find: Find) -> str:
    """A reference as its flag takes it."""
    text = ",".join(entry["palette"]) if "palette" in entry else find(entry)
    for key in ("mask", "weight", "scale", "region"):
        if key in entry:
            value = entry[key]
            text += f",{key}={find(value) if isinstance(value, dict) else _text(value, ':')}"
    return text


def _text(value: Any, between: str | None = None) -> str:
    """A value as flags take it: windows START:END, curves X,Y,Z."""
    if isinstance(value, (list, tuple)):
        between = between or (":" if len(value) == 2 else ",")
        return between.join(f"{one:g}" for one in value)
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def find(described: dict[str, Any], folders: Sequence[Path]) -> str:
    """The place of a file in folders: of its name, or of any name, and with its content.

    Raises:
        ValueError: where none has it.
    """
    named = [folder / described["file"] for folder in folders]
    others = (path for folder in folders for path in sorted(folder.iterdir()))
    for path in (*named, *others):
        if path.is_file() and describe_file(path)["sha256"] == described["sha256"]:
            return str(path)
    changed = next((path for path in named if path.is_file()), None)
    why = f"{str(changed)!r} is another picture by now" if changed else "there is none"
    raise ValueError(
        f"The recipe needs the file {described['file']!r} as it was (SHA-256 {described['sha256'][:12]}...), and {why}. Name "
        f"the folder that it lies in: --files FOLDER."
    )

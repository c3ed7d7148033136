"""The page of all flags, from the parser itself: `python -m mg_diffusion.training.flags > docs/training-flags.md`."""

import argparse
from collections.abc import Iterator

from .arguments import build_parser


HEAD = """# Flags of training

Written by `python -m mg_diffusion.training.flags > docs/training-flags.md` from the parser. A flag that no stage knows,
a value out of its range and flags that contradict each other are refused before anything is loaded.
"""


def stages() -> dict[str, argparse.ArgumentParser]:
    """The parser of each stage."""
    return next(action for action in build_parser()._actions if action.dest == "stage").choices


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """All flags of a stage by the name their value has."""
    return {action.dest: action for action in parser._actions if action.dest != "help"}


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.default is None or isinstance(action.default, bool):
        return {None: "", True: "on", False: "off"}[action.default]
    values = action.default if isinstance(action.default, list) else [action.default]
    return f"`{' '.join(map(str, values))}`"


def _row(action: argparse.Action) -> str:
    choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return f"| {names} | {_default(action)} | {action.help}{choices} |"


def _tables() -> Iterator[str]:
    """One table for each group of flags, with the stages that have it."""
    groups: dict[str, dict[str, argparse.Action]] = {}
    owners: dict[str, list[str]] = {}
    for stage, parser in stages().items():
        for group in parser._action_groups:
            actions = {action.dest: action for action in group._group_actions if action.dest != "help"}
            if actions:
                groups[str(group.title)] = {**actions, **groups.get(str(group.title), {})}
                owners.setdefault(str(group.title), []).append(stage)
    for title, actions in groups.items():
        of = "all stages" if len(owners[title]) == len(stages()) else f"stage {', '.join(owners[title])}"
        yield f"## {of[0].upper()}{of[1:]}{'' if title in stages() else f': {title}'}\n"
        yield "| flag | default | |\n|---|---|---|"
        yield "\n".join(map(_row, actions.values())) + "\n"


def page() -> str:
    return "\n".join([HEAD, *_tables()])


if __name__ == "__main__":
    print(page(), end="")

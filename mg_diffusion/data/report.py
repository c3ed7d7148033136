"""The report of `mg-diffusion data check` as text."""

from collections.abc import Iterable, Iterator
from typing import Any

from .check import CAPTION_TOKENS


SHOWN = 5  # examples of each kind; the file of --json has all


def some(entries: Iterable[str]) -> Iterator[str]:
    """The first entries, indented, and how many more there are."""
    entries = list(entries)
    yield from (f"      {entry}" for entry in entries[:SHOWN])
    if len(entries) > SHOWN:
        yield f"      ... and {len(entries) - SHOWN} more (--json FILE lists all)"


def span(values: list[float] | None) -> str:
    return "none" if values is None else " / ".join(f"{value:g}" for value in values)


def counts(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items())


def split_lines(name: str, part: dict[str, Any], detector: str) -> Iterator[str]:
    captions, licenses = part["captions"], part["licenses"]
    yield f"{name}: {part['pictures']} pictures in {part['folder']}"
    if part["other_files"]:
        yield f"  other files, not read: {part['other_files']}"
    yield f"  skipped by training: {len(part['skipped'])}"
    yield from some(f"{path}: {reason}" for path, reason in part["skipped"].items())
    yield f"  captions: {part['pictures'] - captions['missing']}, without one: {captions['missing']}"
    yield f"    at least so many tokens (min / median / max): {span(captions['least_tokens'])}"
    yield f"    cut off after {CAPTION_TOKENS} tokens, at least: {captions['too_long']}"
    yield "  sizes (min / median / max)"
    yield f"    shorter side: {span(part['shorter_side'])}, longer side: {span(part['longer_side'])}"
    yield f"    width / height: {span(part['aspect'])}"
    yield f"  modes: {counts(part['modes']) or 'none'}"
    if part["faces"] is None:
        yield f"  faces: not looked for ({detector})"
    else:
        yield f"  pictures that may show a face: {len(part['faces'])} (a rough detector: {detector})"
        yield from some(part["faces"])
    yield f"  licences: {counts(licenses['counts']) or 'none'}; without one: {licenses['missing']}"


def pair_text(pair: dict[str, Any]) -> str:
    mirrored = ", mirrored" if pair["mirrored"] else ""
    return f"{pair['files'][0]}  {pair['files'][1]}  ({pair['similarity']:.2f}{mirrored})"


def duplicate_lines(found: dict[str, Any]) -> Iterator[str]:
    texts = {"exact": lambda one: "  ".join(one["files"]), "near": pair_text}
    titles = {"exact": "files that are equal byte for byte", "near": "pairs of nearly the same picture"}
    for kind, text in texts.items():
        for is_across in (False, True):
            entries = [one for one in found[kind] if (len(one["splits"]) > 1) == is_across]
            yield f"{titles[kind]}, {'across splits' if is_across else 'within a split'}: {len(entries)}"
            yield from some(map(text, entries))


def report_text(report: dict[str, Any]) -> str:
    """A report of `check_folder`, to be read."""
    lines = [line for name, part in report["splits"].items() for line in split_lines(name, part, report["detector"])]
    lines += duplicate_lines(report["duplicates"])
    problems = report["problems"]
    lines += ["", "problems:" if problems else "no problems found", *(f"  {problem}" for problem in problems)]
    return "\n".join(lines)

"""Recipes that no program of ours wrote."""

from collections.abc import Iterator
from typing import Any

import PIL.Image
from hostile_files import SCRIPT, as_file, film, good_picture, picture, png, zeros
from hostile_words import deep

from demo.checked_references import to_text


IMAGE = "<img src=//x.invalid>"
GOOD = {"command": "demo.generate", "prompt": "a leaf", "seed": 3, "num_inference_steps": 1}
EDIT = {"action": "variation", "feather": 0, "added": [0, 0, 0, 0], "size": [64, 64], "covered": None, "mask": None}


def damaged(card: str) -> Iterator[tuple[str, Any, bool]]:
    """Name, recipe and whether it must be refused; `card` is a texture card of the server as text."""
    yield "nothing else", GOOD, False
    for key, values in FIELDS.items():
        for number, value in enumerate(values):
            yield f"{key} {number}", {**GOOD, key: value}, key not in ("model", "command", "versions", "prompt")
    for name, entry, refused in references(card):
        yield f"a reference that is {name}", {**GOOD, "references": {"texture": [entry]}}, refused
    for number, value in enumerate(
        ("x", 3, [1], {"texture": 1}, {"texture": "x"}, {"texture": [3]}, {"texture": [None]})
    ):
        yield f"references of nonsense {number}", {**GOOD, "references": value}, True
    for number, change in enumerate(EDITS):
        yield f"an edit of nonsense {number}", {**GOOD, "edit": {**EDIT, **change}}, True
    for number, value in enumerate(("abc", 3, [1, 2], [["covered", 1]])):
        yield f"an edit that is none {number}", {**GOOD, "edit": value}, True
    mixes = ({}, "x", 3, {"granularity": IMAGE, "share": 1}, {"granularity": "color", "share": 10**400})
    for number, value in enumerate(mixes):
        yield f"a mix of nonsense {number}", {**GOOD, "mixed": value}, True
    for number, value in enumerate((None, 3, "x", [GOOD], [], True)):
        yield f"no object {number}", value, True


FIELDS = {
    "seed": (-1, 1.5, "3", None, 10**400, float("nan"), deep(800), [], {"a": IMAGE}, True),
    "num_inference_steps": (0, 51, IMAGE, 1e308, float("-inf")),
    "prompt": ("\ud800", "a" * 301, 7, deep(400), SCRIPT, "a\0b"),
    "granularity_scale": (
        3,
        "x",
        [1],
        {"color": IMAGE},
        {"color": 10**400},
        {"shape": float("nan")},
        {"color": deep(9)},
    ),
    "model": (IMAGE, "\ud800", 3, deep(500), {"a": 1}, "/etc/passwd"),
    "command": ("demo.sweep", "demo.edit", deep(700), IMAGE, 3),
    "versions": (deep(700), IMAGE, 3),
}


def references(card: str) -> Iterator[tuple[str, Any, bool]]:
    bomb = to_text(png(4000, 5000, 8, 2, zeros(5000 * 12001)))
    yield "a bomb", {"picture": bomb}, True
    yield "a film", {"picture": to_text(film(3, 500))}, False
    yield "a script", {"picture": to_text(SCRIPT.encode())}, True
    yield "half a text", {"picture": to_text(good_picture())[:-7]}, True
    yield "no text", {"picture": "\u00e9\ud800"}, True
    yield "a number", {"picture": 3}, True
    yield "a path as a picture", {"picture": "/etc/passwd"}, True
    yield "a path as a file", {"file": "/etc/passwd", "sha256": IMAGE}, False
    yield "a file named by a script", {"file": IMAGE}, False
    yield "a file named by half a character", {"file": "\ud800"}, False
    yield "a file named deep", {"file": deep(700)}, False
    yield "a file named by a thousand letters", {"file": "<b>" * 1000}, False
    yield "a path as a card", {"card": "/etc/passwd"}, True
    yield "a card", {"card": card}, False
    yield "a card of nonsense", {"card": to_text(b"nonsense")}, False
    yield "a palette of nonsense", {"palette": [IMAGE, deep(500)]}, True
    yield "a palette of half a character", {"palette": ["\ud800"]}, True
    yield "a palette of 100 colors", {"palette": ["#112233"] * 100}, True


COVERED = {"box": [0, 0, 8, 8], "pixels": to_text(as_file(picture(8)))}
EDITS = (
    {"action": IMAGE},
    {"action": deep(100)},
    {"action": {}},
    {"added": [0] * 9},
    {"added": [0]},
    {"added": "abcd"},
    {"added": None},
    {"added": {"a": 1}},
    {"action": "outpaint", "added": [0]},
    {"action": "outpaint", "added": [-(10**9), -(10**9), 0, 0], "size": [10**6, 10**6]},
    {"action": "outpaint", "added": [-14000, -14000, 0, 0], "size": [13000, 13000]},  # 700 MB
    {"action": "outpaint", "added": [10**400, 0, 0, 0]},
    {"size": [10**9, 10**9]},
    {"size": [0, 0]},
    {"size": "ab"},
    {"size": [64]},
    {"size": [float("nan"), 64]},
    {"feather": 10**400},
    {"feather": IMAGE},
    {"mask": "x"},
    {"mask": 3},
    {"mask": to_text(as_file(PIL.Image.new("L", (65, 64), 255)))},
    {"mask": to_text(as_file(PIL.Image.new("L", (64, 64))))},
    {"mask": to_text(png(4000, 5000, 1, 0, zeros(5000 * 501)))},
    {"covered": "x"},
    {"covered": [1]},
    {"covered": {"box": None, "pixels": COVERED["pixels"]}},
    {"covered": {**COVERED, "box": [10**30, 0, 0, 0]}},
    {"covered": {**COVERED, "box": [float("nan"), 0, 8, 8]}},
    {"covered": {**COVERED, "box": "abcd"}},
    {"covered": {**COVERED, "box": [-(10**9), 0, 8, 8]}},
    {"covered": {**COVERED, "pixels": to_text(b"nonsense")}},
    {"covered": {**COVERED, "pixels": 3}},
    {"covered": {**COVERED, "pixels": to_text(png(3000, 3000, 8, 2, zeros(3000 * 9001)))}},
)


def texts() -> Iterator[tuple[str, bytes]]:
    """Texts in the place of a recipe."""
    yield "no JSON", b"{"
    yield "nothing", b""
    yield "nested 100000 deep", b"[" * 100_000
    yield "objects nested 100000 deep", b'{"a":' * 100_000
    yield "a number of 100000 digits", b'{"seed": ' + b"9" * 100_000 + b"}"
    yield "bytes", bytes(range(128, 256))
    yield "a million names", b"{" + b",".join(b'"%d":0' % number for number in range(1_000_000)) + b"}"
    yield "the same name twice", b'{"seed": 3, "seed": -1}'
    yield "python", b"__import__('os').system('id')"

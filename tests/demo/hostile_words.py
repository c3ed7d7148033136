"""What is said: texts and values of every type, and where they can be given."""

from pathlib import Path
from typing import Any

from hostile_files import SCRIPT


IMAGE = "<img src=x onerror=hostile()>"
# Where a picture can be given: the function, the element, and what else it needs.
PLACES = (
    ("see_1", "texture-picture"),
    ("show_photo", "photo"),
    ("generate", "shape-picture"),
    ("make_card", "texture-picture"),
    ("show_polarity", "mask"),
    ("restore", "restore"),
    ("edit", "photo"),
    ("see_2", "shape-picture"),
)
FILE_SLOTS = (
    *PLACES,
    ("explain", "color-picture"),
    ("generate", "color-card"),
    ("mix", "first-card"),
    ("see_2", "shape-card"),
    ("use_card", "card"),
    ("sweep", "shape-picture"),
    ("generate_live", "texture-picture"),
    ("show_link", "color-picture"),
)


def deep(depth: int, inner: Any = 0) -> Any:
    """Lists in lists."""
    for _ in range(depth):
        inner = [inner]
    return inner


TEXTS = {
    "script": SCRIPT,
    "image": IMAGE,
    "iframe": '<iframe src="javascript:hostile()"></iframe>',
    "attribute": '" onmouseover="hostile()',
    "markdown": "[x](javascript:hostile()) ![x](https://example.invalid/x)",
    "template": "{{7*7}} ${7*7} %s %n {0.__class__}",
    "zero byte": "a\0b",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f",
    "escape sequence": "\x1b]0;hostile\x07\x1b[2J",
    "half a character": "\ud800",
    "two wrong halves": "\udc00\ud800 leaf",
    "right to left": "\u202egnp.exe",
    "joined": "a" + "\u0301" * 290,
    "emoji": "\U0001f600" * 300,
    "long": "a" * 301,
    "very long": "<b>" * 100_000,
    "only spaces": " " * 300,
    "path": "../../etc/passwd",
    "command": "$(touch hostile) `id` | id",
    "xml": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "byte order": "\ufeff\ufffe\uffff",
}
VALUES = {
    "nothing": None,
    "true": True,
    "minus one": -1,
    "a fraction": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "400 digits": 10**400,
    "a text": "<b>1</b>",
    "an empty list": [],
    "a list": [1, 2],
    "an object": {"a": IMAGE},
    "an update": {"__type__": "update", "value": 1, "choices": ["<b>"]},
    "nested 100 deep": deep(100),
    "nested 900 deep": deep(900),
    "a file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    "a long list": [0] * 100_000,
}
FIELDS = (
    ("generate", "seed"),
    ("generate", "steps"),
    ("generate", "count"),
    ("generate", "guidance"),
    ("generate", "color-scale"),
    ("generate", "model"),
    ("edit", "feather"),
    ("edit", "left"),
    ("edit", "action"),
    ("sweep", "across"),
    ("sweep", "columns"),
    ("sweep", "top"),
    ("mix", "share"),
    ("mix", "granularity"),
    ("make_card", "granularity"),
    ("generate", "prompt"),
    ("see", "color-palette"),
    ("show_polarity", "invert"),
    ("show_polarity", "action"),
    ("show_link", "shape-scale"),
    ("generate_live", "live"),
    ("generate_live", "phase"),
)

# A painted layer as it arrives.
BLOB = {"type": "layer", "index": "0", "id": "a", "session_hash": "a", "fn_name": "accept_blobs"}
# Fields that differ, what comes along, whether it must be refused.
BLOBS: list[tuple[dict[str, str], bytes, bool]] = [
    ({"index": "1000000000"}, b"1", True),
    ({"index": "-1"}, b"1", True),
    ({"index": "x"}, b"1", True),
    ({"index": "\u0663"}, b"1", True),
    ({"index": "1e3"}, b"1", True),
    ({"index": ""}, b"1", True),
    ({"id": "a" * 100_000}, b"1", True),
    ({"id": ""}, b"1", True),
    ({}, bytes(3 * 2**20), True),
    ({"type": "background"}, bytes(3 * 2**20), False),
    ({"type": IMAGE}, b"1", False),
    ({"fn_name": "__init__"}, b"1", True),
    ({"fn_name": "preprocess"}, b"1", True),
    ({"component_id": "999999"}, b"1", True),
    ({"component_id": "x"}, b"1", True),
    ({"session_hash": "../../x"}, b"1", False),
]


def outside(repository: str, root: str) -> list[str]:
    """Paths of what nobody uploaded."""
    return [
        "/etc/passwd",
        "../../../../../../etc/passwd",
        "/proc/self/environ",
        "/proc/1/cmdline",
        "/proc/self/fd/0",
        "/dev/zero",
        "/dev/stdin",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x.png",
        "http://169.254.169.254/latest/meta-data",
        "https://example.invalid/x.png",
        "ftp://example.invalid/x.png",
        "\\\\example.invalid\\share\\x.png",
        "~/.ssh/id_rsa",
        "a\0b.png",
        "\ud800.png",
        "a" * 5000,
        ".",
        f"{repository}/README.md",
        f"{repository}/demo/app.py",
        f"{root}/log",
        f"{root}/tmp/gradio/../../log",
        f"{root}/tmp/gradio",
        f"{root}/tmp/gradio/{'a' * 300}",
        f"{root}/tmp/gradio/a\0b",
        f"{root}/tmp/gradio/\ud800",
    ]


def secret(root: str) -> list[str]:
    """Paths of a good picture that nobody uploaded, see `hide`: whoever accepts one reads files of the server."""
    there = [f"{root}/cwd/secret.png", f"{root}/tmp/secret.png", f"{root}/tmp/gradio/link.png"]
    return [*there, "secret.png", f"{root}/tmp/gradio/../secret.png", f"{root}/tmp/gradio-secret.png"]


def hide(root: Path, content: bytes) -> None:
    """Put a picture in the working folder and beside the folder of uploads, and a link to it among the uploads."""
    for name in ("cwd/secret.png", "tmp/secret.png", "tmp/gradio-secret.png"):
        (root / name).write_bytes(content)
    (root / "tmp" / "gradio" / "link.png").symlink_to(root / "cwd" / "secret.png")

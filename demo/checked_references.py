"""References of a visitor, checked: what the pipelines take, and how they travel in the metadata of a result."""

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from typing import Any

import PIL.Image

from demo import uploads


DAMAGED = "The recipe in this picture is damaged. Drop in the file as it was made here."


@dataclass(frozen=True)
class CheckedReference:
    """A reference: `value` is an RGB picture, a palette (list of hex colors) or the bytes of a granularity card."""

    kind: str  # "picture", "palette" or "card"
    value: PIL.Image.Image | list[str] | bytes

    @property
    def content(self) -> bytes:
        """As a file; a picture without loss."""
        return lossless(self.value) if self.kind == "picture" else self.value

    def recipe(self, keep: bool) -> dict[str, Any]:
        """What the metadata of a result say; with `keep` all that is needed to make it again."""
        if self.kind == "palette":
            return {"palette": self.value}
        known = {"sha256": hashlib.sha256(self.content).hexdigest()}
        return {**known, self.kind: to_text(self.content)} if keep else {**known, "kind": self.kind}


def lossless(image: PIL.Image.Image) -> bytes:
    """A picture as a WebP file without loss and without metadata."""
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True)
    return file.getvalue()


def to_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def from_text(text: Any) -> bytes:
    """What `to_text` wrote.

    Raises:
        ValueError: if it is no such text.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(DAMAGED) from error


def read_reference(entry: Any, name: str) -> CheckedReference | None:
    """A reference from the metadata of a result, checked like an upload; `None` if it did not travel along."""
    if not isinstance(entry, dict):
        raise ValueError(DAMAGED)
    if "palette" in entry:
        colors = entry["palette"]
        return CheckedReference(
            "palette", uploads.read_palette(", ".join(map(str, colors)) if isinstance(colors, list) else "")
        )
    if "picture" in entry:
        return CheckedReference(
            "picture", uploads.read_reference(from_text(entry["picture"]), f"The {name} reference")
        )
    if "card" in entry:
        return CheckedReference("card", from_text(entry["card"]))
    return None

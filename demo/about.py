"""What the tab About says: the model card without its front matter and pictures, limits and licences."""

import re
from pathlib import Path


ABOUT = Path(__file__).with_name("about.md").read_text(encoding="utf-8")


def model_card_of(text: str) -> str:
    """The text of a model card for the page: no front matter, no pictures, whose files are not here."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text).strip() or "This model brings no card along."

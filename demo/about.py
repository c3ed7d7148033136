"""What the tab About says: the model card without its front matter and pictures, limits and licences."""

import re


ABOUT = """\
A reference image carries three things that people want to borrow separately: its **color**, its **texture** and its
**shape**. Here each is read through a view that is blind to the other two, and each has a strength of its own. The same
references serve every tab.

**Limits.** The embedded model paints 64 x 64 pixels. It is there to feel what each slider does, not to make finished
pictures. Texture is its weakest slider; faces and small objects are lost; which region gets which color the seed decides;
words do little. Figures, and failures, are in the card below.

**Your pictures** are read on this server, lie in a temporary folder, and are removed after an hour. Metadata such as EXIF
are not copied to results. A result holds its recipe and, unless you switch that off, the references it was made from:
whoever has the file can restore everything.

**Licences.** Code and weights: Apache-2.0. The weights were trained on CC BY 2.0, CC0 and MIT pictures, credited in the
model's `CREDITS.md`. The examples are drawn by this program. Keys: Ctrl+Enter runs, Esc stops.
"""


def card_of(text: str) -> str:
    """The text of a model card for the page: no front matter, no pictures, whose files are not here."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text).strip() or "This model brings no card along."

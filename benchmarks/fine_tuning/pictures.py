"""Somebody's own pictures, of another kind than the embedded default has seen: emoji on colored paper.

Anyone can draw the same folder from the font alone (NotoColorEmoji.ttf of Debian's package fonts-noto-color-emoji, SIL
Open Font License 1.1).
"""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont


GLYPH_SIZE = 109  # the only size of the font's bitmaps
SIDE = 128
HELD_OUT = 128
# Weather, plants, food, events, music, sport, buildings, animals, clothes, tools, vehicles; no faces, hands, clocks, signs.
LISTED = Path(__file__).with_name("blocks.txt").read_text(encoding="utf-8").splitlines()
BLOCKS = [tuple(int(code, 16) for code in line.split()) for line in LISTED]  # first and last
SKIPPED = {"FACE", "PERSON", "MAN", "WOMAN", "HAND", "SIGN", "SYMBOL", "KISS", "COUPLE"}


def glyphs(font_file: str | Path) -> Iterator[tuple[str, PIL.Image.Image]]:
    """Name and picture (RGBA, cropped to what is drawn) of each emoji of `BLOCKS` that the font has.

    Raises:
        ValueError: if the file is no font with color bitmaps of the size expected.
    """
    try:
        font = PIL.ImageFont.truetype(str(font_file), GLYPH_SIZE)
    except OSError as error:
        raise ValueError(
            f"{str(font_file)!r} cannot be read as a font with bitmaps of {GLYPH_SIZE} pixels: {error}. Expected is "
            f"NotoColorEmoji.ttf, as in Debian's package fonts-noto-color-emoji."
        ) from error
    missing = _draw(font, "\U0001fffe").tobytes()
    for first, last in BLOCKS:
        for code in range(first, last + 1):
            name, drawn = unicodedata.name(chr(code), ""), _draw(font, chr(code))
            box = drawn.getchannel("A").getbbox()
            if name and box and drawn.tobytes() != missing and not SKIPPED & set(name.split()):
                yield name.lower(), drawn.crop(box)


def _draw(font: PIL.ImageFont.FreeTypeFont, text: str) -> PIL.Image.Image:
    image = PIL.Image.new("RGBA", (160, 160))
    PIL.ImageDraw.Draw(image).text((8, 8), text, font=font, embedded_color=True)
    return image


def paper(rng: np.random.Generator) -> PIL.Image.Image:
    """A sheet of SIDE x SIDE pixels: one color fading into a near one, half of the sheets under a fine print."""
    start = rng.uniform(90, 250, 3)
    end = (start + rng.uniform(-50, 50, 3)).clip(60, 255)
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    share = (0.5 + 0.7 * (np.cos(angle) * right + np.sin(angle) * down)).clip(0, 1)[..., None]
    sheet = start + share * (end - start)
    if rng.random() < 0.5:
        # Stripes where one wave is printed, dots or checks where two are.
        period, turn = rng.uniform(8, 20) / SIDE, rng.uniform(0, np.pi)
        along = np.cos(turn) * right + np.sin(turn) * down
        across = np.cos(turn) * down - np.sin(turn) * right
        ink = np.sin(2 * np.pi * along / period)
        if rng.random() < 0.6:
            ink = ink * np.sin(2 * np.pi * across / period)
        sheet = sheet + rng.uniform(10, 28) * np.sign(ink)[..., None]
    return PIL.Image.fromarray(sheet.clip(0, 255).round().astype(np.uint8))


def compose(glyph: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """The emoji on paper, of varied size and place."""
    sheet = paper(rng)
    longest = rng.uniform(0.6, 0.95) * SIDE
    size = tuple(max(1, round(longest * side / max(glyph.size))) for side in glyph.size)
    left, top = (int(rng.integers(0, SIDE - side + 1)) for side in size)
    glyph = glyph.resize(size, PIL.Image.Resampling.LANCZOS)
    sheet.paste(glyph, (left, top), glyph)
    return sheet


def draw_folder(font_file: str | Path, folder: str | Path, held_out: int = HELD_OUT) -> dict[str, int]:
    """An imagefolder: `held_out` emoji in val/, all others in train/. The same pictures every time.

    Returns:
        the number of pictures by split.
    """
    found = list(glyphs(font_file))
    kept_apart = set(np.random.default_rng(0).permutation(len(found))[:held_out].tolist())
    rows: dict[str, list[dict[str, str]]] = {"train": [], "val": []}
    for split in rows:
        Path(folder, split).mkdir(parents=True, exist_ok=True)
    for place, (name, glyph) in enumerate(found):
        split, file = "val" if place in kept_apart else "train", f"{name.replace(' ', '-')}.png"
        compose(glyph, np.random.default_rng([1, place])).save(Path(folder, split, file))
        rows[split].append({"file_name": file, "text": name})
    for split, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        Path(folder, split, "metadata.jsonl").write_text(text, encoding="utf-8")
    return {split: len(lines) for split, lines in rows.items()}

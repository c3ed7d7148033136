"""Which pictures of each source bazaar128 takes, in which split and under which caption.

A selection gets the names of all members of an archive and its texts, and returns the pictures by member.
"""

import csv
import hashlib
import io
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from .sources import ARCHIVES, Source


@dataclass(frozen=True)
class Entry:
    """A picture as `metadata.jsonl` has it, and its split."""

    split: str
    file_name: str
    text: str
    label: str
    license: str
    author: str
    source_url: str


Selection = Callable[[Source, Sequence[str], dict[str, str]], dict[str, Entry]]
NAMES = ARCHIVES["names"]  # what captions call classes

FLOWER = re.compile(r"(daisy|dandelion|roses|sunflowers|tulips)/([\w-]+)\.jpg")
# Two forms of a line: "daisy/1.jpg CC-BY by NAME - ADDRESS" and "daisy/1.jpg CC-BY ADDRESS - by NAME".
CREDIT = re.compile(
    r"(?P<file>\S+\.jpg) CC-BY (?:by (?P<author>.*) - (?P<url>\S+)|(?P<url2>\S+) - by (?P<author2>.*))"
)
FLOWER_SEED, FLOWER_SHARE = 42, 0.2

GROCERY = re.compile(r"dataset/(train|test|val)/(Fruit|Vegetables)/([\w-]+)/(?:[\w-]+/)?([\w-]+)\.jpg")

CLOTHING = re.compile(r"images/([0-9a-f-]{36})\.jpg")
CLOTHING_SKIPPED = ("Not sure", "Skip")
CLOTHING_SHARE = 10  # one in ten


def left_out() -> frozenset[str]:
    """What is left out, as label/name: pictures with faces, and validation pictures that nearly repeat a training picture.

    Once found by detectors and looked through; a list, because detectors of other versions would find others.
    """
    return frozenset((files(__package__) / "left_out.txt").read_text(encoding="utf-8").split())


def text_of(texts: dict[str, str], name: str, source: Source) -> str:
    if name not in texts:
        raise ValueError(f"The archive of {source.name} has no {name}; expected is what {source.url} holds.")
    return texts[name]


def select_flowers(source: Source, names: Sequence[str], texts: dict[str, str]) -> dict[str, Entry]:
    """All pictures; in every class a fifth of the names, drawn by a fixed seed, is for validation.

    Raises:
        ValueError: if the credits, which the licence asks for, are missing.
    """
    lines = map(CREDIT.fullmatch, map(str.strip, text_of(texts, "LICENSE.txt", source).splitlines()))
    credits = {
        line["file"]: (line["author"] or line["author2"] or "", line["url"] or line["url2"]) for line in lines if line
    }
    classes = defaultdict(list)
    for name in sorted(names):
        if found := FLOWER.fullmatch(name):
            classes[found[1]].append(name)
    chosen = {}
    for label, row in classes.items():
        order = np.random.RandomState(FLOWER_SEED).permutation(len(row))  # whose draws never change
        held_out = set(order[: math.ceil(FLOWER_SHARE * len(row))].tolist())
        for index, name in enumerate(row):
            if name not in credits:
                raise ValueError(f"LICENSE.txt of the archive of {source.name} credits nobody for {name}.")
            chosen[name] = Entry(
                "val" if index in held_out else "train",
                f"flowers_{name.removesuffix('.jpg')}.webp",
                f"a photo of {NAMES['flowers'].get(label, label)}",
                f"flowers_{label}",
                source.license,
                *credits[name],
            )
    return chosen


def select_grocery(source: Source, names: Sequence[str], texts: dict[str, str]) -> dict[str, Entry]:
    """Natural pictures of fruit and vegetables, no packages with brands; its test split serves for training, too."""
    found_in = {part: [] for part in ("train", "test", "val")}
    for name in sorted(names):
        if found := GROCERY.fullmatch(name):
            found_in[found[1]].append((name, *found.groups()))
    chosen = {}
    for row in found_in.values():
        for name, part, kingdom, kind, stem in row:
            label = f"grocery_{kingdom}_{kind}".lower()
            split = "val" if part == "val" else "train"
            plural = NAMES["grocery"].get(kind) or f"{kind.replace('-', ' ').lower()}s"
            file_name = f"{label}/{part}_{stem}.webp"
            chosen[name] = Entry(
                split, file_name, f"a photo of {plural}", label, source.license, source.author, source.home
            )
    return chosen


def select_clothing(source: Source, names: Sequence[str], texts: dict[str, str]) -> dict[str, Entry]:
    """Pictures with a class; one in ten, by the MD5 of its name, is for validation."""
    there = {found[1]: name for name in names if (found := CLOTHING.fullmatch(name))}
    chosen = {}
    for row in csv.DictReader(io.StringIO(text_of(texts, "images.csv", source))):
        image, kind = row["image"], row["label"]
        if kind in CLOTHING_SKIPPED or image not in there:
            continue
        digest = hashlib.md5(image.encode(), usedforsecurity=False).hexdigest()
        label = f"clothing_{kind.lower().replace('-', '')}"
        chosen[there[image]] = Entry(
            "val" if int(digest, 16) % CLOTHING_SHARE == 0 else "train",
            f"{label}/{image}.webp",
            f"a photo of {NAMES['clothing'].get(kind, kind.lower())}",
            label,
            source.license,
            f"contributor {row['sender_id']}",
            source.home,
        )
    return chosen


SELECTIONS: dict[str, Selection] = {"flowers": select_flowers, "grocery": select_grocery, "clothing": select_clothing}
TEXTS = ("LICENSE.txt", "LICENSE", "images.csv")

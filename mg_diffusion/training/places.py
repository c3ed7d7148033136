"""The folders of a run, refused before anything is written where they cannot be folders or would be read as data."""

import argparse
import re
from pathlib import Path


# Of folders' names, by which `datasets` finds splits, with whatever of `BETWEEN` around.
SPLITS = {"train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"}
BETWEEN = re.compile(r"[-._ 0-9]+")


def check_places(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse files in the place of folders, and folders among the pictures that are trained on."""
    for name in ("output_dir", "cache_dir"):
        given = getattr(args, name, None)
        if given is None:
            continue
        place = Path(given).resolve()
        there = next(path for path in (place, *place.parents) if path.exists())
        if not there.is_dir():
            parser.error(f"--{name} names a folder, and {str(there)!r} is a file; give another place")
        for source in ("train_data_dir", "dataset_name", "materials_dir"):
            data = getattr(args, source, None)
            if data is not None and is_read(place, Path(data).resolve()):
                parser.error(
                    f"--{name} {given!r} lies in --{source} {data!r}, where what is written would be read as data; give a "
                    f"place outside"
                )


def is_read(place: Path, data: Path) -> bool:
    """Whether what is written to a place would be read as data: in the folder of the data, unless it is beside its splits."""
    if not (data.is_dir() and place.is_relative_to(data)):
        return False
    below = place.relative_to(data).parts
    is_in_split = any(SPLITS.intersection(BETWEEN.split(part)) for part in below)
    return not below or is_in_split or not any((data / name).is_dir() for name in ("train", "training"))

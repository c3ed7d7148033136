"""The folders of a run, refused before anything is written where they cannot be folders or would be read as data."""

import argparse
from pathlib import Path


def check_places(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse files in the place of folders, and folders within the pictures that are trained on."""
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
            if data is not None and Path(data).is_dir() and place.is_relative_to(Path(data).resolve()):
                parser.error(
                    f"--{name} {given!r} lies in --{source} {data!r}, where what is written would be read as data; give a "
                    f"place outside"
                )

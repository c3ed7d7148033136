"""The files of an imagefolder: its splits, and what its metadata says of each picture."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mg_diffusion.decoding import DOCUMENTS

from .pictures import SUFFIXES


# The names that the imagefolder loader of `datasets` takes for a split, as far as training reads them.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev")}
METADATA = ("metadata.jsonl", "metadata.csv")


@dataclass
class Split:
    """`files` are pictures by suffix, `rows` the metadata by path; `problems` would stop a run."""

    name: str
    root: Path
    folder: Path
    files: list[Path] = field(default_factory=list)
    rows: dict[Path, dict[str, Any]] = field(default_factory=dict)
    others: int = 0
    has_metadata: bool = False
    problems: list[str] = field(default_factory=list)

    def short(self, path: Path) -> str:
        """A path as a report names it: from the folder that was asked for."""
        return path.relative_to(self.root).as_posix()


def split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split; a folder without any is one split, `train`."""
    found = {
        name: next((folder / one for one in names if (folder / one).is_dir()), None) for name, names in SPLITS.items()
    }
    found = {name: path for name, path in found.items() if path is not None}
    return found or {"train": folder}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metadata file.

    Raises:
        ValueError: if it is not what its name says.
    """
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not an object")
    return rows


def add_metadata(split: Split, path: Path) -> None:
    split.has_metadata = True
    try:
        rows = read_rows(path)
    except ValueError as error:  # bytes that are no UTF-8 and lines that are no JSON are ValueErrors, too
        split.problems.append(f"{split.short(path)} cannot be read: {error}")
        return
    named = [row for row in rows if row.get("file_name") and isinstance(row["file_name"], str)]
    if len(named) < len(rows):
        split.problems.append(f"{split.short(path)} has rows without file_name")
    split.rows |= {path.parent / row["file_name"]: row for row in named}


def check_rows(split: Split) -> None:
    """Pictures and rows must be the same ones."""
    files, rows = set(split.files), set(split.rows)
    for missing, what in ((rows - files, "names {} files that are not there"), (files - rows, "lacks {} pictures")):
        if missing:
            shown = min(path.as_posix() for path in missing)
            split.problems.append(f"the metadata of {split.name} {what.format(len(missing))}, such as {shown}")


def read_folder(folder: str | Path) -> list[Split]:
    """The splits of an imagefolder.

    Raises:
        ValueError: if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(
            f"There is no folder {str(folder)!r}. Expected is a folder of pictures, or of train/ and val/."
        )
    splits = [Split(name, root, path) for name, path in split_folders(root).items()]
    for split in splits:
        for path in sorted(split.folder.rglob("*")):
            hidden = any(part.startswith((".", "__")) for part in path.relative_to(split.folder).parts)
            if path.is_dir() or hidden:
                continue
            if path.name in METADATA:
                add_metadata(split, path)
            elif path.suffix.lower() in SUFFIXES:
                split.files.append(path)
            elif not path.name.lower().startswith(DOCUMENTS):
                split.others += 1
        if split.has_metadata:
            check_rows(split)
    if len({split.has_metadata for split in splits}) > 1:
        (bare,) = (split.name for split in splits if not split.has_metadata)
        splits[0].problems.append(f"{bare} has no metadata.jsonl and the other split has one: give both or neither")
    return splits

"""The files of an imagefolder: its splits, and what its metadata says of each picture."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mg_diffusion.decoding import DOCUMENTS
from mg_diffusion.metadata import METADATA, pictures_of, read_rows, refusal_of, unread_metadata

from .pictures import SUFFIXES


# The names that the imagefolder loader of `datasets` takes for a split, as far as training reads them.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev")}


@dataclass
class Split:
    """`files` are pictures by suffix, `rows` the metadata by path, of `columns`; `problems` would stop a run."""

    name: str
    root: Path
    folder: Path
    files: list[Path] = field(default_factory=list)
    rows: dict[Path, dict[str, Any]] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    repeated: set[Path] = field(default_factory=set)
    metadata: list[Path] = field(default_factory=list)
    others: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def has_metadata(self) -> bool:
        return bool(self.metadata)

    def short(self, path: Path) -> str:
        """A path as a report names it: from the folder that was asked for."""
        return path.relative_to(self.root).as_posix()


def split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split; a folder without any is one split, `train`."""
    there = {name: [folder / one for one in names if (folder / one).is_dir()] for name, names in SPLITS.items()}
    return {name: paths[0] for name, paths in there.items() if paths} or {"train": folder}


def add_metadata(split: Split, path: Path) -> None:
    split.metadata.append(path)
    try:
        with path.open("rb") as file:
            rows = list(read_rows(file, path.suffix))
        named = [pictures_of(row) for row in rows]
    except (ValueError, OSError) as error:
        split.problems.append(f"{split.short(path)} cannot be read: {error}")
        return
    if not all(named):
        split.problems.append(f"{split.short(path)} has rows without file_name")
    for row, names in zip(rows, named, strict=True):
        split.columns |= dict.fromkeys(row)
        for number, name in enumerate(names.values()):  # the first is the picture of the row, or as good as any
            place = path.parent / name
            split.repeated |= {place} if number == 0 and place in split.rows else set()
            split.rows.setdefault(place, {}).update(row if number == 0 else {})


def check_rows(split: Split) -> None:
    """Pictures and rows must be the same ones."""
    files, rows = set(split.files), set(split.rows)
    for found, what in (
        (rows - files, "names {} files that are not there"),
        (files - rows, "lacks {} pictures"),
        (split.repeated, "names {} pictures in several rows, and training takes each row for a picture"),
    ):
        if found:
            shown = min(path.as_posix() for path in found)
            split.problems.append(f"the metadata of {split.name} {what.format(len(found))}, such as {shown}")
    suffixes = sorted({path.suffix for path in split.metadata})
    if len(suffixes) > 1:
        split.problems.append(f"{split.name} has metadata of several kinds, {suffixes}, which training refuses")


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
            if hidden or path.is_dir() and not path.is_symlink():
                continue
            if path.is_dir():
                split.problems.append(f"{split.short(path)} is a link to a folder, which training does not follow")
            elif path.name in METADATA and path.is_file():
                add_metadata(split, path)
            elif path.suffix.lower() in SUFFIXES:
                split.files.append(path)
            elif not path.name.lower().startswith(DOCUMENTS):
                split.others += 1
        if split.folder.is_symlink() and split.folder != root:
            split.problems.append(f"{split.short(split.folder)} is a link to a folder, which training does not follow")
        if split.has_metadata:
            check_rows(split)
    if unread := unread_metadata(root, [split.folder for split in splits]):
        splits[0].problems.append(refusal_of(unread, root))
    if len({split.has_metadata for split in splits}) > 1:
        (bare,) = (split.name for split in splits if not split.has_metadata)
        splits[0].problems.append(f"{bare} has no metadata.jsonl and the other split has one: give both or neither")
    return splits

"""Where pictures come from: an imagefolder, webdataset shards or a data set of the Hub, all read by `datasets`."""

import errno
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from datasets import Dataset, DatasetBuilder, Image, IterableDataset, Value
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.utils.file_utils import xopen

from mg_diffusion.decoding import DOCUMENTS, Unusable
from mg_diffusion.metadata import METADATA, caption_column, caption_of, refusal_of, unread_metadata

from .imagefolder import load_builder
from .settings import Settings


SHARDS = (".tar", ".tar.gz", ".tgz")
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
# What `datasets` and what it reads by raise for data that cannot be read.
READING_ERRORS = (OSError, ValueError, tarfile.TarError, DatasetGenerationError)


class Row(NamedTuple):
    """A row of a data set, its picture not opened yet: {"bytes", "path"}, one of which may be `None`."""

    name: str
    image: dict[str, Any] | None
    caption: str


@contextmanager
def open_image(image: dict[str, Any] | None) -> Iterator[BinaryIO]:
    """The file of a row's picture; `Unusable` if there is none, or it cannot be opened."""
    if image is None or image["bytes"] is None and not image["path"]:
        raise Unusable("no picture", "the row has none")
    try:
        # xopen knows members of archives and files of the Hub, too.
        file = xopen(image["path"], "rb") if image["bytes"] is None else BytesIO(image["bytes"])
    except OSError as error:
        raise Unusable("unreadable", f"{type(error).__name__}: {error.strerror or error}") from error
    with file:
        yield file


def causes(error: BaseException) -> str:
    """An error with what it was raised from: `datasets` says the reason there only."""
    return str(error) if error.__cause__ is None else f"{error}: {causes(error.__cause__)}"


@dataclass(frozen=True)
class Source(Settings):
    """A data set by the flags that name it; exactly one of `train_data_dir` and `dataset_name` is given."""

    train_data_dir: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    image_column: str | None = None
    caption_column: str | None = None

    def __str__(self) -> str:
        return repr(self.train_data_dir or self.dataset_name)

    @cached_property
    def builder(self) -> DatasetBuilder:
        """Of the kind that the files ask for: shards, unless there are pictures beside them."""
        if self.dataset_name:
            return load_builder(self.dataset_name, self.dataset_config_name)
        if not Path(self.train_data_dir).is_dir():
            raise FileNotFoundError(
                "there is no such folder; expected is one with train/ and, optional, val/ below it"
            )
        builder = load_builder("imagefolder", data_dir=self.train_data_dir)
        names = [name for files in builder.config.data_files.values() for name in files]
        if any(name.endswith(SHARDS) for name in names) and not any(map(_is_picture, names)):
            builder = load_builder("webdataset", data_dir=self.train_data_dir)
        return builder

    @cached_property
    def listed(self) -> dict[str, DataFilesList]:
        """All files of each split; a ValueError if nothing can be read."""
        try:
            return {str(split): files for split, files in self.builder.config.data_files.items()}
        except READING_ERRORS as error:
            remedy = ""
            if getattr(error, "errno", None) in UNWRITABLE:
                remedy = " Set HF_HOME to a folder that can be written."
            elif any(map(os.path.islink, Path(self.train_data_dir or "").glob("*"))):
                remedy = " Links to folders are not followed; name the folder itself, or link the files in it."
            raise ValueError(
                f"No split 'train' of pictures can be read from {self}: {causes(error)}{remedy}"
            ) from error

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Files of each split, without those `datasets` would stumble over; a ValueError if a shard breaks off."""
        self._refuse_unread_metadata()
        if self.dataset_name:
            return self.listed
        listed = self.listed.items()
        read = {split: [name for name in files if _is_read(name, self.builder)] for split, files in listed}
        shards = [name for files in read.values() for name in files if name.endswith(".tar")]
        if cut := [self.relative(name) for name in shards if not _is_whole(name)]:
            raise ValueError(
                f"Shards of {self} break off, they lack the end mark of a tar archive; get them anew: {cut}"
            )
        self.builder.config.data_files = DataFilesDict(
            {split: DataFilesList(files, self.listed[split].origin_metadata) for split, files in read.items() if files}
        )
        return read

    def _refuse_unread_metadata(self) -> None:
        root = Path(self.train_data_dir or self.dataset_name).resolve()
        if not (root.is_dir() and self.listed and isinstance(self.builder, ImageFolder)):
            return
        if unread := unread_metadata(root, [Path(self.folder(split)) for split in self.listed]):
            raise ValueError(f"Of {self} {refusal_of(unread, root)}")

    def folder(self, split: str) -> str:
        """Where the files of a split of a folder lie."""
        return os.path.commonpath([os.path.dirname(name) for name in self.listed[split]])

    def version(self, split: str) -> str:
        """What changes when files of a split do: their names, with their times or the revision on the Hub."""
        return repr([list(self.listed[split]), self.listed[split].origin_metadata])

    def relative(self, path: str) -> str:
        """A name without what depends on the machine."""
        root = str(Path(self.train_data_dir).resolve()) + os.sep if self.train_data_dir else ""
        return path.replace(root, "") if root else path

    def open(self, split: str, is_streamed: bool = False) -> "Split":
        """The split of a name; a ValueError if there is none, or it lacks a column."""
        if split not in self.splits:
            found = ", ".join(map(repr, self.splits))
            raise ValueError(f"No split {split!r} of pictures can be read from {self}: it has {found}.")
        if not self.splits[split]:
            raise ValueError(f"Split {split!r} of {self} cannot be read: none of its files is a picture or shard.")
        try:
            if is_streamed:
                data = self.builder.as_streaming_dataset(split=split)
            else:
                self.builder.download_and_prepare()
                data = self.builder.as_dataset(split=split)
            return Split(self, split, data)
        except READING_ERRORS as error:
            raise ValueError(
                f"Split {split!r} of {self} cannot be read: {causes(error)} (Where one split has metadata, all must; the files "
                f"of a shard have the same endings in each sample.)"
            ) from error


class Split:
    """A split of a source, its pictures not decoded."""

    def __init__(self, source: Source, name: str, data: Dataset | IterableDataset):
        self.source, self.name = source, name
        self.image = self._image_column(data)
        self.caption = self._caption_column(data)
        words = [name for name, feature in data.features.items() if getattr(feature, "dtype", "").endswith("string")]
        self.doubt = (
            None if self.caption or not words else f"{self}: no captions; {words} could be named by --caption_column"
        )
        for column, feature in data.features.items():
            if isinstance(feature, Image) or column == self.image:
                data = data.cast_column(column, Image(decode=False))
        self.paths = self._paths(data)
        needed = {self.image, self.caption, (self.caption or "").partition(".")[0], "__url__"}
        self.data = data.select_columns([column for column in data.column_names if column in needed])

    def __str__(self) -> str:
        return f"split {self.name!r} of {self.source}"

    def _image_column(self, data: Dataset | IterableDataset) -> str:
        columns, wanted = data.features, self.source.image_column
        pictures = [name for name, feature in columns.items() if isinstance(feature, Image)]
        if wanted is None and ("image" in pictures or len(pictures) == 1):
            return "image" if "image" in pictures else pictures[0]
        if wanted is None:
            raise ValueError(
                f"The data has the columns {list(columns)}, of which {pictures} hold pictures: name one by --image_column."
            )
        if wanted not in columns:
            raise ValueError(f"The data has the columns {list(columns)}, but no {wanted!r} (--image_column).")
        feature = columns[wanted]
        is_file = isinstance(feature, Value) and feature.dtype.removeprefix("large_") in ("binary", "string")
        if not (wanted in pictures or is_file or isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()):
            raise ValueError(f"--image_column {wanted!r} holds no pictures but {feature}.")
        return wanted

    def _caption_column(self, data: Dataset | IterableDataset) -> str | None:
        columns = data.features

        def exists(name: str) -> bool:
            column, _, key = name.partition(".")
            return name in columns or isinstance(columns.get(column), dict) and key in columns[column]

        wanted = self.source.caption_column
        if wanted is None:
            return caption_column(list(columns), dict(columns))
        if not exists(wanted):
            raise ValueError(f"The data has the columns {list(columns)}, but no {wanted!r} (--caption_column).")
        return wanted

    def _paths(self, data: Dataset | IterableDataset) -> set[str] | None:
        """Pictures of an imagefolder that a row names, in any column; `None` where only reading the rows would tell."""
        if isinstance(data, IterableDataset) or not isinstance(self.source.builder, ImageFolder):
            return None
        columns = [name for name, feature in data.features.items() if isinstance(feature, Image)]
        return {image["path"] for column in columns for image in data[column] if image}

    def rows(self) -> Iterator[Row]:
        """All rows in their order; a ValueError if they cannot be read."""
        try:
            for index, record in enumerate(self.data):
                yield self.row(record, f"row {index}")
        except READING_ERRORS as error:
            raise ValueError(f"{self} cannot be read on: {causes(error)}") from error

    def row(self, record: dict[str, Any], place: str) -> Row:
        """A record of the data, called `place` where it has no name; a ValueError if the caption is no text."""
        image = record[self.image]
        name = self.source.relative(image["path"]) if image and image["path"] else place
        if record.get("__url__"):
            name = f"{self.source.relative(record['__url__'])}/{name}"
        if self.caption is None:
            return Row(name, image, "")
        try:
            return Row(name, image, caption_of(record, self.caption))
        except ValueError as error:
            raise ValueError(f"In {name!r} {error} (--caption_column).") from error

    def strays(self) -> Iterator[dict[str, str]]:
        """Name, reason and detail of what lies in the folder of the split and is not read as a picture or shard of it.

        Hidden files and folders, metadata, readmes, licenses and credits are none.
        """
        if not self.source.train_data_dir:
            return
        read = {path for files in self.source.splits.values() for path in files}
        for folder, folders, files in os.walk(self.source.folder(self.name)):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
            linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in [*sorted({*filter(_is_picture, folders), *linked}), *sorted(files)]:
                path = os.path.join(folder, name)
                if not (name.startswith(".") or name.lower().startswith(DOCUMENTS) or name in METADATA):
                    if why := self._why_not(path, path in read):
                        yield {"name": self.source.relative(path), "reason": why[0], "detail": why[1]}

    def _why_not(self, path: str, is_read: bool) -> tuple[str, str] | None:
        if is_read:
            is_named = self.paths is None or path in self.paths or not _is_picture(path)
            return None if is_named else ("not in the metadata", "no row names it")
        if not os.path.isfile(path):
            linked = "a link to a folder, which is not followed" if os.path.islink(path) else "a folder"
            return "not a file", linked if os.path.isdir(path) else "a broken link, or no regular file"
        return "not a picture file", f"its name ends in {Path(path).suffix!r}"


def _is_read(name: str, builder: DatasetBuilder) -> bool:
    """Whether a builder can read a file of a folder."""
    if not isinstance(builder, ImageFolder):
        return name.endswith(SHARDS)
    if name.lower().endswith(".zip"):
        return zipfile.is_zipfile(name)
    return os.path.basename(name) in METADATA or _is_picture(name)


def _is_whole(name: str) -> bool:
    """Whether a tar archive has its end mark; what breaks off between two members would be read as if it were whole."""
    size = os.path.getsize(name)
    with open(name, "rb") as file:
        file.seek(max(0, size - tarfile.BLOCKSIZE))
        return file.read() == bytes(tarfile.BLOCKSIZE)


def _is_picture(name: str) -> bool:
    """Whether `imagefolder` takes a file for a picture, by its name."""
    return os.path.splitext(name)[1].lower() in ImageFolder.EXTENSIONS

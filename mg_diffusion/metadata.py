"""The one reader of metadata beside pictures: for training and for `mg-diffusion data check`.

A file is read as what its bytes say, text as text: no word stands for "not available", as it does to pandas.
"""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .decoding import DOCUMENTS


METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # names that are read; `datasets` knows no other
# Tried in this order where no caption column is given; "json.caption" is `caption` in the column `json`.
CAPTIONS = ("text", "txt", "caption", "json.caption", "json.text", "json.prompt")
FILE_NAME = "file_name"  # the column that names the picture of a row
TEXT_TABLES = (".csv", ".json", ".jsonl", ".ndjson", ".tsv", ".txt")
TABLES = (*TEXT_TABLES, ".arrow", ".feather", ".gz", ".ods", ".parquet", ".xls", ".xlsx", ".yaml", ".yml")
HEAD = 1 << 16  # bytes that tell whether a table names files
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_rows(file: BinaryIO, suffix: str) -> Iterator[dict[str, Any]]:
    """The rows of a metadata file, one after the other; paths of pictures in them as `os.path.normpath` has them, with slashes.

    Args:
        file: open for reading.
        suffix: ".csv" (with commas; all values are text), ".jsonl" (an object a line) or ".parquet".

    Raises:
        ValueError: if it is not what its suffix says, has no rows, or names a picture outside its own folder.
    """
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[suffix]
    count = 0
    for row in read(file):
        count += 1
        yield {column: _inside(value) if _is_picture(column, value) else value for column, value in row.items()}
    if not count:
        raise ValueError("it has no rows; remove it, or name the pictures in it")


def _text_of(file: BinaryIO) -> io.TextIOBase:
    """Text as its byte order mark says, or UTF-8: what spreadsheets and shells of Windows write, too."""
    head = file.read(4)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    file.seek(0)
    try:
        return io.StringIO(file.read().decode(encoding))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no {encoding.upper()} text (byte {error.start}); save it as UTF-8") from error


def _csv_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    text = _text_of(file)
    reader = csv.DictReader(text, skipinitialspace=True, strict=True)
    try:
        columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        if len(set(columns)) < len(columns):
            raise ValueError(f"it has columns of the same name: {columns}")
        if not any(_names_pictures(name) for name in columns):
            raise ValueError(
                f"it has the columns {columns}, but no {FILE_NAME!r}; the first line names the columns, with commas between"
            )
        for row in reader:
            if None in row:
                raise ValueError(
                    f"line {reader.line_num} has more values than there are columns; put text with commas in quotes"
                )
            yield {name: value or None for name, value in row.items()}
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is no CSV: {error}") from error


def _json_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text_of(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:  # where escapes may be halves of a character, which no text of a table holds
                json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"line {number} has an escape such as \\ud800 for half a character; write the character itself"
            ) from error
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object; expected is one a line, not a list")
        yield row


def _parquet_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "it takes pyarrow to read it: pip install 'mg-diffusion[train]', or write metadata.jsonl"
        ) from error
    try:
        for batch in pyarrow.parquet.ParquetFile(io.BytesIO(file.read())).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"it is no parquet: {error}") from error


def _names_pictures(column: str) -> bool:
    return column == FILE_NAME or column.endswith(f"_{FILE_NAME}")


def _is_picture(column: str, value: Any) -> bool:
    return _names_pictures(column) and isinstance(value, str) and value != ""


def _inside(name: str) -> str:
    """The path of a picture; a ValueError where it leads out of the folder of the metadata."""
    path = os.path.normpath(name.replace("\\", "/"))
    if "://" in name or os.path.isabs(name) or os.path.isabs(path) or path.split("/")[0] == "..":
        raise ValueError(f"it names {name!r}; expected is a path inside the folder of the metadata, relative to it")
    return path


def pictures_of(row: dict[str, Any]) -> dict[str, str]:
    """What a row of `read_rows` names, by column; of `file_name` the column is "image"."""
    return {
        column.removesuffix(FILE_NAME).removesuffix("_") or "image": value
        for column, value in row.items()
        if _is_picture(column, value)
    }


def caption_column(columns: Sequence[str], first: dict[str, Any] | None = None) -> str | None:
    """The column of captions where none is named; `first` says what is in columns that hold objects."""
    for name in CAPTIONS:
        column, _, key = name.partition(".")
        if column in columns and (not key or isinstance((first or {}).get(column), dict) and key in first[column]):
            return name
    return None


def caption_of(row: dict[str, Any], column: str) -> str:
    """The caption of a row, "" where there is none; a ValueError if it is no text."""
    name, _, key = column.partition(".")
    value = row[column] if column in row else row.get(name)
    if column not in row and key:
        value = value.get(key) if isinstance(value, dict) else None
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the caption column {column!r} must hold text, it holds {value!r:.80}")
    return value or ""


def unread_metadata(root: Path, folders: Sequence[Path]) -> list[Path]:
    """Files that look like metadata, but are not read: of another name, or not beside the pictures of a split.

    Args:
        root: of the data; folders: of its splits, which may be the root itself.
    """
    above = {place for folder in folders for place in (folder, *folder.parents) if place.is_relative_to(root)}
    paths = [path for place in above for path in place.iterdir()]
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
            paths += [Path(place, name) for name in names]
    is_of_a_split = {path for path in paths if any(path.is_relative_to(folder) for folder in folders)}
    return [
        path
        for path in sorted(set(paths))
        if not (path in is_of_a_split and path.name in METADATA and path.is_file()) and _looks_like_metadata(path)
    ]


def _looks_like_metadata(path: Path) -> bool:
    """By its name, or because it names files."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if suffix not in TABLES or name.startswith((".", *DOCUMENTS)) or path.is_dir() and path.name not in METADATA:
        return False
    if name.startswith(("metadata", "captions.", "caption.")):
        return True
    if not path.is_file() or suffix not in (*TEXT_TABLES, ".parquet"):
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
        if suffix == ".parquet":
            file.seek(max(0, path.stat().st_size - HEAD))  # where the schema is
            head = file.read()
    return FILE_NAME.encode() in head.replace(b"\0", b"")


def refusal_of(unread: Sequence[Path], root: Path) -> str:
    """What to say about files that `unread_metadata` has found."""
    names = [os.path.relpath(path, root) for path in unread]
    return (
        f"{names[0]!r}{f' and {len(names) - 1} more' if len(names) > 1 else ''} would not be read as metadata, and its "
        f"captions be missing. Expected is one file beside the pictures of each split, named "
        f"{', '.join(METADATA)}, in which {FILE_NAME!r} is relative to its own folder; rename, move or remove it."
    )

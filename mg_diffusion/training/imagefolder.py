"""Imagefolders whose metadata our own reader reads, in place of that of `datasets`."""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow
from datasets import DatasetBuilder, load_dataset_builder
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.utils.file_utils import xopen

from mg_diffusion.metadata import METADATA, read_rows


ROWS = 10_000  # of a table; the first one says which columns there are
# To `datasets` these are settings of their own, so that nothing is taken from what its own reader has left in its cache.
OWN_READER = {"metadata_filenames": list(METADATA)}
# Words such as "null" and "NA" are text; what is empty is not there.
WORDS_ARE_TEXT = {"keep_default_na": False, "na_values": [""]}


def load_builder(*args: Any, **options: Any) -> DatasetBuilder:
    """As `load_dataset_builder`; captions of folders and of CSV files are read as they stand there."""
    builder = load_dataset_builder(*args, **options)
    if isinstance(builder, ImageFolder):
        builder = load_dataset_builder(*args, **options, **OWN_READER)
        builder._read_metadata = tables
    elif isinstance(builder, Csv):
        builder = load_dataset_builder(*args, **options, **WORDS_ARE_TEXT)
    return builder


def tables(path: str, metadata_ext: str = "") -> Iterator[pyarrow.Table]:
    """The rows of a metadata file, in place of `ImageFolder._read_metadata`; a ValueError as of `read_rows`."""
    name = os.path.basename(path)
    try:
        with xopen(path, "rb") as file:  # which knows members of archives and files of the Hub, too
            yield from _tables(read_rows(file, metadata_ext))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None  # which would be told twice


def _tables(rows: Iterator[dict[str, Any]]) -> Iterator[pyarrow.Table]:
    columns: dict[str, None] = {}
    while batch := list(islice(rows, ROWS)):
        found = dict.fromkeys(name for row in batch for name in row)
        columns = columns or found
        if late := [name for name in found if name not in columns]:
            raise ValueError(f"the columns {late} are first named after {ROWS} rows; name them in the first row")
        yield pyarrow.table({name: [row.get(name) for row in batch] for name in columns})

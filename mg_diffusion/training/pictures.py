"""Pictures of a data set, at the training size."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch.utils.data import Dataset
from tqdm import tqdm

from mg_diffusion.decoding import MAX_PIXELS, MAX_SKIPPED_SHARE, Unusable, decode

from .caching import picture_fingerprint
from .settings import Data
from .skipping import Skipped
from .sources import Row, Source, Split, open_image


REPORT = "skipped.jsonl"


@dataclass
class Pictures:
    """`whole` and `crop` are (N, 3, size, size) uint8: the centered square, and a random part of it."""

    whole: torch.Tensor
    crop: torch.Tensor
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def resize(self, size: int) -> "Pictures":
        """The same pictures at another size; themselves, if it is theirs."""
        if self.whole.shape[2] == size:
            return self
        whole, crop = (
            F.interpolate(part.float(), size=(size, size), mode="bicubic", antialias=True).clamp(0, 255).round().byte()
            for part in (self.whole, self.crop)
        )
        return Pictures(whole, crop, self.captions)


@dataclass(eq=False)
class PictureSamples(Dataset):
    """Samples of a run that are drawn from its pictures; sample `i` is a function of (seed, i) alone."""

    pictures: Pictures
    length: int
    seed: int

    @property
    def fingerprint(self) -> str:
        return picture_fingerprint(self.pictures.whole, self.pictures.captions)

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class Limits:
    """What is read: squares of `size` pixels, from pictures that are neither too small nor too large.

    min_side: least length of the shorter side; half of `size` if not given.
    max_skipped_share: of all files.
    report: JSON lines with what is skipped; nothing is written if not given.
    """

    size: int
    min_side: int | None = None
    max_pixels: int = MAX_PIXELS
    max_skipped_share: float = MAX_SKIPPED_SHARE
    report: Path | None = None


def _to_tensor(image: PIL.Image.Image, size: int) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((size, size), PIL.Image.BICUBIC))).permute(2, 0, 1)


def read_picture(row: Row, limits: Limits, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The square of a row's picture and a part of it, drawn by the seed and the picture alone: not by its neighbors.

    Raises:
        Unusable: see `decode` and `open_image`.
    """
    with open_image(row.image) as file:
        least = limits.size // 2 if limits.min_side is None else limits.min_side
        image = decode(file, least, limits.max_pixels)
    square = PIL.ImageOps.fit(image, [min(image.size)] * 2, PIL.Image.BICUBIC)
    whole = _to_tensor(square, limits.size)
    rng = np.random.default_rng([5, seed, zlib.crc32(whole.numpy().tobytes())])
    side = round(square.width * rng.uniform(0.6, 0.9))
    left, top = rng.integers(0, square.width - side + 1, 2)
    return whole, _to_tensor(square.crop((left, top, left + side, top + side)), limits.size)


def read_rows(
    rows: Iterable[Row], limits: Limits, seed: int, skipped: Skipped, count: int | None = None
) -> Pictures | None:
    """The pictures of rows, `count` of them if given; `None` if there are none. What is skipped is added to `skipped`."""
    whole, crop, captions = [], [], []
    for row in rows:
        try:
            square, part = read_picture(row, limits, seed)
        except Unusable as error:
            skipped.add(row.name, error.reason, error.detail)
            continue
        whole.append(square)
        crop.append(part)
        captions.append(row.caption)
        if len(captions) == count:
            break
    return Pictures(torch.stack(whole), torch.stack(crop), captions) if captions else None


def account(pictures: Pictures | None, skipped: Skipped, share: float, place: str, limits: Limits) -> Pictures:
    """Say and report what was skipped; the pictures, a ValueError if too much was skipped or nothing is left."""
    if limits.report:
        skipped.report(limits.report)
    if limits.report and skipped:
        kept = len(pictures or ())
        print(f"{place}: {kept} pictures, {len(skipped)} files skipped ({skipped}), named in {str(limits.report)!r}")
    skipped.check(share, limits.max_skipped_share, place, limits.report)
    if pictures is None:
        raise ValueError(f"There is no picture in {place}: {skipped or 'it is empty'}.")
    return pictures


def _open(source: Source, split: str, limits: Limits, is_streamed: bool = False) -> Split:
    """A split; what is doubtful of it is said, where a report is written."""
    found = source.open(split, is_streamed)
    if limits.report and found.doubt:
        print(found.doubt)
    return found


def load_pictures(
    source: Source | str, split: str, size: int | Limits, *, max_samples: int | None = None, seed: int = 0
) -> Pictures:
    """Read a split.

    Args:
        source: or the folder of one.
        size: side in pixels of the squares returned, or with it what else limits what is read.
        max_samples: take a random part of so many pictures.

    Raises:
        ValueError: if there is no such split, it lacks a column, or too many of its files are skipped.
    """
    source = Source(train_data_dir=source) if isinstance(source, str) else source
    limits = Limits(size) if isinstance(size, int) else size
    found = _open(source, split, limits)
    skipped = Skipped({"split": split}, list(found.strays()))
    strays, rows = len(skipped), len(found.data)
    order = np.random.default_rng([5, seed]).permutation(rows)
    bar = tqdm(order, desc=f"reading {split}", mininterval=5)
    pictures = read_rows(
        (found.row(found.data[int(index)], f"row {index}") for index in bar), limits, seed, skipped, max_samples
    )
    # Of a random part, the share among all rows is that of the part.
    damaged = len(skipped) - strays
    damaged *= rows / max(1, damaged + len(pictures or ()))
    return account(pictures, skipped, (strays + damaged) / max(1, strays + rows), str(found), limits)


def stream_pictures(source: Source, split: str, limits: Limits, count: int, seed: int = 0) -> Pictures:
    """The first `count` pictures of a split that is streamed; errors as of `load_pictures`.

    Of a stream nobody knows the length: files that are no shards are reported, but are no part of the share.
    """
    found = _open(source, split, limits, is_streamed=True)
    skipped = Skipped({"split": split, "window": "first"}, list(found.strays()))
    strays = len(skipped)
    pictures = read_rows(found.rows(), limits, seed, skipped, count)
    damaged = len(skipped) - strays
    return account(pictures, skipped, damaged / max(1, damaged + len(pictures or ())), str(found), limits)


def limits_of(data: Data) -> Limits:
    """What of it may be read; the first process of a run writes the report."""
    report = Path(data.output_dir, REPORT) if PartialState().is_main_process else None
    return Limits(data.resolution, data.min_image_size, data.max_image_pixels, data.max_skipped_share, report)


def load_materials(folder: str | None, data: Data, size: int) -> torch.Tensor | None:
    """Pictures that are nothing but texture, (M, 3, size / 2, size / 2) uint8, for canvases of `size`; `None` of no folder."""
    if folder is None:
        return None
    limits = replace(limits_of(data), size=size // 2, report=None)
    return load_pictures(Source(folder), "train", limits, seed=data.seed).whole


def load_splits(data: Data, held_out_seed: int = 0) -> tuple[Pictures, Pictures | None]:
    """The training pictures, and the held-out ones, `None` where there is no validation split.

    Of a stream, the training pictures are its first ones, alike in every process: what a vocabulary is made of.

    Raises:
        ValueError: if pictures of a split that is there cannot be read.
    """
    source, limits = Source.of(data), limits_of(data)

    def load(split: str, count: int | None, seed: int) -> Pictures:
        if data.streaming:
            return stream_pictures(source, split, limits, count, seed)
        return load_pictures(source, split, limits, max_samples=count, seed=seed)

    pictures = load("train", data.streaming_window if data.streaming else data.max_train_samples, data.seed)
    if "validation" not in source.splits:
        return pictures, None
    return pictures, load("validation", data.num_validation_images, held_out_seed)

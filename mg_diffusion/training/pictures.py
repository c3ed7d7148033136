"""Pictures of an imagefolder, at the training size."""

from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from datasets import load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError
from tqdm import tqdm


@dataclass
class Pictures:
    """`whole` and `crop` are (N, 3, size, size) uint8: the centered square, and a random part of it."""

    whole: torch.Tensor
    crop: torch.Tensor
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def _square(image: PIL.Image.Image) -> PIL.Image.Image:
    image = PIL.ImageOps.exif_transpose(image).convert("RGB")
    side = min(image.size)
    return PIL.ImageOps.fit(image, (side, side), PIL.Image.BICUBIC)


def _random_part(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    side = round(image.width * rng.uniform(0.6, 0.9))
    left, top = rng.integers(0, image.width - side + 1, 2)
    return image.crop((left, top, left + side, top + side))


def _to_tensor(image: PIL.Image.Image, size: int) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((size, size), PIL.Image.BICUBIC))).permute(2, 0, 1)


def load_pictures(
    data_dir: str,
    split: str,
    size: int,
    *,
    image_column: str = "image",
    caption_column: str = "text",
    max_samples: int | None = None,
    seed: int = 0,
) -> Pictures:
    """Read a split of an `imagefolder`.

    Args:
        data_dir: folder with `<split>/` below it, or a folder of pictures (then `split` must be "train").
        size: side in pixels of the squares returned.
        max_samples: take a random part of so many pictures.

    Raises:
        ValueError: if the folder has no such split, lacks a column (captions may lack under their usual name), or
            holds a damaged picture.
    """
    try:
        dataset = load_dataset("imagefolder", data_dir=data_dir, split=split)
    except (FileNotFoundError, ValueError, DatasetGenerationError) as error:
        raise ValueError(f"No split {split!r} of pictures can be read from {data_dir!r}: {error}") from error
    for flag, column in (("image_column", image_column), ("caption_column", caption_column)):
        if column not in dataset.column_names and column != "text":
            raise ValueError(f"The data has the columns {dataset.column_names}, but no {column!r} (--{flag}).")
    rng = np.random.default_rng([5, seed])
    order = rng.permutation(len(dataset))[:max_samples]
    whole, crop, captions = [], [], []
    for index in tqdm(order, desc=f"reading {split}", mininterval=5):
        try:
            row = dataset[int(index)]
            square = _square(row[image_column])
        except OSError as error:
            raise ValueError(f"A picture of split {split!r} in {data_dir!r} cannot be read: {error}") from error
        whole.append(_to_tensor(square, size))
        crop.append(_to_tensor(_random_part(square, rng), size))
        captions.append(str(row.get(caption_column) or ""))
    return Pictures(torch.stack(whole), torch.stack(crop), captions)


def load_splits(args: Namespace, held_out_seed: int = 0) -> tuple[Pictures, Pictures | None]:
    """The training pictures a stage's flags name, and the held-out ones, `None` where there is no validation split.

    Raises:
        ValueError: if pictures of a split that is there cannot be read.
    """
    columns = {"image_column": args.image_column, "caption_column": args.caption_column}
    folder, size = args.train_data_dir, args.resolution
    pictures = load_pictures(folder, "train", size, max_samples=args.max_train_samples, seed=args.seed, **columns)
    if "validation" not in load_dataset_builder("imagefolder", data_dir=folder).config.data_files:
        return pictures, None
    held_out = load_pictures(
        folder, "validation", size, max_samples=args.num_validation_images, seed=held_out_seed, **columns
    )
    return pictures, held_out

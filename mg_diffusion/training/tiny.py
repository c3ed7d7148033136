"""`make train-tiny`: overfit eight pictures in minutes on a CPU; show that the loss falls and that they come back.

The smoke recipe: if this does not learn, nothing larger will. It draws its own eight pictures, so it needs no data.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from mg_diffusion.pipelines import MGPipeline

from .arguments import parse_args
from .base import run
from .renderer import render


def draw_pictures(folder: Path, count: int = 8, size: int = 64) -> None:
    """An imagefolder of rendered pictures; the validation split repeats the training pictures on purpose."""
    for split in ("train", "val"):
        target = folder / split
        target.mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(count):
            picture = (render(index, index, index, size=size) * 255).round().astype(np.uint8)
            PIL.Image.fromarray(picture).save(target / f"{index}.png")
            rows.append({"file_name": f"{index}.png", "text": f"rendered picture number {index}"})
        (target / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def check_learning(losses: list[float]) -> tuple[float, float]:
    """The first loss and the mean of the last three, which must be half of it or less.

    Raises:
        ValueError: if the loss did not halve.
    """
    first, last = losses[0], float(np.mean(losses[1:][-3:] or losses))
    if not last <= 0.5 * first:
        raise ValueError(
            f"The loss did not halve ({first:.4f} -> {last:.4f}): too few steps, or something in the training is broken."
        )
    return first, last


def reproduce(weights: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training pictures, and what their own captions and references make of noise: both (N, S, S, 3) in [0, 1]."""
    rows = [json.loads(line) for line in (data / "train" / "metadata.jsonl").read_text().splitlines()]
    pictures = [PIL.Image.open(data / "train" / row["file_name"]) for row in rows]
    pipeline = MGPipeline.from_pretrained(weights)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        prompt=[row["text"] for row in rows],
        reference_image={name: [[picture] for picture in pictures] for name in ("color", "texture", "shape")},
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(rows))],
        output_type="np",
    ).images
    side = made.shape[1]
    return np.stack([np.array(picture.resize((side, side))) / 255 for picture in pictures]), made


def count_returned(pictures: np.ndarray, made: np.ndarray) -> int:
    """How many of the pictures are, of all, the one that their reproduction is nearest to (squared error)."""
    errors = np.square(made[:, None] - pictures[None]).mean((2, 3, 4))
    return int((errors.argmin(1) == np.arange(len(made))).sum())


def save_comparison(pictures: np.ndarray, made: np.ndarray, path: Path) -> None:
    """The pictures above their reproductions, enlarged fourfold."""
    rows = np.concatenate([np.concatenate(list(row), 1) for row in (pictures, made)], 0)
    image = PIL.Image.fromarray((rows * 255).round().astype(np.uint8))
    image.resize((4 * image.width, 4 * image.height), PIL.Image.Resampling.NEAREST).save(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="outputs/train-tiny")
    parser.add_argument("--max_train_steps", type=int, default=300)
    options = parser.parse_args(arguments)
    folder = Path(options.output_dir)
    draw_pictures(folder / "data")
    steps = options.max_train_steps
    # Pictures as they are, with all their references, so that so few steps can learn them by heart.
    flags = {
        "train_data_dir": folder / "data",
        "output_dir": folder,
        **dict.fromkeys(("max_train_steps", "checkpointing_steps", "validation_steps"), steps),
        **dict.fromkeys(("num_validation_images", "train_batch_size"), 8),
        **dict.fromkeys(("num_crossings", "num_rendered", "composite_share", "rendered_share"), 0),
        "lr_warmup_steps": min(20, steps),
        "ema_decay": 0.99,
    }
    switches = ("--no-augment", "--no-validation_at_start", "--overwrite_output_dir")
    records = run(parse_args(["base", *switches, *(f"--{name}={value}" for name, value in flags.items())]))
    pictures, made = reproduce(folder / "weights", folder / "data")
    save_comparison(pictures, made, folder / "overfitted.png")
    print(f"{folder / 'overfitted.png'}: the pictures above what their own references make of noise")
    print(f"{count_returned(pictures, made)} of {len(made)} come out nearest to themselves")
    try:
        first, last = check_learning([record["loss"] for record in records if "loss" in record])
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"loss {first:.4f} -> {last:.4f}")


if __name__ == "__main__":
    main()

"""`make train-tiny`: overfit eight pictures in minutes on a CPU and show that the loss falls.

The smoke recipe: if this does not learn, nothing larger will. It draws its own eight pictures, so it needs no data.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image

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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="outputs/train-tiny")
    parser.add_argument("--max_train_steps", type=int, default=300)
    options = parser.parse_args(arguments)
    folder = Path(options.output_dir)
    draw_pictures(folder / "data")
    steps = str(options.max_train_steps)
    flags = {
        "--train_data_dir": str(folder / "data"),
        "--output_dir": str(folder),
        "--max_train_steps": steps,
        "--checkpointing_steps": steps,
        "--validation_steps": str(max(1, options.max_train_steps // 2)),
        "--num_validation_images": "8",
        "--train_batch_size": "8",
        "--lr_warmup_steps": "20",
        "--num_crossings": "16",
        "--num_rendered": "8",
        "--composite_share": "0.25",
        "--rendered_share": "0.25",
        "--ema_decay": "0.99",
    }
    records = run(parse_args(["base", *(part for pair in flags.items() for part in pair)]))
    print(f"pictures in {folder}/grid-*.png")
    try:
        first, last = check_learning([record["loss"] for record in records if "loss" in record])
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"loss {first:.4f} -> {last:.4f}")


if __name__ == "__main__":
    main()

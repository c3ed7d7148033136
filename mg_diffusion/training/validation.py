"""What a run shows of itself: a loss that can be compared between runs, and pictures of crossed references."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from accelerate.utils import send_to_device

from mg_diffusion.granularities import GRANULARITIES

from .pictures import Pictures


BUCKETS = 5  # of equal width
TIMESTEPS_PER_BUCKET = 4
BATCH = 32
LABEL_WIDTH = 132  # of the margin of a grid, in pixels


def bucket_timesteps(num_train_timesteps: int) -> dict[str, list[int]]:
    """The timesteps at which the loss of held-out samples is measured, by bucket: of 1000, "t0-199": 25, 75, 125, 175."""
    edges = [round(num_train_timesteps * bucket / BUCKETS) for bucket in range(BUCKETS + 1)]
    shares = (np.arange(TIMESTEPS_PER_BUCKET) + 0.5) / TIMESTEPS_PER_BUCKET
    return {
        f"t{low}-{high - 1}": [int(low + (high - low) * share) for share in shares]
        for low, high in zip(edges, edges[1:], strict=False)
    }


def _noise(objective: Any, images: torch.Tensor, first: int, bucket: int) -> torch.Tensor:
    """Noise for held-out samples `first`, `first + 1`, ...: each its own, whatever else is in the batch."""
    shape = objective.latent_shape(images)
    generators = [torch.Generator().manual_seed((first + i) * BUCKETS + bucket) for i in range(len(images))]
    return torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators])


@torch.no_grad()
def validation_loss(objective: Any, model: torch.nn.Module, stream: Any, device: torch.device) -> dict[str, float]:
    """Loss of held-out samples with fixed noise at fixed timesteps: `val_loss_t<first>-<last>` by bucket, and their mean.

    Every sample counts once in every bucket, at one of its timesteps in turn (`bucket_timesteps`). What else is drawn,
    such as latents, is drawn from a fixed seed, so that two runs, or two steps of one, differ by their weights alone.
    """
    starts, places = range(0, len(stream), BATCH), range(len(stream))
    batches = [objective.collate([stream[i] for i in places[start : start + BATCH]]) for start in starts]
    losses = {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for bucket, (name, timesteps) in enumerate(bucket_timesteps(len(objective.alphas)).items()):
            torch.manual_seed(bucket)
            values = []
            for start, batch in zip(starts, batches, strict=True):
                noise = _noise(objective, batch["image"], start, bucket).to(device)
                steps = [timesteps[(start + i) % len(timesteps)] for i in range(len(noise))]
                steps = torch.tensor(steps, device=device)
                values.append(objective(model, send_to_device(batch, device), steps, noise, fusion_scale=1.0))
            losses[f"val_loss_{name}"] = torch.cat(values).mean().item()
    return {"val_loss": float(np.mean(list(losses.values()))), **losses}


def labeled_grid(rows: dict[str, list[np.ndarray]]) -> PIL.Image.Image:
    """Rows of pictures (S, S, 3) uint8, each row's name in a margin before it; pictures are shown at 128 to 256 pixels."""
    size = next(iter(rows.values()))[0].shape[0]
    side = size * max(1, 128 // size) if size <= 256 else 256
    how = PIL.Image.Resampling.NEAREST if size <= 256 else PIL.Image.Resampling.LANCZOS
    pixels = PIL.Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows.values()], 0))
    pixels = pixels.resize((pixels.width * side // size, pixels.height * side // size), how)
    grid = PIL.Image.new("RGB", (LABEL_WIDTH + pixels.width, pixels.height), "white")
    grid.paste(pixels, (LABEL_WIDTH, 0))
    draw, font = PIL.ImageDraw.Draw(grid), PIL.ImageFont.load_default(size=15)
    for row, name in enumerate(rows):
        draw.multiline_text((LABEL_WIDTH - 10, (row + 0.5) * side), name, "black", font, "rm", align="right")
    return grid


def save_grid(pipeline: Any, pictures: Pictures, path: Path, columns: int = 8) -> None:
    """Rows: color, texture and shape reference, the result of all three, each alone with its caption, the caption alone.

    The references of a column are three different held-out pictures. Without an adapter there is the last row only.
    """
    pipeline.set_progress_bar_config(disable=True)
    columns = min(columns, len(pictures))
    images = [picture.permute(1, 2, 0).numpy() for picture in pictures.whole]
    shifted = {name: [images[(i + k) % len(images)] for i in range(columns)] for k, name in enumerate(GRANULARITIES)}
    rows, results = {}, {"caption alone": ()}
    if pipeline.mg_adapter is not None:
        rows = {f"{name}\nreference": shifted[name] for name in GRANULARITIES}
        alone = {f"{name}\nand caption": (name,) for name in GRANULARITIES}
        results = {"all three": GRANULARITIES, **alone, **results}
    for label, names in results.items():
        captions = None if names == GRANULARITIES else pictures.captions
        references = {name: [[picture] for picture in shifted[name]] for name in names}
        with warnings.catch_warnings():
            # Of pictures to train on: nobody chose them as textures.
            warnings.filterwarnings("ignore", message="The texture reference.* looks like objects")
            output = pipeline(
                prompt=[""] * columns if captions is None else captions[:columns],
                reference_image=references or None,
                height=pictures.whole.shape[2],
                width=pictures.whole.shape[3],
                generator=[torch.Generator().manual_seed(i) for i in range(columns)],
                output_type="np",
            ).images
        rows[label] = [(image * 255).round().astype(np.uint8) for image in output]
    labeled_grid(rows).save(path)

"""What a run shows of itself: a loss that can be compared between runs, and pictures of crossed references."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate.utils import send_to_device

from .pictures import Pictures


REFERENCES = ("color", "texture", "shape")
TIMESTEPS = (100, 300, 500, 700, 900)


@torch.no_grad()
def validation_loss(objective: Any, model: torch.nn.Module, stream: Any, device: torch.device) -> dict[str, float]:
    """Loss of held-out samples at fixed timesteps with fixed noise: `val_loss`, and `val_loss_t<timestep>`."""
    batches = [
        objective.collate([stream[i] for i in range(start, min(start + 32, len(stream)))])
        for start in range(0, len(stream), 32)
    ]
    losses = {}
    for timestep in TIMESTEPS:
        generator = torch.Generator().manual_seed(timestep)
        values = []
        for batch in batches:
            batch = send_to_device(batch, device)
            noise = torch.randn(objective.latent_shape(batch["image"]), generator=generator).to(device)
            steps = torch.full((len(noise),), timestep, device=device)
            values.append(objective(model, batch, steps, noise, fusion_scale=1.0))
        losses[f"val_loss_t{timestep}"] = torch.cat(values).mean().item()
    return {"val_loss": float(np.mean(list(losses.values()))), **losses}


def save_grid(pipeline: Any, pictures: Pictures, path: Path, columns: int = 8) -> None:
    """Rows: color, texture and shape reference, the result of all three, each alone with its caption, the caption alone.

    The references of a column are three different held-out pictures. Without an adapter there is the last row only.
    """
    pipeline.set_progress_bar_config(disable=True)
    columns = min(columns, len(pictures))
    images = [picture.permute(1, 2, 0).numpy() for picture in pictures.whole]
    shifted = {name: [images[(i + k) % len(images)] for i in range(columns)] for k, name in enumerate(REFERENCES)}
    rows, combinations = [], [()]
    if pipeline.mg_adapter is not None:
        rows = [np.concatenate(shifted[name], 1) for name in REFERENCES]
        combinations = [REFERENCES, *((name,) for name in REFERENCES), ()]
    # All three without text, each alone with its caption, the caption alone.
    for names in combinations:
        captions = None if names == REFERENCES else pictures.captions
        references = {name: [[picture] for picture in shifted[name]] for name in names}
        output = pipeline(
            prompt=[""] * columns if captions is None else captions[:columns],
            reference_image=references or None,
            height=pictures.whole.shape[2],
            width=pictures.whole.shape[3],
            generator=[torch.Generator().manual_seed(i) for i in range(columns)],
            output_type="np",
        ).images
        rows.append(np.concatenate([(image * 255).round().astype(np.uint8) for image in output], 1))
    grid = PIL.Image.fromarray(np.concatenate(rows, 0))
    grid.resize((grid.width * 2, grid.height * 2), PIL.Image.NEAREST).save(path)

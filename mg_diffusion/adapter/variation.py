"""What references leave open, drawn for each sample: which region gets which color, which tile lies where.

Without it one set of references would have one sketch and one canvas, and the noise of the latents would change little.
"""

import torch
from diffusers.utils.torch_utils import randn_tensor

from ..features import FeatureSet
from .sketch import nearest_rotation, random_turns, turn_colors


def draw_variation(
    features: FeatureSet, batch_size: int, generator: torch.Generator | list[torch.Generator] | None = None
) -> dict[str, torch.Tensor]:
    """Draw for each sample what references leave open.

    Args:
        features: one entry of each granularity, on the device to draw on; whether texture is among them decides what
            is drawn.
        generator: random numbers to draw from; a list holds one for each of the `batch_size` samples.

    Returns:
        "turns" (batch_size, 3, 3), which region gets which color; with texture "order" (batch_size, num_tiles).
    """
    device = next(iter(features.values()))["vector"].device
    # Drawn even where they are not used: the tiles then lie as with them.
    drawn = {"turns": random_turns(randn_tensor((batch_size, 3, 3), generator, device, torch.float32))}
    if "texture" in features:
        shape = (batch_size, features["texture"][_tiles(features["texture"])].shape[1])
        drawn["order"] = randn_tensor(shape, generator, device, torch.float32).argsort(dim=1)
    return drawn


def _tiles(texture: dict[str, torch.Tensor]) -> str:
    """The name of the tiles that are laid: where there are those of a larger canvas, the base reads it shrunk."""
    return "layout_tiles" if "layout_tiles" in texture else "tiles"


def apply_variation(
    features: FeatureSet, batch_size: int, drawn: dict[str, torch.Tensor], assignment: str = "light"
) -> FeatureSet:
    """Settle for each sample what references leave open, as `draw_variation` drew it.

    (Of the order of the tiles the first one counts: `lay_tiles` goes on from it with what fits best.)

    Args:
        features: one entry of each granularity, of a batch that divides `batch_size`.
        assignment: "light" keeps dark what is dark in the shape reference, "free" takes the turns that were drawn.

    Returns:
        features whose structures, `sketch` and tiles are of batch `batch_size`; the others as they were.
    """
    varied = {name: dict(parts) for name, parts in features.items()}
    if "shape" in features:
        # Without colors of its own only the larger sketch is laid, in those of what is painted (`Layout.completed`).
        structures = {"structure", "layout_structure"} if "color" in features else {"layout_structure"}
        structures &= set(features["shape"])
        for key in structures | ({"sketch", "layout_shading"} & set(features["shape"])):
            value = features["shape"][key]
            varied["shape"][key] = value.repeat_interleave(batch_size // len(value), dim=0)
        own = varied["shape"].pop("turn", None)
        for key in structures:
            turn, light = own, varied["shape"].pop(key.replace("structure", "light"), None)
            # One of its own, of `MGEncoder.encode_context`, leaves nothing open.
            if turn is None and light is not None and assignment == "light":
                turn = nearest_rotation(light)
            turns = drawn["turns"] if turn is None else turn.repeat_interleave(batch_size // len(turn), dim=0)
            varied["shape"][key] = turn_colors(varied["shape"][key], turns)
    if "texture" in features:
        key = _tiles(features["texture"])
        tiles = features["texture"][key]
        tiles = tiles.repeat_interleave(batch_size // len(tiles), dim=0)
        rows = torch.arange(batch_size, device=tiles.device).unsqueeze(1)
        varied["texture"][key] = tiles[rows, drawn["order"]]
    return varied

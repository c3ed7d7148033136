"""What each granularity sees of a picture: the encoder's views, as pictures."""

from typing import Any

import torch
import torch.nn.functional as F

from .host import without_gradients
from .models import CATEGORY, Networks, given
from .references import pictures


VIEWS = ("color", "texture", "texture tiles", "shape", "shape edges")
ROWS = 8  # of tiles
DEVIATIONS = 3.0  # of normalized luminance, from gray to white


class MGViews:
    """The picture as one granularity sees it."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "color: 256 colors, dark to light; texture: luminance at equal contrast; texture tiles: what is laid of it; shape: "
        "regions in colors that say nothing but which belong together; shape edges: their borders."
    )
    FUNCTION = "see"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE",), "view": (list(VIEWS), {"default": "shape"})},
            "optional": {"mg_model": ("MG_MODEL",)},
        }

    @without_gradients
    def see(self, image: Any, view: str = "shape", mg_model: Networks | None = None) -> tuple[torch.Tensor]:
        if view not in VIEWS:
            raise ValueError(f"`view` must be one of {', '.join(VIEWS)}, got {view!r}.")
        encoder, name = given(mg_model).mg_encoder, view.partition(" ")[0]
        seen = []
        for one in pictures("image", image):
            loaded = encoder.load(one)
            found = encoder.views(loaded["rgb"], loaded["mask"], [name])[name]
            shown = picture_of(view, {key: value.float().cpu() for key, value in found.items()})
            seen.append(F.interpolate(shown, size=image.shape[1:3], mode="nearest"))
        return (torch.cat(seen).movedim(1, 3).contiguous(),)


def picture_of(view: str, found: dict[str, torch.Tensor]) -> torch.Tensor:
    """A view of `MGEncoder.views` as (1, 3, h, w) in 0..1."""
    if view == "color":
        from mg_diffusion.encoder.color import draw_palette
        from mg_diffusion.encoder.views import lab_to_rgb

        palette = draw_palette(**found)[0]
        laid = palette[palette[:, 0].argsort()].T.view(1, 3, 16, 16)
        return lab_to_rgb(laid).clamp(0, 1)
    if view == "texture":
        gray = 0.5 + found["normalized"] * found["weight"] / (2 * DEVIATIONS)
    elif view == "texture tiles":
        tiles = found["tiles"][0, : ROWS * ROWS]
        tiles = tiles[torch.arange(ROWS * ROWS) % len(tiles)]
        laid = tiles.unflatten(0, (ROWS, ROWS)).transpose(1, 2).flatten(2).flatten(0, 1)[None, None]
        gray = 0.5 + 0.45 * laid / laid.abs().max().clamp(min=0.2)
    elif view == "shape edges":
        gray = found["edges"]
    else:
        return (found["structure"] / 2 + 0.5).clamp(0, 1)
    return gray.clamp(0, 1).expand(-1, 3, -1, -1)

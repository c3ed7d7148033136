"""Holes in clear areas, such as a sky, a wall or a cup: what fills them must not tint them."""

import numpy as np
from scipy.ndimage import binary_dilation, uniform_filter
from skimage.color import rgb2lab
from tqdm import tqdm

from mg_diffusion.evaluation.editing import masked_psnr

from . import filling


SHARE = 4  # of the side is that of the hole
MARGIN = 1 / 16  # of the side around the hole has to be clear as well
CLEAR = 5.0  # standard deviation of lightness and of a and b there, at most
BORDER = 3  # pixels around the hole


def clear_hole(picture: np.ndarray) -> np.ndarray | None:
    """The box (H, W) bool of a quarter of the side in the clearest part of a picture (H, W, 3), if any is clear."""
    side = len(picture)
    size, margin = side // SHARE, round(MARGIN * side)
    lab, window = rgb2lab(picture), side // SHARE + 2 * round(MARGIN * side)
    mean, square = (uniform_filter(one, (window, window, 0)) for one in (lab, lab**2))
    deviation = np.sqrt((square - mean**2).clip(0)).max(2)
    half = size // 2 + margin
    inner = deviation[half : side - half, half : side - half]
    if inner.min() > CLEAR:
        return None
    top, left = (place + margin for place in np.unravel_index(inner.argmin(), inner.shape))
    hole = np.zeros((side, side), bool)
    hole[top : top + size, left : left + size] = True
    return hole


def border_mean(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    made = picture.copy()
    made[hole] = picture[binary_dilation(hole, iterations=BORDER) & ~hole].mean(0).round()
    return made


def measure(pictures: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """ "psnr" inside, in dB, and "color", the Delta-E of the mean color inside, by method; means over pictures with a clear area."""
    others = filling.methods()
    methods = {"ours": others["ours"], "border mean": border_mean, "biharmonic": others["biharmonic"]}
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for truth in tqdm(pictures, desc="clear areas"):
        hole = clear_hole(truth)
        if hole is None:
            continue
        given = np.where(hole[..., None], filling.GRAY, truth).astype(np.uint8)
        for name, method in methods.items():
            made = method(given, hole)
            colors = [rgb2lab(one / 255)[hole].mean(0) for one in (made, truth)]
            rows[name].append(
                (masked_psnr(truth / 255, made / 255, hole), float(np.linalg.norm(colors[0] - colors[1])))
            )
    return {
        name: {
            "pictures": len(found),
            "psnr": round(float(np.mean([psnr for psnr, _ in found])), 2),
            "color": round(float(np.mean([color for _, color in found])), 2),
            "worst color": round(float(np.max([color for _, color in found])), 2),
        }
        for name, found in rows.items()
    }


def table(found: dict[str, dict[str, float]]) -> str:
    lines = ["| method | pictures | PSNR, dB | mean color, Delta-E | at worst |", "|-|-:|-:|-:|-:|"]
    return "\n".join(
        [
            *lines,
            *(
                f"| {name} | {row['pictures']} | {row['psnr']} | {row['color']} | {row['worst color']} |"
                for name, row in found.items()
            ),
        ]
    )

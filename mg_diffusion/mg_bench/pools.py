"""Where references come from: a folder of pictures, or rendered pictures whose true crossings are known."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image

from mg_diffusion.evaluation.control import Triple
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.pictures import WHITE_UNKNOWN, centered_square, converted, read_upright
from mg_diffusion.training.renderer import render


ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MIN_POOL = 32  # the candidates each output is compared with
UNSEEN_SEEDS = (10**9, 2 * 10**9)  # training renders from seeds below


@dataclass(frozen=True)
class Pool:
    """Pictures (size, size, 3) in [0, 1], and the name of the folder they come from."""

    pictures: list[np.ndarray]
    name: str
    split: str | None = None


@dataclass(frozen=True)
class RenderedPool(Pool):
    """Rendered pictures with their factor seeds (N, 3) of color, texture and shape, so that the true answer is known."""

    factors: np.ndarray = field(kw_only=True)

    def oracle(self, triple: Triple, phase: int = 0) -> np.ndarray:
        """The picture of a triple: another piece of the same material for each `phase`, and never the reference's."""
        color, texture, shape = (self.factors[triple[name], at] for at, name in enumerate(GRANULARITIES))
        size = self.pictures[0].shape[0]
        return render(int(color), int(texture), int(shape), phase=1 + phase, size=size)


def rendered_pool(count: int, size: int, seed: int) -> RenderedPool:
    """`count` pictures of the procedural renderer, of factors that training does not see."""
    factors = np.random.default_rng([8, seed]).integers(*UNSEEN_SEEDS, (count, 3))
    rendered = (render(*map(int, row), size=size) for row in factors)
    pictures = [((picture * 255).round() / 255).astype(np.float32) for picture in rendered]  # as a file would hold it
    return RenderedPool(pictures, "rendered", factors=factors)


def read_pool(data: str, split: str | None, size: int) -> Pool:
    """The pictures below a folder, in the order of their names: centered square, resized to `size`.

    Args:
        data: a folder of pictures, sorted into subfolders or not.
        split: a folder inside it; `None` is "val" where there is one, else everything.

    Raises:
        ValueError: if there is no such folder, or fewer than 32 pictures in it.
    """
    root = Path(data)
    if split is None and (root / "val").is_dir():
        split = "val"
    folder = root if split is None else root / split
    remedy = (
        f"Expected is a folder with at least {MIN_POOL} pictures ({', '.join(sorted(ENDINGS))}), in subfolders or not, "
        f"such as an `imagefolder` with train/ and val/. Any photographs will do; use some that the model was not "
        f"trained on."
    )
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}. {remedy}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if len(files) < MIN_POOL:
        raise ValueError(f"{str(folder)!r} holds {len(files)} pictures. {remedy}")
    return Pool([_read_square(path, size) for path in files], root.resolve().name, split)


def _read_square(path: Path, size: int) -> np.ndarray:
    try:
        picture = converted(read_upright(path))
        if picture.mode in ("I", "F"):
            raise ValueError(f"its mode is {picture.mode}. {WHITE_UNKNOWN}")
        square = centered_square(picture.convert("RGB"), size, PIL.Image.Resampling.BICUBIC)
    except Exception as error:  # pictures of odd modes fail to convert with errors of any type
        raise ValueError(f"{str(path)!r} cannot be read as a picture: {error}. Remove it from the folder.") from error
    return np.asarray(square, np.float32) / 255

"""Editing inside a mask: nothing moves outside, no seam shows, and the hole holds what belongs there.

Nothing here knows how the pictures were made: a driver hands in a callable
`edit(images, masks, references, seeds) -> pictures`. Images are (H, W, 3) in [0, 1]; masks are (H, W) bool, True is
repainted; references are a dict of lists by granularity, or empty; all lists are of equal length.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.restoration import inpaint_biharmonic

from .intervals import N_BOOT, interval, interval_of
from .masks import check_masks
from .metrics import Pictures, _checked


Edit = Callable[[Pictures, Pictures, Mapping[str, Pictures], Sequence[int]], Pictures]

GRAY = 128 / 255  # what stands in a hole whose content is known
PSNR_CAP = 60.0  # dB: rounding to 8 bits alone costs as much (59 dB), so more says nothing
VISIBLE_JUMP = 1.0  # Delta-E: no eye sees less, and no picture is judged against less
INPAINT_RADIUS = 3  # pixels; of OpenCV's methods, the value of its own examples


def measure_fidelity(
    edit: Edit, images: Pictures, masks: Pictures, *, batch_size: int = 16, n_boot: int = N_BOOT, seed: int = 0
) -> dict:
    """Repaint holes whose content is known, without references, next to classical methods scored by the same code.

    What is in the hole is painted gray (as diffusers' inpainting pipelines do) before `edit` sees the picture, so
    that no method can look the answer up.

    Args:
        images: different pictures; rounded to 8 bits first, see `in_8_bits`.
        masks: one for each, as from `random_masks`; neither empty nor full.
        seed: of the intervals and, counting up from it, of the outputs.

    Returns: under "method" and under each name of "reference_lines" ("unfilled": the gray hole; "biharmonic"; "telea"
        and "navier_stokes" where OpenCV is installed, otherwise the reason why not under "left_out"):
        "exactness": as from `exactness`, over all pictures.
        "seam": mean `boundary_jump` of the outputs over that of the sources, 1 if the boundary looks as it did; as are
            the next, with a 95 % bootstrap interval over pictures {"mean", "low", "high"}.
        "psnr", "ssim": as from `masked_psnr` and `masked_ssim`.
        And "settings".

    Raises:
        ValueError: for wrong pictures or masks, and for what `edit` returns wrongly.
    """
    check_masks(images, masks)
    images = [in_8_bits(image) for image in images]
    gray = [np.where(mask[..., None], GRAY, image) for image, mask in zip(images, masks, strict=True)]
    classical, left_out = _opencv_lines(gray, masks)
    lines = {
        "method": edit_all(edit, gray, masks, {}, batch_size, seed),
        "unfilled": gray,
        "biharmonic": [_biharmonic(*pair) for pair in zip(gray, masks, strict=True)],
        **classical,
    }
    scores = {name: _fidelity_figures(images, outputs, masks, n_boot, seed) for name, outputs in lines.items()}
    return {
        "method": scores.pop("method"),
        "reference_lines": scores,
        "left_out": left_out,
        "settings": {
            "pictures": len(images),
            "masked": float(np.mean([mask.mean() for mask in masks])),
            "bootstrap": n_boot,
            "seed": seed,
        },
    }


def edit_all(
    edit: Edit, images: Pictures, masks: Pictures, references: Mapping[str, Pictures], batch_size: int, seed: int
) -> list[np.ndarray]:
    """What `edit` makes of all pictures, a batch at a time and checked; each gets its own seed, counting up.

    It works on copies: an edit that paints into what it is given would otherwise be compared with itself.
    """
    outputs = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        borrowed = {name: row[part] for name, row in references.items()}
        sources = images[part]
        copies = [np.array(source) for source in sources]
        made = edit(copies, masks[part], borrowed, [seed + start + offset for offset in range(len(sources))])
        if len(made) != len(sources):
            raise ValueError(f"edit was asked for {len(sources)} pictures and returned {len(made)}.")
        for source, picture in zip(sources, made, strict=True):
            if np.shape(picture) != np.shape(source):
                raise ValueError(
                    f"edit has to return pictures of the shape of what it was given, {np.shape(source)}: got "
                    f"{np.shape(picture)}."
                )
        outputs += [_checked(picture) for picture in made]
    return outputs


def in_8_bits(picture: np.ndarray) -> np.ndarray:
    """The picture as a file would hold it: multiples of 1/255, float64.

    Only such a source can come back exactly. Any other may lie so near the middle between two levels that float32 and
    float64 round it to different ones.
    """
    return _to_bytes(_checked(picture)) / 255


def exactness(sources: Pictures, outputs: Pictures, masks: Pictures) -> dict[str, float]:
    """What differs outside the masks after rounding to 8 bits: "pixels" and their "share" of those outside. Must be 0."""
    differing = [
        (_to_bytes(source) != _to_bytes(output)).any(-1)[~mask]
        for source, output, mask in zip(sources, outputs, masks, strict=True)
    ]
    everywhere = np.concatenate(differing)
    return {"pixels": int(everywhere.sum()), "share": float(everywhere.mean())}


def boundary_jump(picture: np.ndarray, mask: np.ndarray) -> float:
    """Mean Lab distance (Delta-E) between neighbors, left and right or above and below, of which one is masked."""
    lab = rgb2lab(_checked(picture))
    jumps = []
    for axis in (0, 1):
        crossing = np.diff(mask, axis=axis)  # of booleans: whether they differ
        jumps.append(np.linalg.norm(np.diff(lab, axis=axis), axis=-1)[crossing])
    return float(np.concatenate(jumps).mean())


def masked_psnr(truth: np.ndarray, output: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of the masked pixels, at most `PSNR_CAP`."""
    with np.errstate(divide="ignore"):  # infinite if nothing differs
        return float(min(peak_signal_noise_ratio(truth[mask], output[mask], data_range=1), PSNR_CAP))


def masked_ssim(truth: np.ndarray, output: np.ndarray, mask: np.ndarray) -> float:
    """Mean structural similarity of the masked pixels, in [-1, 1]; windows of 7 pixels, which may reach outside.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    _, similarity = structural_similarity(truth, output, channel_axis=-1, data_range=1, full=True)
    return float(similarity[mask].mean())


def _fidelity_figures(images: Pictures, outputs: Pictures, masks: Pictures, n_boot: int, seed: int) -> dict:
    trios = list(zip(images, outputs, masks, strict=True))
    jumps = np.array([[boundary_jump(out, mask), boundary_jump(image, mask)] for image, out, mask in trios])
    return {
        "exactness": exactness(images, outputs, masks),
        "seam": interval_of(_seam_ratio, jumps, n_boot=n_boot, seed=seed),
        "psnr": interval([masked_psnr(*trio) for trio in trios], n_boot=n_boot, seed=seed),
        "ssim": interval([masked_ssim(*trio) for trio in trios], n_boot=n_boot, seed=seed),
    }


def _seam_ratio(jumps: np.ndarray) -> float:
    """Ratio of means of (pictures, 2), so that a boundary through a flat patch of a source decides nothing alone."""
    output, source = jumps.mean(0)
    return output / max(source, VISIBLE_JUMP)


def _biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return inpaint_biharmonic(image, mask, channel_axis=-1).clip(0, 1)


def _opencv_lines(images: Pictures, masks: Pictures) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
    """Telea 2004 (fast marching) and Bertalmio et al. 2001 (Navier-Stokes); or no lines, and why."""
    try:
        import cv2
    except ImportError:
        reason = "needs OpenCV: pip install opencv-python-headless"
        return {}, {"telea": reason, "navier_stokes": reason}
    methods = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}
    lines = {
        name: [
            cv2.inpaint(_to_bytes(image), mask.astype(np.uint8), INPAINT_RADIUS, method) / 255
            for image, mask in zip(images, masks, strict=True)
        ]
        for name, method in methods.items()
    }
    return lines, {}


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (np.asarray(picture, np.float64) * 255).round().astype(np.uint8)

import json
import sys

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mg_diffusion.evaluation.control import write_json
from mg_diffusion.evaluation.editing import (
    PSNR_CAP,
    boundary_jump,
    exactness,
    in_8_bits,
    masked_psnr,
    masked_ssim,
    measure_fidelity,
)
from mg_diffusion.evaluation.masks import random_masks
from mg_diffusion.training.renderer import render


IMAGES = [in_8_bits(render(place, place, place)) for place in range(6)]
MASKS = random_masks(6, (64, 64), seed=0)
LINES = {"unfilled", "biharmonic", "telea", "navier_stokes"}


def measure(edit, **options) -> dict:
    return measure_fidelity(edit, IMAGES, MASKS, n_boot=50, **options)


def answer(images, masks, references, seeds):
    """Knows the truth, by the seeds."""
    return [IMAGES[seed] for seed in seeds]


def unchanged(images, masks, references, seeds):
    return images


def test_the_truth_is_the_best_there_is():
    found = measure(answer)["method"]
    for name, best in (("psnr", PSNR_CAP), ("ssim", 1), ("seam", 1)):
        assert found[name] == pytest.approx({"mean": best, "low": best, "high": best})
    assert found["exactness"] == {"pixels": 0, "share": 0}


def test_the_answer_cannot_be_looked_up():
    """An edit that returns what it is given scores as the gray hole it is given."""
    result = measure(unchanged)
    assert result["method"] == result["reference_lines"]["unfilled"]
    assert result["method"]["psnr"]["mean"] < 20
    assert result["method"]["ssim"]["mean"] < 0.5
    assert result["method"]["seam"]["mean"] > 1.5
    assert result["method"]["exactness"]["pixels"] == 0


def test_classical_methods_are_better_than_gray_worse_than_the_truth_and_exact(tmp_path):
    pytest.importorskip("cv2")
    result = measure(answer)
    lines = result["reference_lines"]
    assert set(lines) == LINES and result["left_out"] == {}
    for name in LINES - {"unfilled"}:
        assert lines["unfilled"]["psnr"]["mean"] + 1 < lines[name]["psnr"]["mean"] < 40, name
        assert lines["unfilled"]["ssim"]["mean"] < lines[name]["ssim"]["mean"] < 0.9, name
        assert lines[name]["seam"]["mean"] < 1, name  # they are smooth where the source is textured
        assert lines[name]["exactness"]["pixels"] == 0
    write_json(tmp_path / "editing.json", result)
    assert json.loads((tmp_path / "editing.json").read_text()) == result
    assert 0.1 < result["settings"].pop("masked") < 0.4
    assert result["settings"] == {"pictures": 6, "bootstrap": 50, "seed": 0}


def test_without_opencv_its_lines_are_left_out_and_the_result_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = measure(answer)
    assert set(result["reference_lines"]) == {"unfilled", "biharmonic"}
    assert set(result["left_out"]) == {"telea", "navier_stokes"}
    assert "opencv-python-headless" in result["left_out"]["telea"]


def test_edit_is_called_in_batches_with_seeds_masks_and_no_references():
    calls = []

    def edit(images, masks, references, seeds):
        assert len(images) == len(masks) == len(seeds) <= 4
        assert references == {}
        for image, mask in zip(images, masks, strict=True):
            assert (image[mask] == 128 / 255).all()
        calls.append([seeds, [id(mask) for mask in masks]])
        return images

    measure(edit, batch_size=4, seed=7)
    assert calls == [
        [[7, 8, 9, 10], [id(mask) for mask in MASKS[:4]]],
        [[11, 12], [id(mask) for mask in MASKS[4:]]],
    ]


def test_an_edit_that_paints_into_what_it_is_given_is_not_compared_with_itself():
    def edit(images, masks, references, seeds):
        for image in images:
            image[:] = 0.25
        return images

    first, again = measure(edit), measure(edit)
    assert first == again
    assert first["method"]["exactness"]["share"] == 1
    assert first["reference_lines"] == measure(unchanged)["reference_lines"]


@pytest.mark.parametrize(("change", "pixels"), [(1.0, 1), (1 / 255, 1), (0.2 / 255, 0)])
def test_one_pixel_outside_is_found_if_it_shows_in_8_bits(change, pixels):
    sources = [np.full((64, 64, 3), 100 / 255) for _ in MASKS]
    outputs = [np.where(mask[..., None], 0.9, source) for source, mask in zip(sources, MASKS, strict=True)]
    assert exactness(sources, outputs, MASKS) == {"pixels": 0, "share": 0}
    y, x = np.argwhere(~MASKS[3])[0]
    outputs[3][y, x, 2] = min(outputs[3][y, x, 2] + change, 1)
    found = exactness(sources, outputs, MASKS)
    assert found["pixels"] == pixels
    assert found["share"] == pytest.approx(pixels / sum((~mask).sum() for mask in MASKS))


def test_sources_between_two_levels_of_8_bits_come_back_exactly_whatever_the_precision():
    sources = [render(place, place, place) for place in range(6)]
    halves = (np.random.default_rng(0).integers(0, 255, (64, 64, 3)) + 0.5) / 255

    def edit(images, masks, references, seeds):
        return [(image.astype(np.float32) * 255).round().astype(np.uint8) / np.float32(255) for image in images]

    found = measure_fidelity(edit, [halves, *sources[1:]], MASKS, n_boot=20)["method"]
    assert found["exactness"]["pixels"] == 0


def test_boundary_jump_by_hand():
    lab = np.full((32, 32, 3), (50.0, 0, 0))
    mask = np.zeros((32, 32), bool)
    mask[10:20, :16] = True  # the border of the picture is no boundary
    assert boundary_jump(lab2rgb(lab), mask) == pytest.approx(0, abs=1e-6)
    lab[mask] = (60, 0, 0)
    assert boundary_jump(lab2rgb(lab), mask) == pytest.approx(10, abs=0.1)
    lab[10:20, :15] = (90, 0, 0)  # what happens inside is no seam, but where it meets the upper and lower edge it is
    assert boundary_jump(lab2rgb(lab), mask) == pytest.approx((30 * 40 + 12 * 10) / 42, abs=0.3)
    assert boundary_jump(lab2rgb(lab), mask) == boundary_jump(lab2rgb(lab), ~mask)


def test_seam_grows_with_a_step_at_the_boundary():
    def stepped(images, masks, references, seeds):
        lab = [rgb2lab(IMAGES[seed]) for seed in seeds]
        for picture, mask in zip(lab, masks, strict=True):
            picture[mask] = picture[mask] * 0.6 + (10, 0, 0)
        return [lab2rgb(picture).clip(0, 1) for picture in lab]

    found = measure(stepped)["method"]["seam"]
    assert found["low"] > 1.1
    assert found["low"] < found["mean"] < found["high"]


def test_seam_of_flat_pictures_is_finite():
    flat = [np.full((64, 64, 3), 0.5)] * 2
    found = measure_fidelity(unchanged, flat, MASKS[:2], n_boot=20)["method"]
    assert found["seam"]["mean"] == 0
    assert found["psnr"]["mean"] == PSNR_CAP


def test_psnr_sees_the_masked_pixels_only():
    image, mask = IMAGES[0] * 0.5, MASKS[0]
    assert masked_psnr(image, np.where(mask[..., None], image + 0.1, 0), mask) == pytest.approx(20, abs=1e-3)
    assert masked_psnr(image, np.where(mask[..., None], image, 0), mask) == PSNR_CAP
    everywhere = np.ones_like(mask)
    assert masked_psnr(image, IMAGES[1], everywhere) == pytest.approx(peak_signal_noise_ratio(image, IMAGES[1]))


def test_ssim_agrees_with_scikit_image_and_sees_the_mask():
    a, b = IMAGES[:2]
    inner = np.zeros((64, 64), bool)
    inner[3:-3, 3:-3] = True  # where whole windows fit, which is what scikit-image averages
    assert masked_ssim(a, b, inner) == pytest.approx(structural_similarity(a, b, channel_axis=-1, data_range=1))
    left = np.zeros((64, 64), bool)
    left[:, :20] = True
    half = np.where(np.arange(64)[None, :, None] < 32, a, b)
    assert masked_ssim(a, half, left) == pytest.approx(1)
    assert masked_ssim(a, half, ~left) < 0.7


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda *_: [], "asked for 6 pictures and returned 0"),
        (lambda images, *_: [image[:32] for image in images], r"what it was given, \(64, 64, 3\): got \(32, 64, 3\)"),
        (lambda images, *_: [image * 255 for image in images], r"values in \[0, 1\]"),
        (lambda images, *_: [np.full_like(image, np.nan) for image in images], "NaN"),
    ],
)
def test_wrong_edits_are_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        measure(edit)


def test_wrong_masks_are_refused_before_anything_is_edited():
    with pytest.raises(ValueError, match="got 6 pictures and 5 masks"):
        measure_fidelity(lambda *_: pytest.fail("edited"), IMAGES, MASKS[:5])

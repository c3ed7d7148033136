import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from mg_diffusion.evaluation import quality
from mg_diffusion.evaluation.quality import (
    Features,
    extracted,
    frechet_distance,
    image_quality,
    kernel_distance,
    load_features,
    sliced_wasserstein,
)
from mg_diffusion.evaluation.squeezenet import SqueezeNet


DISTANCES = (frechet_distance, kernel_distance, sliced_wasserstein)
NAMES = ("frechet", "kernel", "sliced_wasserstein")


def rows(n: int, size: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Rows whose columns depend on each other, around `shift`."""
    mixing = np.random.default_rng(size).standard_normal((size, size)) / size**0.5
    return np.random.default_rng([seed, n]).standard_normal((n, size)) @ mixing + shift


def pictures(n: int, seed: int, sigma: float = 2.0) -> list[np.ndarray]:
    """Smooth random pictures (16, 16, 3): a stand-in for what real pictures have in common."""
    made = gaussian_filter(np.random.default_rng(seed).standard_normal((n, 16, 16, 3)), (0, sigma, sigma, 0))
    return list((0.5 + 0.15 * made / made.std()).clip(0, 1))


def blocks(made) -> np.ndarray:
    """Features: the means and deviations of blocks of 8 by 8 pixels."""
    cut = np.stack(made).reshape(len(made), 2, 8, 2, 8, 3)
    return np.concatenate([cut.mean((2, 4)).reshape(len(made), -1), cut.std((2, 4)).reshape(len(made), -1)], 1)


@pytest.fixture(scope="module")
def sets():
    names = ("samples", "real_a", "real_b", "reconstructions")
    made = {name: pictures(80, seed) for seed, name in enumerate(names)}
    made["reconstructions"] = [gaussian_filter(picture, (2, 2, 0)) for picture in made["real_b"]]
    return made


def score(sets: dict, features=blocks, **change) -> dict:
    return image_quality(**{**sets, **change}, features=features, n_boot=40)


def test_frechet_agrees_with_the_matrix_root():
    for a, b in ((rows(50), rows(70, shift=0.5)), (rows(50), 3 * rows(20, seed=1))):
        first, second = np.cov(a.T), np.cov(b.T)
        root = sqrtm(first @ second).real
        expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
        assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_is_exact_for_fewer_rows_than_columns():
    a, b = rows(12), rows(9, seed=1, shift=0.5)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 6)))[0].T  # (6, 40), orthonormal rows
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_frechet_of_a_shift_and_of_a_scale_is_known():
    a = rows(50)
    a -= a.mean(0)
    assert frechet_distance(a, a + np.arange(6)) == pytest.approx(sum(n**2 for n in range(6)))
    assert frechet_distance(a, 3 * a) == pytest.approx(4 * np.trace(np.cov(a.T)))


def test_kernel_distance_agrees_with_sums_over_pairs():
    a, b = rows(7), rows(5, seed=1, shift=0.5)

    def mean(x, y):
        pairs = [(p, q) for i, p in enumerate(x) for j, q in enumerate(y) if x is not y or i != j]
        return np.mean([(p @ q / 6 + 1) ** 3 for p, q in pairs])

    assert kernel_distance(a, b) == pytest.approx(mean(a, a) + mean(b, b) - 2 * mean(a, b))


def test_kernel_distance_is_unbiased_where_frechet_is_not():
    found = {n: [(rows(n, seed=2 * s), rows(n, seed=2 * s + 1)) for s in range(200)] for n in (10, 40)}
    kernel = {n: [kernel_distance(*pair) for pair in pairs] for n, pairs in found.items()}
    for values in kernel.values():
        assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5
        assert min(values) < 0
    frechet = {n: np.mean([frechet_distance(*pair) for pair in pairs]) for n, pairs in found.items()}
    assert frechet[10] > 2 * frechet[40] > 0


def test_sliced_wasserstein_agrees_with_scipy():
    for a, b in ((rows(40, 1), rows(40, 1, seed=1, shift=0.3)), (rows(40, 1), rows(80, 1, seed=1, shift=2))):
        assert sliced_wasserstein(a, b) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]))
    a, b = rows(40, 1), rows(57, 1, seed=1, shift=0.3)
    assert sliced_wasserstein(a, b) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]), rel=0.05)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    a = rows(40)
    directions = np.random.default_rng(1).standard_normal((20000, 6))
    expected = np.abs((directions / np.linalg.norm(directions, axis=1, keepdims=True)).sum(1)).mean()
    assert sliced_wasserstein(a, a + 1) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_are_symmetric_and_blind_to_order(distance):
    a, b = rows(200), rows(200, seed=1, shift=0.5)
    assert distance(b, a) == pytest.approx(distance(a, b))
    assert distance(a[::-1], np.random.default_rng(0).permutation(b)) == pytest.approx(distance(a, b))
    assert distance(a, b) > 2 * abs(distance(a, rows(200, seed=1)))
    assert abs(distance(a, a)) < 0.2 * distance(a, b)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("a", "message"),
    [
        (np.zeros((1, 6)), r"at least 2 rows each, got shapes \(1, 6\) and \(40, 6\)"),
        (np.zeros((4, 5)), r"with one D .* got shapes \(4, 5\) and \(40, 6\)"),
        (np.zeros(6), r"two arrays of features \(N, D\) and \(M, D\)"),
        (np.full((4, 6), np.nan), "finite features, got NaN or infinite"),
    ],
)
def test_wrong_rows_are_refused(distance, a, message):
    with pytest.raises(ValueError, match=message):
        distance(a, rows(40))


def test_samples_like_the_real_ones_reach_the_floor_and_others_do_not(sets):
    noise = list(np.random.default_rng(0).uniform(size=(80, 16, 16, 3)))
    alike, far = score(sets), score(sets, samples=noise)
    for name in NAMES:
        floor = alike["real"][name]
        assert floor["low"] < alike["samples"][name]["mean"] < floor["high"]
        assert far["samples"][name]["low"] > floor["high"]
        assert far["real"][name] == floor
        assert alike["reconstructions"][name]["low"] > floor["mean"]


def test_a_shift_is_detected(sets):
    shifted = score(sets, samples=[(picture + 0.1).clip(0, 1) for picture in sets["samples"]])
    for name in NAMES:
        assert shifted["samples"][name]["low"] > shifted["real"][name]["high"]


def test_identical_sets_are_at_zero(sets):
    result = score(sets, samples=sets["real_a"])
    floor = result["real"]
    for name in ("frechet", "sliced_wasserstein"):
        assert result["samples"][name]["mean"] == pytest.approx(0, abs=1e-9)
        assert result["samples"][name]["low"] == 0
    assert result["samples"]["kernel"]["mean"] < floor["kernel"]["high"]


def test_order_does_not_matter(sets):
    plain, reordered = score(sets), score(sets, samples=sets["samples"][::-1], real_b=sets["real_b"][::-1])
    for row in ("samples", "real"):
        for name in NAMES:
            assert reordered[row][name]["mean"] == pytest.approx(plain[row][name]["mean"])


def test_every_row_compares_as_many_pictures_as_the_smallest_set_has(sets):
    seen = []

    def counted(made):
        seen.append(len(made))
        return blocks(made)

    result = score(sets, counted, samples=sets["samples"][:50])
    assert seen == [50] * 4
    assert result["settings"] == {"pictures": 50, "bootstrap": 40, "seed": 0}
    assert score(sets, counted, samples=sets["samples"][:50]) == result
    other = image_quality(**{**sets, "samples": sets["samples"][:50]}, features=counted, n_boot=40, seed=1)
    assert other["real"]["kernel"]["mean"] != result["real"]["kernel"]["mean"]


def test_reconstructions_may_be_left_out(sets):
    with_them, without = score(sets), score(sets, reconstructions=None)
    assert {**without, "reconstructions": with_them["reconstructions"]} == with_them


def test_features_are_named(sets):
    assert score(sets)["features"] == "blocks"
    assert score(sets, Features("Blocks-8", blocks))["features"] == "Blocks-8"


def test_interval_is_as_wide_as_a_difference_of_means_varies():
    a, b = rows(60, 1), rows(90, 1, seed=1)
    figure = quality._interval(lambda x, y: float(x.mean() - y.mean()), a, b, n_boot=2000, seed=0)
    deviation = (a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)) ** 0.5
    assert figure["mean"] == a.mean() - b.mean()
    assert figure["high"] - figure["mean"] == pytest.approx(1.96 * deviation, rel=0.1)
    assert figure["mean"] - figure["low"] == pytest.approx(1.96 * deviation, rel=0.1)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_intervals_lie_around_the_distance_and_are_as_wide_as_it_varies(shift):
    """Draws that are not centered fail this: all of their Frechet distances lie above the one they belong to."""
    drawn = []
    for seed in range(20):
        made = {"samples": rows(60, seed=3 * seed, shift=shift)} | {
            name: rows(60, seed=3 * seed + place) for name, place in (("real_a", 1), ("real_b", 2))
        }
        drawn.append(image_quality(**made, reconstructions=None, features=np.stack, n_boot=30)["samples"])
    for name in NAMES:
        mean, low, high = (np.array([figures[name][key] for figures in drawn]) for key in ("mean", "low", "high"))
        assert (low <= mean).all() and (mean <= high).all()
        assert 0.6 < (high - low).mean() / (4 * mean.std()) < (1.6 if shift else 2.5)  # wider where it need not be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": pictures(3, 0)}, "at least 4 pictures in each set, got 3 as samples"),
        ({"real_b": pictures(80, 0, 1.0)[:0]}, "got 0 as real"),
        ({"samples": list(np.zeros((80, 32, 32, 3)))}, r"of one size, got .*\(32, 32, 3\).*resized, so bring"),
    ],
)
def test_wrong_sets_are_refused(sets, change, message):
    with pytest.raises(ValueError, match=message):
        score(sets, **change)


def test_wrong_features_are_refused():
    made = pictures(5, 0)
    with pytest.raises(ValueError, match=r"finite rows \(5, D\), got shape \(4, 12\)"):
        extracted(lambda given: blocks(given)[:4, :12], made)
    with pytest.raises(ValueError, match=r"got shape \(5, 24\) with NaN or infinite values from <lambda>"):
        extracted(lambda given: blocks(given) * np.nan, made)


def test_load_features_of_squeezenet(tmp_path):
    state = SqueezeNet().state_dict()
    save_file(
        {name.replace(".", "/", 1) if name[:4] == "fire" else name: t for name, t in state.items()},
        tmp_path / "net.safetensors",
    )
    features = load_features(tmp_path / "net.safetensors")
    assert features.name == "SqueezeNet-1.1"
    assert features(pictures(2, 0)).shape == (2, 896)


def test_load_features_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ValueError, match="expected torchvision .*not installed: `pip install torchvision`, or give"):
        load_features(tmp_path / "inception.pth")


def test_load_features_of_inception(tmp_path):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    net = models.inception_v3(weights=None, init_weights=False)
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    features = load_features(tmp_path / "inception.pth")
    assert features.name == "Inception-v3"
    made = pictures(2, 0)
    found = features(made)
    assert found.shape == (2, 2048)
    pixels = torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float()
    net.eval().fc = torch.nn.Identity()
    with torch.no_grad():
        expected = net(torch.nn.functional.interpolate(pixels, (299, 299), mode="bilinear") * 2 - 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="state dict of torchvision's inception_v3, got '.*other.pt'"):
        load_features(tmp_path / "other.pt")


def test_load_features_of_other_files_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"\(.safetensors\) or of torchvision's inception_v3 \(.pt, .pth\), got '.*onnx'"
    ):
        load_features(tmp_path / "net.onnx")

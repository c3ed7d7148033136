import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from mg_diffusion.evaluation.memorisation import memorisation_audit, small_lab


SIDE = 32


def pictures(n: int, seed: int) -> np.ndarray:
    """Smooth random pictures (n, SIDE, SIDE, 3)."""
    made = gaussian_filter(np.random.default_rng(seed).standard_normal((n, SIDE, SIDE, 3)), (0, 4, 4, 0))
    return (0.5 + 0.15 * made / made.std()).clip(0, 1)


def gray(made) -> np.ndarray:
    """Features: gray values at every fourth pixel."""
    return np.stack(made)[:, ::4, ::4].mean(-1).reshape(len(made), -1)


@pytest.fixture(scope="module")
def train():
    return pictures(150, 0)


@pytest.fixture(scope="module")
def held_out():
    return pictures(60, 1)


def audit(samples, train, held_out, **settings) -> dict:
    return memorisation_audit(samples, train, held_out, **{"features": gray, "n_boot": 100, **settings})


@pytest.mark.parametrize("judge", ["pixels", "features"])
def test_copier_scores_zero(train, held_out, judge):
    found = audit(train[40:70], train, held_out)[judge]
    assert found["auc"] == {"mean": 0, "low": 0, "high": 0}
    assert [pair["distance"] for pair in found["worst"]] == [0] * 16
    assert all(pair["train"] == pair["sample"] + 40 and not pair["flipped"] for pair in found["worst"])


@pytest.mark.parametrize("judge", ["pixels", "features"])
def test_samples_like_held_out_pictures_score_a_half(train, held_out, judge):
    auc = audit(pictures(60, 2), train, held_out)[judge]["auc"]
    assert auc["low"] < 0.5 < auc["high"]
    assert 0.35 < auc["mean"] < 0.65
    assert audit(held_out, train, held_out)[judge]["auc"]["mean"] == 0.5


@pytest.mark.parametrize("judge", ["pixels", "features"])
def test_samples_far_from_everything_score_one(train, held_out, judge):
    noise = np.random.default_rng(0).integers(2, size=(30, SIDE // 4, SIDE // 4, 3)).repeat(4, 1).repeat(4, 2) * 1.0
    assert audit(noise, train, held_out)[judge]["auc"]["low"] > 0.95


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("judge", ["pixels", "features"])
def test_a_planted_near_duplicate_is_found(train, held_out, judge, flipped):
    samples = pictures(40, 2)
    planted = train[123][:, ::-1] if flipped else train[123]
    samples[7] = (planted + np.random.default_rng(0).normal(0, 0.01, planted.shape)).clip(0, 1)
    found = audit(samples, train, held_out)[judge]
    first, second = found["worst"][:2]
    assert (first["sample"], first["train"], first["flipped"]) == (7, 123, flipped)
    assert first["distance"] < 0.3 * second["distance"]
    assert found["auc"]["high"] > 0.5  # one copy among 40 does not move the whole


def test_a_flipped_held_out_picture_is_treated_alike(train, held_out):
    samples = pictures(40, 2)
    plain, mirrored = (audit(samples, train, held_out[:, :, ::step]) for step in (1, -1))
    assert mirrored["pixels"]["auc"] == plain["pixels"]["auc"]


def test_every_second_sample_a_copy_scores_a_quarter(train, held_out):
    samples = pictures(60, 2)
    without = audit(samples, train, held_out)["pixels"]["auc"]["mean"]
    samples[::2] = train[:30]
    odd = audit(samples[1::2], train, held_out)["pixels"]["auc"]["mean"]
    assert audit(samples, train, held_out)["pixels"]["auc"]["mean"] == pytest.approx(odd / 2)
    assert odd == pytest.approx(without, abs=0.1)


def test_distances_are_those_of_all_pairs(train, held_out):
    samples = pictures(20, 2)
    small = [rgb2lab(p.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4))) for p in (samples, samples[:, :, ::-1], train)]
    deltas = [((query[:, None] - small[2]) ** 2).sum(-1).mean((2, 3)) ** 0.5 for query in small[:2]]
    each = np.minimum(*deltas)  # (20, 150)
    for pair in audit(samples, train, held_out)["pixels"]["worst"]:
        assert pair["distance"] == pytest.approx(each[pair["sample"]].min(), rel=1e-4)
        assert pair["train"] == each[pair["sample"]].argmin()
        assert pair["flipped"] == (deltas[1][pair["sample"]].min() < deltas[0][pair["sample"]].min())


def test_worst_pairs_come_nearest_first(train, held_out):
    worst = audit(pictures(40, 2), train, held_out)["pixels"]["worst"]
    distances = [pair["distance"] for pair in worst]
    assert len(worst) == len({pair["sample"] for pair in worst}) == 16
    assert distances == sorted(distances)
    assert len(audit(pictures(3, 2), train, held_out)["pixels"]["worst"]) == 3


def test_order_does_not_matter(train, held_out):
    samples = pictures(40, 2)
    plain, reordered = audit(samples, train, held_out), audit(samples[::-1], train[::-1], held_out[::-1])
    for judge in ("pixels", "features"):
        assert reordered[judge]["auc"]["mean"] == plain[judge]["auc"]["mean"]
        for a, b in zip(plain[judge]["worst"], reordered[judge]["worst"], strict=True):
            assert (b["sample"], b["train"]) == (39 - a["sample"], 149 - a["train"])


def test_training_pictures_are_taken_in_chunks(train, held_out):
    seen = []

    def counted(made):
        seen.append(len(made))
        return gray(made)

    samples = pictures(20, 2)
    chunked = audit(samples, train, held_out, features=counted, chunk=37)
    assert max(seen) == 37
    assert sum(seen) == 150 + 2 * (20 + 60)
    expected = audit(samples, train, held_out)
    for judge in ("pixels", "features"):
        assert chunked[judge]["auc"] == expected[judge]["auc"]
        assert [pair["train"] for pair in chunked[judge]["worst"]] == [p["train"] for p in expected[judge]["worst"]]


def test_interval_narrows_with_more_pictures(train):
    widths = []
    for n in (20, 80):
        auc = audit(pictures(n, 2), train, pictures(n, 1), features=None, n_boot=300)["pixels"]["auc"]
        widths.append(auc["high"] - auc["low"])
    expected = 2 * 1.96 * (1 / 12 * 2 / 20) ** 0.5  # of an AUC of 0.5 from 20 and 20
    assert widths[0] == pytest.approx(expected, rel=0.25)
    assert widths[1] == pytest.approx(expected / 2, rel=0.25)


def test_result_can_be_written_and_repeats_with_the_seed(train, held_out):
    result = audit(train[:5], train, held_out)
    assert json.loads(json.dumps(result, allow_nan=False)) == result == audit(train[:5], train, held_out)
    assert result["settings"] == {
        "samples": 5,
        "train": 150,
        "held_out": 60,
        "features": "gray",
        "side": 16,
        "bootstrap": 100,
        "seed": 0,
    }
    assert set(audit(train[:5], train, held_out, features=None)) == {"pixels", "settings"}


def test_small_lab_measures_delta_e():
    a, b = np.full((2, 1, SIDE, SIDE, 3), 0.5)
    b[..., :] = 0.7
    difference = np.linalg.norm(small_lab(a) - small_lab(b))
    assert difference == pytest.approx(abs(np.subtract(*rgb2lab([[[0.5] * 3, [0.7] * 3]])[0][:, 0])), rel=1e-4)
    assert small_lab(a, side=4).shape == (1, 48)


@pytest.mark.parametrize("empty", ["samples", "train", "held_out"])
def test_empty_sets_are_refused(train, empty):
    sets = {"samples": train[:2], "train": train, "held_out": train[:2], empty: []}
    with pytest.raises(ValueError, match=f"at least one picture in samples, train, held_out, got none as {empty}"):
        memorisation_audit(**sets)

import numpy as np
import pytest

from mg_diffusion.evaluation.diversity import diversity


GROUPS, SEEDS = 40, 4


def drawn(n: int, seed: int = 0) -> np.ndarray:
    """Independent pictures (n, 16, 16, 3)."""
    return np.random.default_rng([seed, n]).uniform(size=(n, 16, 16, 3))


def flat(pictures) -> np.ndarray:
    return np.stack(pictures)[:, ::2, ::2].reshape(len(pictures), -1)


@pytest.fixture(scope="module")
def real():
    return drawn(200)


@pytest.fixture(scope="module")
def outputs():
    return drawn(GROUPS * SEEDS, seed=1).reshape(GROUPS, SEEDS, 16, 16, 3)


def test_copier_scores_zero(real):
    copies = np.repeat(drawn(GROUPS)[:, None], SEEDS, axis=1)
    assert diversity(copies, real, flat) == {"mean": 0, "low": 0, "high": 0}


def test_real_pictures_at_random_score_one(real, outputs):
    figure = diversity(outputs, real, flat)
    assert figure["mean"] == pytest.approx(1, abs=0.02)
    assert figure["low"] < figure["mean"] < figure["high"]


def test_what_references_fix_does_not_count(real, outputs):
    fixed = drawn(GROUPS, seed=2)[:, None]
    assert diversity(fixed / 2 + outputs / 2, real, flat)["mean"] == pytest.approx(1 / 4, abs=0.01)


@pytest.mark.parametrize("seeds", [2, 8])
def test_the_number_of_seeds_does_not_matter(real, seeds):
    outputs = drawn(GROUPS * seeds, seed=3).reshape(GROUPS, seeds, 16, 16, 3)
    assert diversity(outputs, real, flat)["mean"] == pytest.approx(1, abs=0.02)


def test_groups_count_alike_whatever_their_size(real, outputs):
    still = np.repeat(drawn(1), 3, axis=0)
    assert diversity([outputs.reshape(-1, 16, 16, 3), still], real, flat)["mean"] == pytest.approx(0.5, abs=0.01)


def test_order_does_not_matter(real, outputs):
    reordered = diversity(outputs[::-1, ::-1], real[::-1], flat)
    assert reordered["mean"] == pytest.approx(diversity(outputs, real, flat)["mean"])


def test_interval_is_over_groups_and_follows_the_seed(real, outputs):
    mixed = [group if place % 2 else np.repeat(group[:1], SEEDS, axis=0) for place, group in enumerate(outputs)]
    figure = diversity(mixed, real, flat)
    assert figure["mean"] == pytest.approx(0.5, abs=0.02)
    assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * 0.5 / GROUPS**0.5, rel=0.15)
    assert diversity(mixed, real, flat) == figure != diversity(mixed, real, flat, seed=1)


@pytest.mark.parametrize(
    ("groups", "reals", "message"),
    [
        ([], drawn(3), r"at least one group .* got 0 groups of sizes \[\]"),
        ([drawn(3), drawn(1)], drawn(3), r"each of at least 2 seeds, got 2 groups of sizes \[3, 1\]"),
        ([drawn(3)], drawn(1), "at least 2 different real pictures, got 1 without any variance"),
        ([drawn(3)], np.zeros((5, 16, 16, 3)), "at least 2 different real pictures, got 5 without any variance"),
    ],
)
def test_wrong_arguments_are_refused(groups, reals, message):
    with pytest.raises(ValueError, match=message):
        diversity(groups, reals, flat)

import json

import numpy as np
import pytest

from mg_diffusion.evaluation.control import write_json
from mg_diffusion.evaluation.leakage import (
    EVERYTHING,
    SEED,
    SWAPS,
    dominance,
    leakage_figures,
    leakage_matrix,
    random_cases,
)
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.training.renderer import render


POOL = 40
CASES = random_cases(16, POOL, seed=0)
IDEAL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]])  # shares (swaps, attributes)


@pytest.fixture(scope="module")
def pool():
    return [render(place, place, place) for place in range(POOL)]


@pytest.fixture(scope="module")
def oracle(pool):
    """The true answer as the method, and as the reference line."""
    generate = rendering(pool, lambda color, texture, shape: (color, texture, shape))
    return leakage_matrix(
        generate,
        pool,
        CASES,
        batch_size=5,
        n_boot=100,
        seed=7,
        oracle=lambda triple, seed: render(**triple, phase=seed),
    )


def rendering(pool, choose):
    """A method that knows the factors of what it is given, and draws those that `choose` makes of them."""
    places = {id(picture): place for place, picture in enumerate(pool)}

    def generate(seeds, **references):
        factors = [[places[id(picture)] for picture in references[name]] for name in GRANULARITIES]
        return [render(*choose(*row), phase=seed) for *row, seed in zip(*factors, seeds, strict=True)]

    return generate


def means(matrix: dict) -> np.ndarray:
    return np.array([[cell["mean"] for cell in row.values()] for row in matrix.values()])


def figures(shares: np.ndarray, between=(10.0, 0.3, 0.8), n: int = 6) -> dict:
    """Of cases that all move the same shares (swaps, attributes) of a distance of their own between the references."""
    between = np.outer(np.linspace(0.5, 1.5, n), between)
    return leakage_figures(shares * between[:, None], between, n_boot=20)


@pytest.mark.parametrize("name", ["by_everything", "by_references"])
def test_oracle_reaches_what_is_asked_of_a_method(oracle, name):
    shares = means(oracle["method"][name]["matrix"])
    diagonal = np.eye(3, dtype=bool)
    assert 0.85 < shares[:3][diagonal].min() and shares[:3][diagonal].max() < 1.15
    assert shares[:3][~diagonal].max() <= 0.25
    assert shares[-1].max() < 0.15  # another seed is another piece of the same texture
    assert oracle["method"][name]["dominance"]["mean"] == pytest.approx(0.90, abs=0.03)


def test_oracle_moves_as_far_as_its_references_are_apart(oracle):
    moved = oracle["method"]["by_references"]["matrix"]["everything"]
    assert [figure["mean"] for figure in moved.values()] == pytest.approx([1, 1, 1], abs=0.1)


def test_subtracting_the_floor_of_the_seed_lowers_what_the_seed_moves(oracle):
    found = oracle["method"]
    without = found["above_floor"]["matrix"]["color"]["texture"]["mean"]
    assert without < found["by_everything"]["matrix"]["color"]["texture"]["mean"] - 0.05
    assert found["above_floor"]["dominance"]["mean"] > found["by_everything"]["dominance"]["mean"]


def test_intervals_lie_around_their_means(oracle):
    for found in oracle["method"].values():
        for figure in [found["dominance"], *(cell for row in found["matrix"].values() for cell in row.values())]:
            assert figure["low"] <= figure["mean"] <= figure["high"]
    assert 0.01 < np.ptp(list(oracle["method"]["by_everything"]["dominance"].values())) < 0.2


def test_method_and_oracle_are_scored_alike_and_with_the_same_seeds(oracle):
    assert oracle["method"] == oracle["reference_lines"]["oracle"]


def test_reinhard_separates_color_but_not_texture_from_shape(oracle):
    found = oracle["reference_lines"]["reinhard"]["by_everything"]["matrix"]
    assert found["color"]["color"]["mean"] > 0.8
    assert found["shape"]["texture"]["mean"] > 0.8
    assert max(figure["mean"] for figure in found["texture"].values()) == 0


def test_result_can_be_written(oracle, tmp_path):
    write_json(tmp_path / "leakage.json", oracle)
    assert json.loads((tmp_path / "leakage.json").read_text()) == oracle
    assert oracle["settings"] == {"cases": 16, "pool": POOL, "bootstrap": 100, "seed": 7}


def test_color_alone_dominates_its_row_alone(pool):
    generate = rendering(pool, lambda color, texture, shape: (color, 0, 0))
    found = leakage_matrix(generate, pool, CASES[:6], n_boot=20)["method"]["by_references"]
    shares = means(found["matrix"])
    assert shares[0, 0] > 0.8 and shares[0, 1:].max() < 0.3
    assert (shares[1:3] == 0).all()
    assert found["dominance"]["mean"] == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("copied", GRANULARITIES)
def test_copier_has_no_dominance(pool, copied):
    found = leakage_matrix(lambda seeds, **references: references[copied], pool, CASES[:3], n_boot=20)["method"]
    for name in ("by_everything", "above_floor", "by_references"):
        shares = means(found[name]["matrix"])
        expected = np.zeros((3, 3))
        expected[GRANULARITIES.index(copied)] = 1
        own = GRANULARITIES.index(copied)
        if name == "by_references":  # what it copies is as far apart as its references; the others' are not its own
            assert shares[own, own] == pytest.approx(1)
            assert (np.delete(shares[:3], own, axis=0) == 0).all()
        else:
            np.testing.assert_allclose(shares[:3], expected)
            assert found[name]["dominance"]["mean"] == pytest.approx(0)


def test_noise_has_no_dominance(pool):
    def noise(seeds, **references):
        return [np.random.default_rng(seed).uniform(size=(64, 64, 3)) for seed in seeds]

    found = leakage_matrix(noise, pool, CASES[:3], n_boot=20)["method"]
    for name in ("by_everything", "above_floor"):
        assert found[name]["dominance"] == {"mean": 0, "low": 0, "high": 0}
    assert (
        means(found["by_references"]["matrix"])[:4].max()
        == 0
        < found["by_references"]["matrix"]["seed"]["color"]["mean"]
    )


def test_noise_that_ignores_the_seed_moves_all_alike(pool):
    rng = np.random.default_rng(0)
    found = leakage_matrix(
        lambda seeds, **references: [rng.uniform(size=(64, 64, 3)) for _ in seeds], pool, CASES[:4], n_boot=20
    )["method"]["by_everything"]
    assert means(found["matrix"]) == pytest.approx(np.ones((4, 3)), abs=0.4)
    assert abs(found["dominance"]["mean"]) < 0.2


def test_what_is_swapped_and_what_is_kept(pool):
    calls = []

    def generate(color, texture, shape, seeds):
        assert len(color) == len(texture) == len(shape) == len(seeds) <= 2
        calls.extend(zip(*[[id(picture) for picture in row] for row in (color, texture, shape)], seeds, strict=True))
        return color

    leakage_matrix(generate, pool, CASES[:3], batch_size=2, n_boot=20, seed=5)
    expected = []
    for swapped in ((), ("color",), ("texture",), ("shape",), GRANULARITIES, "another seed"):
        for index, (first, second) in enumerate(CASES[:3]):
            places = [(second if name in swapped else first)[name] for name in GRANULARITIES]
            seed = 5 + index + 3 * (swapped == "another seed")
            expected.append((*(id(pool[place]) for place in places), seed))
    assert calls == expected


def test_figures_of_ideal_control():
    for found in figures(IDEAL).values():
        assert found["dominance"] == pytest.approx({"mean": 1, "low": 1, "high": 1})
        np.testing.assert_allclose(means(found["matrix"])[:3], np.eye(3))


def test_timid_control_is_separate_but_small():
    found = figures(0.1 * IDEAL)
    assert found["by_everything"]["dominance"]["mean"] == pytest.approx(1)
    assert found["by_references"]["dominance"]["mean"] == pytest.approx(0.1)
    assert found["by_references"]["matrix"]["everything"]["texture"]["mean"] == pytest.approx(0.1)


def test_rows_are_swaps_and_columns_are_attributes():
    leaking = IDEAL.copy()
    leaking[0, 2] = 0.3  # a swap of color moves shape
    matrix = figures(leaking)["by_everything"]["matrix"]
    assert matrix["color"]["shape"]["mean"] == pytest.approx(0.3)
    assert matrix["shape"]["color"]["mean"] == 0


def test_floor_is_subtracted_from_both_sides():
    noisy = np.maximum(IDEAL, 0.2)
    found = figures(noisy)
    assert found["by_everything"]["dominance"]["mean"] == pytest.approx(0.8)
    assert found["by_everything"]["matrix"]["seed"]["color"]["mean"] == pytest.approx(0.2)
    assert found["above_floor"]["dominance"]["mean"] == pytest.approx(1)
    found["above_floor"]["matrix"]["color"].pop("color")
    assert [figure["mean"] for figure in found["above_floor"]["matrix"]["color"].values()] == pytest.approx([0, 0])


def test_share_is_a_ratio_of_means_so_that_a_swap_of_likes_decides_nothing():
    between = np.array([[1.0] * 3, [0.001] * 3])
    moved = IDEAL * between[:, None]
    moved[1, 0, 1] = 0.05  # fifty times what everything moves in this case
    found = leakage_figures(moved, between, n_boot=20)["by_everything"]["matrix"]
    assert found["color"]["texture"]["mean"] == pytest.approx(0.05 / 1.001)


def test_what_moves_less_than_the_seed_has_no_share():
    drowned = 0.1 * IDEAL
    drowned[SEED] = 0.5
    found = figures(drowned)["above_floor"]
    assert found["dominance"]["mean"] == 0
    assert figures(0 * IDEAL)["by_everything"]["dominance"]["mean"] == 0


def test_dominance_by_hand():
    assert dominance(np.eye(3)) == 1
    assert dominance(np.ones((3, 3))) == 0
    assert dominance(np.array([[0.9, 0.1, 0.2], [0, 0.8, 0.3], [0.1, 0.2, 0.7]])) == pytest.approx(0.8 - 0.15)


def test_swaps_are_named_in_order():
    assert SWAPS[:3] == GRANULARITIES
    assert (SWAPS[EVERYTHING], SWAPS[SEED]) == ("everything", "seed")


def test_random_cases_are_reproducible_and_of_six_different_pictures():
    cases = random_cases(100, 8, seed=3)
    assert cases == random_cases(100, 8, seed=3) != random_cases(100, 8, seed=4)
    assert all(set(a) == set(b) == set(GRANULARITIES) for a, b in cases)
    assert all(len({*a.values(), *b.values()}) == 6 for a, b in cases)
    assert {place for a, _ in cases for place in a.values()} == set(range(8))


def test_random_cases_need_six_pictures():
    with pytest.raises(ValueError, match="a pool of at least 6 pictures, got 5"):
        random_cases(1, 5, seed=0)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "at least one: got 0"),
        ([({"color": 0, "texture": 1}, CASES[0][1])], "a triple with the keys"),
        ([({"color": 0, "texture": 1, "shape": POOL}, CASES[0][1])], f"in a pool of {POOL} pictures"),
        ([(CASES[0][0], CASES[0][0])], "six different pictures"),
    ],
)
def test_wrong_cases_are_refused_before_anything_is_generated(pool, cases, message):
    with pytest.raises(ValueError, match=message):
        leakage_matrix(lambda **_: pytest.fail("generated"), pool, cases)


def test_wrong_generators_are_refused(pool):
    with pytest.raises(ValueError, match="asked for 3 pictures and returned 0"):
        leakage_matrix(lambda **_: [], pool, CASES[:3])

import json

import numpy as np
import pytest

from mg_diffusion.evaluation.control import (
    _scores,
    chance,
    measure_control,
    pairwise_control,
    random_triples,
    reinhard_transfer,
    write_json,
)
from mg_diffusion.evaluation.metrics import color_distance, describe, shape_distance
from mg_diffusion.granularities import GRANULARITIES

from . import render


POOL = 40
TRIPLES = random_triples(40, POOL, seed=0)


@pytest.fixture(scope="module")
def pictures():
    return [render(place, place, place) for place in range(POOL)]


@pytest.fixture(scope="module")
def pool(pictures):
    return [describe(picture) for picture in pictures]


def means(result: dict, name: str) -> dict[str, float]:
    return {granularity: figure["mean"] for granularity, figure in result[name].items()}


def test_oracle_controls_all_three(pool):
    result = pairwise_control([render(**triple, phase=1) for triple in TRIPLES], TRIPLES, pool)
    assert means(result, "top1")["color"] > 0.9
    assert means(result, "top1")["texture"] > 0.4
    assert means(result, "top1")["shape"] > 0.9
    assert min(means(result, "pairwise").values()) > 0.9
    assert result["joint"]["mean"] > 0.4
    assert max(means(result, "leak").values()) < 0.1


@pytest.mark.parametrize("copied", GRANULARITIES)
def test_copier_wins_what_it_copies_and_leaks_the_rest(pool, copied):
    result = pairwise_control([pool[triple[copied]] for triple in TRIPLES], TRIPLES, pool)
    for granularity in GRANULARITIES:
        assert result["top1"][granularity]["mean"] == (granularity == copied)
        assert result["leak"][granularity]["mean"] == (granularity != copied)
        assert (result["mrr"][granularity]["mean"] == 1) is (granularity == copied)
    assert result["joint"]["mean"] == 0
    assert result["pairwise"][copied]["mean"] == 1


def test_shuffled_color_reference_controls_color_only(pictures, pool):
    rng = np.random.default_rng(0)
    outputs = [rng.permutation(pictures[triple["color"]].reshape(-1, 3)).reshape(64, 64, 3) for triple in TRIPLES]
    result = pairwise_control(outputs, TRIPLES, pool)
    assert result["top1"]["color"]["mean"] == 1
    for granularity in ("texture", "shape"):
        assert result["top1"][granularity]["mean"] < 0.2
        assert 0.3 < result["pairwise"][granularity]["mean"] < 0.7
    assert result["joint"]["mean"] < 0.05


def test_noise_scores_chance(pool):
    rng = np.random.default_rng(0)
    triples = random_triples(1000, POOL, seed=1)
    noises = [describe(rng.uniform(size=(64, 64, 3))) for _ in range(10)]
    result = pairwise_control([noises[i % 10] for i in range(len(triples))], triples, pool)
    expected = chance()
    for granularity in GRANULARITIES:
        for name, tolerance in (("pairwise", 0.04), ("top1", 0.02), ("mrr", 0.02), ("leak", 0.03)):
            assert result[name][granularity]["mean"] == pytest.approx(expected[name][granularity], abs=tolerance)


def test_ties_count_as_a_random_choice(pool):
    flat = np.full((64, 64, 3), 0.5)  # equally far from every shape
    result = pairwise_control([flat] * len(TRIPLES), TRIPLES, pool)
    for name in ("pairwise", "top1", "leak"):
        assert result[name]["shape"] == pytest.approx(dict.fromkeys(("mean", "low", "high"), chance()[name]["shape"]))


def reciprocal_ranks(found: list[list[float]]) -> list[float]:
    """Of color, whose own reference is the first candidate, at these distances (outputs, candidates)."""
    measured = np.repeat(np.array(found, float)[:, None], len(GRANULARITIES), axis=1)
    return _scores(measured)["mrr", "color"].tolist()


def test_mrr_is_one_over_the_rank_of_the_own_reference():
    found = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [2, 0, 1, 3, 4], [4, 0, 1, 2, 3]]
    assert reciprocal_ranks(found) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 5])


def test_mrr_ranks_all_candidates_the_other_references_too():
    assert reciprocal_ranks([[2, 1, 3, 4, 5], [2, 3, 3, 4, 1]]) == pytest.approx([1 / 2, 1 / 2])


@pytest.mark.xfail(strict=True, reason="a tie takes the middle rank, not the mean over a random order of the tied")
def test_mrr_of_a_tie_is_that_of_a_random_order():
    two, behind, all_tied = [0, 0, 1, 2, 3], [1, 0, 1, 1, 2], [1, 1, 1, 1, 1]
    expected = [(1 + 1 / 2) / 2, (1 / 2 + 1 / 3 + 1 / 4) / 3, chance(5)["mrr"]["color"]]
    assert reciprocal_ranks([two, behind, all_tied]) == pytest.approx(expected)


@pytest.mark.parametrize("n", [4, 32])
def test_chance_of_mrr_is_the_mean_over_all_ranks(n):
    every_rank_once = [np.roll(np.arange(n), turn) for turn in range(n)]
    expected = np.mean(reciprocal_ranks(every_rank_once))
    assert chance(n)["mrr"] == pytest.approx(dict.fromkeys(GRANULARITIES, expected))


def test_mrr_lies_between_top1_and_1(pictures, pool):
    outputs = [(pictures[triple["color"]] + pictures[triple["shape"]]) / 2 for triple in TRIPLES[:12]]
    result = pairwise_control(outputs, TRIPLES[:12], pool)
    for granularity in GRANULARITIES:
        assert result["top1"][granularity]["mean"] < result["mrr"][granularity]["mean"] < 1


def test_interval_covers_the_mean_and_narrows_with_more_triples(pool):
    def top1(triples):
        outputs = [pool[triple["color"] if index % 2 else triple["shape"]] for index, triple in enumerate(triples)]
        return pairwise_control(outputs, triples, pool)["top1"]["color"]

    few, many = top1(random_triples(20, POOL, seed=2)), top1(random_triples(320, POOL, seed=2))
    for figure, n in ((few, 20), (many, 320)):
        assert figure["low"] < figure["mean"] < figure["high"]
        assert figure["mean"] == pytest.approx(0.5, abs=0.01)
        assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * 0.5 / n**0.5, rel=0.15)


def test_repeated_outputs_of_one_triple_do_not_narrow_the_interval(pool):
    outputs = [pool[triple["color"] if index % 2 else triple["shape"]] for index, triple in enumerate(TRIPLES)]
    once = pairwise_control(outputs, TRIPLES, pool)["top1"]["color"]
    often = pairwise_control(outputs * 4, TRIPLES * 4, pool)["top1"]["color"]
    assert often["mean"] == once["mean"]
    assert often["high"] - often["low"] == pytest.approx(once["high"] - once["low"], rel=0.15)


def test_same_seed_same_figures_another_seed_other_distractors(pool):
    outputs = [pool[triple["shape"]] for triple in TRIPLES]
    first, again, other = (pairwise_control(outputs, TRIPLES, pool, seed=seed, n_candidates=8) for seed in (0, 0, 1))
    assert first == again
    assert first["pairwise"] != other["pairwise"]


def test_pictures_and_descriptors_are_interchangeable(pictures, pool):
    triples = TRIPLES[:3]
    places = [triple["shape"] for triple in triples]
    expected = pairwise_control([pool[place] for place in places], triples, pool, n_candidates=8)
    assert pairwise_control([pictures[place] for place in places], triples, pictures, n_candidates=8) == expected


def test_measure_control_batches_seeds_and_reference_lines(pictures, tmp_path):
    calls = []

    def generate(color, texture, shape, seeds):
        assert len(color) == len(texture) == len(shape) == len(seeds) <= 5
        calls.append(seeds)
        return color

    triples = TRIPLES[:6]
    result = measure_control(generate, pictures, triples, outputs_per_triple=2, batch_size=5, seed=7, n_boot=100)
    assert sum(calls, []) == list(range(7, 19))
    assert result["method"] == result["reference_lines"]["copy_color"]
    lines = result["reference_lines"]
    assert set(lines) == {"random_picture", "copy_color", "copy_texture", "copy_shape", "reinhard"}
    assert lines["copy_texture"]["top1"]["texture"]["mean"] == 1
    assert lines["reinhard"]["top1"]["shape"]["mean"] > 0.8
    assert lines["reinhard"]["pairwise"]["color"]["mean"] > 0.8
    assert lines["reinhard"]["joint"]["mean"] < 0.2
    assert result["chance"]["top1"]["color"] == 1 / 32
    write_json(tmp_path / "control.json", result)
    assert json.loads((tmp_path / "control.json").read_text()) == result


def test_oracle_is_a_reference_line_of_its_own(pictures, tmp_path):
    asked = []

    def oracle(triple):
        asked.append(dict(triple))
        return render(**triple, phase=1)

    first, second = random_triples(2, 10, seed=0)
    options = {"outputs_per_triple": 2, "n_boot": 50, "n_candidates": 10}
    result = measure_control(lambda shape, **_: shape, pictures[:10], [first, second], oracle=oracle, **options)
    assert asked == [first, first, second, second]
    found = result["reference_lines"]["oracle"]
    for granularity in ("color", "shape"):
        assert found["top1"][granularity]["mean"] == 1
    assert set(found) == set(result["method"])
    assert result["method"] == result["reference_lines"]["copy_shape"]
    write_json(tmp_path / "control.json", result)


def test_write_json_sorts_keys_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": {"d": 2, "c": 3}})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": {\n    "c": 3,\n    "d": 2\n  },\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_random_triples_are_reproducible_and_different():
    triples = random_triples(200, 5, seed=3)
    assert triples == random_triples(200, 5, seed=3) != random_triples(200, 5, seed=4)
    assert all(set(triple) == set(GRANULARITIES) and len(set(triple.values())) == 3 for triple in triples)
    assert {place for triple in triples for place in triple.values()} == set(range(5))
    json.dumps(triples)


def test_reinhard_takes_color_and_keeps_shape(pictures):
    for source, target in zip(pictures[:6:2], pictures[1:6:2], strict=True):
        moved = reinhard_transfer(source, target)
        assert color_distance(moved, target) < 0.6 * color_distance(source, target)
        assert shape_distance(moved, source) < 0.2


def test_random_triples_needs_three_pictures():
    with pytest.raises(ValueError, match="a pool of at least 3 pictures, got 2"):
        random_triples(1, 2, seed=0)


@pytest.mark.parametrize(
    ("references", "n_candidates", "message"),
    [
        (TRIPLES[:2], 8, "one triple of references per output, and at least one: got 1 outputs and 2 triples"),
        (TRIPLES[:1], 3, "n_candidates between 4 and the size of the pool, 40: got 3"),
        (TRIPLES[:1], 41, "got 41. Enlarge the pool or lower n_candidates"),
        ([{"color": 0, "texture": 1}], 8, "a triple with the keys .*, got \\('color', 'texture'\\)"),
        ([{"color": 0, "texture": 1, "shape": 1}], 8, "three different places in a pool of 40 pictures"),
        ([{"color": 0, "texture": 1, "shape": 40}], 8, "three different places in a pool of 40 pictures"),
        ([{"color": -1, "texture": 1, "shape": 2}], 8, "three different places in a pool of 40 pictures"),
    ],
)
def test_wrong_arguments_are_refused(pool, references, n_candidates, message):
    with pytest.raises(ValueError, match=message):
        pairwise_control(pool[:1], references, pool, n_candidates=n_candidates)


def test_no_outputs_are_refused(pictures):
    with pytest.raises(ValueError, match="at least one: got 0 outputs"):
        measure_control(lambda **_: [], pictures, [])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "asked for 2 pictures and returned 0"),
        ([np.zeros((32, 32, 3))] * 2, r"the shape of the pool's, \(64, 64, 3\)"),
    ],
)
def test_wrong_generators_are_refused(pictures, made, message):
    with pytest.raises(ValueError, match=message):
        measure_control(lambda **_: made, pictures[:8], random_triples(2, 8, seed=0), n_candidates=8)

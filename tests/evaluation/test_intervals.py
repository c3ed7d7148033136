import numpy as np
import pytest
from scipy.stats import bootstrap

from mg_diffusion.evaluation.intervals import interval, interval_of, stream


VALUES = np.random.default_rng(0).normal(5, 2, 200)


def test_streams_repeat_and_differ_by_seed_and_by_use():
    first = stream(3, "masks").integers(1000, size=8).tolist()
    assert stream(3, "masks").integers(1000, size=8).tolist() == first
    assert stream(4, "masks").integers(1000, size=8).tolist() != first
    assert stream(3, "cases").integers(1000, size=8).tolist() != first


def test_interval_agrees_with_scipy():
    expected = bootstrap((VALUES,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    figure = interval(VALUES, n_boot=4000)
    assert figure["mean"] == pytest.approx(VALUES.mean())
    assert figure["low"] == pytest.approx(expected.low, abs=0.03)
    assert figure["high"] == pytest.approx(expected.high, abs=0.03)


def test_interval_covers_95_percent():
    rng = np.random.default_rng(0)
    figures = [interval(rng.normal(size=50), n_boot=200, seed=seed) for seed in range(300)]
    assert np.mean([figure["low"] < 0 < figure["high"] for figure in figures]) == pytest.approx(0.95, abs=0.04)


def test_interval_repeats_with_its_seed():
    assert interval(VALUES, seed=1) == interval(VALUES, seed=1) != interval(VALUES, seed=2)


def test_equal_values_leave_no_doubt():
    assert interval([0.25] * 5) == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_groups_are_averaged_first_and_drawn_as_wholes():
    figure = interval([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert figure == {"mean": 0.5, "low": 0, "high": 1}
    assert interval([1, 1, 1, 0])["mean"] == 0.75


def test_groups_may_be_labeled_by_tuples_in_any_order():
    labels = [(0, 1, 2), (2, 1, 0), (0, 1, 2), (2, 1, 0)]
    assert interval([1, 4, 3, 8], labels) == interval([2, 6])


def test_repeating_a_group_does_not_narrow_the_interval():
    labels = np.arange(len(VALUES))
    assert interval(np.tile(VALUES, 3), np.tile(labels, 3)) == pytest.approx(interval(VALUES))


def test_interval_of_any_statistic_draws_the_columns_of_a_row_together():
    rows = np.column_stack([VALUES, 2 * VALUES])
    ratio = interval_of(lambda drawn: drawn[:, 1].mean() / drawn[:, 0].mean(), rows)
    assert ratio == pytest.approx({"mean": 2, "low": 2, "high": 2})
    deviation = interval_of(np.std, VALUES)
    assert deviation["mean"] == pytest.approx(VALUES.std())
    assert deviation["low"] < deviation["mean"] < deviation["high"]


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="at least one value to average, got none"):
        interval([])

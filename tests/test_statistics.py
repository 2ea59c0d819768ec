"""Statistics over runs: values by hand, SciPy's results, and coverage of intervals."""

import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu

from purejaxrl_sac.experiment import statistics as st

few = some.integers(1, 8).flatmap(  # scores with many ties
    lambda runs: arrays(float, (runs, 3), elements=some.integers(-2, 2).map(float))
)


def test_iqm_by_hand():
    scores = np.array([0.0, 1, 2, 3, 4, 5, 9, 1_000])
    assert st.iqm(scores) == 3.5
    assert st.iqm(np.array([1.0, 2, 6])) == 3  # a quarter of three runs is rounded down to none
    np.testing.assert_array_equal(st.iqm(np.stack([scores, 2 * scores], 1)), [3.5, 7])


def test_the_iqm_of_nan_or_of_no_runs_is_nan(monkeypatch):
    def trim_mean(scores, fraction, axis):  # as in SciPy before 1.17
        return np.mean(np.sort(scores, axis)[len(scores) // 4 : -(len(scores) // 4)], axis)

    monkeypatch.setattr("scipy.stats.trim_mean", trim_mean)
    scores = np.array([[1.0, 1], [np.nan, 2], [2, 3], [3, 4]])
    np.testing.assert_array_equal(st.iqm(scores), [np.nan, 2.5])
    assert np.isnan(st.iqm(scores[:, 0]))
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(st.iqm(np.empty(0)))
        assert np.isnan(st.iqm(np.empty((0, 3)))).tolist() == [True] * 3


def test_pooled_iqm_is_over_runs_and_tasks_at_once():
    scores = np.array([[0.0, 10], [1, 11], [2, 12], [3, 13]])  # the middle half: 2, 3, 10, 11
    assert st.pooled_iqm(scores) == 6.5
    assert st.pooled_iqm(np.array([[0.0, 0, 0, 100]])) == 0 != st.iqm(scores).mean()


def test_optimality_gap_by_hand():
    scores = np.array([[0.5, 3.0], [1.5, 0.0], [1.0, -1.0]])
    np.testing.assert_allclose(st.optimality_gap(scores), [0.5 / 3, (0 + 1 + 2) / 3])
    np.testing.assert_allclose(st.optimality_gap(scores, 2), [3 / 3, (0 + 2 + 3) / 3])


@given(few, some.integers(-2, 2))
def test_optimality_gap_is_the_papers(scores, gamma):
    expected = gamma - np.minimum(scores, gamma).mean()
    assert st.optimality_gap(scores, gamma).mean() == pytest.approx(expected)
    assert (st.optimality_gap(scores, gamma) >= 0).all()


def test_performance_profile_by_hand():
    scores = np.array([1.0, 2, 2, 4])
    shares = st.performance_profile(scores, np.array([0.0, 1, 1.5, 2, 3.9, 4]))
    np.testing.assert_allclose(shares, [1, 0.75, 0.75, 0.25, 0.25, 0])  # above, not at


@given(few)
def test_performance_profile_pools_tasks_and_has_the_mean_as_its_area(scores):
    thresholds = np.linspace(-2, 2, 5)
    shares = st.performance_profile(scores, thresholds)
    expected = [(scores > threshold).mean() for threshold in thresholds]
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    assert shares[:-1].sum() == pytest.approx(scores.mean() + 2)  # steps of 1 from -2 on


def test_probability_of_improvement_by_hand():
    x, y = np.array([1.0, 3]), np.array([0.0, 1, 2])
    assert st.probability_of_improvement(x, y) == pytest.approx((1 + 0.5 + 3) / 6)
    assert st.probability_of_improvement(x, x) == 0.5
    assert st.probability_of_improvement(y + 9, y) == 1
    one, half = np.array([[5.0, 1], [6, 1]]), np.array([[0.0, 1], [4, 1]])
    assert st.probability_of_improvement(one, half) == 0.75  # tasks have equal weight


@given(few, few)
def test_probability_of_improvement_is_mann_whitneys(x, y):
    u = mannwhitneyu(x, y, method="asymptotic").statistic
    found = st.probability_of_improvement(x, y)
    assert found == pytest.approx(u.mean() / (len(x) * len(y)))
    assert found + st.probability_of_improvement(y, x) == pytest.approx(1)


def test_probability_of_improvement_is_invariant_to_the_scale_of_tasks():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2))
    scale, shift = np.array([1, 1e6]), np.array([0, -1e9])
    found = st.probability_of_improvement(scale * x + shift, scale * y + shift)
    assert found == st.probability_of_improvement(x, y)
    pooled = st.probability_of_improvement((scale * x + shift).ravel(), (scale * y).ravel())
    assert pooled != found


@pytest.mark.parametrize(
    ("statistic", "interval"),
    (
        (partial(np.mean, axis=0), st.bootstrap_interval),
        (np.mean, lambda x, f, **how: st.stratified_interval([x], f, **how)),
    ),
)
def test_intervals_have_their_nominal_coverage(statistic, interval):
    rng = np.random.default_rng(0)
    ends = np.array(
        [interval(rng.normal(size=30), statistic, seed=i, resamples=300) for i in range(300)]
    )
    covered = ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()
    assert 0.90 <= covered <= 0.97  # percentile bootstraps of 30 runs cover slightly less
    assert np.diff(ends).mean() == pytest.approx(2 * 1.96 / 30**0.5, rel=0.06)


def test_coverage_of_the_interval_of_probability_of_improvement():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        x, y = rng.normal(0.5, size=20), rng.normal(size=30)
        low, high = st.stratified_interval(
            [x, y], st.probability_of_improvement, seed=trial, resamples=200
        )
        hits += low <= 0.638 <= high  # the normal distribution function at 0.5 / sqrt(2)
    assert 0.89 <= hits / 200 <= 0.98


def test_runs_are_resampled_within_tasks():
    """Differences between tasks do not widen the interval of the mean."""
    rng = np.random.default_rng(0)
    scores = rng.normal([0, 100, 1_000, 10_000], size=(50, 4))
    low, high = st.stratified_interval([scores], np.mean)
    deviation = scores.std(0).mean() / 200**0.5
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_tasks_are_resampled_independently():
    """Runs of different tasks, or of x and y, are not paired."""
    column = np.random.default_rng(0).normal(size=40)
    alike = np.stack([column] * 9, 1)
    one, nine = (np.diff(st.stratified_interval([x], np.mean)) for x in (column, alike))
    assert nine == pytest.approx(one / 3, rel=0.12)  # resampling whole rows would give `one`
    low, high = st.stratified_interval([column, column], lambda x, y: x.mean() - y.mean())
    assert high - low == pytest.approx(one * 2**0.5, rel=0.12)


def test_whole_runs_are_resampled():
    """All points share the resampled runs, so an interval does not depend on other points."""
    points = np.random.default_rng(0).normal(size=(20, 5))
    low, high = st.bootstrap_interval(points)
    assert low.shape == high.shape == (5,)
    for i in range(5):
        np.testing.assert_array_equal(st.bootstrap_interval(points[:, i]), (low[i], high[i]))
    same = np.repeat(points[:, :1], 5, axis=1)
    assert np.ptp(st.bootstrap_interval(same), axis=1).max() == 0


def test_intervals_have_the_shape_of_their_statistic():
    scores = np.random.default_rng(0).normal(size=(10, 3))
    low, high = st.stratified_interval([scores], st.optimality_gap)
    assert low.shape == high.shape == (3,)
    assert (low < st.optimality_gap(scores)).all() and (high > st.optimality_gap(scores)).all()
    thresholds = np.linspace(-3, 3, 7)
    share = partial(st.performance_profile, thresholds=thresholds)
    low, high = st.stratified_interval([scores], share)
    assert (low <= share(scores)).all() and (share(scores) <= high).all()
    assert low[0] == 1 and high[-1] == 0
    wider = st.stratified_interval([scores], st.pooled_iqm, confidence=0.99)
    low, high = st.stratified_interval([scores], st.pooled_iqm, confidence=0.8)
    assert wider[0] < low < st.pooled_iqm(scores) < high < wider[1]


@pytest.mark.parametrize("runs", (1, 5))
def test_the_interval_of_equal_scores_has_no_width(runs):
    same = np.full((runs, 3), 2.0)
    np.testing.assert_array_equal(st.bootstrap_interval(same), np.full((2, 3), 2))
    np.testing.assert_array_equal(st.stratified_interval([same], st.pooled_iqm), (2, 2))
    improvement = st.stratified_interval([same, same], st.probability_of_improvement)
    np.testing.assert_array_equal(improvement, (0.5, 0.5))


def test_intervals_are_reproducible():
    scores = np.random.default_rng(0).normal(size=(10, 3))
    for interval in (
        partial(st.bootstrap_interval, scores),
        partial(st.stratified_interval, [scores], st.pooled_iqm),
    ):
        np.testing.assert_array_equal(interval(seed=3), interval(seed=3))
        assert (np.array(interval(seed=3)) != np.array(interval(seed=4))).any()


@settings(max_examples=25)
@given(few)
def test_intervals_lie_between_minimum_and_maximum(scores):
    low, high = st.bootstrap_interval(scores, resamples=50)
    assert (scores.min(0) <= low).all() and (low <= high).all() and (high <= scores.max(0)).all()


TAKING_KNOWN = {
    "pooled_iqm": st.pooled_iqm,
    "optimality_gap": st.optimality_gap,
    "performance_profile": lambda x: st.performance_profile(x, np.zeros(1)),
    "x": lambda x: st.probability_of_improvement(x, np.zeros((2, 3))),
    "y": lambda y: st.probability_of_improvement(np.zeros((2, 3)), y),
    "stratified_interval": lambda x: st.stratified_interval([x], np.mean),
}


@pytest.mark.parametrize("name", TAKING_KNOWN)
def test_missing_runs_and_nan_scores_are_refused(name):
    with pytest.raises(ValueError, match="at least one run"):
        TAKING_KNOWN[name](np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least one run"):
        TAKING_KNOWN[name](np.float64(1))
    with pytest.raises(ValueError, match="nan or missing"):
        TAKING_KNOWN[name](np.array([[1.0, 2, np.nan]]))
    with pytest.raises(ValueError, match="nan or missing"):
        TAKING_KNOWN[name](np.zeros((2, 0)))


def test_many_runs_are_resampled_in_parts():
    scores, sizes = np.random.default_rng(0).normal(size=3_000), []

    def statistic(x):
        sizes.append(x.size)
        return st.iqm(x)

    index = np.random.default_rng(0).integers(3_000, size=(2_000, 3_000))
    expected = np.percentile(st.iqm(scores[index.T]), [2.5, 97.5])
    np.testing.assert_array_equal(st.bootstrap_interval(scores, statistic), expected)
    assert max(sizes) < 2**19 and sum(sizes) == index.size


def test_an_interval_needs_a_run():
    with pytest.raises(ValueError, match="at least one run"):
        st.bootstrap_interval(np.zeros((0, 3)))


@pytest.mark.parametrize("shape", ((4,), (4, 1), (4, 2), (4, 3, 1)))
def test_different_tasks_are_not_compared(shape):
    """Some of these would broadcast."""
    with pytest.raises(ValueError, match="same tasks"):
        st.probability_of_improvement(np.zeros((4, 3)), np.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 95}, "confidence is 95, but must be between 0 and 1"),
        ({"confidence": -0.5}, "confidence is -0.5, but must be between 0 and 1"),
        ({"resamples": 0}, "resamples is 0, but must be at least 1"),
        ({"statistic": np.median}, r"statistic returned shape \(\) for scores of shape \(5, \d+\)"),
    ],
)
def test_arguments_of_intervals(arguments, message):
    with pytest.raises(ValueError, match=message):
        st.bootstrap_interval(np.ones((5, 2)), **arguments)
    if "statistic" not in arguments:
        with pytest.raises(ValueError, match=message):
            st.stratified_interval([np.ones(5)], np.mean, **arguments)

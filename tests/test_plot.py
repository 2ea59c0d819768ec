"""Figures of runs: plotted values, labels and layout."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import purejaxrl_sac as prl
from purejaxrl_sac.experiment import statistics as st
from purejaxrl_sac.experiment.pictures import panels, plot, value_maps
from purejaxrl_sac.experiment.pictures.bands import forward_fill

nan = np.nan
INTERVALS, IMPROVEMENTS, PROFILES = 1, 3, 2  # panels of a comparison


def runs(seed, number, points, top=500.0):
    """Increasing, noisy returns, with nan wherever no episode ended."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 10_000, points + 1)[1:]
    returns = top * (1 - np.exp(-steps / 3_000)) + rng.normal(0, 20, (number, points))
    returns[rng.random(returns.shape) < 0.2] = nan
    returns[0, :2] = nan
    returns[:, -1] = np.where(np.isnan(returns[:, -1]), top, returns[:, -1])
    return steps, returns


@pytest.fixture
def curves():
    return {"dqn": runs(0, 9, 12), "sac, long": runs(1, 5, 31, 400.0), "alone": runs(2, 1, 7)}


@pytest.fixture
def scores(curves):
    return {label: forward_fill(values)[:, -1] for label, (_, values) in curves.items()}


def drawn(axes, label):
    """x and y of the line whose label starts with `label`."""
    (line,) = [line for line in axes.lines if line.get_label().startswith(label)]
    return line.get_data()


def bands(axes):
    return [found for found in axes.collections if isinstance(found, PolyCollection)]


def ends(band, x):
    """Lowest and highest corner of a band at each x."""
    corners = band.get_paths()[0].vertices
    at = [corners[np.isclose(corners[:, 0], place), 1] for place in x]
    return np.array([found.min() for found in at]), np.array([found.max() for found in at])


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def rows(axes):
    return [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()]


def on_the_page(figure):
    figure.draw_without_rendering()
    page, used = figure.bbox_inches.padded(0.01), figure.get_tightbbox()
    assert page.contains(*used.min) and page.contains(*used.max)


def readable(figure):
    """Check that everything is on the page, and that panels and legends do not overlap."""
    on_the_page(figure)
    assert not any(
        legend.get_window_extent().overlaps(title) for legend, title in legends_and_titles(figure)
    )
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [found.get_window_extent() for found in figure.legends]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def legends_and_titles(figure):
    """Legends of panels, with the positions of the panels' titles."""
    for axes in figure.axes:
        if axes.get_legend() is not None:
            (title,) = [text for text in axes.findobj(Text) if text.get_text() == "Final scores"]
            yield axes.get_legend(), title.get_window_extent()


def test_forward_fill():
    filled = forward_fill(np.array([[nan, 1.0, nan, 2.0], [3.0, nan, nan, nan], [nan] * 4]))
    np.testing.assert_array_equal(filled, [[nan, 1, 1, 2], [3, 3, 3, 3], [nan] * 4])


def test_curves_are_the_iqm_within_its_interval(curves):
    figure = plot.curves(curves, "return")
    (axes,) = figure.axes
    assert legend(figure) == ["dqn (9 seeds)", "sac, long (5 seeds)", "alone (1 seed)"]
    assert axes.get_xlabel() == "environment steps per seed" and axes.get_ylabel() == "return"
    assert len(bands(axes)) == 2  # a single seed has no band
    for label, band in zip(curves, [*bands(axes), None], strict=True):
        steps, values = curves[label]
        filled = forward_fill(values)
        complete = np.isfinite(filled).all(0) & np.isfinite(values).any(0)
        x, y = drawn(axes, label)
        np.testing.assert_array_equal(x, steps[complete])
        np.testing.assert_allclose(y, st.iqm(filled[:, complete]))
        if band is not None:
            low, high = ends(band, x)
            np.testing.assert_allclose((low, high), st.bootstrap_interval(filled[:, complete]))
            assert (low <= y).all() and (y <= high).all() and (low < high).any()


def test_a_curve_is_labelled_with_the_number_of_seeds_with_episodes():
    steps, values = runs(0, 4, 6)
    values[1] = nan
    some = {"some": (steps, values), "none": (steps, values * nan)}
    figure = plot.curves(some, "return")
    assert legend(figure) == ["some (3 of 4 seeds)", "none (0 of 4 seeds)"]
    x, y = drawn(figure.axes[0], "some")
    np.testing.assert_array_equal(y, st.iqm(forward_fill(values)[[0, 2, 3]])[-len(x) :])
    assert drawn(figure.axes[0], "none")[0].size == 0


def test_points_are_where_a_seed_has_a_new_value():
    steps = np.arange(1, 7)
    values = np.array([[nan, 1, nan, 3, nan, nan], [nan, nan, 10, nan, nan, 20], [nan] * 6])
    figure = plot.curves({"a": (steps, values)}, "return")
    x, y = drawn(figure.axes[0], "a (2 of 3 seeds)")
    np.testing.assert_array_equal(x, [3, 4, 6])  # from the first value of the second seed
    np.testing.assert_array_equal(y, [(1 + 10) / 2, (3 + 10) / 2, (3 + 20) / 2])
    for drawn_on in (figure, plot.learning_curve(steps, values, "a")):
        thin = [line.get_data() for line in drawn_on.axes[0].lines if line.get_linewidth() < 1]
        np.testing.assert_array_equal(thin, [([2, 4], [1, 3]), ([3, 6], [10, 20])])


def test_an_evaluation_has_a_point_at_its_own_steps_only():
    """Of one run with an evaluation every three chunks, and one with an evaluation in each."""
    steps = np.arange(100, 700, 100)
    rare = np.where(np.arange(6) % 3 == 2, np.arange(12.0).reshape(2, 6), nan)
    figure = plot.curves({"rare": (steps, rare), "each": (steps, rare[:, [2] * 6])}, "return")
    axes = figure.axes[0]
    np.testing.assert_array_equal(drawn(axes, "rare"), ([300, 600], [(2 + 8) / 2, (5 + 11) / 2]))
    np.testing.assert_array_equal(drawn(axes, "each")[0], steps)


def test_one_point_has_a_marker_and_a_visible_band():
    figure = plot.curves({"one": (np.array([100]), np.array([[1.0], [2], [6]]))}, "return")
    (axes,) = figure.axes
    assert drawn(axes, "one")[1] == 3 and axes.lines[0].get_marker() == "o"
    assert bands(axes)[0].get_linewidth()[0] > 1


@pytest.mark.parametrize("number", (1, 8))
def test_learning_curve_has_every_seed_and_their_iqm(number, tmp_path):
    steps, returns = runs(0, number, 20)
    figure = plot.learning_curve(steps, returns, "sac on Pendulum-v1", tmp_path / "curve.png")
    (axes,) = figure.axes
    assert axes.get_title() == "sac on Pendulum-v1"
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 10_000
    assert axes.get_ylabel() == "episode return"
    assert len(axes.lines) == number + 1 and len(bands(axes)) == (number > 1)
    label = "return (1 seed)" if number == 1 else "IQM, 95 % interval (8 seeds)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [label]
    new = np.isfinite(returns).any(0) & (np.arange(20) > 1)  # the first seed starts later
    np.testing.assert_allclose(drawn(axes, label)[1], st.iqm(forward_fill(returns)[:, new]))
    assert Image.open(tmp_path / "curve.png").size == (960, 600)


def test_a_long_title_of_a_run_stays_on_the_page():
    title = f"sac(critics={'twin_critics(norm=LayerNorm), ' * 6}) on Pendulum-v1"
    figure = plot.learning_curve(*runs(0, 4, 20), title)
    found = figure.axes[0].get_title()
    assert found.startswith("sac(critics=twin") and found.endswith("… on Pendulum-v1"[-12:])
    assert "…" in found and len(found) > 50
    on_the_page(figure)
    table = value_maps.value_map(prl.mdp.named.chain(), np.zeros((5, 2)), title)
    assert "…" in table.axes[0].get_title()
    on_the_page(table)


@pytest.mark.parametrize("draw", (plot.profile, plot.comparison))
def test_long_titles_of_comparisons_have_several_lines(draw, curves, scores):
    title = "a title that is too long for one line of this figure " * 4
    given = (scores,) if draw is plot.profile else (curves, scores)
    more = {} if draw is plot.profile else {"ylabel": "return"}
    figure = draw(*given, title=title, **more)
    assert 1 < figure.get_suptitle().count("\n") + 1 < 5
    on_the_page(figure)


def test_learning_curve_before_any_episode(tmp_path):
    plot.learning_curve(np.arange(4), np.full((2, 4), nan), "nothing yet", tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_intervals_are_those_of_the_statistics(scores):
    (axes,) = plot.intervals(scores, "greedy return").axes
    assert rows(axes) == ["dqn 9 seeds", "sac, long 5 seeds", "alone 1 seed"]
    assert axes.get_xlabel() == "greedy return"
    signs = [text.get_text() for text in axes.get_legend().get_texts()]
    assert signs == ["IQM", "median", "mean", "seed", "interval"]
    lines = [line for line in axes.lines if line.get_marker() != "|"]  # those of single seeds
    bars, middles = lines[::2], lines[1::2]
    wanted = [(x, f) for x in scores.values() for f in (st.iqm, np.median, np.mean)]
    for (x, statistic), bar, middle in zip(wanted, bars, middles, strict=True):
        assert middle.get_xdata()[0] == pytest.approx(statistic(x))
        low, high = bar.get_xdata()
        assert low < statistic(x) < high if len(x) > 1 else np.isnan([low, high]).all()
        assert (bar.get_ydata() == middle.get_ydata()).all()
    np.testing.assert_allclose(bars[0].get_xdata(), st.bootstrap_interval(scores["dqn"]))
    heights = [line.get_ydata()[0] for line in bars]
    assert len(set(heights)) == 9 and axes.yaxis_inverted()  # the first run is on top


def test_profiles_fall_from_one_to_zero_within_their_bands(scores):
    figure = plot.profile(scores)
    (axes,) = figure.axes
    assert legend(figure) == ["dqn (9 seeds)", "sac, long (5 seeds)", "alone (1 seed)"]
    assert len(bands(axes)) == 3
    for (label, x), band in zip(scores.items(), bands(axes), strict=True):
        tau, share = drawn(axes, label)
        assert share[0] == 1 and share[-1] == 0 and (np.diff(share) <= 0).all()
        np.testing.assert_allclose(share, [(x > threshold).mean() for threshold in tau])
        if len(x) == 1:
            assert not band.get_paths()  # nothing is drawn
            continue
        low, high = ends(band, tau[1:-1])
        assert (low <= share[1:-1]).all() and (share[1:-1] <= high).all()
        lower, upper = st.stratified_interval([x], partial(st.performance_profile, thresholds=tau))
        np.testing.assert_allclose(low, lower[1:-1])
        np.testing.assert_allclose(high, upper[:-2])  # a step keeps the previous value


def test_improvement_of_every_pair(scores):
    (axes,) = plot.improvement(scores).axes
    assert rows(axes) == ["dqn > sac, long", "dqn > alone", "sac, long > alone"]
    bar, middle = axes.lines[:2]
    both = [scores["dqn"], scores["sac, long"]]
    assert middle.get_xdata()[0] == st.probability_of_improvement(*both) > 0.5
    expected = st.stratified_interval(both, st.probability_of_improvement)
    np.testing.assert_allclose(bar.get_xdata(), expected)
    assert axes.get_xlim()[0] < 0 and axes.get_xlim()[1] > 1


def test_of_many_runs_the_first_is_compared_with_each():
    few = {f"run {i}": np.arange(3.0) + i for i in range(panels.MAX_ALL_PAIRS)}
    assert len(rows(plot.improvement(few).axes[0])) == 15
    many = {**few, "last": np.ones(2)}
    found = rows(plot.improvement(many).axes[0])
    assert found == [f"run 0 > {label}" for label in list(many)[1:]]


def test_comparison_has_four_readable_panels(curves, scores, tmp_path):
    path = tmp_path / "comparison.png"
    figure = plot.comparison(curves, scores, ylabel="return", title="CartPole-v1", path=path)
    assert len(figure.axes) == 4 and figure.get_suptitle() == "CartPole-v1"
    assert all(axes.get_xlabel() and axes.get_title("left") for axes in figure.axes)
    assert legend(figure) == ["dqn (9 seeds)", "sac, long (5 seeds)", "alone (1 seed)"]
    readable(figure)
    assert Image.open(path).size == (1650, 1050)


def test_a_run_has_the_same_style_in_all_panels(curves, scores):
    """Also if an earlier run has no score."""
    scores["dqn"] = np.full(9, nan)
    scores["sac, long"][0] = nan
    axes = plot.comparison(curves, scores, ylabel="return").axes
    assert rows(axes[INTERVALS]) == ["sac, long 4 of 5 seeds", "alone 1 seed"]
    assert rows(axes[IMPROVEMENTS]) == ["sac, long > alone"]
    assert len(axes[PROFILES].lines) == 2
    first = [panel.lines[i].get_color() for panel, i in zip(axes[:3], (1, 0, 0), strict=True)]
    assert first == [panels.COLORS[1]] * 3


def test_styles_of_many_runs_are_distinct():
    many = {f"run {i}": (np.arange(3), np.ones((1, 3)) * i) for i in range(20)}
    lines = plot.curves(many, "return").axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


@pytest.mark.parametrize("number", (1, 4, 10))
def test_long_names_do_not_overlap(number):
    names = [f"double_dqn-CartPole-v1-20261123-05501{i}" for i in range(number)]
    curves = {name: runs(i, 3, 4) for i, name in enumerate(names)}
    scores = {name: values[:, -1] for name, (_, values) in curves.items()}
    readable(plot.comparison(curves, scores, ylabel="return"))


@pytest.mark.parametrize("scores", ({}, {"a": np.array([nan])}, {"a": np.ones(3)}))
def test_too_little_to_compare(scores, tmp_path):
    curves = {label: (np.arange(1, 3), np.ones((len(x), 2))) for label, x in scores.items()}
    figure = plot.comparison(curves, scores, ylabel="return", path=tmp_path / "few.png")
    assert [text.get_text() for text in figure.axes[IMPROVEMENTS].texts] == [
        "needs two runs with scores"
    ]
    assert (tmp_path / "few.png").exists()


@pytest.mark.parametrize("draw", (plot.intervals, plot.profile, plot.improvement))
def test_figures_are_saved_in_the_format_of_their_suffix(draw, scores, tmp_path):
    figure = draw(scores, title="CartPole-v1", path=tmp_path / "a.pdf")
    assert isinstance(figure, Figure) and figure.get_suptitle() == "CartPole-v1"
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    readable(figure)


def test_series_of_a_metric():
    config = prl.preset("sac").replace(total_steps=28, warmup_steps=4, num_envs=2)
    assert config.iterations == 12
    episodes = np.array([[0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 1, 9]])
    metrics = {"episodes": episodes, "returns": 10.0 * episodes, "q": np.arange(12.0)[None]}
    steps, returns = plot.series(metrics, config, points=5)
    np.testing.assert_array_equal(steps, [8, 12, 16, 20, 24])
    np.testing.assert_array_equal(returns, [[nan, nan, 10, 10, nan]])
    np.testing.assert_array_equal(plot.series(metrics, config, "q", 3)[1], [[1.5, 5.5, 9.5]])
    with pytest.raises(prl.ConfigError, match="lower points"):
        plot.series(metrics, config, points=13)
    with pytest.raises(prl.ConfigError, match="did you mean returns"):
        plot.series(metrics, config, "return")
    with pytest.raises(prl.ConfigError, match="points is 0, but must be at least 1"):
        plot.series(metrics, config, points=0)
    for values in (episodes[0], episodes[:, ::4]):  # one seed, every fourth iteration
        with pytest.raises(prl.ConfigError, match=r"must be \[runs, 12\]: a metric of every it"):
            plot.series({"returns": values, "episodes": values}, config, points=3)


def test_curves_that_are_none(tmp_path):
    plot.learning_curve(np.arange(3), np.zeros((2, 3)), "title", str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").exists()
    for values in (np.zeros(3), np.zeros((2, 4))):
        with pytest.raises(prl.ConfigError, match=r"values are \[seeds, points\], and steps \[po"):
            plot.learning_curve(np.arange(3), values, "title")

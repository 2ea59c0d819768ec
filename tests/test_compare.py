"""Comparisons of runs: labels, sizes and formats for papers, and their data as CSV."""

import csv
import re
import warnings

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from purejaxrl_sac import cli
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.pictures import bands, compare, layout, panels, plot
from purejaxrl_sac.experiment.runs import files, metric_rows
from purejaxrl_sac.experiment.runs.directory import RUN_FORMAT, RunDirectory
from purejaxrl_sac.experiment.runs.plans import Progress

nan = np.nan
STEPS = (100, 400, 1_600)
RETURNS = np.array([[1.0, 2, 3, 4], [2, 4, 6, 8], [3, 5, 7, 13]])  # [chunks, seeds]
GREEDY = [10.0, 20.0, 30.0, 60.0]


def fake_run(
    path, returns=RETURNS, greedy=GREEDY, steps=STEPS, diverged=(), params=None, variants=None
):
    """A finished run with given training and greedy returns."""
    seeds = returns.shape[1]
    failed = np.array([50 if seed in diverged else -1 for seed in range(seeds)])
    counts = ("seed", "chunk", "episodes", "eval_every", "eval_episodes", "keep")
    document = {
        "schema": RUN_FORMAT, "config": {"env": "CartPole-v1", "env_params": params},
        "seeds": seeds, "variants": variants or {}, **dict.fromkeys(counts, 1), "versions": {},
        "settings": {}, "device": "cpu", "revision": None,
    }  # fmt: skip
    path.mkdir()
    files.write_document(path / "config.json", document)
    directory = RunDirectory(path)
    ones = np.ones(seeds)
    for before, step, row in zip((0, *steps), steps, returns, strict=False):
        metric_rows.append(
            directory.metrics,
            Progress(
                steps=step, total_steps=steps[-1], seconds=1.0, rate=1.0, failed_step=failed,
                latest_return=row, evaluation={}, episodes=ones.astype(int), episode_return=row,
                episode_length=ones, metrics={"loss": -row},
            ),
            before,
        )  # fmt: skip
    summary = {"figures": {}, "steps": steps[-1], "failed_step": {}, "device": "cpu"}
    directory.write_summary({**summary, "greedy_returns": greedy})
    return path


@pytest.fixture
def pair(tmp_path):
    """Two runs of four seeds."""
    return [fake_run(tmp_path / "a"), fake_run(tmp_path / "b", greedy=[5.0, 15.0, 25.0, 35.0])]


@pytest.fixture
def eight(tmp_path):
    """A run of eight seeds."""
    return [fake_run(tmp_path / "many", np.arange(24.0).reshape(3, 8), [*range(8)])]


def compared(paths, out, metric="episode_return", **options):
    """The figure; warnings are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        return compare.compare(paths, metric, out, **options)


def table(path):
    """Rows of a CSV file, with numbers as such; nan for an empty cell."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {name: float(row[name] or nan) for name in ("seeds", "x", "y", "low", "high")}
    return rows


def selected(rows, **cells):
    return [row for row in rows if all(row[name] == value for name, value in cells.items())]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def note(figure):
    return figure.legends[0].get_title().get_text().replace("\n", " ")


def test_labels_replace_the_names_of_directories(pair, tmp_path):
    names = [r"SAC $\alpha = 0.1$", "_TD3"]
    figure = compared(pair, tmp_path / "c.svg", labels=names, panel="curves")
    assert legend(figure) == [r"SAC $\alpha = 0.1$ (4 seeds)", " _TD3 (4 seeds)"]
    rows = table(tmp_path / "c.csv")
    found = {(row["run"], row["label"]) for row in rows}
    assert found == {(str(path), name) for path, name in zip(pair, names, strict=True)}


def test_paths_may_be_texts(pair, tmp_path):
    texts = [str(path) for path in pair]
    assert legend(compared(texts, str(tmp_path / "c.png"), panel="curves"))[0] == "a (4 seeds)"
    assert (tmp_path / "c.png").exists() and (tmp_path / "c.csv").exists()
    assert compare.improvement_line(texts) == compare.improvement_line(pair)


def test_dollars_in_names_of_directories_are_no_formulas(tmp_path):
    path = fake_run(tmp_path / "a$x_{$")
    figure = compared([path], tmp_path / "c.png", panel="curves")
    assert legend(figure) == [r"a\$x_{\$ (4 seeds)"]
    assert table(tmp_path / "c.csv")[0]["label"] == "a$x_{$"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["A"]}, "number of labels is 1, but that of runs 2: give one for each run"),
        ({"labels": ["A", "B", "C"]}, "number of labels is 3, but that of runs 2"),
        ({"labels": ["A", "A"]}, "the label A is given twice"),
        ({"labels": ["x\ty", r"x\ty"]}, r"the label x\ty is given twice"),
        ({"labels": ["A", " "]}, "a label is empty"),
        (
            {"labels": ["A", r"$\frac{1$"]},
            "a label or the title has a formula that cannot be drawn",
        ),
        ({"labels": ["A", "学习"]}, "has characters that the font does not have"),
        ({"title": "学习"}, "has characters that the font does not have"),
        ({"panel": "curve"}, "did you mean curves"),
        ({"panel": "scores", "log_x": True}, "log_x is for learning curves"),
        ({"panel": "scores", "metric": "loss"}, "metric is for learning curves"),
        ({"metric": "failed_step"}, "has no metric failed_step: it has"),
        ({"layout": layout.inches(1, 1)}, "the figure does not fit: give it a larger size"),
    ],
)
def test_wrong_options_are_one_line(options, message, pair, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        compared(pair, tmp_path / "c.png", **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("c.*"))


def test_other_parameters_of_the_environment_are_reported(tmp_path):
    params = ({"length": 3.0}, {"length": 3.0}, None)
    paths = [fake_run(tmp_path / name, params=x) for name, x in zip("abc", params, strict=True)]
    text = "the parameters of CartPole-v1 differ between runs"
    with pytest.warns(RunWarning, match=text):
        compare.compare(paths, "episode_return", tmp_path / "c.png")
    with pytest.warns(RunWarning) as caught:
        compare.compare(paths[:2], "episode_return", tmp_path / "d.png")
    assert not any(text in str(warning.message) for warning in caught)


def test_configurations_of_a_sweep_are_not_pooled(tmp_path):
    path = fake_run(tmp_path / "a", variants={"gamma": [0.9, 0.99], "tau": [0.1, 0.2]})
    with pytest.raises(ConfigError, match=r"runs of several configurations \(of gamma, tau\)"):
        compare.compare([path], "episode_return", tmp_path / "c.png")


def test_a_run_without_a_finished_episode_does_not_change_the_scores_of_others(pair, tmp_path):
    new = fake_run(tmp_path / "new", np.full((3, 4), nan), greedy=[])
    with pytest.warns(RunWarning) as caught:
        figure = compare.compare([*pair, new], "episode_return", tmp_path / "c.png")
    texts = [str(warning.message) for warning in caught]
    assert "new has no finished episode, and therefore no score" in texts
    assert not any("training returns" in text for text in texts)
    assert figure.axes[1].get_xlabel() == "final greedy return of a seed"
    message = "improvement needs two runs with scores, but there is 1"
    with pytest.raises(ConfigError, match=message):
        compared([pair[0], new], tmp_path / "i.png", panel="improvement")
    assert not list(tmp_path.glob("i.*"))


def test_without_greedy_returns_of_a_run_all_scores_are_training_returns(pair, tmp_path):
    new = fake_run(tmp_path / "new", greedy=[])
    with pytest.warns(RunWarning) as caught:
        figure = compare.compare([*pair, new], "episode_return", tmp_path / "c.png")
    text = "new: no greedy returns yet, so all scores are training returns"
    assert text in [str(warning.message) for warning in caught]
    assert figure.axes[1].get_xlabel() == "final training return of a seed"


def test_a_run_is_not_compared_with_itself(pair, tmp_path):
    same = pair[0] / ".." / pair[0].name
    for names in (None, ["A", "B", "C"]):
        with pytest.raises(ConfigError, match=f"{re.escape(str(same))} is given twice"):
            compared([*pair, same], tmp_path / "c.png", labels=names)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("c.png", "c.png exists already"),
        ("c", "c must end in .png, .pdf or .svg"),
        ("c.jpg", "c.jpg must end in .png, .pdf or .svg"),
        ("no/c.png", "there is no folder"),
    ],
)
def test_files_are_refused_before_anything_is_read(out, message, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(RunDirectory, "find", lambda path: pytest.fail("a run was read"))
    for name in ("c.png", "c.csv"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=re.escape(message)):
        compared(pair, tmp_path / out)
    assert (tmp_path / "c.png").read_text() == (tmp_path / "c.csv").read_text() == "mine"


def test_the_table_has_the_statistics_by_hand(pair, tmp_path):
    compared(pair, tmp_path / "c.png")
    rows = table(tmp_path / "c.csv")
    assert tuple(rows[0]) == bands.COLUMNS
    curve = selected(rows, label="a", panel="curves", statistic="IQM")
    expected = [(100, 2.5, 1, 4), (400, 5, 2, 8), (1600, 6, 3, 13)]  # an interval is the range
    assert [(row["x"], row["y"], row["low"], row["high"]) for row in curve] == expected
    assert {row["seeds"] for row in curve} == {4}
    seed = selected(rows, label="a", panel="curves", statistic="seed 3")
    assert [(row["x"], row["y"]) for row in seed] == [(100, 4), (400, 8), (1600, 13)]
    scores = selected(rows, label="a", panel="scores")
    found = {row["statistic"]: row["y"] for row in scores}
    seeds = {f"seed {i}": score for i, score in enumerate(GREEDY)}
    assert found == {"IQM": 25, "median": 25, "mean": 30, **seeds}
    (middle,) = selected(scores, statistic="IQM")
    assert (middle["low"], middle["high"], middle["seeds"]) == (10, 60, 4)
    profile = selected(rows, label="a", panel="profile")
    assert {row["y"] for row in profile} == {0, 0.25, 0.5, 0.75, 1}
    assert all(row["y"] == np.mean(np.array(GREEDY) > row["x"]) for row in profile)
    (better,) = selected(rows, panel="improvement")  # wins: 10 once, 20 twice, 30 thrice, 60 all
    assert (better["label"], better["statistic"]) == ("a", "P(> b)")
    assert better["y"] == (1 + 2 + 3 + 4) / 16


def test_the_table_is_readable_by_pandas(pair, tmp_path):
    pandas = pytest.importorskip("pandas")
    compared(pair, tmp_path / "c.png", panel="curves")
    frame = pandas.read_csv(tmp_path / "c.csv")
    assert list(frame) == list(bands.COLUMNS) and frame["y"].dtype == float
    curves = frame[(frame.panel == "curves") & (frame.statistic == "IQM")]
    assert curves.groupby("label")["y"].last().to_dict() == {"a": 6, "b": 6}


def test_the_table_of_many_seeds_has_no_single_seeds(eight, tmp_path):
    figure = compared(eight, tmp_path / "c.png")
    statistics = {row["statistic"] for row in table(tmp_path / "c.csv")}
    assert statistics == {"IQM", "median", "mean", "fraction above x"}
    assert len(figure.axes[0].lines) == 1


def test_a_table_that_cannot_be_written_costs_no_figure(pair, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bands, "write_csv", fail)
    with pytest.warns(RunWarning, match=r"c\.csv was not written: No space left on device"):
        compare.compare(pair, "episode_return", tmp_path / "c.png", panel="curves")
    assert Image.open(tmp_path / "c.png").size == (960, 525)


def test_a_table_is_never_overwritten(tmp_path):
    (tmp_path / "c.csv").write_text("mine")
    with pytest.raises(FileExistsError):
        bands.write_csv(tmp_path / "c.csv", "")
    assert (tmp_path / "c.csv").read_text() == "mine"


def test_a_second_format_has_the_same_table(pair, tmp_path):
    compared(pair, tmp_path / "c.png")
    before = (tmp_path / "c.csv").read_bytes()
    compared(pair, tmp_path / "c.pdf", title="other")
    compared(pair, tmp_path / "c.svg", layout=layout.columns(2))
    assert (tmp_path / "c.csv").read_bytes() == before


def test_another_table_is_refused_before_the_figure_is_written(pair, tmp_path):
    compared(pair, tmp_path / "c.png", panel="curves")
    before = (tmp_path / "c.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"c\.csv exists already, with other data: give --out"):
        compared(pair, tmp_path / "c.pdf")  # all panels
    assert not (tmp_path / "c.pdf").exists() and (tmp_path / "c.csv").read_bytes() == before
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ConfigError, match=r"d\.csv exists already"):
        compared(pair, tmp_path / "d.pdf")


def test_pdf_files_embed_truetype_fonts(pair, tmp_path):
    compared(pair, tmp_path / "c.pdf", panel="curves", layout=layout.columns(1))
    content = (tmp_path / "c.pdf").read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content
    assert b"CreationDate" not in content
    width, height = map(float, re.search(rb"MediaBox \[ 0 0 (\S+) (\S+) \]", content).groups())
    assert width == 3.25 * 72 and 1.5 * 72 < height < 4 * 72


def test_svg_files_have_text_and_are_reproducible(pair, tmp_path):
    for name in ("c", "d"):
        compared(pair, tmp_path / f"{name}.svg", title="Two runs", panel="scores")
    content = (tmp_path / "c.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", content)
    assert {"Two runs", "IQM", "4 seeds", "final greedy return of a seed"} <= set(texts)
    assert content == (tmp_path / "d.svg").read_text() and "<dc:date>" not in content


@pytest.mark.parametrize(
    ("size", "pixels"), [(layout.inches(3, 2.5), (900, 750)), (layout.inches(7, 4), (2100, 1200))]
)
def test_sizes_are_exact(size, pixels, pair, tmp_path):
    compared(pair, tmp_path / "c.png", panel="profile", layout=size)
    assert Image.open(tmp_path / "c.png").size == pixels


@pytest.mark.parametrize(("number", "width"), [(1, 3.25), (2, 6.75)])
@pytest.mark.parametrize("panel", (None, *panels.PANELS))
def test_text_on_paper_has_8_or_9_points(panel, number, width, pair, tmp_path):
    size = layout.columns(number)
    names = ["a method with a long name", "another method with an even longer name"]
    title = "a title that is too long for one line of one of the two columns of a paper"
    options = {"panel": panel, "layout": size, "labels": names, "title": title}
    figure = compared(pair, tmp_path / "c.png", **options)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == width
    page, used = figure.bbox_inches.padded(0.01), figure.get_tightbbox()
    assert page.contains(*used.min) and page.contains(*used.max)
    texts = figure.findobj(Text)
    assert {text.get_fontsize() for text in texts if text.get_text()} <= {8, 9}
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert all(box.width > 0.4 * width * figure.dpi / (1 if panel else number) for box in boxes)


@pytest.mark.parametrize(
    ("panel", "title"),
    [
        ("curves", "Learning curves (IQM)"),
        ("scores", "Final scores"),
        ("profile", "Performance profiles"),
        ("improvement", "Probability of improvement"),
    ],
)
def test_a_single_panel(panel, title, pair, tmp_path):
    figure = compared(pair, tmp_path / "a.png", panel=panel)
    (axes,) = figure.axes
    assert axes.get_title("left") == title and figure.get_suptitle() == ""
    assert {row["panel"] for row in table(tmp_path / "a.csv")} == {panel}
    figure = compared(pair, tmp_path / "b.png", panel=panel, title="Mine")
    assert figure.axes[0].get_title("left") == "" and figure.get_suptitle() == "Mine"
    figure = compared(pair, tmp_path / "c.png", panel=panel, title="")
    assert figure.axes[0].get_title("left") == figure.get_suptitle() == ""


def test_steps_on_a_logarithmic_axis(pair, tmp_path):
    axes = compared(pair, tmp_path / "c.png", log_x=True).axes
    assert [panel.get_xscale() for panel in axes] == ["log", "linear", "linear", "linear"]
    low, high = axes[0].get_xlim()
    assert 0 < low < 100 and 1_600 < high < 3_000
    labels = [text.get_text() for text in axes[0].get_xticklabels()]
    assert {"100", "200", "500", "1k"} <= set(labels)


def test_intervals_of_few_seeds_are_called_their_range(pair, eight, tmp_path):
    text = "intervals of 4 seeds: about their range"
    with pytest.warns(RunWarning) as caught:
        figure = compare.compare(pair, "episode_return", tmp_path / "c.png")
    whole = "intervals of 4 seeds: unreliable; of IQMs about their range"
    assert [str(warning.message) for warning in caught] == [whole]
    assert note(figure) == f"95 % bootstrap intervals; {whole}"
    assert note(compared(pair, tmp_path / "s.png", panel="scores")).endswith(text)
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() < 1]
    assert len(thin) == 8 and len(figure.axes[0].lines) == 10
    figure = compared(pair, tmp_path / "p.png", panel="improvement")
    assert note(figure).endswith("intervals of 4 seeds: unreliable")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        figure = compare.compare(eight, "episode_return", tmp_path / "d.png", panel="curves")
    assert note(figure) == "95 % bootstrap intervals"


def test_one_seed_has_no_interval(tmp_path):
    paths = [fake_run(tmp_path / name, RETURNS[:, :1], GREEDY[:1]) for name in "ab"]
    with pytest.warns(RunWarning) as caught:
        figure = compare.compare(paths, "episode_return", tmp_path / "c.png")
    assert [str(warning.message) for warning in caught] == ["1 seed: no interval"]
    assert note(figure) == "1 seed: no interval"
    assert all(np.isnan([row["low"], row["high"]]).all() for row in table(tmp_path / "c.csv"))
    signs = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert signs == ["IQM", "median", "mean"]


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([6, 32], ""),
        ([0], ""),
        ([5, 2, 2, 8], "intervals of 2 or 5 seeds: about their range"),
        ([1, 3, 1], "intervals of 3 seeds: about their range; 1 seed: no interval"),
    ],
)
def test_cautions(seeds, expected):
    assert bands.caution(seeds) == expected


@pytest.mark.parametrize("number", (2, 3, 4))
def test_the_interval_of_up_to_four_seeds_is_their_range(number):
    values = np.array([[1.0], [2], [4], [8]])[:number]
    band = bands.curve("a", np.array([10]), values)
    assert (band.low, band.high) == (values.min(), values.max())


def test_diverged_seeds_are_left_out_and_named(tmp_path):
    path = fake_run(tmp_path / "a", greedy=[10.0, None, 30.0, 60.0], diverged=[1])
    figure = compared([path], tmp_path / "c.png")
    assert legend(figure) == ["a (without diverged seed 1) (3 of 4 seeds)"]
    rows = table(tmp_path / "c.csv")
    found = {row["statistic"] for row in selected(rows, panel="scores")}
    assert found == {"IQM", "median", "mean", "seed 0", "seed 2", "seed 3"}
    curve = selected(rows, panel="curves", statistic="IQM")
    assert [row["y"] for row in curve] == pytest.approx([8 / 3, 16 / 3, 23 / 3])
    with pytest.warns(RunWarning, match="a is shown without diverged seed 1"):
        figure = compare.compare([path], "loss", tmp_path / "d.png", labels=["A"], panel="curves")
    assert legend(figure) == ["A (3 of 4 seeds)"]


def test_labels_of_runs_of_different_lengths(pair, tmp_path):
    short = fake_run(tmp_path / "short", RETURNS[:2], steps=STEPS[:2])
    figure = compared([pair[0], short], tmp_path / "c.png", panel="curves")
    assert legend(figure) == ["a, 1,600 steps (4 seeds)", "short, 400 steps (4 seeds)"]
    with pytest.warns(RunWarning, match="different numbers of steps: A, 1,600 steps; B, 400 steps"):
        figure = compare.compare(
            [pair[0], short],
            "episode_return",
            tmp_path / "d.png",
            labels=["A", "B"],
            panel="curves",
        )
    assert legend(figure) == ["A (4 seeds)", "B (4 seeds)"]


def test_the_improvement_of_two_runs_is_one_line(pair, tmp_path):
    line = compare.improvement_line(pair)
    compared(pair, tmp_path / "c.png", panel="improvement")
    (row,) = table(tmp_path / "c.csv")
    numbers = f"{row['y']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    assert line == f"P(a > b) = {numbers}, of final greedy returns" and row["low"] < row["y"] < 1
    assert compare.improvement_line(pair, ["SAC", "$x$"]).startswith("P(SAC > $x$) = 0.625 [")
    assert compare.improvement_line(pair[:1]) == compare.improvement_line([*pair, *pair]) == ""


def test_seeds_that_are_left_out_are_counted(tmp_path):
    """Of one run a seed diverged; of the other, two have not finished an episode."""
    some = RETURNS.copy()
    some[:, :2] = np.nan
    paths = [
        fake_run(tmp_path / "a", diverged=(0,)),
        fake_run(tmp_path / "b", some, greedy=None),
    ]
    (tmp_path / "b" / "summary.json").unlink()
    assert compare.improvement_line(paths).endswith(
        "of final training returns of 3 of 4 and 2 of 4 seeds, the others having none"
    )
    for panel in ("scores", "profile", "improvement"):
        with pytest.warns(RunWarning, match="B: 2 of 4 seeds have no score and are left out"):
            figure = compare.compare(
                paths, "episode_return", tmp_path / f"{panel}.png", labels=["A", "B"], panel=panel
            )
        (axes,) = figure.axes
        found = [x.get_text() for x in axes.get_yticklabels()] + legend(figure)
        assert any("2 of 4 seeds" in text for text in found), found
        assert any("3 of 4 seeds" in text for text in found), found


def test_the_improvement_of_runs_without_greedy_returns_or_with_one_seed(pair, tmp_path):
    one = fake_run(tmp_path / "one$", RETURNS[:, 3:], None)
    text = "P(one$ > a) = 0.875, of final training returns"
    assert compare.improvement_line([one, pair[0]]) == text
    none = fake_run(tmp_path / "none", RETURNS * nan, None)
    assert compare.improvement_line([none, pair[0]]) == ""


def test_the_command_line_has_all_options(pair, tmp_path, capsys):
    runs, out = [*map(str, pair)], tmp_path / "c.pdf"
    flags = ["--labels", "SAC", "TD3", "--title", "", "--log-x", "--panel", "curves"]
    arguments = ["plot", *runs, *flags, "--size", "3.25", "2", "--out", str(out)]
    assert cli.main(arguments) == 0
    shown, err = capsys.readouterr()
    assert shown == f"written to {out}\n"  # without the improvement, which the figure does not have
    assert err == "purejaxrl-sac: intervals of 4 seeds: about their range\n"
    assert b"MediaBox [ 0 0 234 144 ]" in out.read_bytes()
    rows = table(tmp_path / "c.csv")
    assert {(row["label"], row["panel"]) for row in rows} == {("SAC", "curves"), ("TD3", "curves")}
    arguments = ["plot", *runs, "--panel", "improvement", "--out", str(tmp_path / "d.pdf")]
    assert cli.main([*arguments, "--labels", "SAC", "TD3"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("P(SAC > TD3) = ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "3", "2", "--columns", "1"], "give --size or --columns, not both"),
        (["--size", "0.5", "2"], "size is 0.5 x 2 inches, but sides must be from 1 to 30"),
        (["--size", "nan", "2"], "size is nan x 2 inches"),
        (["--columns", "3"], "columns"),
        (["--panel", "heatmap"], "panel"),
        (["--labels", "A", "B"], "number of labels is 2, but that of runs 1"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, tmp_path, capsys):
    path = fake_run(tmp_path / "a")
    assert cli.main(["plot", str(path), "--out", str(tmp_path / "c.png"), *flags]) == 2
    shown, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and shown == ""
    assert not list(tmp_path.glob("c.*"))


def test_the_tables_of_chunks_without_an_episode_have_no_rows(tmp_path):
    returns = np.stack([RETURNS[0], RETURNS[0] * nan, RETURNS[2]])
    returns[2, 0] = nan  # which keeps its latest
    _, shown = plot.run_curve(np.array(STEPS), returns.T, "dqn on chain")
    bands.write_csv(tmp_path / "curve.csv", bands.csv_text(shown, {}))
    compared([fake_run(tmp_path / "a", returns)], tmp_path / "c.png", panel="curves")
    for name in ("curve.csv", "c.csv"):
        rows = table(tmp_path / name)
        iqm = [(row["x"], row["y"]) for row in selected(rows, statistic="IQM")]
        assert iqm == [(100, 2.5), (1_600, (5 + 7) / 2)]
        assert [row["x"] for row in selected(rows, statistic="seed 0")] == [100]
        assert [row["x"] for row in selected(rows, statistic="seed 1")] == [100, 1_600]


def test_the_curve_of_a_run_and_its_table(tmp_path):
    figure, shown = plot.run_curve(np.array(STEPS), RETURNS.T, "dqn on chain")
    text = "intervals of 4 seeds: about their range"
    assert figure.axes[0].get_legend().get_title().get_text() == text
    bands.write_csv(tmp_path / "curve.csv", bands.csv_text(shown, {}))
    rows = table(tmp_path / "curve.csv")
    assert {row["label"] for row in rows} == {"dqn on chain"}
    assert [row["y"] for row in selected(rows, statistic="IQM")] == [2.5, 5, 6]
    assert [row["y"] for row in selected(rows, statistic="seed 0")] == [1, 2, 3]
    _, shown = plot.run_curve(np.array(STEPS), np.arange(24.0).reshape(8, 3), "many")
    assert [band.statistic for band in shown] == ["IQM"]

"""Comparison of several runs in one figure, with its data beside it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from purejaxrl_sac.config import ConfigError, unknown
from purejaxrl_sac.experiment.errors import RunWarning, one_line, reason
from purejaxrl_sac.experiment.pictures import bands, plot
from purejaxrl_sac.experiment.pictures.layout import SCREEN, Layout
from purejaxrl_sac.experiment.pictures.panels import PANELS, Content
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of

FORMATS = (".png", ".pdf", ".svg")


def compare(
    paths: Sequence[Path | str],
    metric: str,
    out: Path | str,
    *,
    labels: Sequence[str] | None = None,
    panel: str | None = None,
    title: str | None = None,
    log_x: bool = False,
    layout: Layout = SCREEN,
) -> Figure:
    """Plot learning curves of a metric, and final scores, of several runs.

    The score of a seed is its mean greedy return at the end; if some run has none yet, it is the
    latest training return in all runs. The data of the figure is written beside it, as CSV.

    Args:
        paths: run directories.
        metric: a column of `metrics.jsonl`.
        out: a .png, .pdf or .svg file, which must not exist. A .csv file of the same name may hold
            the data of this figure, which was drawn in another format, but nothing else.
        labels: a name for each run, which may hold formulas; None for those of the directories.
        panel: one of `PANELS`; None for all of them on a page.
        title: of the figure; empty for none; None for the panel's own, and none on a page.
        log_x: learning curves over the logarithm of the steps.
        layout: size of the figure.

    Warns if runs have different numbers of steps, parameters of their environment or few seeds, a
    seed has diverged, a run has no finished episode, training returns stand for greedy ones, or the
    CSV file cannot be written.

    Raises:
        ConfigError: not a run, or one of several configurations, no such metric or panel, different
            environments, other than one distinct label for each run, fewer than two runs with
            scores for their improvement, a figure that does not fit its size, characters that its
            font does not have, or a file exists with other contents.
    """
    table = _check_files(Path(out))
    _check_panel(panel, metric, log_x)
    if not paths:
        raise ConfigError("plot needs at least one run")
    runs = _read(paths, metric, _names(paths, labels), marked=labels is None)
    score, scores = _scores(runs)
    known = sum(np.isfinite(x).any() for x in scores.values())
    if panel == "improvement" and known < 2:
        raise ConfigError(f"the panel improvement needs two runs with scores, but there is {known}")
    content = Content(
        curves={label: (run.steps, run.values) for label, run in runs.items()},
        scores=scores,
        ylabel=metric.replace("_", " "),
        xlabel=f"final {score} of a seed",
        log_x=log_x,
    )
    _warn_of_unequal(runs)
    panels = tuple(PANELS) if panel is None else (panel,)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="constrained_layout not applied")
            warnings.filterwarnings("error", message="Glyph .* missing")
            figure, shown = plot.compose(
                content, panels, layout, title or "", panel is None or title is None
            )
            data = bands.csv_text(shown, dict(zip(runs, map(one_line, paths), strict=True)))
            written = _check_table(table, data)
            files.write_figure(out, figure)
    except UserWarning as warning:
        if "missing" in str(warning):
            text = "a label or the title has characters that the font does not have: use others"
        else:
            text = "the figure does not fit: give it a larger size"
        raise ConfigError(text) from None
    except ValueError as error:
        text = f"a label or the title has a formula that cannot be drawn: {reason(error)}"
        raise ConfigError(text) from None
    except OSError as error:  # such as a full disk
        raise ConfigError(f"cannot write {out}: {error.strerror or reason(error)}") from None
    if text := plot.few_seeds(shown):
        warnings.warn(RunWarning(text), stacklevel=2)
    try:
        if not written:
            bands.write_csv(table, data)
    except OSError as error:
        text = f"{table} was not written: {error.strerror or error}"
        warnings.warn(RunWarning(text), stacklevel=2)
    return figure


def improvement_line(paths: Sequence[Path | str], labels: Sequence[str] | None = None) -> str:
    """The probability of improvement of the first of two runs over the second, in one line.

    It is that of the figure of `compare`, such as "P(sac > td3) = 0.81 [0.61, 0.97], of final
    greedy returns".

    Args:
        paths: run directories.
        labels: a name for each run; None for those of the directories.

    Returns:
        the line; empty for other than two runs, and for runs without scores.

    Raises:
        ConfigError: as for `compare`.
    """
    if len(paths) != 2:
        return ""
    names = _names(paths, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # which `compare` has shown
        score, found = _scores(_read(paths, "episode_return", names, marked=False))
    known = {name: x[np.isfinite(x)] for name, x in found.items()}
    if not all(map(len, known.values())):
        return ""
    band = bands.improvement(known, *known)
    interval = "" if np.isnan(band.low[0]) else f" [{band.low[0]:.3g}, {band.high[0]:.3g}]"
    text = f"P({names[0]} > {names[1]}) = {band.y[0]:.3g}{interval}, of final {score}s"
    if any(len(known[name]) < len(x) for name, x in found.items()):
        counts = (f"{len(known[name])} of {len(x)}" for name, x in found.items())
        text += f" of {' and '.join(counts)} seeds, the others having none"
    return text.replace(r"\$", "$")


class _Run(NamedTuple):
    """What is compared of a run; nan for seeds that diverged."""

    steps: np.ndarray  # [points]
    values: np.ndarray  # [seeds, points], of the metric
    greedy: np.ndarray  # [seeds] final greedy returns, all nan if there are none yet
    training: np.ndarray  # [seeds] latest training returns
    diverged: np.ndarray  # [seeds]

    def has_score(self) -> bool:
        """Whether a seed has finished an episode or been evaluated."""
        return not self.without_score().all()

    def without_score(self) -> np.ndarray:
        """Which seeds have neither finished an episode nor been evaluated, [seeds]."""
        return ~(np.isfinite(self.greedy) | np.isfinite(self.training))


def _read(
    paths: Sequence[Path | str], metric: str, names: Sequence[str], marked: bool
) -> dict[str, _Run]:
    """The runs by label.

    Args:
        marked: whether labels also say which seeds diverged, and how long runs of different lengths
            are.
    """
    directories = [RunDirectory.find(Path(path)) for path in paths]
    documents = [directory.read_document() for directory in directories]
    envs = sorted({document["config"]["env"] for document in documents})
    if len(envs) > 1:
        raise ConfigError(f"runs on {' and '.join(envs)} cannot be compared: plot them separately")
    if len({repr(document["config"].get("env_params")) for document in documents}) > 1:
        text = f"the parameters of {envs[0]} differ between runs, so returns may not be comparable"
        warnings.warn(RunWarning(text), stacklevel=3)
    for directory, document in zip(directories, documents, strict=True):
        if document["variants"]:
            raise ConfigError(
                f"{directory.path} has runs of several configurations (of"
                f" {', '.join(document['variants'])}): train them separately to plot them"
            )
        metrics = directory.read_metrics(lanes_of(document))
        if metrics.lost and not metrics.rows:
            raise ConfigError(f"{directory.metrics}: {metrics.warning}")
    every = [directory.columns() for directory in directories]
    unequal = len({tuple(columns.get("steps", ())[-1:]) for columns in every}) > 1
    found = {}
    for name, directory, columns in zip(names, directories, every, strict=True):
        run = _columns_of_run(directory, columns, metric)
        seeds = ", ".join(map(str, np.flatnonzero(run.diverged)))
        label = f"{name} (without diverged seed {seeds})" if seeds and marked else name
        label += f", {run.steps[-1]:,.0f} steps" if unequal and marked else ""
        if seeds and not marked:
            text = f"{directory.path} is shown without diverged seed {seeds}"
            warnings.warn(RunWarning(text), stacklevel=3)
        found[label] = run
    return found


def _columns_of_run(
    directory: RunDirectory, columns: Mapping[str, np.ndarray], metric: str
) -> _Run:
    known = [column for column in columns if column not in ("steps", "seconds", "failed_step")]
    if metric not in known:
        has = ", ".join(known) or "none yet"
        raise ConfigError(f"{directory.path} has no metric {metric}: it has {has}")
    diverged = columns["failed_step"][-1] >= 0
    if diverged.all():
        raise ConfigError(f"every seed of {directory.path} has diverged: leave it out")
    summary = directory.read_summary()
    greedy = np.full(len(diverged), np.nan)
    if summary and summary["greedy_returns"]:
        greedy = np.array(summary["greedy_returns"], float)
    values, training = (columns[name].T.astype(float) for name in (metric, "episode_return"))
    training = bands.forward_fill(training)[:, -1]
    for found in (values, greedy, training):
        found[diverged] = np.nan
    return _Run(columns["steps"], values, greedy, training, diverged)


def _scores(runs: Mapping[str, _Run]) -> tuple[str, dict[str, np.ndarray]]:
    """What the score of a seed is, and the scores of all seeds by run."""
    if all(np.isfinite(run.greedy).any() or not run.has_score() for run in runs.values()):
        return "greedy return", {label: run.greedy for label, run in runs.items()}
    return "training return", {label: run.training for label, run in runs.items()}


def _warn_of_unequal(runs: Mapping[str, _Run]) -> None:
    """Warn of what makes scores of runs incomparable."""
    steps = {label: int(run.steps[-1]) for label, run in runs.items()}
    if len(set(steps.values())) > 1:
        marked = (
            label if f"{x:,} steps" in label else f"{label}, {x:,} steps"
            for label, x in steps.items()
        )
        text = f"final scores are of different numbers of steps: {'; '.join(marked)}"
        warnings.warn(RunWarning(text), stacklevel=3)
    for label, run in runs.items():
        if not run.has_score():
            text = f"{label} has no finished episode, and therefore no score"
            warnings.warn(RunWarning(text), stacklevel=3)
        elif missing := int((run.without_score() & ~run.diverged).sum()):
            text = f"{label}: {missing} of {len(run.diverged)} seeds have no score and are left out"
            warnings.warn(RunWarning(text), stacklevel=3)
    scored = {label: run for label, run in runs.items() if run.has_score()}
    unscored = [label for label, run in scored.items() if not np.isfinite(run.greedy).any()]
    if unscored and len(unscored) < len(scored):
        text = f"{', '.join(unscored)}: no greedy returns yet, so all scores are training returns"
        warnings.warn(RunWarning(text), stacklevel=3)


def _check_files(out: Path) -> Path:
    """Check that the figure is a new file in an existing folder.

    Returns:
        the CSV file.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(f"{out} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if files.exists(out):
        raise ConfigError(f"{out} exists already: give --out another name")
    if not out.parent.is_dir():
        raise ConfigError(f"cannot write {out}: there is no folder {out.parent}")
    return out.with_suffix(".csv")


def _check_table(table: Path, text: str) -> bool:
    """Whether the CSV file exists, with exactly the data of the figure.

    Raises:
        ConfigError: it exists with other contents.
    """
    if not files.exists(table):
        return False
    if not table.is_file() or files.read_text(table) != text:
        raise ConfigError(f"{table} exists already, with other data: give --out another name")
    return True


def _check_panel(panel: str | None, metric: str, log_x: bool) -> None:
    if panel is not None and panel not in PANELS:
        raise unknown("panel", panel, PANELS)
    of_curves = {"log_x": log_x, "metric": metric != "episode_return"}
    if panel not in (None, "curves") and (given := [x for x, y in of_curves.items() if y]):
        raise ConfigError(
            f"{given[0]} is for learning curves, which the panel {panel} does not have"
        )


def _names(paths: Sequence[Path | str], given: Sequence[str] | None) -> list[str]:
    """A distinct name for each run: those given, or else those of the directories."""
    places = [Path(path).resolve() for path in paths]
    if again := [path for i, path in enumerate(paths) if places[i] in places[:i]]:
        raise ConfigError(f"{again[0]} is given twice: give each run once")
    if given is None:
        return labels(paths)
    if len(given) != len(paths):
        raise ConfigError(
            f"the number of labels is {len(given)}, but that of runs {len(paths)}: give one for"
            " each run, in their order"
        )
    if not all(name.strip() for name in given):
        raise ConfigError("a label is empty: give each run a name")
    names = [one_line(name) for name in given]  # which may make different ones equal
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError(f"the label {twice[0]} is given twice: labels must differ")
    return names


def labels(paths: Sequence[Path | str]) -> list[str]:
    """Distinct names of runs: of their directories, or the whole paths if those are equal."""
    names = [Path(path).resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [one_line(name).replace("$", r"\$") for name in names]  # no formulas

"""Sweeps: every point of hyperparameters with every seed, as lanes of as few programs as possible.

Traced hyperparameters may differ between lanes of one program; each combination of static ones is
compiled separately. Every batch of points that fits into memory is an ordinary run, in `batches/`,
so a sweep is distributed over devices, stopped and resumed as a run is.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np

from purejaxrl_sac.config import Config, ConfigError, whole_number
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.errors import InsufficientMemoryError, StoppedError
from purejaxrl_sac.experiment.pictures import plot
from purejaxrl_sac.experiment.runs import datasets, display, files, lifecycle, plans, record
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.runs.interruptions import failures_as_run_errors
from purejaxrl_sac.experiment.runs.measures import (
    Measure,
    Measures,
    measure_references,
    measured_again,
)
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.experiment.tuning.points import (
    Point,
    at,
    check_points,
    points_per_batch,
    static_values,
    variants,
)
from purejaxrl_sac.types import Curriculum, Transition, Wrapper

SWEEP_FORMAT = 2  # 1 had no checksums
COLUMNS = ("point", "seed", "score")  # of the tables, besides hyperparameters and measures
FRESH = 1_000_003  # offset from a sweep's root seed to that of the fresh seeds


class Sweep(NamedTuple):
    """The plan of a sweep, which determines its results."""

    config: Config
    points: list[Point]  # in the order of the table; those of one program are adjacent
    seeds: int  # per point, the same for all
    seed: int  # root of all random numbers
    chunks: int
    episodes: int
    fresh_seeds: int  # that the best point is retrained with

    def config_of(self, point: Point) -> Config:
        """The configuration of one point."""
        return at(self.config, point)

    def programs(self) -> Iterator[range]:
        """The indices of the points that share each program."""
        static = [static_values(self.config, point) for point in self.points]
        start = 0
        for _, group in itertools.groupby(static):
            end = start + len(list(group))
            yield range(start, end)
            start = end


class SweepExtras(TypedDict, total=False):
    """Fields of `sweep.json` that only some sweeps have."""

    measures: dict[str, str | None]  # name -> its reference; null if it has none


class SweepDocument(SweepExtras):
    """`sweep.json`: everything that reproduces the sweep."""

    schema: int
    config: dict[str, Any]
    points: list[dict[str, Any]]
    seeds: int
    seed: int
    chunks: int
    episodes: int
    fresh_seeds: int
    versions: dict[str, str]


class Batch(NamedTuple):
    """Consecutive points that are trained as one run."""

    config: Config
    variants: dict[str, list[float]]
    options: dict[str, Any]  # further arguments of `lifecycle.run`
    path: Path

    @property
    def points(self) -> int:
        """Number of points."""
        return len(next(iter(self.variants.values()), [None]))


# (batches, **options) -> None: trains batches, as `train_here` and `cluster.train_on_ray` do
Engine = Callable[..., None]


class SweepResult(NamedTuple):
    """The results of a sweep."""

    path: Path
    sweep: Sweep
    scores: np.ndarray  # [points, seeds] mean greedy return; nan where the seed diverged
    best: int | None  # index of the best point; None if every seed diverged
    fresh: np.ndarray | None  # [fresh_seeds] scores of the best point with fresh seeds
    measures: dict[str, np.ndarray]  # [points, seeds] at the end of training; nan as for scores

    def table(self) -> list[dict[str, Any]]:
        """One row per point: of measures, the IQM over seeds and its 95 % interval."""
        rows = []
        for i, (point, scores) in enumerate(zip(self.sweep.points, self.scores, strict=True)):
            row = {"point": i, **point, **score_statistics(scores)}
            for name, values in self.measures.items():
                found = score_statistics(values[i])
                row |= {f"{name}_{x}": found[x] for x in ("iqm", "low", "high")}
            rows.append(row)
        return rows


def run(
    config: Config,
    points: Sequence[Point],
    seeds: int = 8,
    *,
    out: Path | str,
    seed: int = 0,
    chunks: int = 20,
    episodes: int = 128,
    fresh_seeds: int | None = None,
    **options: Any,
) -> SweepResult:
    """Train every point with every seed, then retrain the best point with fresh seeds.

    The score of the best point is biased upwards by its selection; with fresh seeds, which decide
    training and evaluation episodes, it is not.

    Args:
        points: {field: value}, see `points`; each value of a static field compiles a program.
        seeds: per point, the same for all.
        out: output directory, which must not exist yet.
        seed: root of all random numbers.
        chunks: approximate number of times that progress is reported and logged.
        episodes: greedy evaluation episodes per seed, whose mean return is its score.
        fresh_seeds: None for as many as `seeds`; 0 to skip retraining.
        options: see `train_remaining`.

    Raises:
        ConfigError: invalid input; nothing is written.
        RunError, StoppedError: as for a run; continue with `resume`.
    """
    sweep = plan(
        config, points, seeds, seed=seed, chunks=chunks, episodes=episodes, fresh_seeds=fresh_seeds
    )
    return start(Path(out), sweep, **options)


def plan(
    config: Config,
    points: Sequence[Point],
    seeds: int = 8,
    *,
    seed: int = 0,
    chunks: int = 20,
    episodes: int = 128,
    fresh_seeds: int | None = None,
) -> Sweep:
    """Check and plan a sweep; arguments and errors as for `run`."""
    points = check_points(config, points)
    seeds = whole_number("seeds", seeds, at_least=1)
    seed = whole_number("seed", seed, at_least=0, at_most=2**32 - 1)
    fresh_seeds = seeds if fresh_seeds is None else fresh_seeds
    fresh_seeds = whole_number("fresh_seeds", fresh_seeds, at_least=0)
    sweep = Sweep(config, points, seeds, seed, chunks, episodes, fresh_seeds)
    for group in sweep.programs():
        config = sweep.config_of(points[group[0]])
        plans.plan(config, max(seeds, fresh_seeds), chunks=chunks, episodes=episodes)
    return sweep


def start(
    path: Path,
    sweep: Sweep,
    *,
    measure: Mapping[str, Measure] | None = None,
    **options: Any,
) -> SweepResult:
    """Create a sweep's directory and train it; arguments and errors as for `run`."""
    check_measures(sweep, measure or {}, options.get("devices"))
    create(path, sweep, measure)
    try:
        return train_remaining(path, sweep, measure=measure, **options)
    except ConfigError:
        if processes.is_first() and not any(path.glob("batches/*/metrics.jsonl")):
            shutil.rmtree(path, ignore_errors=True)  # nothing was trained
        raise


def check_measures(
    sweep: Sweep, measure: Mapping[str, Measure], devices: int | None = None
) -> None:
    """Check the measures of a sweep in all of its programs.

    Raises:
        ConfigError: one fails, returns no number, or has the name of a column of the tables.
    """
    for name in measure:
        if name in (*sweep.points[0], *COLUMNS):
            raise ConfigError(f"{name} is a column of the sweep already: give the measure another")
    for program in sweep.programs() if measure else ():
        config = parameters.fixed(sweep.config_of(sweep.points[program[0]]))
        one = plans.plan(config, sweep.seeds, chunks=sweep.chunks, episodes=sweep.episodes)
        Measures(measure, one, mesh_for(one.lanes, devices))


def create(path: Path, sweep: Sweep, measure: Mapping[str, Measure] | None = None) -> None:
    """Create a sweep's directory, with `sweep.json`.

    Raises:
        ConfigError: it exists, or cannot be created.
    """

    def write() -> None:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(
                f"{path} exists already: give --out another directory, or resume it"
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot create {path}: {error.strerror}") from None
        if sweep.config.dataset is not None:
            datasets.save(path / "dataset.npz", cast(Transition, sweep.config.dataset))
        files.write_document(path / "sweep.json", _document(sweep, measure))

    processes.on_first(write)


def _document(sweep: Sweep, measure: Mapping[str, Measure] | None) -> dict[str, Any]:
    config = record.config_to_dict(sweep.config)
    stamp = {"schema": SWEEP_FORMAT, "config": config, "versions": record.versions()}
    extras = {"measures": measure_references(measure)} if measure else {}
    return sweep._asdict() | stamp | extras


def resume(
    path: Path | str,
    *,
    config: Config | None = None,
    algorithm: Any = None,
    env: Any = None,
    wrappers: Sequence[Wrapper | str] | None = None,
    curriculum: Curriculum | str | None = None,
    trust: bool = False,
    measure: Mapping[str, Measure] | None = None,
    **options: Any,
) -> SweepResult:
    """Resume a sweep; finished batches are not trained again.

    Args:
        config, algorithm, env, wrappers, curriculum, trust: code that files cannot store, as for
            `loading.load`.
        measure: the measures of the sweep, unless they are trusted.
        options: see `train_remaining`.

    Raises:
        ConfigError: not a sweep, or written by another version.
    """
    given = record.Given(config, algorithm, env, wrappers, curriculum, trust)
    sweep = read(Path(path), given)
    again = read_measures(Path(path), measure, trust)
    return train_remaining(Path(path), sweep, measure=again, **options)


def read(path: Path, given: record.Given = record.NOTHING) -> Sweep:
    """Read the plan of a sweep from its directory; arguments and errors as for `resume`."""
    if not files.exists(path / "sweep.json"):
        raise ConfigError(f"{path} is not a sweep: it has no sweep.json")
    document = read_document(path)
    config = record.config_from_dict(document["config"], given)
    if "dataset" in document["config"] and config.dataset is None:
        config = config.replace(dataset=datasets.load(path / "dataset.npz"))
        record.check_dataset(config, document["config"], path / "dataset.npz")
    given.check(config, document["config"], path)
    points = [
        {k: tuple(x) if isinstance(x, list) else x for k, x in point.items()}
        for point in document["points"]
    ]
    fields: dict[str, Any] = {**document, "config": config, "points": points}
    return Sweep(**{name: fields[name] for name in Sweep._fields})


def read_measures(
    path: Path, measure: Mapping[str, Measure] | None, trust: bool
) -> Mapping[str, Measure]:
    """The measures of a sweep, given again or imported if they are trusted; errors as `resume`."""
    return measured_again(read_document(path).get("measures", {}), measure, trust)


def read_document(path: Path) -> SweepDocument:
    """Read `sweep.json`; errors as for `resume`."""
    return files.read_document(path / "sweep.json", SweepDocument, SWEEP_FORMAT)


def train_here(
    batches: Sequence[Batch], *, reporter: Callable[[], Reporter] = Reporter, **options: Any
) -> None:
    """Train batches one after the other in this process, each over all devices."""
    for batch in batches:
        train_batch(batch, reporter=_BatchReporter(reporter()), **options)


def train_batch(batch: Batch, *, any_version: bool = False, **options: Any) -> None:
    """Train what is left of a batch; options as for `lifecycle.run` and `lifecycle.resume`."""
    finished, started = ((batch.path / name).exists() for name in ("summary.json", "config.json"))
    processes.on_first(lambda: None)  # all processes have checked before any of them writes
    if finished:
        return
    if started:
        config = _custom_config(batch.config)
        lifecycle.resume(batch.path, config=config, any_version=any_version, **options)
    else:
        plan = {"out": batch.path, "variants": batch.variants, **batch.options}
        lifecycle.run(batch.config, **plan, **options)


def train_remaining(
    path: Path,
    sweep: Sweep,
    *,
    engine: Engine = train_here,
    max_lanes: int | None = None,
    devices: int | None = None,
    measure: Mapping[str, Measure] | None = None,
    **options: Any,
) -> SweepResult:
    """Train what is left of a sweep, and write its results.

    Args:
        path: the sweep's directory.
        engine: what trains batches.
        max_lanes: of a batch; None for as many as fit into memory.
        devices: number of devices that lanes are distributed over; None for all.
        measure: name -> function of one seed's state, evaluated after each chunk of every lane; see
            `runs.measures`.
        options: of the engine, such as `reporter` and `checkpoint_minutes`.

    Returns:
        the results; also written as `table.csv`, `seeds.csv`, `sensitivity.png`, `heatmap.png` (of
        two hyperparameters), the same figures of each measure, `summary.json`, and `best/`, a run
        of the best point with fresh seeds.
    """
    if devices is not None:
        options["devices"] = devices
    if measure:
        options["measure"] = measure
    processes.check_equal(repr((str(path), _document(sweep, measure), max_lanes, devices)))
    processes.on_first(RunDirectory(path).check_links)
    with failures_as_run_errors(RunDirectory(path)):
        try:
            _train_batches(path, sweep, engine, max_lanes, **options)
            scores = read_scores(path, sweep)
            best = best_point(scores)
            fresh = None
            if sweep.fresh_seeds and best is not None:
                batch = fresh_batch(path, sweep, best)
                engine([batch], **options)
                fresh = lane_scores(batch.path)
        except StoppedError as stop:
            raise StoppedError(path, stop.steps, stop.signal) from None
        measured = {name: read_measure(path, sweep, name) for name in measure or {}}
        result = SweepResult(path, sweep, scores, best, fresh, measured)
        processes.on_first(lambda: _write_results(result))
    return result


def _train_batches(
    path: Path, sweep: Sweep, engine: Engine, max_lanes: int | None, **options: Any
) -> None:
    """Train all batches; where programs need more memory than their states, in smaller ones."""
    while True:
        remaining = batches(path, sweep, max_lanes, options.get("devices"))
        try:
            return engine(remaining, **options)
        except InsufficientMemoryError:
            processes.on_first(lambda: None)  # the first process has removed the batch
            sizes = (batch.points for batch in remaining if not batch.path.exists())
            largest = max(sizes, default=1)
            if largest == 1:
                raise
            max_lanes = largest // 2 * sweep.seeds


def batches(
    path: Path, sweep: Sweep, max_lanes: int | None = None, devices: int | None = None
) -> list[Batch]:
    """Divide the points into runs that fit into memory, keeping those that exist.

    Raises:
        ConfigError: a point does not fit into memory, or into `max_lanes`.
    """
    groups = _existing_batches(path)
    started = {i for group in groups for i in group}
    for program in sweep.programs():
        remaining = [i for i in program if i not in started]
        size = _max_points(sweep, program[0], max_lanes, devices) if remaining else 1
        for _, adjacent in itertools.groupby(enumerate(remaining), lambda x: x[1] - x[0]):
            indices = [i for _, i in adjacent]
            pieces = -(-len(indices) // size)
            each = -(-len(indices) // pieces)
            groups += [range(i, min(i + each, indices[-1] + 1)) for i in indices[::each]]
    processes.on_first(lambda: None)  # all processes have listed batches before one is started
    return [_batch(path, sweep, group) for group in sorted(groups, key=lambda group: group[0])]


def _batch_path(path: Path, group: range) -> Path:
    return path / "batches" / f"{group[0]:05d}-{group[-1]:05d}"


def _existing_batches(path: Path) -> list[range]:
    """The points of every batch that has a directory."""
    names = sorted(batch.name for batch in (path / "batches").glob("[0-9]*-[0-9]*"))
    ends = (map(int, name.split("-")) for name in names)
    return [range(first, last + 1) for first, last in ends]


def _batch(path: Path, sweep: Sweep, group: range) -> Batch:
    points = [sweep.points[i] for i in group]
    options = {name: getattr(sweep, name) for name in ("seeds", "seed", "chunks", "episodes")}
    config = sweep.config_of(points[0])
    return Batch(config, variants(sweep.config, points), options, _batch_path(path, group))


def fresh_batch(path: Path, sweep: Sweep, best: int) -> Batch:
    """The best point, with training keys and evaluation episodes that did not select it."""
    options = {"seeds": sweep.fresh_seeds, "chunks": sweep.chunks, "episodes": sweep.episodes}
    options["seed"] = (sweep.seed + FRESH) % 2**32
    return Batch(sweep.config_of(sweep.points[best]), {}, options, path / "best")


def _max_points(sweep: Sweep, point: int, max_lanes: int | None, devices: int | None) -> int:
    """How many points of the same program as this one fit into memory and into `max_lanes`.

    Raises:
        ConfigError: not even one.
    """
    config = parameters.fixed(sweep.config_of(sweep.points[point]))
    plan = plans.plan(config, sweep.seeds, chunks=sweep.chunks, episodes=sweep.episodes)
    mesh = mesh_for(plan.lanes, devices)
    resources.check_state(plan, mesh)
    if sweep.fresh_seeds:
        fresh = plan._replace(seeds=sweep.fresh_seeds)
        resources.check_state(fresh, mesh_for(fresh.lanes, devices))
    needed = sum(resources.state_bytes(plan, mesh).values())
    count = int(resources.SWEEP_FRACTION * resources.available() / needed)
    if max_lanes is not None:
        count = min(count, points_per_batch(max_lanes, sweep.seeds))
    return processes.minimum(max(1, count))


def read_scores(path: Path, sweep: Sweep) -> np.ndarray:
    """Read the scores of all batches, [points, seeds]; nan where a seed diverged."""
    scores = np.full((len(sweep.points), sweep.seeds), np.nan)
    for group in _existing_batches(path):
        lanes = lane_scores(_batch_path(path, group))
        scores[group.start : group.stop] = lanes.reshape(-1, sweep.seeds)
    return scores


def read_measure(path: Path, sweep: Sweep, name: str) -> np.ndarray:
    """The values of a measure at the end of all batches, [points, seeds]; nan as for scores."""
    found = np.full((len(sweep.points), sweep.seeds), np.nan)
    for group in _existing_batches(path):
        directory = RunDirectory.find(_batch_path(path, group))
        summary, columns = directory.read_summary(), directory.columns()
        if summary is None or columns["steps"][-1:].tolist() != [summary["steps"]]:
            continue  # its last row is missing
        lanes = np.array(columns[name][-1], float)
        lanes[[int(lane) for lane in summary["failed_step"]]] = np.nan
        found[group.start : group.stop] = lanes.reshape(len(group), sweep.seeds)
    return found


def lane_scores(path: Path) -> np.ndarray:
    """Greedy returns of a run, [lanes], or training returns where there is no time limit."""
    directory = RunDirectory.find(path)
    summary = directory.read_summary()
    if summary is None:
        raise ConfigError(f"{path} has not finished: resume the sweep")
    returns: Any = summary["greedy_returns"]
    if returns is None and (columns := directory.columns())["steps"].size:
        returns = plot.forward_fill(columns["episode_return"].T)[:, -1]
    scores = np.array(returns, float)
    scores[[int(lane) for lane in summary["failed_step"]]] = np.nan
    return scores


def best_point(scores: np.ndarray) -> int | None:
    """The point with the highest IQM among those with the fewest diverged seeds.

    Args:
        scores: [points, seeds], nan where a seed diverged.

    Returns:
        its index; None if every seed diverged.
    """
    diverged = np.isnan(scores).sum(1)
    if diverged.min() == scores.shape[1]:
        return None
    candidates = np.flatnonzero(diverged == diverged.min())
    return int(max(candidates, key=lambda i: iqm(scores[i][~np.isnan(scores[i])])))


def score_statistics(scores: np.ndarray) -> dict[str, Any]:
    """Statistics of the scores of one point, [seeds]."""
    known = scores[~np.isnan(scores)]
    figures: dict[str, Any] = {"seeds": len(scores), "failed": len(scores) - len(known)}
    names = ("iqm", "low", "high", "mean", "worst", "best")
    if len(known) == 0:
        return figures | dict.fromkeys(names, float("nan"))
    low, high = bootstrap_interval(known)
    values = (iqm(known), low, high, known.mean(), known.min(), known.max())
    return figures | dict(zip(names, map(float, values), strict=True))


def _custom_config(config: Config) -> Config | None:
    """The configuration if `config.json` cannot restore it; None otherwise."""
    if not isinstance(config.env, str):
        return config
    try:
        record.config_from_dict(json.loads(json.dumps(record.config_to_dict(config))))
    except ConfigError:
        return config
    return None


def _write_results(result: SweepResult) -> None:
    """Write tables, figures and, last, the summary."""
    from purejaxrl_sac.experiment.tuning import sensitivity

    path, sweep = result.path, result.sweep
    table = result.table()
    files.write_csv(path / "table.csv", table)
    rows = [
        {"point": i, **point, "seed": seed, "score": score}
        | {name: values[i, seed] for name, values in result.measures.items()}
        for i, point in enumerate(sweep.points)
        for seed, score in enumerate(result.scores[i])
    ]
    files.write_csv(path / "seeds.csv", rows)
    sensitivity.write_figures(sweep.points, result.scores, result.best, path)
    for name, values in result.measures.items():
        sensitivity.write_figures(sweep.points, values, result.best, path, name)
    document: dict[str, Any] = {
        "points": len(sweep.points),
        "programs": len(list(sweep.programs())),
    }
    if result.best is not None:
        document["best"] = table[result.best]
    if result.fresh is not None:
        document["best_on_fresh_seeds"] = score_statistics(result.fresh)
    files.write_document(path / "summary.json", document)


def summary_rows(result: SweepResult) -> dict[str, str]:
    """The results as rows of a table."""
    sweep = result.sweep
    rows = {
        "points x seeds": f"{len(sweep.points)} x {sweep.seeds}",
        "programs": str(len(list(sweep.programs()))),
    }
    if result.best is None:
        return rows | {"best": "every seed of every point diverged"}
    point = sweep.points[result.best]
    rows["best"] = ", ".join(f"{name} {format_value(x)}" for name, x in point.items())
    rows["its score, IQM [95 % interval]"] = display.with_interval(result.scores[result.best])
    if result.fresh is not None:
        rows["its score with fresh seeds"] = display.with_interval(result.fresh)
    return rows


def compilation_note(sweep: Sweep) -> str:
    """A message about hyperparameters that are compiled into programs; "" if none is."""
    static = [name for name, _ in static_values(sweep.config, sweep.points[0])]
    if not static:
        return ""
    count = len(list(sweep.programs()))
    return f"{' and '.join(static)} cannot vary within a program: {count} programs are compiled"


def describe(path: Path) -> dict[str, str]:
    """The configuration and status of a sweep, from its files alone, as rows of a table."""
    document = read_document(path)
    trained = sum(
        len(group)
        for group in _existing_batches(path)
        if (_batch_path(path, group) / "summary.json").exists()
    )
    finished = (path / "summary.json").exists()
    return {
        "sweep of": ", ".join(document["points"][0]),
        "algorithm": document["config"]["algorithm"],
        "environment": document["config"]["env"],
        "status": "finished" if finished else "not finished: continue with resume",
        "points": f"{trained} of {len(document['points'])} trained",
        "seeds per point": str(document["seeds"]),
    }


def format_value(value: Any) -> str:
    """A value with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _BatchReporter(Reporter):
    """Reports a batch as `reporter` does a run, except for the table at its end."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.live = reporter, reporter.live

    def message(self, text: str) -> None:
        self.reporter.message(text)

    def warning(self, text: str) -> None:
        self.reporter.warning(text)

    def on_start(self, plan: plans.Plan, title: str, device: str) -> None:
        self.reporter.on_start(plan, title, device)

    def on_compiled(self, seconds: float) -> None:
        self.reporter.on_compiled(seconds)

    def on_chunk(self, progress: plans.Progress) -> None:
        self.reporter.on_chunk(progress)

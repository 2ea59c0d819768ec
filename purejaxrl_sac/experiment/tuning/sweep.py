"""Sweeps: every point of hyperparameters with every seed, as lanes of as few programs as can be.

Traced hyperparameters differ between the lanes of one program; each combination of static ones is a
program of its own. A batch of points that fits into memory is a run like any other, in `batches/`,
so what holds for runs holds for sweeps: they are spread over devices, stopped, killed and resumed.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.errors import InsufficientMemoryError, StoppedError
from purejaxrl_sac.experiment.pictures import plot
from purejaxrl_sac.experiment.runs import display, lifecycle, plans, record
from purejaxrl_sac.experiment.runs.directory import RunDirectory, read_json, write_json, write_text
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.experiment.tuning.points import Point, at_once, checked, shape_of, variants

SWEEP_FORMAT = 1
FRESH = 1_000_003  # from a sweep's root seed to that of the seeds nobody has chosen by


class Sweep(NamedTuple):
    """What decides every number of a sweep."""

    config: Config
    points: list[Point]  # in the order of the table, one program's together
    seeds: int  # of every point, the same for all
    seed: int
    chunks: int
    episodes: int
    fresh_seeds: int  # that the best point is trained with anew

    def config_of(self, point: Point) -> Config:
        return self.config.replace(**point)

    def programs(self) -> Iterator[range]:
        """Which points share a program."""
        shapes = [shape_of(self.config, point) for point in self.points]
        begin = 0
        for _, group in itertools.groupby(shapes):
            end = begin + len(list(group))
            yield range(begin, end)
            begin = end


class Batch(NamedTuple):
    """Some points, one after the other, that are one run; plain data but for the configuration."""

    config: Config
    variants: dict[str, list[float]]
    options: dict[str, Any]  # of `runs.run`
    path: Path

    @property
    def points(self) -> int:
        return len(next(iter(self.variants.values()), [None]))


class SweepResult(NamedTuple):
    """What a sweep found."""

    path: Path
    sweep: Sweep
    scores: np.ndarray  # [points, seeds] mean greedy return; nan where the seed diverged
    best: int  # the point
    fresh: np.ndarray | None  # [fresh_seeds] the best point's, with seeds of its own

    def table(self) -> list[dict[str, Any]]:
        """A row for each point."""
        return [
            {"point": i, **point, **statistics(scores)}
            for i, (point, scores) in enumerate(zip(self.sweep.points, self.scores, strict=True))
        ]


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
    **how: Any,
) -> SweepResult:
    """Trains every point with every seed, then the best point anew with fresh seeds.

    The score of the point that is chosen was lucky to be: what it earns with other training keys,
    and in other episodes, is what can be expected of it.

    Args:
        points: {field: value}, see `points`; fields that are static cost a program for each value.
        out: the directory, which must not exist yet.
        episodes: greedy evaluation episodes of every seed, which its score is the mean of.
        fresh_seeds: as many as `seeds` if None; 0 leaves the last part away.
        how: see `go_on`.

    Raises:
        ConfigError: bad input; nothing is left behind.
        RunError, StoppedError: as for a run; `resume` goes on.
    """
    planned = {"seed": seed, "chunks": chunks, "episodes": episodes, "fresh_seeds": fresh_seeds}
    return start(Path(out), plan(config, points, seeds, **planned), **how)


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
    """Checks what a sweep is asked for; arguments and errors as for `run`."""
    points = checked(config, points)
    fresh_seeds = seeds if fresh_seeds is None else fresh_seeds
    sweep = Sweep(config, points, seeds, seed, chunks, episodes, fresh_seeds)
    for group in sweep.programs():
        plans.plan(sweep.config_of(points[group[0]]), seeds, chunks=chunks, episodes=episodes)
    if fresh_seeds < 0:
        raise ConfigError(f"fresh_seeds is {fresh_seeds}, but must be zero (none) or more")
    return sweep


def start(path: Path, sweep: Sweep, **how: Any) -> SweepResult:
    """Makes a sweep's directory and trains it all; arguments and errors as for `run`."""
    begin(path, sweep)
    try:
        return go_on(path, sweep, **how)
    except ConfigError:
        if processes.is_first() and not any(path.glob("batches/*/metrics.jsonl")):
            shutil.rmtree(path, ignore_errors=True)  # nothing has been trained
        raise


def begin(path: Path, sweep: Sweep) -> None:
    """Makes a sweep's directory, and writes down what it is.

    Raises:
        ConfigError: it exists, or cannot be made.
    """

    def make() -> None:
        _make(path)
        write_json(path / "sweep.json", _document(sweep))

    processes.on_first(make)


def _document(sweep: Sweep) -> dict[str, Any]:
    return sweep._asdict() | {"schema": SWEEP_FORMAT, "config": record.config_to_dict(sweep.config)}


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists already: give --out another directory, or resume it"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot make {path}: {error.strerror}") from None


def resume(path: Path | str, *, config: Config | None = None, **how: Any) -> SweepResult:
    """Goes on with a sweep: batches that are finished stay as they are.

    Args:
        config: needed only where it has an algorithm, wrappers or env_params of your own.
        how: see `go_on`.
    """
    return go_on(Path(path), read(Path(path), config), **how)


def read(path: Path, config: Config | None = None) -> Sweep:
    """The sweep that a directory is of.

    Raises:
        ConfigError: there is none, or another version wrote it.
    """
    if not (path / "sweep.json").is_file():
        raise ConfigError(f"{path} is not a sweep: it has no sweep.json")
    document = read_json(path / "sweep.json")
    if document.pop("schema", None) != SWEEP_FORMAT:
        raise ConfigError(f"{path} was written by another version of purejaxrl_sac")
    made = document.pop("config")
    if config is None:
        config = record.config_from_dict(made)
    elif record.config_to_dict(config) != made:
        raise ConfigError(f"the config given is not the one that {path} was made with")
    points = [
        {k: tuple(x) if isinstance(x, list) else x for k, x in point.items()}
        for point in document.pop("points")
    ]
    return Sweep(config, points, **document)


def train_here(
    batches: Iterable[Batch], reporter: Callable[[], Reporter] = Reporter, **options: Any
) -> None:
    """The engine of one machine: batch after batch, each over all devices."""
    for batch in batches:
        train(batch, reporter=_Inside(reporter()), **options)


def train(batch: Batch, *, any_version: bool = False, **options: Any) -> None:
    """Trains a batch, or what is left of it; options as for `runs.run` and `runs.resume`."""
    finished, begun = ((batch.path / name).exists() for name in ("summary.json", "config.json"))
    processes.on_first(lambda: None)  # all have seen it before anybody changes it
    if finished:
        return
    if begun:
        lifecycle.resume(batch.path, config=_own(batch.config), any_version=any_version, **options)
    else:
        plan = {"out": batch.path, "variants": batch.variants, **batch.options}
        lifecycle.run(batch.config, **plan, **options)


def go_on(
    path: Path,
    sweep: Sweep,
    *,
    engine: Callable[..., None] = train_here,
    most: int | None = None,
    devices: int | None = None,
    **options: Any,
) -> SweepResult:
    """Trains what is left of a sweep, and writes down what was found.

    Args:
        engine: (batches, **options) -> None, which trains them; `train_here` by default.
        most: lanes in a batch; None for as many as fit into memory.
        devices: over how many the lanes are spread; None for all there are.
        options: for the engine, such as `watch` and `checkpoint_minutes`.

    Returns:
        what was found: also in `table.csv`, `seeds.csv`, `sensitivity.png`, `heatmap.png` (of two
        hyperparameters), `summary.json`, and `best/`, a run of the best point with fresh seeds.
    """
    if devices is not None:
        options["devices"] = devices
    processes.check_equal(repr((str(path), _document(sweep), most, devices)))
    with lifecycle.failures_as_run_errors(RunDirectory(path)):
        try:
            _train_all(path, sweep, engine, most, **options)
            scores = read_scores(path, sweep)
            best = choose(scores)
            fresh = None
            if sweep.fresh_seeds and best is not None:
                again = fresh_batch(path, sweep, best)
                engine([again], **options)
                fresh = _scores(again.path)
        except StoppedError as stop:
            raise StoppedError(path, stop.steps, stop.signal) from None
        swept = SweepResult(path, sweep, scores, best, fresh)
        processes.on_first(lambda: _leave(swept))
    return swept


def _train_all(
    path: Path, sweep: Sweep, engine: Callable[..., None], most: int | None, **options: Any
) -> None:
    """Trains all batches; where programs take more memory than states said, in smaller ones."""
    while True:
        left = batches(path, sweep, most, options.get("devices"))
        try:
            return engine(left, **options)
        except InsufficientMemoryError:
            processes.on_first(lambda: None)  # the first one has taken the batch away again
            largest = max((batch.points for batch in left if not batch.path.exists()), default=1)
            if largest == 1:
                raise
            most = largest // 2 * sweep.seeds


def batches(
    path: Path, sweep: Sweep, most: int | None = None, devices: int | None = None
) -> list[Batch]:
    """The points in runs that fit into memory: those that exist, and what they leave over."""
    found = sorted((path / "batches").glob("[0-9]*-[0-9]*"))
    begun = [range(int(a), int(b) + 1) for a, b in (x.name.split("-") for x in found)]
    taken = {i for group in begun for i in group}
    groups = list(begun)
    for program in sweep.programs():
        left = [i for i in program if i not in taken]
        size = _fitting(sweep, program[0], most, devices) if left else 1
        for _, together in itertools.groupby(enumerate(left), lambda x: x[1] - x[0]):
            run = [i for _, i in together]
            pieces = -(-len(run) // size)
            each = -(-len(run) // pieces)
            groups += [range(i, min(i + each, run[-1] + 1)) for i in run[::each]]
    processes.on_first(lambda: None)  # before anybody begins one, all have seen which there are
    return [_batch(path, sweep, group) for group in sorted(groups, key=lambda group: group[0])]


def _batch(path: Path, sweep: Sweep, group: range) -> Batch:
    points = [sweep.points[i] for i in group]
    options = {name: getattr(sweep, name) for name in ("seeds", "seed", "chunks", "episodes")}
    path = path / "batches" / f"{group[0]:05d}-{group[-1]:05d}"
    return Batch(sweep.config_of(points[0]), variants(sweep.config, points), options, path)


def fresh_batch(path: Path, sweep: Sweep, best: int) -> Batch:
    """The best point, to be trained with keys, and judged by episodes, that did not choose it."""
    options = {"seeds": sweep.fresh_seeds, "chunks": sweep.chunks, "episodes": sweep.episodes}
    options["seed"] = (sweep.seed + FRESH) % 2**32
    return Batch(sweep.config_of(sweep.points[best]), {}, options, path / "best")


def _fitting(sweep: Sweep, point: int, most: int | None, devices: int | None) -> int:
    """How many points with the shapes of this one fit into memory, or into `most` lanes.

    Raises:
        ConfigError: not even one does.
    """
    config = sweep.config_of(sweep.points[point])
    plan = plans.plan(config, sweep.seeds, chunks=sweep.chunks, episodes=sweep.episodes)
    mesh = mesh_for(plan.lanes, devices)
    resources.check_state(plan, mesh)
    needed = sum(resources.state_bytes(plan, mesh).values())
    fit = int(resources.SWEEP_FRACTION * resources.available() / needed)
    if most is not None:
        fit = min(fit, at_once(most, sweep.seeds))
    return processes.minimum(max(1, fit))


def read_scores(path: Path, sweep: Sweep) -> np.ndarray:
    """[points, seeds] of all batches; nan where a seed diverged."""
    scores = np.full((len(sweep.points), sweep.seeds), np.nan)
    for batch in (path / "batches").glob("[0-9]*-[0-9]*"):
        first, last = map(int, batch.name.split("-"))
        scores[first : last + 1] = _scores(batch).reshape(-1, sweep.seeds)
    return scores


def _scores(path: Path) -> np.ndarray:
    """[lanes] greedy returns, or training returns where no time limit lets a policy be judged."""
    directory = RunDirectory.find(path)
    summary = directory.read_summary() or {}
    scores = summary.get("greedy_returns")
    if scores is None:
        scores = plot.forward_fill(directory.columns()["episode_return"].T)[:, -1]
    scores = np.array(scores, float)
    scores[[int(lane) for lane in summary.get("failed_step", {})]] = np.nan
    return scores


def choose(scores: np.ndarray) -> int | None:
    """The point with the highest IQM of those with the fewest seeds lost; None if all are lost."""
    lost = np.isnan(scores).sum(1)
    if lost.min() == scores.shape[1]:
        return None
    candidates = np.flatnonzero(lost == lost.min())
    return int(max(candidates, key=lambda i: iqm(scores[i][~np.isnan(scores[i])])))


def statistics(scores: np.ndarray) -> dict[str, Any]:
    """Figures of one point's seeds."""
    known = scores[~np.isnan(scores)]
    figures: dict[str, Any] = {"seeds": len(scores), "failed": len(scores) - len(known)}
    names = ("iqm", "low", "high", "mean", "worst", "best")
    if len(known) == 0:
        return figures | dict.fromkeys(names, float("nan"))
    low, high = bootstrap_interval(known)
    values = (iqm(known), low, high, known.mean(), known.min(), known.max())
    return figures | dict(zip(names, map(float, values), strict=True))


def _own(config: Config) -> Config | None:
    """A configuration that plain data cannot bring back; None for all others."""
    if not isinstance(config.env, str):
        return config
    try:
        record.config_from_dict(json.loads(json.dumps(record.config_to_dict(config))))
    except ConfigError:
        return config
    return None


def _leave(swept: SweepResult) -> None:
    """Tables, pictures and, last, the summary."""
    from purejaxrl_sac.experiment.tuning import sensitivity

    path, sweep = swept.path, swept.sweep
    table = swept.table()
    _write_csv(path / "table.csv", table)
    rows = [
        {"point": i, **point, "seed": seed, "score": score}
        for i, point in enumerate(sweep.points)
        for seed, score in enumerate(swept.scores[i])
    ]
    _write_csv(path / "seeds.csv", rows)
    sensitivity.draw(sweep.points, swept.scores, swept.best, path)
    document: dict[str, Any] = {
        "points": len(sweep.points),
        "programs": len(list(sweep.programs())),
    }
    if swept.best is not None:
        document["best"] = table[swept.best]
    if swept.fresh is not None:
        document["best_on_fresh_seeds"] = statistics(swept.fresh)
    write_json(path / "summary.json", document)


def figures(swept: SweepResult) -> dict[str, str]:
    """A sweep in words."""
    sweep = swept.sweep
    rows = {
        "points x seeds": f"{len(sweep.points)} x {sweep.seeds}",
        "programs": str(len(list(sweep.programs()))),
    }
    if swept.best is None:
        return rows | {"best": "every seed of every point diverged"}
    point = sweep.points[swept.best]
    rows["best"] = ", ".join(f"{name} {shown(x)}" for name, x in point.items())
    chosen = display.with_interval(swept.scores[swept.best])
    rows["its score while it was chosen, IQM [95 % interval]"] = chosen
    if swept.fresh is not None:
        rows["the same, trained anew with fresh seeds"] = display.with_interval(swept.fresh)
    return rows


def costs(sweep: Sweep) -> str:
    """Which hyperparameters are compiled into programs, in words; "" if none is."""
    shapes = [name for name, _ in shape_of(sweep.config, sweep.points[0])]
    if not shapes:
        return ""
    several = len(list(sweep.programs()))
    return f"{' and '.join(shapes)} cannot vary in one program: {several} are compiled"


def describe(path: Path) -> dict[str, str]:
    """What is known of a sweep, from its files alone."""
    document = read_json(path / "sweep.json")
    batches = list((path / "batches").glob("[0-9]*-[0-9]*"))
    ended = [batch for batch in batches if (batch / "summary.json").exists()]
    trained = sum(int(b) - int(a) + 1 for a, b in (batch.name.split("-") for batch in ended))
    finished = (path / "summary.json").exists()
    return {
        "sweep of": ", ".join(document["points"][0]),
        "algorithm": document["config"]["algorithm"],
        "environment": document["config"]["env"],
        "status": "finished" if finished else "not finished: go on with resume",
        "points": f"{trained} of {len(document['points'])} trained",
        "seeds of each": str(document["seeds"]),
    }


def shown(value: Any) -> str:
    """A value as a person writes it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write_csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class _Inside(Reporter):
    """A batch is watched as a run is, but for the table at its end."""

    def __init__(self, reporter: Reporter) -> None:
        self.live, self.message, self.on_start = reporter.live, reporter.message, reporter.on_start
        self.on_compiled, self.on_chunk = reporter.on_compiled, reporter.on_chunk

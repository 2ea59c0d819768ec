"""The plan of a sweep, and `sweep.json`, from which it is read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from purejaxrl_sac.config import Config, ConfigError, whole_number
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import datasets, files, plans, record
from purejaxrl_sac.experiment.runs.directory import Extras
from purejaxrl_sac.experiment.runs.measures import (
    Measure,
    Measures,
    measure_references,
    measured_again,
)
from purejaxrl_sac.experiment.tuning.points import Point, at, distinct_points, static_values
from purejaxrl_sac.types import Transition

SWEEP_FORMAT = 2  # 1 had no checksums
COLUMNS = ("point", "seed", "score")  # of the tables, besides hyperparameters and measures


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

    def plan_of(self, point: int) -> plans.Plan:
        """The plan of a run of one point alone."""
        config = parameters.fixed(self.config_of(self.points[point]))
        return plans.plan(config, self.seeds, chunks=self.chunks, episodes=self.episodes)

    def programs(self) -> Iterator[range]:
        """The indices of the points that share each program."""
        static = [static_values(self.config, point) for point in self.points]
        start = 0
        for _, group in itertools.groupby(static):
            end = start + len(list(group))
            yield range(start, end)
            start = end


class SweepExtras(Extras, total=False):
    """Fields of `sweep.json` that not every sweep has."""

    settings: dict[str, bool | int | str | None]  # of JAX and XLA, not in earlier sweeps


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
    """Check and plan a sweep; arguments and errors as for `sweep.run`."""
    points = distinct_points(config, points)
    seeds = whole_number("seeds", seeds, at_least=1)
    seed = whole_number("seed", seed, at_least=0, at_most=2**32 - 1)
    fresh_seeds = seeds if fresh_seeds is None else fresh_seeds
    fresh_seeds = whole_number("fresh_seeds", fresh_seeds, at_least=0)
    sweep = Sweep(config, points, seeds, seed, chunks, episodes, fresh_seeds)
    for group in sweep.programs():
        config = sweep.config_of(points[group[0]])
        plans.plan(config, max(seeds, fresh_seeds), chunks=chunks, episodes=episodes)
    return sweep


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
        one = sweep.plan_of(program[0])
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
                f"{path} exists already: choose another with --name or --out, or resume it"
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot create {path}: {error.strerror}") from None
        if sweep.config.dataset is not None:
            datasets.save(path / "dataset.npz", cast(Transition, sweep.config.dataset))
        document = document_of(sweep, measure) | {"settings": record.settings()}
        files.write_document(path / "sweep.json", document)

    processes.on_first(write)


def document_of(sweep: Sweep, measure: Mapping[str, Measure] | None) -> dict[str, Any]:
    """The contents of `sweep.json` that are equal in all processes."""
    config = record.config_to_dict(sweep.config)
    stamp = {"schema": SWEEP_FORMAT, "config": config, "versions": record.versions()}
    extras = {"measures": measure_references(measure)} if measure else {}
    return sweep._asdict() | stamp | extras


def read(path: Path, given: record.Given = record.NOTHING) -> Sweep:
    """Read the plan of a sweep from its directory; arguments and errors as for `sweep.resume`."""
    if not files.exists(path / "sweep.json"):
        raise ConfigError(f"{path} is not a sweep: it has no sweep.json")
    document = read_document(path)
    config = record.config_with_dataset(document["config"], given, path / "dataset.npz")
    given.check(config, document["config"], path)
    points = [
        {k: tuple(x) if isinstance(x, list) else files.from_json(x) for k, x in point.items()}
        for point in document["points"]
    ]
    fields: dict[str, Any] = {**document, "config": config, "points": points}
    return Sweep(**{name: fields[name] for name in Sweep._fields})


def read_measures(
    path: Path, measure: Mapping[str, Measure] | None, trust: bool
) -> Mapping[str, Measure]:
    """The measures of a sweep, given again or imported if trusted; errors as for `sweep.resume`."""
    return measured_again(read_document(path).get("measures", {}), measure, trust)


def read_document(path: Path) -> SweepDocument:
    """Read `sweep.json`; errors as for `sweep.resume`."""
    return files.read_document(path / "sweep.json", SweepDocument, SWEEP_FORMAT)


def compilation_note(sweep: Sweep) -> str:
    """A message about hyperparameters that are compiled into programs; "" if none is."""
    points = [sweep.points[program[0]] for program in sweep.programs()]
    static = dict.fromkeys(name for x in points for name, _ in static_values(sweep.config, x))
    if not static:
        return ""
    count = len(points)
    return f"{' and '.join(static)} cannot vary within a program: {count} programs are compiled"

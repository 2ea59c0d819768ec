"""Batches of a sweep: points that share a program and fit into memory, trained as one run."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import files, lifecycle, plans, record
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import Reporter, SilentReporter
from purejaxrl_sac.experiment.tuning.points import points_per_batch, variants
from purejaxrl_sac.experiment.tuning.sweep_plan import Sweep

FRESH = 1_000_003  # offset from a sweep's root seed to that of the fresh seeds


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


def divide(
    path: Path, sweep: Sweep, max_lanes: int | None = None, devices: int | None = None
) -> list[Batch]:
    """Divide the points into runs that fit into memory, keeping those that exist.

    Raises:
        ConfigError: a point does not fit into memory, or into `max_lanes`.
    """
    groups = existing(path)
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


def _max_points(sweep: Sweep, point: int, max_lanes: int | None, devices: int | None) -> int:
    """How many points of the same program as this one fit into memory and into `max_lanes`.

    Raises:
        ConfigError: not even one.
    """
    plan = sweep.plan_of(point)
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


def _batch(path: Path, sweep: Sweep, group: range) -> Batch:
    points = [sweep.points[i] for i in group]
    options = {name: getattr(sweep, name) for name in ("seeds", "seed", "chunks", "episodes")}
    config = sweep.config_of(points[0])
    return Batch(config, variants(sweep.config, points), options, path_of(path, group))


def fresh_batch(path: Path, sweep: Sweep, best: int) -> Batch:
    """The best point, with training keys and evaluation episodes that did not select it."""
    options = {"seeds": sweep.fresh_seeds, "chunks": sweep.chunks, "episodes": sweep.episodes}
    options["seed"] = (sweep.seed + FRESH) % 2**32
    return Batch(sweep.config_of(sweep.points[best]), {}, options, path / "best")


def existing(path: Path) -> list[range]:
    """The points of every batch that has a directory with its own name."""
    names = sorted(batch.name for batch in (path / "batches").glob("*-*"))
    ends = (map(int, name.split("-")) for name in names if re.fullmatch(r"\d{5}-\d{5}", name))
    return [range(first, last + 1) for first, last in ends]


def path_of(path: Path, group: range) -> Path:
    """The directory of a batch in that of the sweep."""
    return path / "batches" / f"{group[0]:05d}-{group[-1]:05d}"


# (batches, **options) -> None: trains batches, as `train_here` and `cluster.train_on_ray` do
Engine = Callable[..., None]


def train_here(
    batches: Sequence[Batch], *, reporter: Callable[[], Reporter] = SilentReporter, **options: Any
) -> None:
    """Train batches one after the other in this process, each over all devices."""
    for batch in batches:
        train_batch(batch, reporter=_BatchReporter(reporter()), **options)


def train_batch(batch: Batch, *, any_version: bool = False, **options: Any) -> None:
    """Train what is left of a batch; options as for `lifecycle.run` and `lifecycle.resume`."""
    finished, started = ((batch.path / name).exists() for name in ("summary.json", "config.json"))
    processes.on_first(lambda: None)  # all processes have checked before any of them writes
    if finished:
        return _check_same(batch)
    if started:
        config = _custom_config(batch.config)
        lifecycle.resume(batch.path, config=config, any_version=any_version, **options)
    else:
        plan = {"out": batch.path, "variants": batch.variants, **batch.options}
        lifecycle.run(batch.config, **plan, **options)


def _check_same(batch: Batch) -> None:
    """Raises ConfigError if the run on disk is not that of the batch, but for its code."""
    written = RunDirectory.find(batch.path).read_document()
    plan = plans.plan(batch.config, variants=batch.variants, **batch.options)
    for name in ("seeds", "seed", "episodes", "variants"):
        if files.to_json(written[name]) != files.to_json(getattr(plan, name)):
            raise _changed(batch.path, f"{name} is {written[name]}, not {getattr(plan, name)}")
    found, expected = written["config"], record.config_to_dict(plan.config)
    for name in sorted(set(found) & set(expected) - {"recipe"}):
        if json.dumps(found[name]) != json.dumps(expected[name]):
            raise _changed(batch.path, f"its {name} is {found[name]}, not {expected[name]}")


def _changed(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} is not what the sweep trained or is to train: {what}: move it away, and resume"
    )


def _custom_config(config: Config) -> Config | None:
    """The configuration if `config.json` cannot restore it; None otherwise."""
    if not isinstance(config.env, str):
        return config
    try:
        record.config_from_dict(json.loads(json.dumps(record.config_to_dict(config))))
    except ConfigError:
        return config
    return None


class _BatchReporter(Reporter):
    """Reports a batch as `reporter` does a run, except for the table at its end."""

    def __init__(self, reporter: Reporter) -> None:
        for name in ("live", "message", "warning", "on_start", "on_compiled", "on_chunk"):
            setattr(self, name, getattr(reporter, name))

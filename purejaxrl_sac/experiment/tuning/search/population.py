"""Population-based training: the worst members become copies of the best, and vary them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import (
    Config,
    ConfigError,
    kind_of,
    validate,
    whole_number,
)
from purejaxrl_sac.experiment.devices.mesh import fill, mesh_for, padded, trim
from purejaxrl_sac.experiment.runs import files, plans
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.experiment.tuning import journal
from purejaxrl_sac.experiment.tuning.points import Point, check_points, static_values
from purejaxrl_sac.experiment.tuning.search import lanes
from purejaxrl_sac.types import TrainState


class Ranges(NamedTuple):
    """Bounds of the hyperparameters, {field: value}."""

    low: Mapping[str, float]
    high: Mapping[str, float]


class Generation(NamedTuple):
    """One generation of P members."""

    steps: int  # environment steps of each member
    scores: np.ndarray  # [P] greedy returns at the end of the generation
    values: dict[str, np.ndarray]  # the hyperparameters of each member, [P]
    parents: np.ndarray  # [P] the member whose state each one continues; itself if not replaced


class PopulationResult(NamedTuple):
    """The results of population-based training."""

    state: TrainState  # leading axis [P]
    generations: list[Generation]
    best: int | None  # index of the member with the highest score at the end; None if every member
    # diverged

    def table(self) -> list[dict[str, Any]]:
        """One row per generation and member."""
        return [
            {
                "steps": generation.steps,
                "member": member,
                "parent": int(generation.parents[member]),
                **{name: value[member].item() for name, value in generation.values.items()},
                "score": float(score),
            }
            for generation in self.generations
            for member, score in enumerate(generation.scores)
        ]


def exploit_and_explore(
    key: jax.Array,
    scores: jax.Array,
    values: dict[str, jax.Array],
    ranges: Ranges,
    fraction: float = 0.25,
    factor: float = 1.25,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One step of population-based training (Jaderberg et al. 2017, arXiv 1711.09846).

    The worst `fraction` of the members become copies of random members of the best `fraction`, with
    every hyperparameter multiplied or divided by `factor`, within its range, and whole numbers
    rounded. A pure function.

    Args:
        scores: [P]; nan counts as the worst.
        values: of each hyperparameter, [P].

    Returns:
        parents, [P] int, and the new values.
    """
    members = len(scores)
    cut = max(1, int(fraction * members))
    order = jnp.argsort(jnp.where(jnp.isnan(scores), -jnp.inf, scores))  # ascending
    key_parent, *keys = jax.random.split(key, 1 + len(values))
    best = order[-cut:][jax.random.randint(key_parent, (cut,), 0, cut)]
    # never copy a member without a score
    best = jnp.where(jnp.isnan(scores[best]), order[-1], best)
    parents = jnp.arange(members).at[order[:cut]].set(best)
    copied = parents != jnp.arange(members)

    def perturb(key: jax.Array, name: str) -> jax.Array:
        value = values[name][parents]
        up = jax.random.bernoulli(key, shape=(members,))
        moved = jnp.clip(
            value * jnp.where(up, factor, 1 / factor), ranges.low[name], ranges.high[name]
        )
        whole = jnp.issubdtype(value.dtype, jnp.integer)
        moved = (jnp.round(moved) if whole else moved).astype(value.dtype)
        return jnp.where(copied, moved, value)

    return parents, {name: perturb(k, name) for k, name in zip(keys, sorted(values), strict=True)}


def population_based_training(
    config: Config,
    points: Sequence[Point],
    *,
    low: Mapping[str, float],
    high: Mapping[str, float],
    generations: int = 10,
    seed: int = 0,
    episodes: int = 32,
    fraction: float = 0.25,
    factor: float = 1.25,
    devices: int | None = None,
    on_generation: Callable[[Generation], None] = lambda generation: None,
    out: Path | str | None = None,
) -> PopulationResult:
    """Train a population of points with one member each; the seed determines all results.

    Args:
        points: initial points, {traced field: value}.
        low, high: bounds of the hyperparameters, {field: value}.
        generations: approximate number of them; members are replaced between two generations.
        seed: root of all random numbers.
        episodes: greedy evaluation episodes per member and generation.
        fraction: of the members, that is replaced.
        factor: by which hyperparameters are multiplied or divided.
        devices: number of devices that members are distributed over; None for all.
        on_generation: called after each generation, also after those of a search that continues.
        out: as for `successive_halving`.

    Raises:
        ConfigError: fewer than two members, hyperparameters that are static or out of bounds, or
            more members than fit into memory.
    """
    points = check_points(config, points)
    _check_population(config, points, low, high, fraction, factor)
    names = sorted(points[0])
    generations = whole_number("generations", generations, at_least=1)
    lanes.check_time_limit(config)
    plan = lanes.lane_plan(config, points, seeds=1, seed=seed, episodes=episodes)
    length = plans.chunk_length(config.iterations, generations)
    lengths = plans.chunk_lengths(config.iterations, length)
    mesh = mesh_for(plan.lanes, devices)
    programs = lanes.compile_chunks(plan, mesh, lengths)
    values = {name: jnp.array([point[name] for point in points]) for name in names}
    ranges = Ranges({n: float(low[n]) for n in names}, {n: float(high[n]) for n in names})
    step = jax.jit(partial(exploit_and_explore, ranges=ranges, fraction=fraction, factor=factor))
    key_members, key_steps = jax.random.split(plans.streams(plans.key_from_seed(seed)).population)

    def member_keys(key: jax.Array) -> jax.Array:
        return fill(jax.random.split(key, plan.lanes), plan.lanes, mesh)

    arguments = {
        "points": points, "low": ranges.low, "high": ranges.high, "generations": generations,
        "seed": seed, "episodes": episodes, "fraction": fraction, "factor": factor,
    }  # fmt: skip
    history: list[Generation] = []
    state: TrainState | None = None
    done = 0
    with journal.opened(out, "population-based training", config, arguments) as steps:
        for i, length in enumerate(lengths):
            scores = steps.scores(i)
            replayed = scores is not None
            if scores is None:
                config_lanes = _config_lanes(values, plan, mesh)
                if state is None and i == 0:
                    assert programs.init is not None  # compiled, as nothing has been trained
                    state = programs.init(member_keys(key_members), config_lanes)
                elif state is None:
                    state = steps.restore(plan, mesh)
                state, scores = lanes.train_chunk(plan, programs, state, length, config_lanes)
            done += length
            used = {name: np.asarray(value) for name, value in values.items()}
            parents = np.arange(plan.lanes)
            if done < config.iterations:
                key_step, key_copies = jax.random.split(jax.random.fold_in(key_steps, done))
                chosen, values = step(key_step, jnp.asarray(scores), values)
                parents = np.asarray(chosen)
                if state is not None:
                    state = lanes.take_lanes(state, parents, mesh, mesh)
                    copied = np.zeros(len(state.key), bool)
                    copied[: plan.lanes] = parents != np.arange(plan.lanes)
                    # a copy must not repeat the random numbers of its parent
                    key = jax.jit(jnp.where)(copied, member_keys(key_copies), state.key)
                    state = state._replace(key=jax.device_put(key, state.key.sharding))
            if not replayed and state is not None:
                steps.add(scores, state, plan.lanes)
            history.append(Generation(plan.steps(done), scores, used, parents))
            on_generation(history[-1])
        state = steps.restore(plan, mesh) if state is None else state
    best = lanes.highest(history[-1].scores)
    result = PopulationResult(trim(state, plan.lanes, mesh), history, best)
    if out is not None:
        files.write_csv(Path(out) / "table.csv", result.table())
    return result


def _check_population(
    config: Config,
    points: list[Point],
    low: Mapping[str, float],
    high: Mapping[str, float],
    fraction: float,
    factor: float,
) -> None:
    """Raises ConfigError for invalid arguments of `population_based_training`."""
    if len(points) < 2 or not 0 < fraction <= 0.5:
        raise ConfigError("a population needs at least two members, and a fraction of at most 0.5")
    if not factor > 0:
        raise ConfigError(f"factor is {factor}, but must be > 0: values become larger or smaller")
    names = sorted(points[0])
    for point in points:
        for name, _ in static_values(config, point):
            raise ConfigError(f"{name} cannot vary within a program: leave it out of the search")
    if unbounded := set(names) - (low.keys() & high.keys()):
        raise ConfigError(f"{unbounded.pop()} needs a bound in low and in high")
    for name in names:
        for value in (low[name], high[name]):
            if not isinstance(value, Real):
                raise ConfigError(f"{name} has a bound that is {kind_of(value)}: give a number")
        if not all(low[name] <= point[name] <= high[name] for point in points):
            raise ConfigError(
                f"{name} is bounded by {low[name]} and {high[name]}, but points lie outside"
            )
    for bound in (low, high):
        validate(config.replace(**{name: bound[name] for name in names}))


def _config_lanes(values: dict[str, jax.Array], plan: Plan, mesh: Mesh) -> Config:
    """The plan's configuration with one value per lane, padded for the devices."""
    variants = {name: np.asarray(x).tolist() for name, x in values.items()}
    config, _ = plan._replace(variants=variants).config_lanes(padded(plan.lanes, mesh))
    return config

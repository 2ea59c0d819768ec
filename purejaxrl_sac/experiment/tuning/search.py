"""Searches that decide between chunks: successive halving, population-based training, Optuna.

All points are lanes of one program. Between two chunks the host looks at scores, and lanes are
gathered anew on the devices: survivors are moved together, losers become copies of winners.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config, ConfigError, validate
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import fill, mesh_for, padded, shardings, trim
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.runs.engine import Programs
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.experiment.tuning.points import (
    Point,
    at_once,
    checked,
    shape_of,
    traced,
    variants,
)
from purejaxrl_sac.train import seed_axes
from purejaxrl_sac.types import TrainState


def take_lanes(state: TrainState, lanes: np.ndarray, old: Mesh, new: Mesh) -> TrainState:
    """Gathers lanes on the devices, and spreads them over those that are to go on.

    Args:
        state: padded for the devices of `old`.
        lanes: which ones, in which order; a lane may be taken twice.

    Returns:
        them, padded for the devices of `new`.
    """
    index = np.pad(lanes, (0, padded(len(lanes), new) - len(lanes)), constant_values=lanes[0])
    axes = seed_axes(state)
    same = old == new
    taken = jax.jit(_gather, out_shardings=shardings(axes, new) if same else None)(state, index)
    return taken if same else jax.device_put(taken, shardings(axes, new))


def _gather(state: TrainState, index: jax.Array) -> TrainState:
    """Outside of `take_lanes`, so that it is compiled once for each shape."""
    return jax.tree.map(lambda x: x[index] if jnp.ndim(x) else x, state)


# ── successive halving ──────────────────────────────────────────────────────────────────────────


class Rung(NamedTuple):
    """Where points were compared."""

    steps: int  # environment steps of each seed
    points: np.ndarray  # [N] which points came so far
    scores: np.ndarray  # [N, seeds] their greedy returns; nan where the seed has diverged


class Halving(NamedTuple):
    points: list[Point]
    rungs: list[list[Rung]]  # of each batch
    best: int  # the point that scored highest at the last rung

    def table(self) -> list[dict[str, Any]]:
        """A row for each point at each rung it came to."""
        return [
            {"point": int(point), **self.points[point], "steps": rung.steps, "iqm": _iqm(scores)}
            for rungs in self.rungs
            for rung in rungs
            for point, scores in zip(rung.points, rung.scores, strict=True)
        ]


def successive_halving(
    config: Config,
    points: Sequence[Point],
    seeds: int = 4,
    *,
    eta: int = 3,
    first: float | None = None,
    seed: int = 0,
    episodes: int = 64,
    most: int | None = None,
    devices: int | None = None,
    on_rung: Callable[[Rung], None] = lambda rung: None,
) -> Halving:
    """Trains all points a little, the best 1 / eta of them eta times as long, and so on.

    Jamieson & Talwalkar 2016 (arXiv 1502.07943). Where not all lanes may be trained at once, batch
    follows batch, and at each rung a point goes on if it is in the best 1 / eta of all that came
    there so far: the stopping rule of ASHA (Li et al. 2020, arXiv 1810.05934), as lanes have one
    clock and cannot wait.

    Args:
        eta: one in how many goes on.
        first: share of the run after which points are first compared; None for the one that makes
            one point of each batch come to the end.
        episodes: greedy episodes of each seed at each rung.
        most: lanes at once; None for all.

    Raises:
        ConfigError: bad input, points that are not lanes of one program, or more lanes at once
            than fit into memory.
    """
    if eta < 2:
        raise ConfigError(f"eta is {eta}, but must be at least 2")
    size = len(points) if most is None else at_once(most, seeds)
    points = checked(config, points)
    if len({shape_of(config, point) for point in points}) > 1:
        raise ConfigError("points of a search share one program: sweep static fields instead")
    if not plans.has_time_limit(config):
        raise ConfigError(f"a search needs a time limit, which {config.env} does not have")
    iterations = config.replace(**points[0]).iterations
    ends = rung_ends(iterations, min(size, len(points)), eta, first)
    seen: list[list[float]] = [[] for _ in ends]
    batches = []
    for begin in range(0, len(points), size):
        batch = np.arange(begin, min(begin + size, len(points)))
        planned = {"seeds": seeds, "seed": seed, "episodes": episodes}
        batches.append(_halve(config, points, batch, ends, seen, eta, devices, on_rung, planned))
    final = max(rungs[-1].steps for rungs in batches)
    last = [rungs[-1] for rungs in batches if rungs[-1].steps == final]
    came = np.concatenate([rung.points for rung in last])
    middle = [_iqm(scores) for rung in last for scores in rung.scores]
    return Halving(points, batches, int(came[np.argmax(middle)]))


def rung_ends(iterations: int, points: int, eta: int, first: float | None = None) -> list[int]:
    """The iterations after which points are compared, each eta times the one before; the last is
    the whole run."""
    if first is not None and not 0 < first <= 1:
        raise ConfigError(f"first is {first}, but must be a share of the run above 0, up to 1")
    share = first or float(eta) ** -math.floor(math.log(points, eta) + 1e-9)
    count = math.floor(-math.log(share, eta) + 1e-9)
    ends = [round(iterations * share * eta**rung) for rung in range(count + 1)]
    return sorted({max(1, end) for end in ends} | {iterations})


def survivors(scores: np.ndarray, seen: Sequence[float], eta: int) -> np.ndarray:
    """Which of [N] scores are in the best 1 / eta of all that were seen, at least one if any is.

    Those that are not finite are not; of equals, the first.
    """
    known = np.sort([score for score in seen if np.isfinite(score)])[::-1]
    if len(known) == 0 or not np.isfinite(scores).any():
        return np.empty(0, int)
    bar = known[-(-len(known) // eta) - 1]
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    above = [i for i in order if np.isfinite(scores[i]) and scores[i] >= bar]
    return np.sort(above[: -(-len(known) // eta)])


def _halve(
    config: Config,
    points: list[Point],
    batch: np.ndarray,
    ends: list[int],
    seen: list[list[float]],
    eta: int,
    devices: int | None,
    on_rung: Callable[[Rung], None],
    planned: dict[str, int],
) -> list[Rung]:
    """One batch up to where none of it goes on."""
    left, done, state, mesh = batch, 0, None, None
    rungs: list[Rung] = []
    going = np.arange(len(batch))
    for end, scored in zip(ends, seen, strict=True):
        plan = lane_plan(config, [points[i] for i in left], **planned)
        old, mesh = mesh, mesh_for(plan.lanes, devices)
        programs = _compile(plan, mesh, [end - done], done)
        if state is None:
            state = engine.initial_state(plan, programs)
        else:
            lanes = going[:, None] * plan.seeds + np.arange(plan.seeds)
            state = take_lanes(state, lanes.ravel(), old, mesh)
        config_lanes, _ = plan.config_lanes(padded(plan.lanes, mesh))
        state, scores = _go(plan, programs, state, end - done, config_lanes)
        rungs.append(Rung(plan.steps(end), left, scores.reshape(len(left), plan.seeds)))
        on_rung(rungs[-1])
        done = end
        middle = np.array([_iqm(x) for x in rungs[-1].scores])
        scored.extend(middle.tolist())
        going = survivors(middle, scored, eta)
        left = left[going]
        if len(left) == 0:
            break
    return rungs


def _compile(plan: Plan, mesh: Mesh, lengths: list[int], done: int = 0) -> Programs:
    """Programs of so many iterations; what has begun fits into memory, later rungs are smaller."""
    if done:
        return engine.compile_run(plan, done, mesh, lengths)
    resources.check_state(plan, mesh)
    programs = engine.compile_run(plan, done, mesh, lengths)
    resources.check_programs(programs)
    return programs


def _go(
    plan: Plan, programs: Programs, state: TrainState, length: int, config: Config
) -> tuple[TrainState, np.ndarray]:
    """A chunk, and the mean greedy return of every lane after it; nan where a lane diverged."""
    _, _, watch = plan.keys()
    keys = fill(watch, plan.lanes, programs.mesh)
    state, metrics = programs.chunks[length](state, config, keys, True)
    scores = np.where(metrics["finite"] < length, np.nan, metrics["greedy_return"])
    return state, scores[: plan.lanes]


def lane_plan(config: Config, points: Sequence[Point], episodes: int, **planned: Any) -> Plan:
    """Points of one program as the variants of a plan, which is evaluated after any chunk."""
    planned |= {
        "episodes": episodes,
        "eval_episodes": episodes,
        "eval_every": config.steps_per_iteration,
    }
    planned["variants"] = variants(config, points)
    return plans.plan(config.replace(**points[0]), chunks=1, **planned)


def _iqm(scores: np.ndarray) -> float:
    """-inf where a seed has diverged."""
    return float(iqm(scores)) if np.isfinite(scores).all() else -math.inf


# ── population-based training ───────────────────────────────────────────────────────────────────


class Ranges(NamedTuple):
    """What exploration may do with hyperparameters."""

    low: Mapping[str, float]
    high: Mapping[str, float]


class Generation(NamedTuple):
    steps: int  # environment steps of each member
    scores: np.ndarray  # [P] greedy returns at the end of the generation
    values: dict[str, np.ndarray]  # what each member was trained with, [P]
    parents: np.ndarray  # [P] of which member each goes on as a copy; itself where it goes on


class Population(NamedTuple):
    state: TrainState  # leading axis [P]
    generations: list[Generation]
    best: int  # the member with the highest score at the end


def exploit_and_explore(
    key: jax.Array,
    scores: jax.Array,
    values: dict[str, jax.Array],
    ranges: Ranges,
    share: float = 0.25,
    factor: float = 1.25,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One step of population-based training (Jaderberg et al. 2017, arXiv 1711.09846).

    The worst `share` of the members become copies of random ones of the best `share`, with every
    hyperparameter multiplied or divided by `factor`, within its range. A pure function.

    Args:
        scores: [P], nan for the worst of all.
        values: of each hyperparameter, [P].

    Returns:
        parents [P], and the new values.
    """
    members = len(scores)
    cut = max(1, int(share * members))
    order = jnp.argsort(jnp.where(jnp.isnan(scores), -jnp.inf, scores))  # the worst first
    key_parent, *keys = jax.random.split(key, 1 + len(values))
    best = order[-cut:][jax.random.randint(key_parent, (cut,), 0, cut)]
    best = jnp.where(jnp.isnan(scores[best]), order[-1], best)  # nobody copies who has no score
    parents = jnp.arange(members).at[order[:cut]].set(best)
    copied = parents != jnp.arange(members)

    def perturb(key: jax.Array, name: str) -> jax.Array:
        value = values[name][parents]
        up = jax.random.bernoulli(key, shape=(members,))
        moved = jnp.clip(
            value * jnp.where(up, factor, 1 / factor), ranges.low[name], ranges.high[name]
        )
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
    share: float = 0.25,
    factor: float = 1.25,
    devices: int | None = None,
    on_generation: Callable[[Generation], None] = lambda generation: None,
) -> Population:
    """A population of points, one member each; everything follows from the seed.

    Args:
        points: where it begins, one member each; {traced field: value}.
        low, high: between which hyperparameters are explored.
        generations: about how many; losers are replaced between them.
        episodes: greedy episodes that decide.
        share: of the members, that is replaced.

    Raises:
        ConfigError: fewer than two members, hyperparameters that cannot vary in one program or lie
            outside their ranges, or more members than fit into memory.
    """
    points = checked(config, points)
    if len(points) < 2 or not 0 < share <= 0.5:
        raise ConfigError("a population has two members or more, of which up to half is replaced")
    names = sorted(points[0])
    if foreign := set(names) - traced(config):
        raise ConfigError(f"{foreign.pop()} cannot vary in one program: leave it out of the search")
    if missing := set(names) - (low.keys() & high.keys()):
        raise ConfigError(f"{missing.pop()} needs a low and a high end")
    for name in names:
        if not all(low[name] <= point[name] <= high[name] for point in points):
            raise ConfigError(
                f"{name} goes from {low[name]} to {high[name]}, but points lie outside"
            )
    for end in (low, high):
        validate(config.replace(**{name: end[name] for name in names}))
    if generations < 1:
        raise ConfigError(f"generations is {generations}, but must be at least 1")
    if not plans.has_time_limit(config):
        raise ConfigError(f"a search needs a time limit, which {config.env} does not have")
    plan = lane_plan(config, points, seeds=1, seed=seed, episodes=episodes)
    length = plans.chunk_length(config.iterations, generations)
    lengths = plans.chunk_lengths(config.iterations, length)
    mesh = mesh_for(plan.lanes, devices)
    programs = _compile(plan, mesh, lengths)
    values = {name: jnp.array([float(point[name]) for point in points]) for name in names}
    ranges = Ranges({n: float(low[n]) for n in names}, {n: float(high[n]) for n in names})
    step = jax.jit(partial(exploit_and_explore, ranges=ranges, share=share, factor=factor))
    key_members, key_steps = jax.random.split(jax.random.fold_in(plans.key_from_seed(seed), 2))

    def members(key: jax.Array) -> jax.Array:
        return fill(jax.random.split(key, plan.lanes), plan.lanes, mesh)

    state = programs.init(members(key_members), _lanes_of(config, values, plan, mesh))
    history, done = [], 0
    for length in lengths:
        trained_with = _lanes_of(config, values, plan, mesh)
        state, scores = _go(plan, programs, state, length, trained_with)
        done += length
        kept = {name: np.asarray(value) for name, value in values.items()}
        parents = np.arange(plan.lanes)
        if done < config.iterations:
            key_step, key_copies = jax.random.split(jax.random.fold_in(key_steps, done))
            parents, values = step(key_step, jnp.asarray(scores), values)
            parents = np.asarray(parents)
            state = take_lanes(state, parents, mesh, mesh)
            copied = np.zeros(len(state.key), bool)
            copied[: plan.lanes] = parents != np.arange(plan.lanes)
            # a copy goes other ways than its parent
            key = jax.jit(jnp.where)(copied, members(key_copies), state.key)
            state = state._replace(key=jax.device_put(key, state.key.sharding))
        history.append(Generation(plan.steps(done), scores, kept, parents))
        on_generation(history[-1])
    best = int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))
    return Population(trim(state, plan.lanes, mesh), history, best)


def _lanes_of(config: Config, values: dict[str, jax.Array], plan: Plan, mesh: Mesh) -> Config:
    """A configuration with a value for each lane, those beyond the plan's as the first."""
    fill_up = (0, padded(plan.lanes, mesh) - plan.lanes)
    made = {}
    for name, value in values.items():
        lanes = np.pad(np.asarray(value), fill_up, mode="edge")
        made[name] = lanes.astype(np.asarray(plan.variants[name]).dtype)
    return config.replace(**made)


# ── Optuna ──────────────────────────────────────────────────────────────────────────────────────


def optuna_search(
    config: Config,
    study: Any,
    suggest: Callable[[Any], Point],
    *,
    batch: int = 16,
    rounds: int = 4,
    seeds: int = 4,
    seed: int = 0,
    episodes: int = 64,
    devices: int | None = None,
) -> Point:
    """Asks an Optuna study (extra `optuna`) for batches of trials, and tells it their scores.

        study = optuna.create_study(direction="maximize")
        suggest = lambda trial: {"tau": trial.suggest_float("tau", 1e-3, 1e-1, log=True)}
        best = search.optuna_search(config, study, suggest, batch=16, rounds=4)

    Args:
        study: an `optuna.Study` that maximises; its sampler's seed makes it repeatable.
        suggest: trial -> point.
        batch: trials whose lanes are trained together.

    Returns:
        the best point, by the IQM over seeds of its greedy returns.

    Raises:
        ConfigError: the study does not maximise, or a point cannot be.
    """
    try:
        from optuna.trial import FixedTrial, TrialState
    except ImportError:
        raise ConfigError("Optuna is not installed: install purejaxrl_sac[optuna]") from None
    if study.direction.name != "MAXIMIZE":
        raise ConfigError("the study minimises: create it with direction='maximize'")
    for _ in range(rounds):
        trials = [study.ask() for _ in range(batch)]
        asked = [suggest(trial) for trial in trials]
        scores: dict[str, float] = {}
        points = checked(config, asked)
        for shape in dict.fromkeys(shape_of(config, point) for point in points):
            group = [point for point in points if shape_of(config, point) == shape]
            plan = plans.plan(
                config.replace(**group[0]), seeds, seed=seed, chunks=1, episodes=episodes,
                variants=variants(config, group),
            )  # fmt: skip
            resources.check_state(plan, mesh_for(plan.lanes, devices))
            result = engine.train_seeds(plan, devices=devices)
            failed = result.history[-1].failed.reshape(len(group), seeds).any(1)
            returns = result.evaluation.mean(1).reshape(len(group), seeds)
            for point, row, lost in zip(group, returns, failed, strict=True):
                scores[str(point)] = math.nan if lost else float(iqm(row))
        for trial, point in zip(trials, asked, strict=True):
            score = scores[str(checked(config, [point])[0])]
            if math.isnan(score):
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, score)
    return checked(config, [suggest(FixedTrial(study.best_params))])[0]

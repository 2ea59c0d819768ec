"""Hyperparameter searches: successive halving, population-based training, Optuna.

All points are lanes of one program. Between two chunks the host compares scores, and lanes are
gathered on the devices: survivors become adjacent, or the worst become copies of the best.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config, ConfigError, traced_fields, validate, whole_number
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import fill, mesh_for, padded, shardings, trim
from purejaxrl_sac.experiment.runs import engine, files, plans
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.engine import Programs
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.experiment.tuning import batches, journal, sweep_results
from purejaxrl_sac.experiment.tuning.journal import Journal
from purejaxrl_sac.experiment.tuning.points import (
    Point,
    at,
    check_points,
    points_per_batch,
    static_values,
    variants,
)
from purejaxrl_sac.train import seed_axes
from purejaxrl_sac.types import TrainState


def take_lanes(state: TrainState, lanes: np.ndarray, old: Mesh, new: Mesh) -> TrainState:
    """Gather lanes on the devices, and distribute them over the devices of another mesh.

    Args:
        state: padded for the devices of `old`.
        lanes: their indices, in the new order; an index may occur more than once.

    Returns:
        the lanes, padded for the devices of `new`.
    """
    index = np.pad(lanes, (0, padded(len(lanes), new) - len(lanes)), constant_values=lanes[0])
    axes = seed_axes(state)
    same = old == new
    taken = jax.jit(_gather, out_shardings=shardings(axes, new) if same else None)(state, index)
    return taken if same else jax.device_put(taken, shardings(axes, new))


def _gather(state: TrainState, index: jax.Array) -> TrainState:
    """A module-level function, so that `jit` compiles it once per shape."""
    return jax.tree.map(lambda x: x[index] if jnp.ndim(x) else x, state)


# ── successive halving ──────────────────────────────────────────────────────────────────────────


class Rung(NamedTuple):
    """A comparison of the points that have reached some number of steps."""

    steps: int  # environment steps of each seed
    points: np.ndarray  # [N] indices of the points
    scores: np.ndarray  # [N, seeds] their greedy returns; nan where the seed diverged


class HalvingResult(NamedTuple):
    """The results of successive halving."""

    points: list[Point]
    rungs: list[list[Rung]]  # of each batch
    best: int | None  # index of the point with the highest score at the last rung; None if every
    # point diverged

    def table(self) -> list[dict[str, Any]]:
        """One row per rung and point that reached it."""
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
    max_lanes: int | None = None,
    devices: int | None = None,
    on_rung: Callable[[Rung], None] = lambda rung: None,
    out: Path | str | None = None,
) -> HalvingResult:
    """Train all points for a short time, the best 1 / eta of them eta times as long, and so on.

    Jamieson & Talwalkar 2016 (arXiv 1502.07943). If not all lanes are trained at once, batches are
    trained one after the other, and at each rung a point survives if it is in the best 1 / eta of
    all points that have reached the rung so far. This is the stopping rule of ASHA (Li et al. 2020,
    arXiv 1810.05934); lanes share one clock, so that none can be promoted later.

    Args:
        seeds: per point, the same for all.
        eta: reduction factor: one in `eta` points survives a rung.
        first: fraction of the run after which points are first compared; None for the one at which
            one point of each batch reaches the end.
        seed: root of all random numbers.
        episodes: greedy evaluation episodes per seed at each rung.
        max_lanes: lanes trained at once; None for all.
        devices: number of devices that lanes are distributed over; None for all.
        on_rung: called after each rung, also after those of a search that continues.
        out: directory of `table.csv` and of the states after the latest rungs, from which the same
            call continues, see `journal`; None to write nothing.

    Raises:
        ConfigError: invalid input, points that need several programs, or more lanes at once than
            fit into memory.
    """
    eta = whole_number("eta", eta, at_least=2)
    size = len(points) if max_lanes is None else points_per_batch(max_lanes, seeds)
    points = check_points(config, points)
    if len({static_values(config, point) for point in points}) > 1:
        raise ConfigError("points of a search share one program: sweep static fields instead")
    if not plans.has_time_limit(config):
        raise ConfigError(f"a search needs a time limit, which {config.env} does not have")
    iterations = at(config, points[0]).iterations
    ends = rung_ends(iterations, min(size, len(points)), eta, first)
    seen: list[list[float]] = [[] for _ in ends]
    batches = []
    planned = {"seeds": seeds, "seed": seed, "episodes": episodes}
    arguments = {**planned, "points": points, "eta": eta, "first": first, "max_lanes": max_lanes}
    with journal.opened(out, "successive halving", config, arguments) as steps:
        for start in range(0, len(points), size):
            batch = np.arange(start, min(start + size, len(points)))
            batches.append(
                _halve(config, points, batch, ends, seen, eta, devices, on_rung, planned, steps)
            )
    final = max(rungs[-1].steps for rungs in batches)
    last = [rungs[-1] for rungs in batches if rungs[-1].steps == final]
    finalists = np.concatenate([rung.points for rung in last])
    scores = [_iqm(scores) for rung in last for scores in rung.scores]
    best = highest(np.array(scores))
    result = HalvingResult(points, batches, None if best is None else int(finalists[best]))
    if out is not None:
        files.write_csv(Path(out) / "table.csv", result.table())
    return result


def highest(scores: np.ndarray) -> int | None:
    """The index of the highest finite score; None if there is none."""
    if not np.isfinite(scores).any():
        return None
    return int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))


def rung_ends(iterations: int, points: int, eta: int, first: float | None = None) -> list[int]:
    """The iterations after which points are compared, each eta times the previous one; the last is
    the whole run.

    Args:
        points: number of points of a batch.
        first: fraction of the run before the first rung; None for 1 / eta^floor(log_eta(points)).

    Raises:
        ConfigError: `first` is out of range.
    """
    if first is not None and not 0 < first <= 1:
        raise ConfigError(
            f"first is {first}, but must be a fraction of the run, above 0 and up to 1"
        )
    fraction = first or float(eta) ** -math.floor(math.log(points, eta) + 1e-9)
    count = math.floor(-math.log(fraction, eta) + 1e-9)
    ends = [round(iterations * fraction * eta**rung) for rung in range(count + 1)]
    return sorted({max(1, end) for end in ends} | {iterations})


def survivors(scores: np.ndarray, seen: Sequence[float], eta: int) -> np.ndarray:
    """Select the scores in the best 1 / eta of all that have been seen, at least one if any is.

    Args:
        scores: [N]; those that are not finite are never selected.
        seen: all scores at this rung so far, of any number.

    Returns:
        indices of the selected scores, increasing; of equal scores, the first.
    """
    known = np.sort([score for score in seen if np.isfinite(score)])[::-1]
    if len(known) == 0 or not np.isfinite(scores).any():
        return np.empty(0, int)
    count = -(-len(known) // eta)
    threshold = known[count - 1]
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    above = [i for i in order if np.isfinite(scores[i]) and scores[i] >= threshold]
    return np.sort(np.array(above[:count], int))


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
    steps: Journal,
) -> list[Rung]:
    """Train one batch until none of its points survives, and add its scores to `seen`.

    Rungs that the journal has are not trained again.
    """
    remaining, surviving, done = batch, np.arange(len(batch)), 0
    state: TrainState | None = None
    previous: tuple[Plan, Mesh] | None = None
    rungs: list[Rung] = []
    earlier = steps.taken
    for end, rung_scores in zip(ends, seen, strict=True):
        plan = lane_plan(config, [points[i] for i in remaining], **planned)
        mesh = mesh_for(plan.lanes, devices)
        scores = steps.scores(earlier + len(rungs))
        if scores is None:
            programs = _compile(plan, mesh, [end - done], done)
            if previous is None:
                state = engine.initial_state(plan, programs)
            else:
                state = steps.restore(*previous) if state is None else state
                lanes = surviving[:, None] * plan.seeds + np.arange(plan.seeds)
                state = take_lanes(state, lanes.ravel(), previous[1], mesh)
            config_lanes, _ = plan.config_lanes(padded(plan.lanes, mesh))
            state, scores = _train_chunk(plan, programs, state, end - done, config_lanes)
            steps.add(scores, state, plan.lanes)
        rung = Rung(plan.steps(end), remaining, scores.reshape(len(remaining), plan.seeds))
        rungs.append(rung)
        on_rung(rung)
        done, previous = end, (plan, mesh)
        iqms = np.array([_iqm(x) for x in rung.scores])
        rung_scores.extend(iqms.tolist())
        surviving = survivors(iqms, rung_scores, eta)
        remaining = remaining[surviving]
        if len(remaining) == 0:
            break
    steps.taken += len(rungs)
    return rungs


def _compile(plan: Plan, mesh: Mesh, lengths: list[int], done: int = 0) -> Programs:
    """Compile chunks of so many iterations.

    Memory is checked at the start only, as later rungs need less.

    Raises:
        ConfigError: the lanes do not fit into memory.
    """
    if done:
        return engine.compile_run(plan, done, mesh, lengths)
    resources.check_state(plan, mesh)
    programs = engine.compile_run(plan, done, mesh, lengths)
    resources.check_programs(programs)
    return programs


def _train_chunk(
    plan: Plan, programs: Programs, state: TrainState, length: int, config: Config
) -> tuple[TrainState, np.ndarray]:
    """Train one chunk.

    Returns:
        the new state, and the mean greedy return of every lane after it, [lanes]; nan where a lane
        diverged.
    """
    _, _, eval_keys = plan.keys()
    keys = fill(eval_keys, plan.lanes, programs.mesh)
    state, metrics = programs.chunks[length](state, config, keys, True)
    returns = np.asarray(metrics["greedy_return"])
    diverged = (np.asarray(metrics["finite"]) < length) | ~np.isfinite(returns)
    scores = np.where(diverged, np.nan, returns)
    return state, scores[: plan.lanes]


def lane_plan(
    config: Config, points: Sequence[Point], *, seeds: int, seed: int, episodes: int
) -> Plan:
    """A plan whose variants are points of one program, with an evaluation after every chunk."""
    config = parameters.fixed(config)
    return plans.plan(
        at(config, points[0]), seeds, seed=seed, chunks=1, episodes=episodes,
        eval_every=config.steps_per_iteration, eval_episodes=episodes,
        variants=variants(config, points),
    )  # fmt: skip


def _iqm(scores: np.ndarray) -> float:
    """The IQM; -inf where a seed diverged."""
    return float(iqm(scores)) if np.isfinite(scores).all() else -math.inf


# ── population-based training ───────────────────────────────────────────────────────────────────


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
                **{name: float(value[member]) for name, value in generation.values.items()},
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
    every hyperparameter multiplied or divided by `factor`, within its range. A pure function.

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
    _check_population(config, points, low, high, fraction)
    names = sorted(points[0])
    generations = whole_number("generations", generations, at_least=1)
    if not plans.has_time_limit(config):
        raise ConfigError(f"a search needs a time limit, which {config.env} does not have")
    plan = lane_plan(config, points, seeds=1, seed=seed, episodes=episodes)
    length = plans.chunk_length(config.iterations, generations)
    lengths = plans.chunk_lengths(config.iterations, length)
    mesh = mesh_for(plan.lanes, devices)
    programs = _compile(plan, mesh, lengths)
    values = {name: jnp.array([float(point[name]) for point in points]) for name in names}
    ranges = Ranges({n: float(low[n]) for n in names}, {n: float(high[n]) for n in names})
    step = jax.jit(partial(exploit_and_explore, ranges=ranges, fraction=fraction, factor=factor))
    key_members, key_steps = jax.random.split(jax.random.fold_in(plans.key_from_seed(seed), 2))

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
                config_lanes = _config_lanes(config, values, plan, mesh)
                if state is None and i == 0:
                    assert programs.init is not None  # compiled, as nothing has been trained
                    state = programs.init(member_keys(key_members), config_lanes)
                elif state is None:
                    state = steps.restore(plan, mesh)
                state, scores = _train_chunk(plan, programs, state, length, config_lanes)
            done += length
            used = {name: np.asarray(value) for name, value in values.items()}
            parents = np.arange(plan.lanes)
            if done < config.iterations:
                key_step, key_copies = jax.random.split(jax.random.fold_in(key_steps, done))
                chosen, values = step(key_step, jnp.asarray(scores), values)
                parents = np.asarray(chosen)
                if state is not None:
                    state = take_lanes(state, parents, mesh, mesh)
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
    best = highest(history[-1].scores)
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
) -> None:
    """Raises ConfigError for invalid arguments of `population_based_training`."""
    if len(points) < 2 or not 0 < fraction <= 0.5:
        raise ConfigError("a population needs at least two members, and a fraction of at most 0.5")
    names = sorted(points[0])
    if static := set(names) - traced_fields(config):
        raise ConfigError(
            f"{static.pop()} cannot vary within a program: leave it out of the search"
        )
    if unbounded := set(names) - (low.keys() & high.keys()):
        raise ConfigError(f"{unbounded.pop()} needs a bound in low and in high")
    for name in names:
        if not all(low[name] <= point[name] <= high[name] for point in points):
            raise ConfigError(
                f"{name} is bounded by {low[name]} and {high[name]}, but points lie outside"
            )
    for bound in (low, high):
        validate(config.replace(**{name: bound[name] for name in names}))


def _config_lanes(config: Config, values: dict[str, jax.Array], plan: Plan, mesh: Mesh) -> Config:
    """A configuration with one value per lane, padded for the devices."""
    padding = (0, padded(plan.lanes, mesh) - plan.lanes)
    lanes = {}
    for name, value in values.items():
        dtype = np.asarray(plan.variants[name]).dtype
        lanes[name] = np.pad(np.asarray(value), padding, mode="edge").astype(dtype)
    return config.replace(**lanes)


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
    out: Path | str | None = None,
) -> Point | None:
    """Run an Optuna study (extra `optuna`), with batches of trials trained together.

        study = optuna.create_study(direction="maximize")
        suggest = lambda trial: {"tau": trial.suggest_float("tau", 1e-3, 1e-1, log=True)}
        best = search.optuna_search(config, study, suggest, batch=16, rounds=4)

    Args:
        study: an `optuna.Study` that maximises; to be reproducible, its sampler needs a seed.
        suggest: `optuna.Trial` -> point.
        batch: trials per round, trained together.
        rounds: number of batches.
        seeds: per point; its score is the IQM over seeds of mean greedy returns.
        seed: root of all random numbers of training.
        episodes: greedy evaluation episodes per seed.
        devices: number of devices that lanes are distributed over; None for all.
        out: directory of `table.csv` and of the runs that train the batches, with which the same
            call continues, if the study is new and its sampler has the same seed; None to write
            nothing.

    Returns:
        the point with the highest score; None if every point diverged.

    Raises:
        ConfigError: Optuna is not installed, the study does not maximise, no time limit is known,
            or a point is invalid.
    """
    try:
        from optuna.trial import FixedTrial, TrialState
    except ImportError:
        raise ConfigError("Optuna is not installed: install purejaxrl_sac[optuna]") from None
    if study.direction.name != "MAXIMIZE":
        raise ConfigError("the study minimises: create it with direction='maximize'")
    if not plans.has_time_limit(config):
        raise ConfigError(f"a search needs a time limit, which {config.env} does not have")
    planned = {"seeds": seeds, "seed": seed, "episodes": episodes}
    rows: list[dict[str, Any]] = []
    with journal.opened(out, "Optuna", config, {**planned, "batch": batch}):
        for round_ in range(rounds):
            trials = [study.ask() for _ in range(batch)]
            suggested = [suggest(trial) for trial in trials]
            points = check_points(config, suggested)
            scores: dict[str, float] = {}
            for i, static in enumerate(dict.fromkeys(static_values(config, x) for x in points)):
                group = [point for point in points if static_values(config, point) == static]
                path = None if out is None else Path(out) / "rounds" / f"{round_:05d}-{i:05d}"
                trained = _train(config, group, planned, devices, path)
                for point, row in zip(group, trained, strict=True):
                    scores[str(point)] = math.nan if np.isnan(row).any() else float(iqm(row))
            for trial, point in zip(trials, suggested, strict=True):
                typed = check_points(config, [point])[0]
                score = scores[str(typed)]
                rows.append({"trial": trial.number, **typed, "score": score})
                if math.isnan(score):
                    study.tell(trial, state=TrialState.FAIL)
                else:
                    study.tell(trial, score)
            if out is not None:
                files.write_csv(Path(out) / "table.csv", rows)
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        return None
    return check_points(config, [suggest(FixedTrial(study.best_params))])[0]


def _train(
    config: Config,
    points: list[Point],
    planned: dict[str, int],
    devices: int | None,
    path: Path | None,
) -> np.ndarray:
    """Mean greedy returns of points of one program, [points, seeds]; nan where a seed diverged.

    Args:
        path: directory of the run that trains them, which continues if it exists; None for none.

    Raises:
        ConfigError: they do not fit into memory, or the run has other points.
    """
    config, values = at(config, points[0]), variants(config, points)
    if path is not None:
        run = batches.Batch(config, values, {**planned, "chunks": 20}, path)
        if (path / "config.json").exists():
            written = RunDirectory(path).read_document()["variants"]
            if written != json.loads(json.dumps(values)):
                raise ConfigError(
                    f"{path} has other points than the study suggests: create the study with the"
                    " same seed, or give another directory"
                )
        batches.train_batch(run, devices=devices)
        return sweep_results.lane_scores(path).reshape(len(points), -1)
    plan = plans.plan(parameters.fixed(config), chunks=1, variants=values, **planned)
    resources.check_state(plan, mesh_for(plan.lanes, devices))
    result = engine.train_seeds(plan, devices=devices)
    assert result.evaluation is not None  # there is a time limit
    returns = np.where(result.history[-1].failed, np.nan, result.evaluation.mean(1))
    return returns.reshape(len(points), -1)

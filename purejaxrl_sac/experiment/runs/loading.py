"""A run read back from its directory."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from purejaxrl_sac.config import Config, ConfigError, whole_number
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.evaluate import PolicyFactory
from purejaxrl_sac.evaluate import policy as greedy_policy
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.errors import DamagedError, RunWarning, one_line
from purejaxrl_sac.experiment.runs import engine, plans, record
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoints, join_state, split_state
from purejaxrl_sac.experiment.runs.directory import RunDirectory, Summary
from purejaxrl_sac.experiment.runs.display import with_interval
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.train import seed_state
from purejaxrl_sac.types import Curriculum, TrainState, Wrapper

if TYPE_CHECKING:
    import pandas


class Run(NamedTuple):
    """A run as `load` reads it."""

    path: Path
    plan: Plan
    steps: int  # environment steps of each seed in `state`
    state: TrainState  # leading axis [lanes], clock unbatched; env and memory are () unless whole
    metrics: dict[str, np.ndarray]  # steps and seconds [chunks], all others [chunks, lanes]
    summary: Summary | None  # summary.json; None before the run has finished

    def __repr__(self) -> str:
        """What was trained and how well, without the arrays."""
        lanes = f"{self.plan.seeds} seed{'s' * (self.plan.seeds > 1)}"
        if self.plan.variants:
            lanes = f"{self.plan.lanes // self.plan.seeds} variants x {lanes}"
        parts = [plans.title(self.plan.config), lanes, f"{self.steps:,} steps"]
        if self.summary and self.summary["steps"] == self.steps and not self.plan.variants:
            greedy = np.array(self.summary["greedy_returns"] or [], float)
            if np.isfinite(greedy).any():
                parts.append(f"greedy return {with_interval(greedy)}")
        return one_line(f"<Run {self.path}: {', '.join(parts)}>")

    @property
    def config(self) -> Config:
        """The configuration, without variants."""
        return parameters.free(self.plan.config)

    def seed_config(self, seed: int = 0) -> Config:
        """The configuration of one seed, with the values of its variant.

        Raises:
            ConfigError: the seed does not exist.
        """
        seed = whole_number("seed", seed, at_least=0)
        if seed >= self.plan.lanes:
            raise ConfigError(f"there is no seed {seed}: the run has 0 to {self.plan.lanes - 1}")
        return parameters.free(self.plan.lane_config(seed))

    @property
    def failed(self) -> np.ndarray:
        """[lanes] bool: whether a metric has been nan or infinite up to the steps of `state`."""
        failed_step = self.metrics.get("failed_step", np.full((0, self.plan.lanes), -1))
        known = failed_step[self.metrics["steps"] <= self.steps]
        return np.any(known >= 0, axis=0)

    @property
    def greedy_returns(self) -> np.ndarray:
        """[lanes] the mean greedy return of each seed at the end; nan for seeds that diverged.

        Raises:
            ConfigError: the run has not finished, or its environment has no time limit.
        """
        if self.summary is None or self.summary["steps"] != self.steps:
            raise ConfigError(f"{self.path} has not finished, so it has no greedy returns yet")
        if self.summary["greedy_returns"] is None:
            raise ConfigError(f"{self.path} has no greedy returns: episodes have no time limit")
        return np.array(self.summary["greedy_returns"], float)

    def seed_state(self, seed: int = 0) -> TrainState:
        """The state of one seed.

        Raises:
            ConfigError: the seed does not exist.
        """
        return seed_state(self.state, seed)

    def policy(self, seed: int = 0) -> Callable[..., Any]:
        """The greedy policy of one seed, compiled: (key, obs [N, ...]) -> actions [N, ...]."""
        state = self.seed_state(seed)
        return jax.jit(greedy_policy(self.plan.lane_config(seed), state))

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int = 0,
        policy: PolicyFactory = greedy_policy,
        devices: int | None = None,
        env_params: Any = None,
    ) -> np.ndarray:
        """Returns of new episodes, [lanes, episodes]; nan for seeds that have diverged.

        Args:
            env_params: other parameters of the environment than those trained with, or a
                dictionary of some of them, such as {"length": 1.0}.
            seed: determines start states and noise.
            policy: `evaluate.policy` (the default) or `evaluate.exploring_policy`, or your own.
            devices: the maximum number of devices; None for all available ones.

        Raises:
            ConfigError: the environment has no time limit, or memory is insufficient.
        """
        episodes = whole_number("episodes", episodes, at_least=1)
        key = plans.streams(plans.key_from_seed(seed)).new_episodes
        keys = jax.random.split(key, self.plan.lanes)
        mesh = mesh_for(self.plan.lanes, devices)
        plan = self.plan
        if env_params is not None:
            config = self.config
            if isinstance(env_params, dict):
                env_params = parameters.changed(config.env, env_params, config.env_params)
            config = config.replace(env_params=env_params)
            plan = plan._replace(config=parameters.fixed(config))
        resources.check_evaluation(plan, mesh, episodes)
        returns = engine.evaluate_lanes(
            keys, plan, self.state, episodes, policy=policy, mesh=mesh,
            compile=partial(resources.compile_evaluation, mesh=mesh),
        )  # fmt: skip
        return np.where(self.failed[:, None], np.nan, returns)

    def frame(self) -> pandas.DataFrame:
        """The metrics as a pandas table, one row per chunk and seed."""
        import pandas

        steps, seconds = self.metrics["steps"], self.metrics["seconds"]
        columns = {
            "steps": np.repeat(steps, self.plan.lanes),
            "seed": np.tile(np.arange(self.plan.lanes), len(steps)),
            "seconds": np.repeat(seconds, self.plan.lanes),
        }
        columns |= {name: x.ravel() for name, x in self.metrics.items() if name not in columns}
        return pandas.DataFrame(columns)


def load(
    path: Path | str,
    *,
    config: Config | None = None,
    algorithm: Any = None,
    env: Any = None,
    wrappers: Sequence[Wrapper | str] | None = None,
    curriculum: Curriculum | str | None = None,
    trust: bool = False,
    best: bool = False,
    whole: bool = False,
) -> Run:
    """Reads a run, which may still be training.

    Files cannot store code. A run with an algorithm, wrapper, environment or curriculum of one's
    own needs it again: given as it is, or imported from where it was when the run was created, if
    `trust` says so. It must be the same as before. Nothing else is ever imported from a run.

    Args:
        config: the run's configuration, instead of the following.
        algorithm: the algorithm, its class of configurations, or a reference ("fork.py:name").
        env: the environment, or a reference.
        wrappers: all wrappers, the innermost first; or references of those of one's own only.
        curriculum: the curriculum, or a reference.
        trust: whether to import the modules and files that the run names.
        best: read the policies that scored best in an evaluation, not the newest checkpoint.
        whole: restore environments and replay memory too, so that `train.run` can continue; the
            best policies are without them.

    Raises:
        ConfigError: not a run, it has no checkpoint yet, or both `best` and `whole` are wanted.
    """
    if best and whole:
        raise ConfigError(
            "the best policies are saved without environments and memory: give best or whole"
        )
    directory = RunDirectory.find(Path(path))
    plan = directory.read_plan(record.Given(config, algorithm, env, wrappers, curriculum, trust))
    like = split_state(engine.shapes(plan))
    if not whole:
        del like["rest"]
    where = directory.best if best else directory.checkpoints
    damaged: dict[int, DamagedError] = {}
    for _ in range(3):  # a run in progress may delete a checkpoint while it is read
        with contextlib.closing(Checkpoints(where)) as checkpoints:
            if found := checkpoints.newest(damaged.__setitem__, plan.lanes, **like):
                break
    if found is None:
        if best and not plan.eval_every:
            raise ConfigError(f"{path} has no best checkpoint: it was trained without --eval-every")
        if not damaged and directory.is_running():
            raise ConfigError(f"{path} is training and has no checkpoint yet: try again later")
        advice = "load the newest one" if best else way_out(directory, damaged)
        raise ConfigError(f"{where} has no intact checkpoint: {advice}")
    steps, parts = found
    if any(later > steps for later in damaged):
        text = f"{path}: the newest checkpoint is damaged, this is step {steps:,}"
        warnings.warn(RunWarning(text), stacklevel=2)
    summary = directory.read_summary()
    state = join_state(**parts) if "rest" in parts else parts["policy"]
    return Run(directory.path, plan, steps, state, directory.columns(), summary)


def way_out(directory: RunDirectory, damaged: Collection[int]) -> str:
    """What to do where no checkpoint can be read."""
    obstacles = [directory.checkpoints] * bool(damaged)
    obstacles += [directory.summary] * directory.summary.exists()
    move = f"move {' and '.join(map(str, obstacles))} away, then " if obstacles else ""
    return f"to train it from the start, {move}run purejaxrl-sac resume {directory.path}"

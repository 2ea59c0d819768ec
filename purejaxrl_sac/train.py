"""The training loop: collect a rollout, add it to the memory, update the agent G times.

`train` is `init` and then `run`. All three are pure functions, to be jitted and vmapped by the
caller; `run(2n)` equals `run(n)` twice, on a CPU bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac import curriculum, envs, exploration
from purejaxrl_sac.checks import (
    check_environments,
    check_key,
    check_metrics,
    check_shapes,
    check_state,
    check_train_state,
    checked_agent,
)
from purejaxrl_sac.clock import batched, unbatched
from purejaxrl_sac.config import (
    Config,
    ConfigError,
    in_32_bits,
    kind_of,
    validate,
    whole_number,
)
from purejaxrl_sac.kernels.draws import one_draw
from purejaxrl_sac.kernels.packing import packed_scan
from purejaxrl_sac.memory.fixed import check_fixed, fixed_memory
from purejaxrl_sac.part_errors import TAKES, errors_of_parts, name_of_function, running
from purejaxrl_sac.types import (
    Agent,
    Env,
    EnvState,
    Memory,
    Metrics,
    PyTree,
    TrainState,
    Transition,
)

TOTALS = ("episodes", "returns", "lengths")  # metrics that are sums; all others are means


def build(config: Config) -> tuple[Env, Agent, Memory]:
    """Builds the environment, agent and memory of a configuration, after checking it.

    Raises:
        ConfigError: the configuration cannot run, or its algorithm, a part or a wrapper fails.
    """
    validate(config)
    config = in_32_bits(config)
    name = config.env if isinstance(config.env, str) else type(config.env).__name__
    what = f"the environment {name}"
    with errors_of_parts(config, "while it is bound", "it needs gymnax's interface", what):
        env = envs.bind(config.env, config.env_params)
    with errors_of_parts(config, "while it is built", TAKES):
        built: Any = config.algorithm(config, env)
    if not (isinstance(built, tuple) and len(built) == 2):
        raise ConfigError(
            f"the algorithm returned {kind_of(built)}, but must return (Agent, Memory)"
        )
    agent, memory = built
    if config.dataset is not None:
        with errors_of_parts(config, "while it is built", "a dataset is set by `offline`"):
            memory = fixed_memory(config, env)
    for wrap in config.wrappers:
        what = f"the wrapper {name_of_function(wrap)}"
        with errors_of_parts(config, "while it is built", TAKES, what):
            agent = wrap(config, env, agent)
        if not isinstance(agent, Agent):
            raise ConfigError(f"a wrapper returned {kind_of(agent)}, but must return an Agent")
    curriculum.check(config, env)
    return env, checked_agent(config, env, agent), memory


def init(key: jax.Array, config: Config) -> TrainState:
    """Initialises a run, and fills its memory with the uniformly random actions of the warm-up.

    Args:
        key: PRNG key of this seed; it determines parameters, environments and all that follows.
        config: any algorithm's configuration.

    Raises:
        ConfigError: the configuration cannot run, a part of the algorithm fails, or `key` is not
            one typed key.
    """
    check_key(key)
    env, agent, memory = build(config)
    with errors_of_parts(config, *running(env)):
        initial_carry = agent.init_carry(config.num_envs)
    shape = (config.warmup_iterations, config.rollout_length, 2)  # keys of actors, of environments

    step = jnp.int32(0)

    def start(key: jax.Array) -> tuple[jax.Array, jax.Array, EnvState, PyTree]:
        key, key_env, key_agent, key_warmup = jax.random.split(key, 4)
        env_state = curriculum.at(config, env, step).reset(key_env, config.num_envs)
        env_state = env_state._replace(carry=initial_carry)
        agent_state = agent.init(key_agent, env_state.obs)
        return key, jax.random.split(key_warmup, shape), env_state, agent_state

    with errors_of_parts(config, *running(env)):
        # `one_draw(f)` can be read as `f`: its random numbers have the same distributions
        key, keys, env_state, agent_state = one_draw(start)(key)

    def random_action(
        key: jax.Array, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        # the agent's action is not used: its extras have the right shapes, its carry is up to date
        # unless it depends on the action, see `Agent`
        _, extras, carry = agent.act(key, agent_state, obs, step, carry)
        return one_draw(partial(exploration.random_action, env))(key, obs), extras, carry

    def collect(
        keys: jax.Array, env_state: EnvState, step: jax.Array
    ) -> tuple[EnvState, tuple[Transition, Metrics]]:
        stepped = curriculum.at(config, env, step)

        @one_draw
        def env_step(
            key: jax.Array, env_state: EnvState, action: jax.Array
        ) -> tuple[EnvState, Transition, Metrics]:
            return stepped.step(jax.random.split(key, config.num_envs), env_state, action)

        def step_all(keys: jax.Array, *args: Any) -> tuple[EnvState, Transition, Metrics]:
            return env_step(keys[0], *args)

        one = stepped._replace(step=step_all)
        return envs.rollout(one, keys, env_state, step, random_action, initial_carry)

    spec = jax.ShapeDtypeStruct(shape[1:], key.dtype)
    with errors_of_parts(config, *running(env)):
        _, (rollout, _) = jax.eval_shape(collect, spec, env_state, step)
        _, stored = jax.eval_shape(agent.process_rollout, agent_state, rollout)
        memory_state = memory.init(stored)
    state = TrainState(key, step, env_state, agent_state, memory_state)

    def warm_up(state: TrainState, keys: jax.Array) -> tuple[TrainState, None]:
        collected = collect(keys, state.env, state.step)
        return _add(agent, memory, config, state, collected)[0], None

    if jax.config.values["jax_disable_jit"] and not config.warmup_iterations:
        return state  # without jit, a scan needs at least one iteration
    with errors_of_parts(config, *running(env)):
        return jax.lax.scan(warm_up, state, _repeat_noise(keys, config.noise_repeat))[0]


def run(state: TrainState, config: Config, iterations: int) -> tuple[TrainState, Metrics]:
    """Continues a run for `iterations` (a static number) iterations.

    Args:
        state: one seed's state; vmap for many, see `seed_axes`.
        config: that of the state, or with other traced fields, total_steps or num_updates. With
            another rollout_length, the clock may not be a multiple of it: a replay memory then
            writes rollouts to the wrong rows, so that n-step returns and sequences are wrong.

    Returns:
        the new state, and metrics with leading axis [iterations]: `episodes` that ended in the
        iteration, the sums of their undiscounted `returns` and of their `lengths`, and the
        agent's own metrics, averaged over the iteration's updates. Metrics of an actor that is
        updated once in `policy_delay` updates are correct in averages over a multiple of that many
        updates, see `optimize.delayed_update`.

    Raises:
        ConfigError: the configuration cannot run, or a part of the algorithm fails; the state is of
            several seeds or of another configuration; or `iterations` is not a static whole number.
    """
    iterations = whole_number("iterations", iterations, at_least=0)
    env, agent, memory = build(config)
    check_state(config, env, agent, state)
    check_environments(config, env, state)
    if config.dataset is not None:
        check_fixed(config)
    initial_carry = agent.init_carry(config.num_envs)

    def iteration(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        key, key_draw, keys_learn, keys_collect = _keys(state.key, config)
        done = state.step // config.rollout_length - config.warmup_iterations

        def act(
            key: jax.Array, obs: jax.Array, step: jax.Array, carry: PyTree
        ) -> tuple[jax.Array, PyTree, PyTree]:
            return agent.act(key, state.agent, obs, step, carry)

        state = state._replace(key=key)
        if config.dataset is None:
            stepped = curriculum.at(config, env, state.step)
            collected = envs.rollout(
                stepped, keys_collect, state.env, state.step, act, initial_carry
            )
            state, episodes = _add(agent, memory, config, state, collected)
        else:
            state, episodes = _without_rollout(config, state)

        @jax.named_scope("update")
        def learn(
            carry: tuple[PyTree, PyTree], xs: tuple[jax.Array, jax.Array, PyTree]
        ) -> tuple[tuple[PyTree, PyTree], Metrics]:
            agent_state, memory_state = carry
            key, count, draw = xs
            sample = memory.sample(memory_state, draw)
            agent_state, priority, metrics = agent.update(key, agent_state, sample, count)
            check_metrics(metrics)
            return (agent_state, memory.update_priorities(memory_state, sample, priority)), metrics

        counts = done * config.num_updates + jnp.arange(config.num_updates)
        draws = memory.draw(key_draw, state.memory, state.step, config.num_updates)
        (agent_state, memory_state), metrics = packed_scan(
            learn, (state.agent, state.memory), (keys_learn, counts, draws)
        )
        metrics = jax.tree.map(lambda x: x.mean(0), metrics)
        return state._replace(agent=agent_state, memory=memory_state), {**episodes, **metrics}

    state = batched(state)._replace(step=unbatched(state.step))
    with errors_of_parts(config, *running(env)):
        return packed_scan(iteration, state, length=iterations)


def train(key: jax.Array, config: Config, every: int = 1) -> tuple[TrainState, Metrics]:
    """A complete run: `init`, then `run` for as many iterations as `total_steps` allows.

    Args:
        every: a static number of iterations that metrics are reduced over as they are computed,
            because those of every iteration may take more memory than all else: `TOTALS` are
            summed, all others averaged. The last group may have fewer iterations.

    Returns:
        the final state, which does not depend on `every`, and metrics with leading axis
        [iterations / every], rounded up; see `run`.

    Raises:
        ConfigError: as for `init`, or `every` is not a whole number from 1 on.
    """
    every = whole_number("every", every, at_least=1)
    if every == 1:
        return run(init(key, config), config, config.iterations)
    groups, rest = divmod(config.iterations, every)

    def group(state: TrainState, length: int) -> tuple[TrainState, Metrics]:
        state, metrics = run(state, config, length)
        return state, {k: x.sum(0) if k in TOTALS else x.mean(0) for k, x in metrics.items()}

    state = init(key, config)
    if not groups:  # without jit, a scan needs at least one iteration
        state, last = group(state, rest)
        return state, jax.tree.map(lambda x: x[None], last)
    state, metrics = jax.lax.scan(lambda state, _: group(state, every), state, length=groups)
    if rest:
        state, last = group(state, rest)
        metrics = jax.tree.map(lambda x, y: jnp.append(x, y[None], 0), metrics, last)
    return state, metrics


def make_train(config: Config, every: int = 1) -> Callable[[jax.Array], tuple[TrainState, Metrics]]:
    """`train` as a function of the key: `jax.jit(jax.vmap(make_train(config)))(keys)`.

    Args:
        every: as for `train`.

    Raises:
        ConfigError: the configuration cannot run.
    """
    build(config)
    return partial(train, config=config, every=every)


def train_with_eval(
    key: jax.Array, config: Config, measure: Callable[[TrainState], PyTree], points: int
) -> tuple[jax.Array, PyTree]:
    """A complete run with measurements of its state at equal intervals, for learning curves.

        steps, errors = jax.jit(
            jax.vmap(
                partial(train_with_eval, config=config, measure=error, points=20),
                out_axes=(None, 0),
            )
        )(keys)

    Args:
        key: as for `init`.
        measure: a function of the state, evaluated after `init` and after each of `points` equal
            parts of the run; the remaining iterations at the end are not run.
        points: a static number.

    Returns:
        environment steps so far, over all parallel environments and with the warm-up,
        [points + 1] int32, and the measurements, with leading axis [points + 1].

    Raises:
        ConfigError: the configuration cannot run, has fewer iterations than points, or more
            environment steps than an int32 can count; or `points` is not a static whole number > 0.
    """
    points = whole_number("points", points, at_least=1)
    if config.total_steps >= 2**31:
        raise ConfigError(
            f"total_steps is {config.total_steps}, but train_with_eval counts up to 2**31 - 1: use"
            " experiment.run with eval_every"
        )
    length = config.iterations // points
    if length < 1:
        raise ConfigError(
            f"points is {points}, but the run has only {config.iterations} iterations: lower points"
        )

    def advance(state: TrainState, _: None) -> tuple[TrainState, PyTree]:
        after = run(state, config, length)[0]
        return after, measure(after)

    state = init(key, config)
    first = jax.tree.map(jnp.asarray, measure(state))
    _, measured = jax.lax.scan(advance, state, length=points)
    measured = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, measured)
    iterations = config.warmup_iterations + length * jnp.arange(points + 1)
    return iterations * config.steps_per_iteration, measured


def seed_axes(state: TrainState) -> TrainState:
    """The in/out axes for vmapping over seeds; the clock is unbatched where it is a scalar.

        axes = seed_axes(jax.eval_shape(init, key, config))
        states = jax.vmap(init, (0, None), out_axes=axes)(keys, config)
        states, metrics = jax.vmap(run, (axes, None, None), (axes, 0))(states, config, n)

    A state returned by a plain `vmap` has one copy of the clock per seed, and the axis of its
    `step` is 0; `run` uses one of these equal copies.
    """
    check_train_state(state)
    axis: Any = 0  # axes take the places of arrays
    step: Any = axis if jnp.ndim(state.step) else None
    return TrainState(key=axis, step=step, env=axis, agent=axis, memory=axis)


def seed_state(state: TrainState, seed: int) -> TrainState:
    """The state of one seed of a vmapped run; the seed may be traced, and is not checked then.

    Raises:
        ConfigError: it is no state, is of one seed already, or has no such seed.
    """
    check_train_state(state)
    if not (shape := jnp.shape(state.key)):
        raise ConfigError("state is of one seed already: seed_state takes that of a vmapped run")
    if not isinstance(seed, jax.core.Tracer):  # which has no value yet
        seed = whole_number("seed", seed, at_least=0)
        if seed >= shape[0]:
            raise ConfigError(f"there is no seed {seed}: the state has 0 to {shape[0] - 1}")
    step = state.step if jnp.ndim(state.step) == 0 else state.step[seed]
    parts = (state.key, state.env, state.agent, state.memory)
    key, env, agent, memory = _select(parts, seed)
    return TrainState(key, step, env, agent, memory)


@jax.jit  # one program instead of one for each shape
def _select(tree: PyTree, index: int) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _keys(key: jax.Array, config: Config) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Keys of the next iteration, the memory's draws, the updates [G] and the rollout [T, 1 + N].

    From one call, because each call is a considerable part of the cost of a small iteration.
    """
    shape = (config.rollout_length, 1 + config.num_envs)
    keys = jax.random.split(key, 2 + config.num_updates + math.prod(shape))
    learn, collect = keys[2 : 2 + config.num_updates], keys[2 + config.num_updates :]
    return keys[0], keys[1], learn, _repeat_noise(collect.reshape(shape), config.noise_repeat)


def _repeat_noise(keys: jax.Array, noise_repeat: int) -> jax.Array:
    """Keys [..., T, 1 + N] whose first one, the actor's, is repeated for `noise_repeat` steps.

    Exploration noise is then correlated in time, while the distribution of single actions is
    unchanged (Raffin et al. 2022, arXiv 2005.05719, where the noise depends on states too). For
    epsilon-greedy, see `exploration.sample_temporally_extended`.
    """
    if noise_repeat == 1:
        return keys
    actor = jnp.repeat(keys[..., ::noise_repeat, 0], noise_repeat, axis=-1)
    return keys.at[..., 0].set(actor)


def _without_rollout(config: Config, state: TrainState) -> tuple[TrainState, Metrics]:
    """Advances the clock only; no episode ends."""
    step = state.step + config.rollout_length
    zeros = {"episodes": jnp.int32(0), "returns": jnp.float32(0), "lengths": jnp.int32(0)}
    return state._replace(step=step), zeros


def _add(
    agent: Agent,
    memory: Memory,
    config: Config,
    state: TrainState,
    collected: tuple[EnvState, tuple[Transition, Metrics]],
) -> tuple[TrainState, Metrics]:
    """Adds a rollout to the memory; also sums its episode statistics."""
    env_state, (rollout, episodes) = collected
    agent_state, rollout = agent.process_rollout(state.agent, rollout)
    check_shapes("memory", state.memory, jax.eval_shape(memory.init, rollout))
    state = state._replace(
        step=state.step + config.rollout_length,
        env=env_state,
        agent=agent_state,
        memory=memory.add(state.memory, state.step, rollout),
    )
    return state, jax.tree.map(jnp.sum, episodes)

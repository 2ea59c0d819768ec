"""The one loop: collect a rollout, remember it, learn from what is remembered, G times.

`train` is `run` after `init`. All three are pure functions, to be jitted and vmapped by the
caller; `run(2n)` equals `run(n)` twice, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from purejaxrl_sac import envs
from purejaxrl_sac.clock import batched, unbatched
from purejaxrl_sac.config import Config, ConfigError, validate
from purejaxrl_sac.kernels.packing import packed_scan
from purejaxrl_sac.types import Agent, Memory, PyTree, TrainState


def build(config: Config) -> tuple[envs.Env, Agent, Memory]:
    """The environment, agent and memory of a configuration, after checking it.

    Raises:
        ConfigError: the configuration cannot run.
    """
    validate(config)
    env = envs.bind(config.env, config.env_params)
    try:
        agent, memory = config.algorithm(config)
        for wrap in config.wrappers:
            agent = wrap(config, env, agent)
        return env, agent, memory
    except AttributeError as error:
        if error.obj is not config:
            raise
        raise ConfigError(
            f"the algorithm needs a field {error.name}, which a {type(config).__name__} does not"
            " have: derive your configuration from the class that has it"
        ) from None


def init(key: jax.Array, config: Config) -> TrainState:
    """Builds a run and fills its memory with the warm-up's uniformly random actions.

    Args:
        key: PRNG key of this seed; it decides parameters, environments and everything after.
        config: any algorithm's configuration.

    Raises:
        ConfigError: the configuration cannot run.
    """
    env, agent, memory = build(config)
    key, key_env, key_agent, key_warmup = jax.random.split(key, 4)
    env_state = env.reset(key_env, config.num_envs)
    agent_state = agent.init(key_agent, env_state.obs)

    def random_action(
        key: jax.Array, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        key_act, key_action = jax.random.split(key)
        _, extras = agent.act(key_act, agent_state, obs, step)  # for its shape: nobody reads it
        return env.random_action(key_action, config.num_envs), extras, carry

    collect = partial(envs.rollout, env, actor=random_action)
    block = (config.rollout_length, 1 + config.num_envs)
    keys = _held(
        jax.random.split(key_warmup, (config.warmup_iterations, *block)), config.noise_repeat
    )
    step = jnp.int32(0)
    spec = jax.ShapeDtypeStruct(block, key.dtype)
    _, (rollout, _) = jax.eval_shape(collect, spec, env_state, step)
    _, remembered = jax.eval_shape(agent.process_rollout, agent_state, rollout)
    state = TrainState(key, step, env_state, agent_state, memory.init(remembered))

    def warm_up(state: TrainState, keys: jax.Array) -> tuple[TrainState, None]:
        collected = collect(keys, state.env, state.step)
        return _remember(agent, memory, config, state, collected)[0], None

    return jax.lax.scan(warm_up, state, keys)[0]


def run(state: TrainState, config: Config, iterations: int) -> tuple[TrainState, dict]:
    """Continues a run for `iterations` (a static number) iterations.

    Returns:
        the new state, and metrics with leading axis [iterations]: `episodes` that ended in the
        iteration, the sums of their undiscounted `returns` and of their `lengths`, and the
        agent's own metrics, averaged over the iteration's updates. Those of an actor that moves
        in every `policy_delay`-th update alone are meant for averages over that many updates, see
        `optimize.every`.
    """
    env, agent, memory = build(config)

    def iteration(state: TrainState, _: None) -> tuple[TrainState, dict]:
        key, key_draw, keys_learn, keys_collect = _keys(state.key, config)
        done = state.step // config.rollout_length - config.warmup_iterations

        def act(
            key: jax.Array, obs: jax.Array, step: jax.Array, carry: PyTree
        ) -> tuple[jax.Array, PyTree, PyTree]:
            return *agent.act(key, state.agent, obs, step), carry

        collected = envs.rollout(env, keys_collect, state.env, state.step, act)
        state, episodes = _remember(agent, memory, config, state._replace(key=key), collected)

        @jax.named_scope("update")
        def learn(carry: tuple, xs: tuple) -> tuple[tuple, dict]:
            agent_state, memory_state = carry
            key, count, draw = xs
            sample = memory.sample(memory_state, draw)
            agent_state, priority, metrics = agent.update(key, agent_state, sample, count)
            return (agent_state, memory.update_priorities(memory_state, sample, priority)), metrics

        counts = done * config.num_updates + jnp.arange(config.num_updates)
        draws = memory.draw(key_draw, state.memory, state.step, config.num_updates)
        (agent_state, memory_state), metrics = packed_scan(
            learn, (state.agent, state.memory), (keys_learn, counts, draws)
        )
        metrics = jax.tree.map(lambda x: x.mean(0), metrics)
        return state._replace(agent=agent_state, memory=memory_state), {**episodes, **metrics}

    state = batched(state)._replace(step=unbatched(state.step))
    return packed_scan(iteration, state, length=iterations)


def train(key: jax.Array, config: Config) -> tuple[TrainState, dict]:
    """A whole run: `init`, then `run` for as many iterations as `total_steps` allows."""
    return run(init(key, config), config, config.iterations)


def make_train(config: Config) -> Callable[[jax.Array], tuple[TrainState, dict]]:
    """`train` as a function of the key alone: `jax.jit(jax.vmap(make_train(config)))(keys)`.

    Raises:
        ConfigError: the configuration cannot run.
    """
    build(config)
    return partial(train, config=config)


def train_with_eval(
    key: jax.Array, config: Config, measure: Callable[[TrainState], PyTree], points: int
) -> tuple[jax.Array, PyTree]:
    """A whole run, looked at on its way: for curves of what only the state can tell.

        steps, errors = jax.jit(jax.vmap(partial(watch, config=config, measure=error, points=20),
                                         out_axes=(None, 0)))(keys)

    Args:
        key: as for `init`.
        measure: of the state, at the beginning and after each of `points` equal shares of the
            run; what iterations are left over at the end are not run.
        points: a number known at compile time.

    Returns:
        environment steps taken so far, over all parallel environments and with the warm-up,
        [points + 1] int32, and what was measured then, with leading axis [points + 1].

    Raises:
        ConfigError: the configuration cannot run, or has fewer iterations than points.
    """
    share = config.iterations // points
    if share < 1:
        raise ConfigError(f"{config.iterations} iterations have no {points} points: lower points")

    def go_on(state: TrainState, _: None) -> tuple[TrainState, PyTree]:
        state, _ = run(state, config, share)
        return state, measure(state)

    start = init(key, config)
    _, measured = jax.lax.scan(go_on, start, length=points)
    measured = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), measure(start), measured)
    return (
        config.warmup_iterations + share * jnp.arange(points + 1)
    ) * config.steps_per_iteration, measured


def seed_axes(state: TrainState) -> TrainState:
    """The in/out axes for vmapping over seeds, with the clock unbatched wherever it is a scalar.

        axes = seed_axes(jax.eval_shape(init, key, config))
        states = jax.vmap(init, (0, None), out_axes=axes)(keys, config)
        states, metrics = jax.vmap(run, (axes, None, None), (axes, 0))(states, config, n)

    A state that came out of a plain `vmap` has a copy of the clock per seed; its axes say so,
    and `run` takes the copies for the one clock they are.
    """
    return TrainState(key=0, step=0 if jnp.ndim(state.step) else None, env=0, agent=0, memory=0)


def seed_state(state: TrainState, seed: int) -> TrainState:
    """One seed's state out of a vmapped one."""
    picked = jax.tree.map(lambda x: x[seed], state._replace(step=None))
    return picked._replace(step=state.step if jnp.ndim(state.step) == 0 else state.step[seed])


def _keys(key: jax.Array, config: Config) -> tuple[jax.Array, ...]:
    """The keys of an iteration: the next one's, the draw's, the updates' [G], rollout's [T, 1 + N].

    Out of one call, because each call is a good part of what a small iteration costs.
    """
    block = (config.rollout_length, 1 + config.num_envs)
    keys = jax.random.split(key, 2 + config.num_updates + math.prod(block))
    learn, collect = keys[2 : 2 + config.num_updates], keys[2 + config.num_updates :]
    return keys[0], keys[1], learn, _held(collect.reshape(block), config.noise_repeat)


def _held(keys: jax.Array, noise_repeat: int) -> jax.Array:
    """Keys [..., T, 1 + N], of which the actor's, the first of each step, changes every `hold`.

    Noise that lasts moves what white noise only shakes; a single action is as likely as ever
    (Raffin et al. 2022, arXiv 2005.05719, where the noise depends on states too; Dabney et al.
    2021, arXiv 2006.01782, for epsilon-greedy).
    """
    if noise_repeat == 1:
        return keys
    return keys.at[..., 0].set(jnp.repeat(keys[..., ::noise_repeat, 0], noise_repeat, axis=-1))


def _remember(
    agent: Agent, memory: Memory, config: Config, state: TrainState, collected: tuple
) -> tuple[TrainState, dict]:
    env_state, (rollout, episodes) = collected
    agent_state, rollout = agent.process_rollout(state.agent, rollout)
    state = state._replace(
        step=state.step + config.rollout_length,
        env=env_state,
        agent=agent_state,
        memory=memory.add(state.memory, state.step, rollout),
    )
    return state, jax.tree.map(jnp.sum, episodes)

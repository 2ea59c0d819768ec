"""Running statistics: exact, updated once per iteration, and not applied to the memory."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import purejaxrl_sac as prl
from purejaxrl_sac import envs, normalize
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.runs.record import config_from_dict, config_to_dict
from purejaxrl_sac.train import build
from purejaxrl_sac.types import Sample, Transition, memoryless
from tests.conftest import built, compiled, init, quick, run, small
from tests.probes import CONTINUOUS, GAMMA, Params, Probe, replayed, trained

BOTH = (normalize.observations, normalize.rewards)
include = jax.jit(normalize.include)


def test_moments_are_those_of_all_values():
    values = np.float32(1e3 + 5 * np.random.default_rng(0).normal(size=(1_000, 3)))
    moments = normalize.no_moments((3,))
    np.testing.assert_array_equal(normalize.deviation(moments), 1)
    for part in np.split(values, (1, 10, 400)):
        moments = include(moments, part)
    exact = np.asarray(values, np.float64)
    np.testing.assert_allclose(moments.mean.value, exact.mean(0), rtol=1e-7)
    np.testing.assert_allclose(normalize.deviation(moments), exact.std(0), rtol=1e-6)
    assert moments.number.value == 1_000


@jax.jit
def _include_one_by_one(moments, values):
    return jax.lax.scan(lambda m, x: (normalize.include(m, x[None]), None), moments, values)[0]


def test_statistics_of_one_environment_follow_a_drifting_mean():
    """One value at a time: increments of the mean are far below its resolution in float32."""
    noise = np.random.default_rng(0).normal(size=(3, 1_000_000)).astype(np.float32)
    values = (noise + np.float32([[100], [101], [102]])).ravel()
    moments = _include_one_by_one(normalize.no_moments(()), values)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(moments.mean.value, exact.mean(), rtol=1e-6)
    np.testing.assert_allclose(normalize.deviation(moments), exact.std(), rtol=1e-4)


@pytest.mark.parametrize("block", (1, 1_000))
@pytest.mark.parametrize("number", (2**24, 10**9))
def test_statistics_of_long_runs_do_not_saturate(number, block):
    """Values of deviation 3 after `number` values of mean 0 and deviation 1."""
    count = np.float32(number)
    before = normalize.Moments(
        *(normalize.Total(x, np.float32(0)) for x in (count, 0 * count, count))
    )
    values = 3 * np.random.default_rng(1).normal(size=500_000).astype(np.float32)

    @jax.jit
    def include(moments, blocks):
        return jax.lax.scan(lambda m, x: (normalize.include(m, x), None), moments, blocks)[0]

    moments = include(before, values.reshape(-1, block))
    exact, total = values.astype(np.float64), number + len(values)
    mean = exact.sum() / total
    scatter = number + np.square(exact).sum() - total * mean**2
    number_seen = float(moments.number.value) + float(moments.number.error)
    assert number_seen == total
    np.testing.assert_allclose(moments.mean.value, mean, atol=1e-4 * 3)
    np.testing.assert_allclose(normalize.deviation(moments), np.sqrt(scatter / total), rtol=1e-5)


def test_nothing_is_clipped_before_there_are_statistics(key):
    config = small("dqn", wrappers=BOTH, warmup_steps=0)
    agent = built(config)[1]
    obs = jnp.full((3, 4), 300.0)
    state = agent.init(key, obs)
    plain = built(config.replace(wrappers=()))[1]
    np.testing.assert_array_equal(
        agent.q_values(state, obs), plain.q_values(state.agent.agent, obs)
    )


def test_the_limit_is_a_field(key):
    config = small("dqn", wrappers=(normalize.observations,), normalization_limit=2.0)
    agent, plain = built(config)[1], built(config.replace(wrappers=()))[1]
    state = agent.init(key, jnp.zeros((3, 4)))
    used = include(state.used, jax.random.normal(key, (100, 4)))
    far, limit = jnp.full((1, 4), 50.0), jnp.full((1, 4), 2.0)
    np.testing.assert_array_equal(
        agent.q_values(state._replace(used=used), far), plain.q_values(state.agent, limit)
    )


def test_a_nan_observation_is_reported(key):
    """The statistics are nan from the next iteration on, and so are the agent's losses."""
    config = small("ppo", wrappers=(normalize.observations,), warmup_steps=0)
    state = init(key, config)
    state = state._replace(env=state.env._replace(obs=state.env.obs.at[0, 0].set(jnp.nan)))
    _, metrics = run(state, config, 2)
    assert not np.isfinite(metrics["value_loss"][-1])


def test_rewards_of_n_steps_are_clipped_one_by_one(key):
    """Rewards 5, 5, 5 of deviation 1: their undiscounted sum is 15, above the limit of 10."""
    config = small("n_step_dqn", wrappers=(normalize.rewards,), gamma=1.0, n_step=3)
    rewards, seen = jnp.full((2, 3), 5.0).at[1, 2].set(50.0), []

    def inner(key, state, sample, count):
        seen.append(sample.transition.reward)
        return state, jnp.zeros(2), {}

    env, agent, _ = build(config.replace(wrappers=()))
    wrapped = normalize.rewards(config, env, agent._replace(update=inner))
    state = compiled(wrapped).init(key, jnp.zeros((3, 4)))
    unit = include(state.used, jnp.array([-1.0, 1.0]))
    zeros = jnp.zeros(2)
    batch = prl.Transition(zeros, zeros, rewards.sum(-1), zeros, zeros, zeros == 1)
    sample = prl.Sample(batch, zeros, rewards=rewards)
    wrapped.update(key, state._replace(used=unit), sample, jnp.int32(0))
    np.testing.assert_allclose(seen[0], [15, 20], rtol=1e-6)


def test_an_iteration_uses_the_statistics_of_earlier_ones(key):
    config = small("ppo", wrappers=(normalize.observations,), warmup_steps=0)
    state = init(key, config)
    assert state.agent.seen.number.value == 0
    for iteration in range(3):
        before = state.agent.seen
        state, _ = run(state, config, 1)
        assert state.agent.used.number.value == 12 * (iteration + 1)
        assert state.agent.seen.number.value == before.number.value + 12
        chex.assert_trees_all_equal(state.agent.used, state.agent.seen)


def test_the_scale_is_constant_within_an_iteration(key):
    """PPO's first ratio of an iteration is 1, although its rollout changes the statistics."""
    config = small("ppo", wrappers=BOTH, num_updates=1, learning_rate=0.1)
    state, metrics = run(init(key, config), config, 8)
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)


def test_statistics_take_effect_after_the_last_update_of_an_iteration():
    config = small("ppo", num_updates=3)
    inner = memoryless(*[lambda *_: ()] * 3, update=lambda key, state, *_: (state, 0, {}))
    agent = compiled(normalize.observations(config, envs.bind(config.env), inner))
    used = normalize.no_moments((4,))
    state = normalize.Normalized((), used, normalize.include(used, jnp.ones((12, 4))))
    empty = Transition(jnp.zeros((1, 4)), (), (), (), (), ())
    sample = Sample(empty, jnp.float32(1))
    numbers = []
    for count in range(5):
        after, *_ = agent.update(jax.random.key(0), state, sample, jnp.int32(count))
        numbers.append(int(after.used.number.value))
    assert numbers == [0, 0, 12, 0, 0]


def test_agents_get_normalised_and_memories_raw_observations(key):
    config = small("dqn", wrappers=BOTH, total_steps=1_200)
    seen = {}

    def spy(config, env, agent):
        def process_rollout(state, rollout):
            jax.debug.callback(lambda obs: seen.setdefault("obs", []).append(obs), rollout.obs)
            return agent.process_rollout(state, rollout)

        return agent._replace(process_rollout=process_rollout)

    spied = config.replace(wrappers=(spy, *BOTH))
    state, _ = jax.jit(prl.train)(key, spied)
    obs = np.concatenate([np.reshape(x, (-1, 4)) for x in seen["obs"][-20:]])
    assert (np.abs(obs) <= config.normalization_limit).all() and 0.3 < obs.std() < 3
    on_policy = hasattr(state.memory, "reward")
    held = state.memory if on_policy else replayed(spied, state)
    assert (np.asarray(held.reward) == 1).all()  # CartPole pays 1, unscaled


def test_rewards_are_divided_by_the_deviation_of_returns(key):
    env = Probe(lambda sign, time, action: 4.0, horizon=3)
    config = small("a2c", env=env, wrappers=(normalize.rewards,), gamma=0.5)
    state, _ = jax.jit(prl.train)(key, config)
    returns = np.array([4, 4 + 2, 4 + 2 + 1])  # of every episode
    scaled = state.agent.agent.seen if hasattr(state.agent.agent, "seen") else state.agent.seen
    count = int(scaled.number.value)
    expected = np.tile(returns, count)[: count // 3].std()  # 3 environments in lockstep
    np.testing.assert_allclose(normalize.deviation(scaled), expected, rtol=1e-4)


@pytest.mark.parametrize("algorithm", quick(("a2c", "dqn", "sac"), "dqn"))
def test_values_are_in_units_of_the_standard_deviation(algorithm):
    """A constant reward of 1000 has the value 1000 / (1 - gamma) / deviation, with time limits."""
    kind = {"action_space": CONTINUOUS} if algorithm == "sac" else {}
    env = Probe(lambda sign, time, action: 1e3, horizon=0, **kind)
    changes = {"env_params": Params(max_steps_in_episode=4), "wrappers": (normalize.rewards,)}
    if algorithm == "sac":
        changes |= {"alpha": 1e-6, "alpha_learning_rate": 0.0}
    config, state = trained(algorithm, env, 2_000, **changes)
    worth = 1e3 / (1 - GAMMA) / normalize.deviation(state.agent.used)
    if algorithm == "dqn":
        found = prl.q_values(config, state, jnp.array([[1.0, 0.0]]))
        np.testing.assert_allclose(found, jnp.full((1, 2), worth), rtol=0.1)
    assert np.isfinite(jax.tree.leaves(state.agent.agent)[0]).all()


def test_a_wrapped_run_composes_and_keeps_an_unbatched_clock():
    config = small("dqn", wrappers=BOTH)
    keys = jax.random.split(jax.random.key(0), 2)
    axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))
    states = jax.jit(jax.vmap(prl.init, (0, None), axes))(keys, config)
    runs = jax.jit(jax.vmap(prl.run, (axes, None, None), (axes, 0)), static_argnums=2)
    once, _ = runs(states, config, 6)
    twice, _ = runs(runs(states, config, 3)[0], config, 3)
    chex.assert_trees_all_equal(once, twice)
    assert once.step.shape == ()


def test_evaluation_normalises_and_updates_no_statistics(key):
    config = small("ppo", wrappers=BOTH)
    state = init(key, config)
    assert prl.evaluate(key, config, state, 8).shape == (8,)
    assert prl.policy(config, state)(key, jnp.zeros((5, 4))).shape == (5,)


def test_wrappers_survive_serialisation():
    config = prl.preset("ppo", "CartPole-v1").replace(wrappers=BOTH)
    written = config_to_dict(config)
    assert written["wrappers"] == ["observations", "rewards"]
    assert config_from_dict(written).wrappers == BOTH
    own = config_to_dict(config.replace(wrappers=(normalize._next,)))
    with pytest.raises(ConfigError, match="its wrappers are custom code"):
        config_from_dict(own)


def test_images_are_not_normalised():
    config = prl.default_config("dqn").replace(
        env="frozen_lake", wrappers=(normalize.observations,)
    )
    with pytest.raises(ConfigError, match="observations that are floats"):
        prl.make_train(config)


def test_statistics_are_kept_inside_the_states_of_other_wrappers():
    @struct.dataclass
    class Other:
        agent: object
        count: int

    old = Other(normalize.Normalized("before", "used", "seen"), 3)
    new = Other(normalize.Normalized("after", "zero", "zero"), 0)
    kept = Other(normalize.Normalized("after", "used", "seen"), 0)
    assert normalize.with_statistics(old, new) == kept

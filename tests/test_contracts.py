"""The contracts: an agent with a carry, optimisers as parts, and what a memoryless agent costs."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import optimize
from purejaxrl_sac.agents import ALGORITHMS, exported
from purejaxrl_sac.memory import latest
from purejaxrl_sac.types import Agent, store_unchanged
from tests.conftest import init, quick, small
from tests.probes import Probe

HORIZON = 3
ENV = Probe(lambda sign, time, action: 1.0 * action, horizon=HORIZON)


def counting(config, env):
    """Counts the steps of each episode in its carry; acts by their parity and stores them."""

    def act(key, state, obs, step, carry):
        return (carry % 2).astype(jnp.int32), carry, carry + 1

    def policy(key, state, obs, carry):
        return (carry % 2).astype(jnp.int32), carry + 1

    def update(key, state, sample, count):
        extras = sample.transition.extras
        return state, jnp.zeros(1), {"longest": extras.max().astype(jnp.float32)}

    def init(key, obs):
        return jnp.zeros(())

    def init_carry(num_envs):
        return jnp.zeros(num_envs, jnp.int32)

    return Agent(init, act, policy, update, None, store_unchanged, init_carry), latest()


def counted(**changes):
    sizes = {"num_envs": 2, "rollout_length": 5, "total_steps": 100}
    return prl.ActorCriticConfig(algorithm=counting, env=ENV, **sizes | changes)


def test_a_carry_is_reset_where_episodes_end():
    config = counted()
    state, metrics = jax.jit(prl.make_train(config))(jax.random.key(0))
    steps = np.arange(state.step - 5, state.step)
    expected = np.broadcast_to((steps % HORIZON)[:, None], (5, 2))
    np.testing.assert_array_equal(state.memory.extras, expected)
    np.testing.assert_array_equal(state.memory.action, expected % 2)
    np.testing.assert_array_equal(state.env.carry, [state.step % HORIZON] * 2)
    np.testing.assert_array_equal(metrics["longest"], HORIZON - 1)


def test_a_carry_of_arrays_is_reset_by_environment():
    """Every leaf has its own shape; environments end their episodes at different times."""
    env = prl.envs.bind(Probe(lambda *_: 0.0, horizon=HORIZON))
    start = {"a": jnp.full((3, 2), 7.0), "b": jnp.arange(3)}

    def actor(key, obs, step, carry):
        return jnp.zeros(3, jnp.int32), carry, jax.tree.map(lambda x: x + 1, carry)

    state = env.reset(jax.random.key(0), 3)
    keys = jax.random.split(jax.random.key(1), (8, 4))
    state = state._replace(carry=start)
    play = jax.jit(partial(prl.envs.rollout, env, actor=actor, initial_carry=start))
    _, (rollout, _) = play(keys, state, jnp.int32(0))
    for t in range(8):
        np.testing.assert_array_equal(rollout.extras["a"][t], np.full((3, 2), 7 + t % HORIZON))
        np.testing.assert_array_equal(rollout.extras["b"][t], np.arange(3) + t % HORIZON)


def test_vmapped_runs_with_a_carry_are_continued_bit_for_bit():
    """Two halves equal the whole, for two seeds at once."""
    config = counted()
    keys = jax.random.split(jax.random.key(0), 2)
    axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))
    state = jax.jit(jax.vmap(partial(prl.init, config=config), out_axes=axes))(keys)

    def run(iterations):
        step = partial(prl.run, config=config, iterations=iterations)
        return jax.jit(jax.vmap(step, (axes,), (axes, 0)))

    whole, _ = run(4)(state)
    run_half = run(2)
    again, _ = run_half(run_half(state)[0])
    assert whole.env.carry.shape == (2, 2)
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(prl.seed_state(whole, 1).env.carry, whole.env.carry[1])


def test_evaluation_passes_the_carry_on():
    config = counted()
    state = init(jax.random.key(0), config)
    play = jax.jit(partial(prl.evaluate, max_steps=HORIZON), static_argnums=(1, 3))
    returns = play(jax.random.key(1), config, state, 4)
    np.testing.assert_array_equal(returns, 1)  # actions 0, 1, 0
    played, inside = prl.rollout_episodes(jax.random.key(1), config, state, 2, max_steps=5)
    np.testing.assert_array_equal(played.action[:HORIZON, 0], [0, 1, 0])
    np.testing.assert_array_equal(inside[:, 0], [True] * 3 + [False] * 2)
    policy = prl.policy(config, state)
    obs, carry = state.env.obs, policy.init_carry(2)
    first, carry = policy(jax.random.key(0), obs, carry)
    second, _ = policy(jax.random.key(0), obs, carry)
    assert (first == 0).all() and (second == 1).all()
    for wrong in (policy.init_carry(1), policy.init_carry(3), (), 0.0, (carry,)):
        with pytest.raises(prl.ConfigError, match="the carry is not that of 2 episodes"):
            policy(jax.random.key(0), obs, wrong)
    with pytest.raises(prl.ConfigError, match=r"this policy has a carry: call policy\(key, obs"):
        policy(jax.random.key(0), obs)


def test_a_policy_without_a_carry_is_called_with_key_and_obs():
    config = small("dqn")
    state = init(jax.random.key(0), config)
    action = jax.jit(prl.policy(config, state))(jax.random.key(1), state.env.obs)
    assert action.shape == (3,) and state.env.carry == ()


@pytest.mark.parametrize("algorithm", ("dqn", "sac", "ppo"))
def test_a_carry_of_memoryless_agents_costs_nothing(algorithm):
    """A carry that is never used changes the program; the empty one adds no equation to it."""
    config = small(algorithm)

    def equations(config):
        return str(jax.make_jaxpr(prl.make_train(config))(jax.random.key(0))).count(" = ")

    def with_carry(config, env):
        agent, memory = exported(algorithm)(config, env)
        return agent._replace(init_carry=jnp.zeros), memory

    assert not jax.tree.leaves(prl.build(config)[1].init_carry(3))
    assert equations(config) < equations(config.replace(algorithm=with_carry))


# optimisers

DEEP = [name for name, (module, *_) in ALGORITHMS.items() if module != "q_learning"]


def parts_of(algorithm):
    function = exported(algorithm)
    known = inspect.signature(function).parameters
    return [name for name in known if name.endswith("optimizer")]


def expect_the_last_iterations(run, config, state):
    """Two iterations shortly before the end of the clock, near 2^31, run as any others."""
    last = (config.warmup_iterations + config.iterations) * config.rollout_length
    assert 2**31 - 8 < last < 2**31
    late, metrics = run(state._replace(step=jnp.int32(last - 2 * config.rollout_length)))
    assert late.step == last
    chex.assert_tree_all_finite(metrics)
    chex.assert_tree_all_finite([x for x in jax.tree.leaves(late.agent) if x.dtype == jnp.float32])


@pytest.mark.parametrize("algorithm", ["simba", *(x for x in ALGORITHMS if x not in DEEP)])
def test_tables_and_simba_run_to_the_last_step_of_the_clock(algorithm):
    config = small(algorithm, num_updates=1, num_envs=1, total_steps=2**31 - 1)
    if algorithm != "simba":
        config = config.replace(env="chain")  # no action is illegal, of which the value is -inf
    state = init(jax.random.key(0), config)
    run = jax.jit(partial(prl.run, config=config, iterations=2))
    expect_the_last_iterations(run, config, state)


OWN_UPDATES = (
    "dqn", "iqn", "pqn", "a2c", "sac", "td3", "sac_v1", "crossq", "discrete_sac",
    "continuous_soft_q",
)  # fmt: skip


@pytest.mark.parametrize("algorithm", quick([x for x in DEEP if x != "simba"], *OWN_UPDATES))
def test_every_deep_agent_takes_optimizers(algorithm):
    """With optimisers that do nothing, nothing but target networks and statistics changes."""
    config = small(algorithm)
    layers = [x for x in ("hidden_sizes", "critic_hidden_sizes") if hasattr(config, x)]
    config = config.replace(**dict.fromkeys(layers, (8,)))
    parts = dict.fromkeys(parts_of(algorithm), lambda config: optax.set_to_zero())
    assert parts
    longest = (2**31 - 1) // max(1, config.num_updates // config.rollout_length)
    config = config.replace(
        algorithm=partial(exported(algorithm), **parts), total_steps=config.num_envs * longest
    )
    state = init(jax.random.key(0), config)
    run = jax.jit(partial(prl.run, config=config, iterations=2))
    after, _ = run(state)
    expect_the_last_iterations(run, config, state)
    learned = [x for x in state.agent if isinstance(x, optimize.Learned)]
    then = [x for x in after.agent if isinstance(x, optimize.Learned)]
    if isinstance(state.agent, optimize.Learned) or hasattr(state.agent, "params"):
        learned, then = [state.agent], [after.agent]
    assert learned
    for x, y in zip(learned, then, strict=True):
        chex.assert_trees_all_equal(x.params, y.params)


@pytest.mark.parametrize("algorithm", [name for name in DEEP if name != "simba"])
def test_learning_rate_end_affects_every_optimizer_but_the_temperatures(algorithm):
    agent = jax.eval_shape(prl.init, jax.random.key(0), small(algorithm)).agent
    decaying = [name for name in parts_of(algorithm) if name != "temperature_optimizer"]
    assert str(jax.tree.structure(agent)).count("ScaleByScheduleState") == len(decaying)


def test_members_of_an_ensemble_are_clipped_separately():
    grads = {"w": np.float32([[3.0, 0.0], [0.3, 0.0]]), "b": np.float32([[4.0], [0.4]])}
    clip = optimize.clip(1.0, members=True)
    found, _ = jax.jit(clip.update)(grads, clip.init(grads))
    np.testing.assert_allclose(found["w"], [[0.6, 0], [0.3, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [[0.8], [0.4]], rtol=1e-6)
    whole = optimize.clip(1.0)
    stacked, _ = jax.jit(whole.update)(grads, whole.init(grads))
    np.testing.assert_allclose(stacked["w"][1, 0], 0.3 / np.sqrt(25.25), rtol=1e-6)


ENSEMBLES = ("sac", "td3", "sac_v1", "crossq", "discrete_sac", "redq", "droq", "tqc", "fast_sac")


@pytest.mark.parametrize("algorithm", ENSEMBLES)
def test_critics_are_clipped_for_each_member(algorithm):
    """One critic's gradient above the limit does not change the others' steps."""
    optimizer = inspect.signature(exported(algorithm)).parameters["critic_optimizer"].default
    transformation = optimizer(small(algorithm, max_grad_norm=0.5))
    grads = {"w": np.float32([[100.0] * 4, [1e-3] * 4])}

    @jax.jit
    def first_update(grads):
        return transformation.update(grads, transformation.init(grads), grads)

    _, state = first_update(grads)
    moment = next(np.asarray(x) for x in jax.tree.leaves(state) if x.shape == (2, 4))
    rate = 1 - (0.5 if algorithm == "crossq" else 0.9)  # 1 - b1
    np.testing.assert_allclose(moment[0], rate * 0.25, rtol=1e-5)
    np.testing.assert_allclose(moment[1], rate * 1e-3, rtol=1e-5)


@pytest.mark.parametrize("limit", (None, float("inf")))
def test_no_norm_is_computed_where_nothing_is_clipped(limit):
    grads = {"w": jnp.ones((2, 3))}

    def step(limit, members):
        clip = optimize.clip(limit, members=members)
        return str(jax.make_jaxpr(lambda x: clip.update(x, clip.init(x))[0])(grads))

    for members in (False, True):
        assert "sqrt" not in step(limit, members) and "sqrt" in step(1.0, members)

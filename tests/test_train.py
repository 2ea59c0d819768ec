"""Invariants of the training loop."""

import pickle
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import agents, exploration, normalize, optimize
from purejaxrl_sac.agents import discrete_sac
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.train import _keys
from tests.conftest import init, quick, run, small
from tests.probes import CONTINUOUS, Probe, replayed

ALGORITHMS = ("per_dqn", "ppo", "simba", "td3", "double_q_learning", "sarsa")
SEEDS = 3
train = jax.jit(prl.train)


def unwrapped(tree):
    """The tree with PRNG keys as integers."""
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )


def assert_close(a, b):
    """Equal up to the rounding of a few updates, keys included."""
    chex.assert_trees_all_close(unwrapped(a), unwrapped(b), rtol=1e-4, atol=1e-5)


def assert_equal(a, b):
    """Bitwise equal, keys included."""
    chex.assert_trees_all_equal(unwrapped(a), unwrapped(b))


def differ(a, b):
    return any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def vmapped_init(config):
    keys = jax.random.split(jax.random.key(0), SEEDS)
    axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))
    return jax.jit(jax.vmap(prl.init, (0, None), axes))(keys, config), axes


def vmapped_run(axes):
    return jax.jit(jax.vmap(prl.run, (axes, None, None), (axes, 0)), static_argnums=2)


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "double_q_learning"))
def test_train_is_run_after_init_and_run_composes_bit_for_bit(key, algorithm):
    config = small(algorithm)
    start = init(key, config)
    half, rest = divmod(config.iterations, 2)
    assert half >= 9 and not rest
    middle, first = run(start, config, half)
    twice, second = run(middle, config, half)
    once, metrics = train(key, config)
    assert_equal(once, twice)
    assert_equal(metrics, jax.tree.map(lambda *x: jnp.concatenate(x), first, second))
    assert_equal((once, metrics), run(start, config, config.iterations))
    assert int(once.step) == (config.warmup_iterations + 2 * half) * config.rollout_length
    assert differ(once.agent, start.agent)


def test_train_with_eval_measures_the_states_of_train(key):
    config = small("q_learning", warmup_steps=24, total_steps=264)

    def measure(state):
        return {"q": state.agent.q, "step": state.step}

    watch = partial(prl.train_with_eval, config=config, measure=measure, points=3)
    steps, measured = jax.jit(watch)(key)
    share = config.iterations // 3
    state = init(key, config)
    for i in range(4):
        chex.assert_trees_all_equal(measured["q"][i], state.agent.q)
        assert int(steps[i]) == int(measured["step"][i]) * config.num_envs
        state, _ = run(state, config, share)
    keys = jax.random.split(key)
    vmapped, _ = jax.jit(jax.vmap(watch, out_axes=(None, 0)))(keys)
    np.testing.assert_array_equal(vmapped, steps)
    with pytest.raises(prl.ConfigError, match="lower points"):
        prl.train_with_eval(key, config, measure, 1_000)


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "per_dqn", "sarsa"))
def test_vmapped_run_composes_bit_for_bit(algorithm):
    config = small(algorithm)
    start, axes = vmapped_init(config)
    run, half = vmapped_run(axes), config.iterations // 2
    once, _ = run(start, config, 2 * half)
    assert_equal(once, run(run(start, config, half)[0], config, half)[0])
    assert once.step.shape == () and 2 * half == config.iterations


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "sarsa"))
def test_vmapped_train_is_vmapped_init_and_vmapped_run(algorithm):
    config = small(algorithm)
    start, axes = vmapped_init(config)
    found = vmapped_run(axes)(start, config, config.iterations)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    state, metrics = jax.jit(jax.vmap(prl.make_train(config)))(keys)
    expected = (state._replace(step=state.step[0]), metrics)
    if algorithm in ("ppo", "per_dqn"):  # fused differently, which rounds differently
        assert_close(found, expected)
    else:
        assert_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ("dqn", "sac"))
def test_a_state_with_a_batched_clock_resumes_equally(algorithm):
    config = small(algorithm)
    start, axes = vmapped_init(config)
    copied = start._replace(step=jnp.full(SEEDS, start.step))
    expected, continued = (
        vmapped_run(x)(state, config, 3)[0]
        for x, state in ((axes, start), (prl.seed_axes(copied), copied))
    )
    assert continued.step.shape == (SEEDS,)
    assert_equal(expected, continued._replace(step=continued.step[0]))


def test_a_nested_vmapped_state_resumes_bit_for_bit():
    """Configurations x seeds, with the batched clock that plain vmaps return, as in one run."""
    config = small("td3", hidden_sizes=(8,))
    config = config.replace(total_steps=8 * config.steps_per_iteration)
    keys = jax.random.split(jax.random.key(0), (2, SEEDS))
    nest = lambda f: jax.vmap(jax.vmap(f))  # noqa: E731
    start = jax.jit(nest(partial(prl.init, config=config)))(keys)
    assert start.step.shape == (2, SEEDS)
    half = jax.jit(nest(lambda state: prl.run(state, config, config.iterations // 2)))
    middle, first = half(start)
    twice, second = half(middle)
    once, metrics = jax.jit(nest(prl.make_train(config)))(keys)
    assert config.iterations == 6
    assert_equal(once, twice)
    assert_equal(metrics, jax.tree.map(lambda *x: np.concatenate(x, axis=-1), first, second))
    jaxpr = str(half.trace(start).jaxpr)
    assert "dynamic_update_slice" in jaxpr
    assert "scatter" not in jaxpr


@pytest.mark.parametrize("algorithm", quick(("q_learning", "dqn", "sac"), "q_learning"))
def test_eager_jit_and_vmap_agree(key, algorithm):
    table = {"warmup_steps": 0, "initial_value": 1.0}  # which changes without a reward
    changes = table if algorithm == "q_learning" else {"warmup_steps": 4}
    config = small(algorithm, num_envs=2, rollout_length=2, **changes)
    config = config.replace(total_steps=config.warmup_steps + 4)
    jitted = train(key, config)
    with jax.disable_jit():
        eager = prl.train(key, config)
    vmapped = jax.jit(jax.vmap(prl.make_train(config)))(key[None])
    close = partial(chex.assert_trees_all_close, rtol=2e-4, atol=2e-5)
    close(jitted[0].agent, eager[0].agent)
    close(jitted[0].agent, jax.tree.map(lambda x: x[0], vmapped[0].agent))
    assert differ(jitted[0].agent, init(key, config).agent)


@pytest.mark.parametrize("algorithm", ("dqn", "sac"))
def test_seeds_differ_in_parameters_actions_and_environments(algorithm):
    state, _ = vmapped_init(small(algorithm))
    held = [replayed(small(algorithm), prl.seed_state(state, seed)) for seed in range(3)]
    held = jax.tree.map(lambda *x: np.stack(x), *held)
    for part in (state.agent[0], held.action, state.env.obs, held.obs):
        leaves = [leaf for leaf in jax.tree.leaves(part) if np.ptp(leaf) > 0]
        assert leaves
        for leaf in leaves:
            assert not np.array_equal(leaf[0], leaf[1])
            assert not np.array_equal(leaf[1], leaf[2])


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (3, "there is no seed 3: the state has 0 to 2"),
        (-1, "seed is -1, but must be zero or more"),
        (0.5, "seed is 0.5, but must be a whole number"),
        (None, "seed is None, but must be a whole number"),
    ],
)
def test_only_existing_seeds_are_selected(seed, message):
    state = jax.eval_shape(lambda: vmapped_init(small("q_learning"))[0])
    with pytest.raises(ConfigError, match=message):
        prl.seed_state(state, seed)


def test_a_seed_may_be_traced():
    state, _ = vmapped_init(small("q_learning"))
    keys = jax.vmap(lambda seed: jax.random.key_data(prl.seed_state(state, seed).key))
    np.testing.assert_array_equal(keys(jnp.arange(SEEDS)), jax.random.key_data(state.key))


def test_a_state_of_one_seed_has_none_to_select(key):
    state = jax.eval_shape(lambda: prl.init(key, small("q_learning")))
    with pytest.raises(ConfigError, match="state is of one seed already"):
        prl.seed_state(state, 0)


def traced_fields(algorithm):
    config = small(algorithm)
    leaves = jax.tree_util.tree_flatten_with_path(config)[0]
    return [path[0].name for path, _ in leaves]


def config_explores_without_epsilon(config):
    return getattr(config, "exploration", "epsilon_greedy") != "epsilon_greedy"


OTHER_VALUES = {
    "target_period": 3,
    "tau": 0.5,
    "epsilon_start": 0.5,
    "epsilon_end": 0.9,
    "huber_delta": 0.01,
    "max_grad_norm": 0.01,
    "alpha_learning_rate": 0.1,
    "omega": 0.8,
    "initial_value": 1.0,
    "v_max": 50.0,
    "cvar": 0.01,
    "v_min": -10.0,
    "munchausen_min": -0.001,
    "learning_rate_end": 0.5,
    "clip_ratio": 0.001,
    "normalization_limit": 0.5,
}
GARNET = {"env": "garnet", "epsilon_end": 0.1, "epsilon_fraction": 0.8, "bonus": 5.0}


SWEPT = {  # changes of a small configuration, and fields that it does not use
    "dqn": ({"epsilon_end": 0.1}, ()),
    "rainbow": ({}, ()),
    "pqn": ({"epsilon_end": 0.1, "wrappers": (normalize.observations,)}, ()),
    "sac": ({}, ()),
    "q_learning": ({**GARNET, "exploration": "boltzmann"}, ("bonus",)),
    "soft_q_learning": (GARNET, ("bonus",)),
    "munchausen_dqn": ({"epsilon_end": 0.1, "munchausen_min": -0.1}, ()),
    "iqn": ({"epsilon_end": 0.1, "learning_rate": 0.01}, ()),
    "ppo": ({"learning_rate": 0.05}, ()),
    "continuous_soft_q": ({}, ()),
    "discrete_sac": ({"alpha_learning_rate": 0.1}, ()),
    "td3": ({}, ()),
    "q_lambda": (GARNET, ("alpha", "bonus")),
    "q_learning, ucb": ({**GARNET, "exploration": "ucb"}, ("alpha",)),
    "expected_sarsa": (GARNET, ("alpha", "bonus")),
}


@cache
def sweep_of_every_field(case):
    """The names of all fields in use, a configuration for each after the default, and agents."""
    changes, unused = SWEPT[case]
    algorithm, *_ = case.split(",")
    config = small(algorithm, **changes)
    names = [name for name in traced_fields(algorithm) if name not in unused]
    if config_explores_without_epsilon(config):
        names = [name for name in names if not name.startswith("epsilon")]
    if not config.wrappers:
        names.remove("normalization_limit")
    variants = [
        config.replace(**{name: OTHER_VALUES.get(name, 0.5 * getattr(config, name))})
        for name in names
    ]
    lanes = jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), config, *variants)
    axes = jax.tree.map(lambda _: 0, config)
    swept, _ = jax.jit(jax.vmap(prl.train, in_axes=(None, axes)))(jax.random.key(0), lanes)
    return names, lanes, jax.device_get(swept.agent)


def lane_of(tree, lane):
    return jax.tree.map(lambda x: x[lane], tree)


@pytest.mark.parametrize("case", quick(SWEPT, "rainbow", "pqn", "sac", "q_learning"))
def test_every_traced_field_has_an_effect(case):
    names, _, agents = sweep_of_every_field(case)
    assert "learning_rate" in names and "gamma" in names
    base = lane_of(agents, 0)
    for lane, name in enumerate(names, start=1):
        assert differ(lane_of(agents, lane)[:2], base[:2]), f"{name} changes nothing"


@pytest.mark.parametrize("case", quick(SWEPT, "sac", "q_learning"))
def test_sweeps_of_every_field_equal_single_runs(case):
    names, lanes, agents = sweep_of_every_field(case)
    for lane in (0, 1, len(names)):
        alone, _ = train(jax.random.key(0), lane_of(lanes, lane))
        chex.assert_trees_all_close(lane_of(agents, lane), alone.agent, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("algorithm", quick(("dqn", "sac"), "sac"))
def test_a_pickled_state_resumes_equally(key, algorithm):
    config = small(algorithm)
    state = init(key, config)
    host = state._replace(key=jax.random.key_data(state.key))
    copy = pickle.loads(pickle.dumps(host))
    assert_equal(host, copy)
    assert jax.tree.structure(host) == jax.tree.structure(copy)
    resumed = run(copy._replace(key=jax.random.wrap_key_data(copy.key)), config, 2)
    assert_equal(run(state, config, 2), resumed)


def test_a_donated_state_is_deleted_and_resumes_equally(key):
    config = small("sac")
    state = init(key, config)
    expected = run(state, config, 2)
    donated = jax.jit(prl.run, static_argnums=2, donate_argnums=0)(state, config, 2)
    assert_equal(expected, donated)
    assert state.memory.words.is_deleted()


def test_episode_metrics_count_every_episode(key):
    config = small("dqn", total_steps=2_400)
    state, metrics = train(key, config)
    learned = config.iterations * config.steps_per_iteration
    running = int(state.env.episode_length.sum())
    before = init(key, config).env.episode_length.sum()
    assert int(metrics["lengths"].sum()) + running - int(before) == learned
    assert int(metrics["episodes"].sum()) > 10
    np.testing.assert_allclose(metrics["returns"], metrics["lengths"])  # CartPole pays 1 a step


def test_the_warm_up_is_random_and_counts_as_steps(key):
    config = small("sac", num_envs=4, rollout_length=1, warmup_steps=401, capacity=1_000)
    config = config.replace(total_steps=408)
    state = init(key, config)
    assert int(state.step) == config.warmup_iterations == 101
    actions = replayed(config, state).action
    assert len(actions) == 101
    assert abs(actions.mean()) < 0.1
    assert abs(actions.std() - 1 / np.sqrt(3)) < 0.05
    assert config.iterations == 1


def test_updates_are_counted_over_the_whole_run(key):
    def counting(config, env, agent):
        def update(key, state, sample, count):
            state, priority, _ = agent.update(key, state, sample, count)
            return state, priority, {"count": count * 1.0}

        return agent._replace(update=update)

    config = small("q_learning", num_updates=2, warmup_steps=24, wrappers=(counting,))
    state, first = run(init(key, config), config, 2)
    second = run(state, config, 2)[1]
    counts = np.concatenate([first["count"], second["count"]])  # means over two updates
    np.testing.assert_array_equal(counts, [0.5, 2.5, 4.5, 6.5])


def test_an_iteration_uses_no_key_twice(key):
    config = small("dqn", num_envs=3, rollout_length=4, num_updates=2)
    parts = [jax.random.key_data(keys).reshape(-1, 2) for keys in _keys(key, config)]
    assert len(np.unique(np.concatenate(parts), axis=0)) == 1 + 1 + 2 + 4 * (1 + 3)


@pytest.mark.parametrize("warm", (True, False))
def test_noise_repeat_repeats_random_numbers(key, warm):
    """State-independent actions are equal within a repetition and differ between them."""
    env = Probe(lambda *_: 0.0, horizon=0, action_space=CONTINUOUS)
    config = small(
        "sac", env=env, num_envs=3, rollout_length=6, noise_repeat=3, capacity=36, batch_size=8
    )
    config = config.replace(warmup_steps=36 if warm else 18, total_steps=72, learning_rate=0.0)
    state = init(key, config)
    if not warm:
        state, _ = run(state, config, 2)
    actions = replayed(config, state).action.reshape(-1, 3, 3)  # [repetitions, steps, envs]
    np.testing.assert_allclose(actions, np.broadcast_to(actions[:, :1], actions.shape), atol=1e-6)
    assert len(np.unique(actions[:, 0].round(5))) == actions[:, 0].size == 12


def test_noise_repeat_divides_the_rollout():
    with pytest.raises(ConfigError, match="noise_repeat is 4, but must divide rollout_length = 6"):
        prl.make_train(small("sac", rollout_length=6, num_envs=2, noise_repeat=4))


@pytest.mark.parametrize("algorithm", ("a2c", "reinforce", "ppo", "sarsa", "recurrent_ppo"))
def test_on_policy_algorithms_refuse_repeated_noise(algorithm):
    """With a uniform policy, the second of two actions would equal the first in all rollouts."""
    config = small(algorithm, rollout_length=4, noise_repeat=2)
    with pytest.raises(ConfigError, match=r"is on-policy, which needs .* set noise_repeat=1"):
        prl.make_train(config)


def longest(algorithm, **changes):
    """The longest run that `Config.check` accepts, in whole iterations."""
    config = small(algorithm, **changes)
    most = max(config.num_updates, config.rollout_length)
    if isinstance(config, prl.TabularConfig):  # counts the updates of every entry
        most = config.num_updates * config.steps_per_iteration
    return config.replace(total_steps=(2**31 // most - 1) * config.steps_per_iteration)


@pytest.mark.parametrize(
    "algorithm",
    quick(agents.ALGORITHMS, "q_lambda", "rainbow", "ppo", "sac", "td3", "simba", "recurrent_dqn"),
)
def test_the_longest_runs_can_be_traced(algorithm):
    """Numbers of steps and updates beyond an int32 would raise OverflowError."""
    config = longest(algorithm)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    state = jax.eval_shape(lambda key: prl.init(key, config), key)
    jax.eval_shape(lambda state: prl.run(state, config, 1), state)


def test_schedules_end_with_the_longest_runs():
    config = longest("dqn", num_updates=1, rollout_length=1, learning_rate_end=0.5)
    count = jnp.int32(config.iterations - 1)
    assert config.iterations > 2**31 - 100
    epsilon = exploration.annealed_epsilon(config, config.step_at(count))
    np.testing.assert_allclose(epsilon, config.epsilon_end, rtol=1e-6)
    rate = optimize.linear_decay(config)(count)
    np.testing.assert_allclose(rate, config.learning_rate / 2, rtol=1e-6)
    config = longest("discrete_sac", num_updates=1, rollout_length=1)
    entropy = discrete_sac.target_entropy(config, 2, jnp.int32(config.iterations - 1))
    np.testing.assert_allclose(entropy, config.target_entropy_ratio_end * np.log(2), rtol=1e-6)


def test_runs_of_too_many_steps_or_updates_raise():
    config = longest("dqn", num_updates=1, rollout_length=1)
    prl.make_train(config)
    with pytest.raises(ConfigError, match=r"fewer than 2\*\*31 steps"):
        prl.make_train(config.replace(total_steps=3 * 2**31))
    with pytest.raises(ConfigError, match="lower total_steps or num_updates"):
        prl.make_train(config.replace(num_updates=2))
    with pytest.raises(ConfigError, match="train_with_eval counts up to"):
        prl.train_with_eval(jax.random.key(0), config, lambda state: state.step, 2)

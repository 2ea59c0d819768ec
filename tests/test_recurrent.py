"""Agents that remember: recurrent torsos, A2C, PPO and PQN with them, and stacked observations."""

import itertools
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from gymnax.wrappers.purerl import StickyActionWrapper

import purejaxrl_sac as prl
from purejaxrl_sac import cli, envs, memory, networks
from purejaxrl_sac.agents import a2c, ppo, pqn, recurrent
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs.frames import frame_stack
from purejaxrl_sac.envs.parameters import Parametrised
from purejaxrl_sac.envs.visible import visible
from purejaxrl_sac.networks.recurrent import TORSOS
from purejaxrl_sac.types import Transition
from tests.conftest import FULL_COMPILATION, quick, small
from tests.probes import Counter, Params, Probe

ALGORITHMS = ("recurrent_a2c", "recurrent_ppo", "recurrent_pqn")
STEPS, BATCH, INPUTS, SIZE = 6, 3, 4, 5


class Recall(Probe):
    """The sign is shown in the first of `horizon` steps; the action of the last one must be it."""

    def __init__(self, horizon=3):
        def reward(sign, time, action):
            return (time == horizon - 1) * sign * (2.0 * action - 1)

        super().__init__(reward, horizon, signs=(-1.0, 1.0))

    def get_obs(self, state, params=None, key=None):
        sign, time = super().get_obs(state)
        return jnp.stack([sign * (state.time == 0), time])


# torsos


def unrolled(cell):
    """A torso, its variables, random inputs, and starts of which each row has one or none."""
    torso = TORSOS[cell](SIZE)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, BATCH, INPUTS), np.float32)
    begun = np.zeros((STEPS, BATCH), bool)
    begun[2, 0] = begun[4, 1] = True
    carry = torso.initial_carry(BATCH)
    variables = jax.jit(torso.init)(jax.random.key(1), carry, x, begun)
    carry = jax.tree.map(lambda z: rng.standard_normal(z.shape, np.float32), carry)
    return jax.jit(torso.apply), torso, jax.device_get(variables), carry, x, begun


@pytest.mark.parametrize("cell", TORSOS)
def test_two_episodes_are_as_two_sequences(cell):
    apply, torso, variables, carry, x, _ = unrolled(cell)
    never = np.zeros((STEPS, BATCH), bool)
    again = never.copy()
    again[2] = True
    both = apply(variables, carry, x, again)
    first = apply(variables, carry, x[:2], never[:2])
    second = apply(variables, torso.initial_carry(BATCH), x[2:], never[2:])
    chex.assert_shape(both[1], (STEPS, BATCH, SIZE))
    each = jax.tree.map(lambda *parts: np.concatenate(parts), first, second)
    chex.assert_trees_all_close(both, each, rtol=1e-5, atol=1e-6)  # carries and features


@pytest.mark.parametrize("cell", TORSOS)
def test_a_sequence_is_as_its_steps(cell):
    """Bit for bit, but for the associative scan, which adds in another order.

    With all optimisations, as in use: without them, XLA rounds loops of one step differently.
    """
    _, torso, variables, carry, x, begun = unrolled(cell)
    apply = jax.jit(torso.apply, compiler_options=FULL_COMPILATION)
    whole, steps = apply(variables, carry, x, begun), []
    for t in range(STEPS):
        steps.append(apply(variables, carry, x[t : t + 1], begun[t : t + 1]))
        carry = jax.tree.map(lambda x: np.asarray(x)[-1], steps[-1][0])
    same = partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)
    same = same if cell == "min_gru" else chex.assert_trees_all_equal
    same(whole, jax.tree.map(lambda *each: np.concatenate(each), *steps))


@pytest.mark.parametrize("cell", TORSOS)
def test_no_gradient_passes_the_start_of_an_episode(cell):
    """d features[t] / d x[u] of each row is exactly 0 unless u <= t in the same episode."""
    apply, _, variables, carry, x, begun = unrolled(cell)

    def features(x, carry):
        return apply(variables, carry, x, begun)[1]

    by_x, by_carry = jax.tree.map(np.asarray, jax.jit(jax.jacobian(features, (0, 1)))(x, carry))
    magnitude = abs(by_x).max((2, 5))  # [T, B, T, B]
    episode = np.cumsum(begun, axis=0)
    t, u = np.indices((STEPS, STEPS))
    for row in range(BATCH):
        same = (u <= t) & (episode[t, row] == episode[u, row])
        np.testing.assert_array_equal(magnitude[:, row, :, row] > 0, same)
        others = np.delete(magnitude[:, row], row, axis=-1)
        np.testing.assert_array_equal(others, 0)
        for leaf in jax.tree.leaves(by_carry):
            reached = abs(leaf[:, row, :, row]).max((1, 2)) > 0
            np.testing.assert_array_equal(reached, episode[:, row] == 0)


def test_min_gru_by_hand():
    """With gates of 1/2, h is the mean of itself and the input; the third begins an episode."""
    torso = networks.MinGRU(1)
    carry, x = np.full((1, 1), 8, np.float32), np.float32([4, 2, 6])[:, None, None]
    zero, one = np.zeros(1, np.float32), np.ones((1, 1), np.float32)
    params = {
        "gate": {"kernel": 0 * one, "bias": zero},
        "candidate": {"kernel": one, "bias": zero},
    }
    begun = np.array([[False], [False], [True]])
    carries, h = jax.jit(torso.apply)({"params": params}, carry, x, begun)
    np.testing.assert_allclose(np.ravel(h), [6, 4, 3], rtol=1e-6)
    np.testing.assert_array_equal(carries, h)


def test_min_gru_forgets_at_many_rates():
    """Without an input, units keep 1 - 1 / tau of their state, tau = 2 .. 100."""
    torso = networks.MinGRU(3)
    carry, x, begun = jnp.ones((1, 3)), jnp.zeros((1, 1, 2)), jnp.zeros((1, 1), bool)
    (_, h), _ = jax.jit(torso.init_with_output)(jax.random.key(0), carry, x, begun)
    np.testing.assert_allclose(h.ravel(), 1 - 1 / np.geomspace(2, 100, 3), rtol=1e-5)


# the algorithms without a memory


class Forgetful(nn.Module):
    """A torso whose features are its inputs."""

    def initial_carry(self, batch):
        return jnp.zeros((batch, 1))

    def __call__(self, carry, x, start):
        return (carry + 1)[None].repeat(len(x), 0), x


class Memoryless(nn.Module):
    """A recurrent network as one of single observations."""

    inner: nn.Module

    def __call__(self, x):
        start = jnp.zeros((1, len(x)), bool)
        return self.inner(self.inner.initial_carry(len(x)), x, start)[1]


class Alike(nn.Module):
    """A recurrent network whose parameters are named as those of `Memoryless`."""

    inner: nn.Module

    def initial_carry(self, batch):
        return self.inner.initial_carry(batch)

    def __call__(self, carry, x, start):
        return self.inner(carry, x, start)


def forgetful(build, kind):
    def network(*args):
        return kind(build(*args, memory=lambda config: Forgetful()))

    return network


@pytest.mark.parametrize(
    ("algorithm", "plain", "build"),
    (
        ("recurrent_ppo", ppo.ppo, networks.recurrent_actor_critic),
        ("recurrent_pqn", pqn.pqn, recurrent.normalized_network),
    ),
)
def test_a_torso_without_memory_is_the_memoryless_algorithm(algorithm, plain, build, key):
    """Each batch is a whole rollout, of which episodes end; all metrics and actions agree."""
    env = Probe(lambda sign, time, action: sign * action, horizon=3, signs=(-1.0, 1.0))
    config = small(algorithm, env=env, num_epochs=2, hidden_sizes=(8,))
    ours = partial(getattr(recurrent, algorithm), network=forgetful(build, Alike))
    theirs = partial(plain, network=forgetful(build, Memoryless))
    (state, metrics), (other, expected) = (
        jax.jit(prl.make_train(config.replace(algorithm=x)))(key) for x in (ours, theirs)
    )
    assert metrics.keys() == expected.keys()
    chex.assert_trees_all_close(metrics, expected, rtol=1e-3, atol=1e-5)
    chex.assert_trees_all_close(state.agent.params, other.agent.params, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(state.memory.action, other.memory.action)


# sequences


def test_sequences_are_whole_and_each_is_drawn_once_in_every_epoch():
    steps, num_envs, length = 6, 4, 3
    time, env = np.indices((steps, num_envs), np.int32)
    rollout = Transition(time, env, time * 1.0, time * 1.0, (), time > 9, {"carry": env[..., None]})
    part = memory.sequences(num_epochs=2, num_minibatches=4, length=length)

    @jax.jit
    def sampled(key, rollout):
        draws = part.draw(key, rollout, jnp.int32(0), 8)
        return jax.lax.map(partial(part.sample, rollout), draws)

    samples, seen = jax.device_get(sampled(jax.random.key(0), rollout)), []
    for g in range(8):
        found = jax.tree.map(lambda x, g=g: x[g], samples.transition)
        chex.assert_shape(found.obs, (length, 2))
        np.testing.assert_array_equal(found.obs, found.obs[0] + np.arange(length)[:, None])
        np.testing.assert_array_equal(found.action, found.action[:1].repeat(length, 0))
        np.testing.assert_array_equal(found.extras["carry"][..., 0], found.action)
        seen.append([*zip(found.obs[0].tolist(), found.action[0].tolist(), strict=True)])
    every = {(t, n) for t in (0, 3) for n in range(num_envs)}
    for epoch in (seen[:4], seen[4:]):
        drawn = [x for batch in epoch for x in batch]
        assert len(drawn) == len(every) and set(drawn) == every
    assert seen[:4] != seen[4:]


@pytest.mark.parametrize(
    ("cell", "length"),
    (
        ("lstm", 5),
        pytest.param("lstm", None, marks=pytest.mark.slow),
        pytest.param("min_gru", 5, marks=pytest.mark.slow),
    ),
)
def test_unrolled_sequences_repeat_what_was_acted_on(cell, length, key):
    """Before the first update, log pi(a|s) and V(s) of a sequence are those that were stored."""
    config = small(
        "recurrent_ppo", env=Counter(), rollout_length=10, num_envs=4, num_updates=1, cell=cell
    ).replace(total_steps=200, sequence_length=length, learning_rate=0.0)

    def loss(params, inputs):
        value, (priority, metrics) = a2c.actor_critic_loss(params, inputs)
        choice, obs = inputs.batch.extras, inputs.batch.obs
        pi, v = inputs.apply(params, obs)
        wrong = abs(pi.log_prob(choice.sample) - choice.log_prob) + abs(v - choice.value)
        return value, (priority, {**metrics, "wrong": wrong.max()})

    config = config.replace(algorithm=partial(recurrent.recurrent_ppo, loss=loss))
    state, metrics = jax.jit(prl.make_train(config))(key)
    assert state.memory.last[:-1].any() and metrics["value"].std() > 0
    np.testing.assert_allclose(metrics["wrong"], 0, atol=1e-5)


class Counting:
    """A network whose V(s) counts the steps of the episode; its policy is uniform."""

    def initial_carry(self, batch):
        return jnp.zeros((batch, 1))

    def init(self, key, *inputs):
        return {"params": jnp.ones(1)}

    def apply(self, variables, carry, x, start):
        def step(carry, start):
            carry = jnp.where(start[:, None], 0, carry) + 1
            return carry, carry

        counts = jax.lax.scan(step, carry, start)[1]
        return counts, (jnp.zeros((len(x), 2)), counts.reshape(-1) * variables["params"])


def test_targets_at_truncation_by_hand(key):
    """V(s_t) = t + 1 counts the steps of an episode, so that V(next_obs) = t + 2 at its time limit.

    Rewards are 1, gamma = lambda = 1/2; of five steps, the third ends an episode.
    """
    env = Probe(lambda *_: 1.0, horizon=0)
    algorithm = partial(recurrent.recurrent_a2c, network=lambda *_: Counting())
    config = prl.RecurrentA2CConfig(
        algorithm=algorithm, env=env, env_params=Params(max_steps_in_episode=3), num_envs=2,
        rollout_length=5, total_steps=10, gamma=0.5, trace_decay=0.5, learning_rate=0.0,
    )  # fmt: skip
    state, _ = jax.jit(prl.make_train(config))(key)
    # G_2 = 1 + 4/2, G_1 = 1 + (3/2 + G_2/2) / 2, G_0 = 1 + (2/2 + G_1/2) / 2, G_4 = 1 + 3/2
    expected = np.array([2.125, 2.5, 3, 2.125, 2.5])[:, None].repeat(2, 1)
    choice = state.memory.extras.choice
    np.testing.assert_allclose(choice.value, np.array([[1], [2], [3], [1], [2]]).repeat(2, 1))
    np.testing.assert_allclose(choice.target, expected, rtol=1e-6)
    np.testing.assert_allclose(choice.advantage, choice.target - choice.value, rtol=1e-6)
    assert state.memory.extras.next_carry == () and state.memory.next_obs == ()
    np.testing.assert_array_equal(state.env.carry, 2)


def test_q_targets_at_truncation_by_hand(key):
    env = Probe(lambda *_: 1.0, horizon=0)

    class Values(Counting):
        def apply(self, variables, carry, x, start):
            carry, (zeros, count) = super().apply(variables, carry, x, start)
            return carry, (zeros + count[:, None])[..., None]

    algorithm = partial(recurrent.recurrent_pqn, network=lambda *_: Values())
    config = prl.RecurrentPQNConfig(
        algorithm=algorithm, env=env, env_params=Params(max_steps_in_episode=3), num_envs=2,
        rollout_length=5, total_steps=10, gamma=0.5, trace_decay=0.5, num_updates=1, num_epochs=1,
        learning_rate=0.0,
    )  # fmt: skip
    state, _ = jax.jit(prl.make_train(config))(key)
    expected = np.array([2.125, 2.5, 3, 2.125, 2.5])[:, None].repeat(2, 1)
    np.testing.assert_allclose(state.memory.extras.choice, expected, rtol=1e-6)


# learning, policies and runs

LEARNING = {
    "recurrent_a2c": {"cell": "lstm", "rollout_length": 6, "total_steps": 20_000},
    "recurrent_ppo": {
        "cell": "gru", "num_updates": 8, "sequence_length": 12, "total_steps": 8_000,
    },
    "recurrent_pqn": {
        "cell": "min_gru", "num_updates": 8, "sequence_length": 12, "epsilon_fraction": 0.5,
        "total_steps": 8_000,
    },
}  # fmt: skip


evaluate = jax.jit(partial(prl.evaluate, max_steps=3), static_argnums=3)


def learned(algorithm, **changes):
    common = {
        "env": Recall(), "num_envs": 16, "rollout_length": 24, "total_steps": 15_000,
        "hidden_sizes": (16, 16), "memory_size": 16, "learning_rate": 5e-3, "gamma": 0.9,
    }  # fmt: skip
    config = prl.default_config(algorithm)
    known = {name: x for name, x in common.items() if hasattr(config, name)}
    config = config.replace(**{**known, **changes})
    return config, jax.jit(prl.train)(jax.random.key(0), config)[0]


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "recurrent_ppo", "recurrent_pqn"))
def test_what_was_seen_two_steps_before_is_remembered(algorithm):
    config, state = learned(algorithm, **LEARNING[algorithm])
    returns = evaluate(jax.random.key(1), config, state, 256)
    assert returns.mean() > 0.95

    # with its carry, the policy acts on what it has seen in its episode
    policy = prl.policy(config, state)
    carry = policy.init_carry(2)
    for time, sign in enumerate((1.0, 0.0, 0.0)):
        obs = jnp.array([[-sign, time / 3], [sign, time / 3]])
        action, carry = policy(jax.random.key(0), obs, carry)
    np.testing.assert_array_equal(action, [0, 1])
    with pytest.raises(ConfigError, match=r"this policy has a carry: call policy\(key, obs, carry"):
        policy(jax.random.key(0), obs)


def test_memoryless_ppo_stays_at_chance_unless_observations_are_stacked():
    changes = {"num_updates": 8}
    config, state = learned("ppo", **changes)
    returns = evaluate(jax.random.key(1), config, state, 512)
    assert abs(returns.mean()) < 0.2  # the last observation is the same for both signs
    config, state = learned("ppo", **changes, env=frame_stack(Recall(), 3))
    returns = evaluate(jax.random.key(1), config, state, 512)
    assert returns.mean() > 0.95


@pytest.mark.parametrize("algorithm", quick(("recurrent_a2c", "recurrent_ppo"), "recurrent_a2c"))
def test_runs_are_continued_bit_for_bit_and_seeds_are_independent(algorithm):
    config = small(algorithm, cell="lstm", hidden_sizes=(8,))
    keys = jax.random.split(jax.random.key(0), 2)
    axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))
    init = jax.jit(jax.vmap(partial(prl.init, config=config), out_axes=axes))

    def run(iterations):
        step = partial(prl.run, config=config, iterations=iterations)
        return jax.jit(jax.vmap(step, (axes,), (axes, 0)))

    def arrays(state):
        return state._replace(key=jax.random.key_data(state.key))

    all_at_once, half, state = run(4), run(2), init(keys)
    whole, _ = all_at_once(state)
    chex.assert_trees_all_equal(arrays(half(half(state)[0])[0]), arrays(whole))
    assert all(abs(x).max() > 0 for x in jax.tree.leaves(whole.env.carry))
    # with another second seed, the first is the same
    other, _ = all_at_once(init(jnp.stack([keys[0], jax.random.key(9)])))
    first = [prl.seed_state(arrays(x), 0) for x in (whole, other)]
    chex.assert_trees_all_equal(*first)
    assert (whole.env.obs[1] != other.env.obs[1]).any()


@pytest.mark.parametrize(
    "names",
    quick(
        [*itertools.product(ALGORITHMS, ("Breakout-MinAtar", "FrozenLake-misc", "Pendulum-v1"))],
        ("recurrent_a2c", "Breakout-MinAtar"),
        ("recurrent_ppo", "FrozenLake-misc"),
        ("recurrent_ppo", "Pendulum-v1"),
        ("recurrent_pqn", "Breakout-MinAtar"),
        ("recurrent_pqn", "Pendulum-v1"),
    ),
    ids="-".join,
)
def test_images_indices_and_continuous_actions_have_networks(names):
    algorithm, env = names
    config = small(algorithm, env=env, wrappers=())
    if (algorithm, env) == ("recurrent_pqn", "Pendulum-v1"):
        with pytest.raises(ConfigError, match="PQN needs discrete actions"):
            prl.make_train(config)
        return
    state, metrics = jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert metrics["loss"].shape == (config.iterations,)
    assert state.env.carry.shape == (3, 8)
    kernels = [x.shape for x in jax.tree.leaves(state.agent.params) if x.ndim == 2]
    assert ((9 * 4, 16) in kernels) == (env == "Breakout-MinAtar")


def test_wrappers_scale_what_recurrent_agents_see():
    wrappers = (prl.normalize.observations, prl.normalize.rewards, ppo.early_stopping)
    config = small("recurrent_ppo", env="Pendulum-v1", wrappers=wrappers)
    _, metrics = jax.jit(prl.make_train(config))(jax.random.key(0))
    chex.assert_tree_all_finite(metrics)
    assert "stopped" in metrics


# configurations


@pytest.mark.parametrize(
    ("algorithm", "changes", "complaint"),
    (
        ("recurrent_ppo", {"cell": "grru"}, "no cell is called grru: did you mean gru"),
        ("recurrent_a2c", {"memory_size": 0}, "memory_size is 0, but must be at least 1"),
        ("recurrent_pqn", {"sequence_length": 3}, "sequence_length is 3, but must divide rollout"),
        ("recurrent_ppo", {"sequence_length": 0}, "sequence_length is 0, but must be at least 1"),
        ("recurrent_ppo", {"sequence_length": 4}, "2 minibatches do not divide the 3 sequences"),
        ("recurrent_ppo", {"sequence_length": None}, "do not divide the 3 sequences of a rollout"),
        ("recurrent_ppo", {"num_updates": 3, "num_epochs": 2}, "must be num_epochs = 2 times"),
        ("recurrent_a2c", {"noise_repeat": 2}, "is on-policy, which needs .* set noise_repeat=1"),
    ),
)
def test_invalid_fields_get_one_line(algorithm, changes, complaint):
    with pytest.raises(ConfigError, match=complaint) as error:
        prl.make_train(small(algorithm, **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("algorithm", ("recurrent_ppo", "recurrent_pqn"))
def test_a_memory_of_single_transitions_is_refused(algorithm):
    wrong = partial(prl.agents.exported(algorithm), memory=ppo.epochs)
    config = small(algorithm).replace(algorithm=wrong)
    with pytest.raises(ConfigError, match=r"learn from sequences \[T, B\], but the memory samples"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


def test_a_recurrent_agent_has_no_values_of_single_observations():
    config = small("recurrent_pqn")
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    with pytest.raises(ConfigError, match="this algorithm has no q_values"):
        prl.q_values(config, state, jnp.zeros((1, 4)))


def test_the_command_line_chooses_the_cell():
    flags = ["--env=CartPole-v1", "--cell=min_gru", "--memory-size=16", "--sequence-length=32"]
    config = cli.parse_with_preset(cli.TrainOptions, "train", "recurrent_ppo", flags).config
    assert (config.cell, config.memory_size, config.sequence_length) == ("min_gru", 16, 32)
    assert config.num_minibatches == 4 and config.env == "CartPole-v1"


# stacked observations


def frames(env, k, steps):
    """Observations of one environment, its stacked ones, and which steps were last."""
    plain, stacked = envs.bind(env), envs.bind(frame_stack(env, k))

    @jax.jit
    def played(keys):
        states = plain.reset(jax.random.key(0), 1), stacked.reset(jax.random.key(0), 1)

        def step(states, key):
            action = plain.random_action(key[0], 1)
            one, other = (
                env.step(key, state, env.to_env(action))
                for env, state in zip((plain, stacked), states, strict=True)
            )
            after = one[0], other[0]
            return after, (*[state.obs[0] for state in after], one[1], other[1])

        return [state.obs for state in states], jax.lax.scan(step, states, keys)[1]

    keys = jax.random.split(jax.random.key(1), (steps, 1))
    (start, first), (obs, stack, one, other) = jax.device_get(played(keys))
    rows = [(start[0], first[0], None, None, True)]
    chex.assert_trees_all_equal((one.reward, one.last), (other.reward, other.last))
    after = one.next_obs[:, 0], other.next_obs[:, 0], one.last[:, 0]
    return stacked, [*rows, *zip(obs, stack, *after, strict=True)]


@pytest.mark.parametrize("k", (1, 3))
@pytest.mark.parametrize("env", (Counter(), "Breakout-MinAtar", "FrozenLake-misc"))
def test_stacked_observations_are_the_last_k_of_the_episode(env, k):
    stacked, rows = frames(env, k, 40)
    space = envs.bind(env).observation_space

    def joined(past):
        padded = [past[0]] * k + past
        if hasattr(space, "n"):
            return sum(int(x) * space.n**i for i, x in enumerate(reversed(padded[-k:])))
        return np.concatenate(padded[-k:], -1)

    past = []
    for obs, found, next_obs, next_found, last in rows:
        if next_obs is not None:  # before the reset
            np.testing.assert_array_equal(next_found, joined([*past, next_obs]))
        past = [obs] if last else [*past, obs]
        np.testing.assert_array_equal(found, joined(past))
        assert found.dtype == obs.dtype
    assert sum(bool(row[-1]) for row in rows) > 2
    assert stacked.observation_space.shape == rows[0][1].shape
    assert stacked.binary_observations == (env == "Breakout-MinAtar")
    assert stacked.max_steps == envs.bind(env).max_steps


def test_legal_actions_follow_from_the_newest_frame():
    class Game(Counter):
        def legal_actions(self, obs, params):
            return jnp.arange(3) == obs[0] % 3

    env = envs.bind(frame_stack(Game(), 2))
    obs = jnp.array([[0, 9, 1, 9], [4, 9, 5, 9]], jnp.uint8)
    np.testing.assert_array_equal(env.legal_actions(obs).argmax(-1), [1, 2])
    assert envs.bind(frame_stack(Counter(), 2)).legal_actions is None


def test_tables_learn_from_stacked_indices():
    """Two values of which the first decides: a table of pairs of observations is sufficient."""

    class Indices(Recall):
        def get_obs(self, state, params=None, key=None):
            return jnp.where(state.time == 0, 1 + (state.sign > 0), 0).astype(jnp.int32)

        def observation_space(self, params):
            return spaces.Discrete(3)

    config = prl.default_config("q_learning").replace(
        env=frame_stack(Indices(2), 2), total_steps=4_000, learning_rate=0.5
    )
    state, _ = jax.jit(prl.make_train(config))(jax.random.key(0))
    play = jax.jit(partial(prl.evaluate, max_steps=2), static_argnums=3)
    np.testing.assert_array_equal(play(jax.random.key(1), config, state, 64), 1)


@pytest.mark.parametrize("env", ("t_maze_5", "maximization_bias"))
def test_tables_of_stacked_mdps_have_the_actions_of_the_newest_state(env):
    stacked = frame_stack(env, 2)
    params = stacked.default_params
    config = prl.default_config("q_learning").replace(env=stacked, total_steps=64)
    for changes in ({}, {"env": Parametrised(stacked, params)}):
        state, _ = jax.jit(prl.make_train(config.replace(**changes)))(jax.random.key(0))
        exists = np.isfinite(np.asarray(state.agent.q[0]))
        np.testing.assert_array_equal(exists, np.tile(params.legal, (len(params.legal), 1)))


@pytest.mark.parametrize(
    ("env", "k", "complaint"),
    (
        ("CartPole-v1", 0, "k is 0, but must be at least 1"),
        ("CartPole-v1", 1.5, "k is 1.5, but must be a whole number"),
        ("CartPol-v1", 2, "no environment is called CartPol-v1: did you mean CartPole-v1"),
        ("FrozenLake-misc", 12, "more than an int32 can count: lower k"),
    ),
)
def test_frames_that_cannot_be_stacked_get_one_line(env, k, complaint):
    with pytest.raises(ConfigError, match=complaint):
        envs.bind(frame_stack(env, k))


def test_no_step_of_a_wrapper_is_left_out():
    """The actions of the environment inside would not be sticky."""
    sticky = partial(StickyActionWrapper, sticky_action_prob=0.5)
    for around in (lambda env: frame_stack(env, 2), lambda env: visible(env, (0, 2))):
        with pytest.raises(ConfigError, match=r"opposite order, as StickyActionWrapper\("):
            around(sticky(envs.make("CartPole-v1")))
        assert envs.bind(sticky(around("CartPole-v1"))).observation_space.shape in ((8,), (2,))

"""The DQN family against values that are known exactly."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import purejaxrl_sac as prl
from purejaxrl_sac import envs, heads, losses, mdp, networks
from purejaxrl_sac.agents import ALGORITHMS, distributional
from purejaxrl_sac.agents import dqn as parts
from purejaxrl_sac.agents.off_policy import NStep
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import built, init, quick, small
from tests.probes import GAMMA, Counter, Params, Probe, adam_gradient, replayed, stored, trained

MODULES = {"dqn", "distributional", "pqn"}
FAMILY = ["soft_dqn", *(name for name, (module, *_) in ALGORITHMS.items() if module in MODULES)]
OWN_RETURNS = ("dqn", "n_step_dqn", "pqn")  # all others have the returns of one of these
SHARP = {
    "soft_dqn": {"alpha": 1e-3},
    "munchausen_dqn": {"alpha": 1e-3, "munchausen": 0.0},
    "qr_dqn": {"num_quantiles": 8},
    "iqn": {"num_quantiles": 8},
}
ON_POLICY = {"n_step_dqn", "expected_dqn", "pqn"}
MANY = {"num_envs": 16, "rollout_length": 8, "num_updates": 4}  # transitions for on-policy


def settings(algorithm, **changes):
    """Hyperparameters with which an algorithm's fixed point is that of Q-learning."""
    on_policy = {"epsilon_end": 0.02} if algorithm in ON_POLICY else {}
    many = MANY if algorithm == "pqn" else {}
    return {**SHARP.get(algorithm, {}), **on_policy, **many, **changes}


def obs(*rows):
    return jnp.array(rows, jnp.float32)


@pytest.mark.parametrize("algorithm", quick(FAMILY, "dqn"))
def test_values_are_discounted_and_actions_depend_on_the_state(algorithm):
    """The second step is rewarded, and the sign determines which action is."""
    env = Probe(
        lambda sign, time, action: (time == 1) * (1 + sign * (2.0 * action - 1)),
        horizon=2,
        signs=(-1.0, 1.0),
    )
    config, state = trained(algorithm, env, 1_500, **settings(algorithm))
    seen = obs([-1, 0], [1, 0], [-1, 0.5], [1, 0.5])
    q = prl.q_values(config, state, seen)
    np.testing.assert_allclose(q.max(-1), [2 * GAMMA, 2 * GAMMA, 2, 2], rtol=0.1)
    action = prl.policy(config, state)(jax.random.key(0), seen)
    np.testing.assert_array_equal(action[2:], [0, 1])
    assert (prl.evaluate(jax.random.key(1), config, state, 32, max_steps=5) == 2).all()


@pytest.mark.parametrize("algorithm", quick(FAMILY, *OWN_RETURNS))
def test_values_bootstrap_at_time_limits(algorithm):
    env = Probe(lambda sign, time, action: 1, horizon=0)
    changes = settings(algorithm, env_params=Params(max_steps_in_episode=3))
    if hasattr(prl.default_config(algorithm), "tau"):
        changes["tau"] = 0.2
    config, state = trained(algorithm, env, 800, **changes)
    q = prl.q_values(config, state, obs([1, 0]))
    np.testing.assert_allclose(q, jnp.full((1, 2), 1 / (1 - GAMMA)), rtol=0.07)


MDP = mdp.garnet(jax.random.key(3), states=6, actions=3, branching=2)
LAW = np.asarray(MDP.P).ravel()  # P(s'|s, a) of every (s, a, s')


def everything():
    """Every (s, a, s') as a batch of transitions, [S x A x S]."""
    state, action, following = (x.ravel() for x in np.indices(MDP.P.shape, dtype=np.int32))
    ones = jnp.ones(LAW.shape)
    return Transition(state, action, jnp.ravel(MDP.R), ones, following, ones == 0)


def fixed_point(algorithm, updates=1_000, **changes):
    """Q(s, .) of a network that is linear in one-hot states, after updates on exact expectations.

    The data are not random: each transition is weighted by its probability.
    """
    config = prl.default_config(algorithm)
    known = {"tau": 0.2, "target_period": 1, "v_min": -5.0, "v_max": 20.0, "num_atoms": 51}
    known = {name: value for name, value in known.items() if hasattr(config, name)}
    config = config.replace(
        env=Tabular(MDP), gamma=GAMMA, hidden_sizes=(), learning_rate=5e-2, **known
    ).replace(**changes)
    _, agent, _ = prl.build(config)
    batch = everything()

    def learn(state, xs):
        key, count = xs
        _, seen = agent.process_rollout(state, jax.tree.map(lambda x: jnp.asarray(x)[None], batch))
        seen = jax.tree.map(lambda x: x[0], seen)
        return agent.update(key, state, Sample(seen, jnp.float32(LAW)), count)[0], None

    def run(key):
        keys = jax.random.split(key, updates)
        state = agent.init(keys[0], batch.obs)
        state, _ = jax.lax.scan(learn, state, (keys, jnp.arange(updates)))
        return agent.q_values(state, jnp.arange(len(MDP.P)))

    return np.asarray(jax.jit(run)(jax.random.key(1)))


@pytest.mark.parametrize(
    ("algorithm", "changes", "atol"),
    (
        ("dqn", {}, 0.02),
        ("double_dqn", {}, 0.02),
        ("dueling_dqn", {}, 0.02),
        ("soft_dqn", {"alpha": 1e-4}, 0.02),
        ("expected_dqn", {"epsilon_start": 0.0, "epsilon_end": 0.0}, 0.02),
        ("c51", {}, 0.05),
        ("qr_dqn", {"num_quantiles": 32, "huber_delta": 0.1}, 0.1),
        ("pqn", {"trace_decay": 0.0, "total_steps": 2_048 * 1_000}, 0.02),
    ),
)
def test_the_fixed_point_is_the_optimal_value(algorithm, changes, atol):
    optimal = dp.value_iteration(MDP, GAMMA)
    np.testing.assert_allclose(fixed_point(algorithm, **changes), optimal, atol=atol)


@pytest.mark.parametrize("alpha", (0.1, 1.0, 5.0))
def test_soft_dqn_converges_to_the_soft_optimal_value(alpha):
    optimal = dp.soft_value_iteration(MDP, GAMMA, alpha)
    found = fixed_point("soft_dqn", alpha=alpha, learning_rate=0.05 * max(1, alpha))
    np.testing.assert_allclose(found, optimal, rtol=2e-3, atol=0.02)
    entropy, exact = (dp.policy_entropy(dp.boltzmann(q, alpha)) for q in (found, optimal))
    assert 0.05 < exact.mean() < np.log(3)
    np.testing.assert_allclose(entropy, exact, atol=0.05)


def test_expected_dqn_evaluates_the_exploring_policy():
    value = dp.policy_evaluation(MDP, GAMMA, dp.uniform_policy(MDP))
    q = dp.backup(MDP, GAMMA, value)
    found = fixed_point("expected_dqn", epsilon_start=1.0, epsilon_end=1.0)
    np.testing.assert_allclose(found, q, atol=0.02)


def munchausen_value_iteration(alpha, share, least):
    """Q <- r + m [alpha log pi(a|s)] + gamma P E_pi[Q - alpha log pi], in double precision."""
    P, r = np.asarray(MDP.P, float), np.asarray((MDP.P * MDP.R).sum(-1), float)
    q = np.zeros(r.shape)
    for _ in range(2_000):
        scaled = (q - q.max(-1, keepdims=True)) / alpha
        log_pi = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
        value = (np.exp(log_pi) * (q - alpha * log_pi)).sum(-1)
        before, q = q, r + share * np.clip(alpha * log_pi, least, 0) + GAMMA * P @ value
    np.testing.assert_allclose(q, before, atol=1e-9)
    return q


@pytest.mark.parametrize(("alpha", "share", "least"), ((0.03, 0.9, -1.0), (0.5, 0.6, -0.4)))
def test_munchausen_dqn_converges_to_its_fixed_point(alpha, share, least):
    changes = {"alpha": alpha, "munchausen": share, "munchausen_min": least}
    expected = munchausen_value_iteration(alpha, share, least)
    np.testing.assert_allclose(fixed_point("munchausen_dqn", **changes), expected, atol=0.03)
    assert np.abs(expected - np.asarray(dp.value_iteration(MDP, GAMMA))).max() > 0.5


def test_c51_learns_the_distribution_of_returns():
    """B: one step of reward 0 or 1, evenly. A: reward 1, then B. Their histograms are exact."""
    P = np.zeros((4, 1, 4))
    P[0, 0, 1] = 1
    P[1, 0, 2:] = 0.5
    P[2:, 0, [2, 3]] = np.eye(2)
    R = np.zeros((4, 1, 4))
    R[0], R[1, 0, 3] = 1, 1
    made = Tabular(mdp.make(P, R, terminal=[2, 3]))
    config = prl.default_config("c51").replace(
        env=made, gamma=0.5, hidden_sizes=(), num_atoms=5, v_min=0.0, v_max=2.0,
        learning_rate=2e-2, tau=0.1, target_period=1,
    )  # fmt: skip
    _, agent, _ = built(config)
    batch = Transition(
        obs=jnp.array([0, 1, 1]),
        action=jnp.zeros(3, jnp.int32),
        reward=jnp.array([1.0, 0, 1]),
        discount=jnp.array([1.0, 0, 0]),
        next_obs=jnp.array([1, 2, 3]),
        last=jnp.array([False, True, True]),
    )

    def learn(state, count):
        sample = Sample(batch, jnp.array([2.0, 1, 1]))
        return agent.update(jax.random.key(0), state, sample, count)[0], None

    state = agent.init(jax.random.key(1), batch.obs)
    state, _ = jax.lax.scan(learn, state, jnp.arange(2_000))
    logits = state.params["params"]["stream"]
    kernel = jax.tree.leaves(logits)
    bias, weight = sorted(kernel, key=jnp.ndim)
    p = jax.nn.softmax(weight[:2] + bias)
    expected = [[0, 0, 0.5, 0.5, 0], [0.5, 0, 0.5, 0, 0]]  # 1 or 1.5; 0 or 1
    np.testing.assert_allclose(p, expected, atol=0.02)


@pytest.mark.parametrize("risk", quick((1.0, 0.25), 0.25))
def test_iqn_with_a_small_cvar_avoids_the_worst_outcomes(risk):
    """A certain 0.4, or 0 or 1 evenly: better on average, worse in the worst quarter."""
    env = Tabular(
        mdp.make(
            np.array([[[0, 1, 0], [0, 0.5, 0.5]], [[0, 1, 0]] * 2, [[0, 0, 1]] * 2]),
            np.array([[[0, 0.4, 0], [0, 0, 1]], [[0] * 3] * 2, [[0] * 3] * 2]),
            terminal=[1, 2],
        )
    )
    config, state = trained(
        "iqn", env, 1_200, cvar=risk, epsilon_end=1.0, huber_delta=0.05, num_quantiles=8,
        num_target_quantiles=8, hidden_sizes=(16,), batch_size=32,
    )  # fmt: skip
    q = prl.q_values(config, state, jnp.zeros(1, jnp.int32))[0]
    np.testing.assert_allclose(q, [0.4, 0.5 if risk == 1 else 0], atol=0.1)
    action = prl.policy(config, state)(jax.random.key(0), jnp.zeros(1, jnp.int32))
    assert action[0] == (risk == 1)


@cache
def probed(algorithm):
    """An agent, and two states of it."""
    env = Probe(lambda sign, time, action: action)
    _, agent, _ = built(prl.default_config(algorithm).replace(env=env, hidden_sizes=(16,)))
    return agent, *(agent.init(jax.random.key(k), jnp.zeros((64, 2))) for k in (1, 2))


def one_update(algorithm, weight=1.0, **state_changes):
    """States before and after one update on a random batch, and what the update returned."""
    rng, last = np.random.default_rng(0), np.arange(64) % 4 == 0
    obs, next_obs = rng.standard_normal((2, 64, 2), np.float32)
    batch = Transition(
        obs=obs,
        action=np.arange(64, dtype=np.int32) % 2,
        reward=rng.standard_normal(64, np.float32),
        discount=(~last).astype(np.float32),
        next_obs=next_obs,
        last=last,
    )
    agent, state, other = probed(algorithm)
    state = state._replace(**{"target_params": other.params, **state_changes})
    sample = Sample(batch, jnp.full(64, weight))
    after, priority, metrics = agent.update(jax.random.key(3), state, sample, jnp.int32(0))
    return agent, state, other, batch, after, priority, metrics


def test_double_dqn_selects_actions_with_the_online_network():
    agent, state, other, batch, _, priority, _ = one_update("double_dqn")
    online, target = (np.asarray(agent.q_values(x, batch.next_obs)) for x in (state, other))
    assert (online.argmax(-1) != target.argmax(-1)).any()
    chosen = target[np.arange(64), online.argmax(-1)]
    expected = batch.reward + 0.99 * batch.discount * chosen
    q = np.asarray(agent.q_values(state, batch.obs))[np.arange(64), batch.action]
    np.testing.assert_allclose(priority, np.abs(expected - q), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ("dqn", "c51", "qr_dqn", "iqn"))
def test_importance_weights_scale_the_loss(algorithm):
    def gradient(weight):
        *_, after, _, metrics = one_update(algorithm, weight=weight)
        return adam_gradient(after.opt_state), metrics["loss"]

    (full, loss), (half, half_loss) = gradient(1.0), gradient(0.5)
    np.testing.assert_allclose(half, 0.5 * full, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(half_loss, 0.5 * loss, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ("dqn", "c51", "qr_dqn", "iqn", "munchausen_dqn", "rainbow"))
def test_the_target_network_is_used(algorithm):
    agent, state, *_, first, _, _ = one_update(algorithm)
    *_, second, _, _ = one_update(algorithm, target_params=state.params)
    assert not np.allclose(adam_gradient(first.opt_state), adam_gradient(second.opt_state))


def test_noisy_environments_explore_independently():
    env = Probe(lambda sign, time, action: action)
    config = prl.default_config("noisy_dqn").replace(env=env)
    _, agent, _ = built(config)
    same = jnp.ones((512, 2))
    state = agent.init(jax.random.key(1), same)
    action, *_ = agent.act(jax.random.key(2), state, same, jnp.int32(0), ())
    assert 0 < action.mean() < 1
    again, *_ = agent.act(jax.random.key(3), state, same, jnp.int32(0), ())
    assert (action != again).any()
    greedy, _ = agent.policy(jax.random.key(2), state, same, ())
    assert (greedy == greedy[0]).all()


@pytest.mark.parametrize("algorithm", ("noisy_dqn", "rainbow"))
def test_sigma_scales_the_noise_of_every_noisy_layer(algorithm):
    def deviations(sigma):
        config = small(algorithm).replace(sigma=sigma)
        found = flatten_dict(init(jax.random.key(0), config).agent.params)
        return [x for path, x in found.items() if path[-1].startswith("sigma")]

    assert deviations(0.1)
    for low, high in zip(deviations(0.1), deviations(0.5), strict=True):
        np.testing.assert_allclose(5 * low, high, rtol=1e-6)


def test_rainbow_without_its_extensions_is_c51(key):
    off = {
        "network": networks.q_network,
        "bootstrap": parts.maximum,
        "explore": parts.epsilon_greedy,
        "storage": parts.replay_storage,
        "memory": parts.uniform_replay,
    }
    assert {*off, "head"} == set(distributional.rainbow.keywords)
    config = small("c51")
    c51 = jax.jit(prl.train)(key, config)[0].agent
    plain = config.replace(algorithm=partial(distributional.rainbow, **off))
    chex.assert_trees_all_equal(jax.jit(prl.train)(key, plain)[0].agent, c51)


def test_selection_target_and_loss_draw_independent_noise():
    """With a shared key, an action would be evaluated with the noise that selected it."""
    config = small("noisy_dqn").replace(algorithm=partial(parts.noisy_dqn, bootstrap=parts.double))
    _, agent, memory = prl.build(config)
    state = init(jax.random.key(0), config)
    drawn = []
    uniform = jax.random.uniform  # which the noise is transformed from

    def spy(key, *arguments):
        if arguments[-1] == 1:  # the upper bound; initial weights have smaller ones
            drawn.append(jax.random.key_data(key))
        return uniform(key, *arguments)

    @jax.jit
    def keys_of_an_update(state):
        draws = memory.draw(jax.random.key(1), state.memory, state.step, 1)
        sample = memory.sample(state.memory, jax.tree.map(lambda x: x[0], draws))
        agent.update(jax.random.key(2), state.agent, sample, jnp.int32(0))
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "uniform", spy)
        found = keys_of_an_update(state)
    assert len({tuple(key.tolist()) for key in found}) == 3  # of Q(s, a), Q(s', .) and Q-(s', .)


class NStepSoftDQNConfig(prl.SoftDQNConfig, NStep):
    algorithm: prl.Algorithm = prl.static(parts.n_step_soft_dqn)


def test_n_step_soft_returns_by_hand():
    """Rewards and discounted entropies of the steps in between, up to the end of an episode."""
    n, gamma, alpha, steps = 3, 0.9, 0.5, 7
    config = NStepSoftDQNConfig(n_step=n, gamma=gamma, alpha=alpha, capacity=steps)
    storage = parts.soft_n_step_storage(config, envs.bind("CartPole-v1"))
    obs = jnp.arange(4.0 * (steps + 1)).reshape(-1, 1, 4)
    reward, entropy = jnp.arange(1.0, 8)[:, None], jnp.arange(10.0, 17)[:, None]
    last = (jnp.arange(steps) == 3)[:, None]
    action = jnp.zeros((steps, 1), jnp.int32)
    rollout = Transition(obs[:-1], action, reward, 1.0 - last, obs[1:], last, entropy)
    state = storage.add(storage.init(rollout), jnp.int32(0), rollout)
    read = stored(storage, state, steps)
    found = parts.soft_n_step_reward(config, read, None)[:, 0]
    for t in range(steps):
        end = min(t + n, 4 if t < 4 else steps)
        expected = sum(gamma**i * (t + 1 + i) for i in range(end - t))
        expected += alpha * sum(gamma**i * (10 + t + i) for i in range(1, end - t))
        assert found[t] == pytest.approx(expected, rel=1e-6)
        np.testing.assert_array_equal(read.next_obs[t], obs[end])
    np.testing.assert_array_equal(read.discount[:4, 0] > 0, [True, False, False, False])


def test_n_step_soft_dqn_stores_the_entropy_of_its_policy(key):
    config = small("soft_dqn")
    known = {name: getattr(config, name) for name in vars(config) if name != "algorithm"}
    config = NStepSoftDQNConfig(**known, n_step=2).replace(learning_rate=0.0)
    state, metrics = jax.jit(prl.train)(key, config)
    assert jnp.isfinite(metrics["loss"]).all()
    rows = replayed(config, state)
    q = prl.q_values(config, state, rows.obs.reshape(-1, 4)) / config.alpha
    entropy = losses.entropy(jax.nn.softmax(q)).reshape(rows.extras.shape)
    np.testing.assert_allclose(rows.extras, entropy, rtol=1e-4, atol=1e-6)
    assert rows.extras.max() > 0.1


def test_predictions_and_targets_of_iqn_have_independent_fractions():
    def spying(config):
        head = heads.implicit_quantile(config)

        def loss(outputs, action, following, backup):
            row_loss, priority, _ = head.loss(outputs, action, following, backup)
            same = (outputs.fraction == following.outputs.fraction).mean()
            return row_loss, priority, {"same": same}

        return head._replace(loss=loss)

    config = small("iqn").replace(algorithm=partial(distributional.iqn, head=spying))
    agent = prl.build(config)[1]
    obs = jnp.zeros((8, 4))
    batch = Transition(obs, jnp.zeros(8, int), jnp.zeros(8), jnp.ones(8), obs, jnp.zeros(8, bool))
    state = jax.eval_shape(agent.init, jax.random.key(0), obs)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    sample = Sample(batch, jnp.float32(1))
    *_, metrics = jax.jit(agent.update)(jax.random.key(1), state, sample, 0)
    assert metrics["same"] == 0


def test_uint8_observations_train(key):
    config = prl.default_config("dqn").replace(
        env=Counter(), total_steps=400, warmup_steps=40, capacity=100, batch_size=16
    )
    state, metrics = jax.jit(prl.train)(key, config)
    assert replayed(config, state).obs.dtype == jnp.uint8
    assert jnp.isfinite(metrics["loss"]).all()


def test_pqn_targets_by_hand():
    """Q(lambda) within episodes: time limits bootstrap, terminations do not."""
    gamma, decay = 0.9, 0.7
    config = small("pqn", gamma=gamma, trace_decay=decay)
    _, agent, _ = built(config)
    steps, envs = 5, 2
    obs, next_obs = np.random.default_rng(1).standard_normal((2, steps, envs, 4), np.float32)
    state = agent.init(jax.random.key(0), obs[0])
    last = np.array([[0, 0], [1, 0], [0, 1], [0, 0], [0, 0]], bool)
    discount = np.ones((steps, envs), np.float32)
    discount[2, 1] = 0  # the first environment reaches a time limit, the second terminates
    reward = np.arange(10, dtype=np.float32).reshape(steps, envs)
    rollout = Transition(
        obs=obs,
        action=np.zeros((steps, envs), np.int32),
        reward=reward,
        discount=discount,
        next_obs=next_obs,
        last=last,
        extras=(),
    )
    value = np.stack([np.asarray(agent.q_values(state, x)).max(-1) for x in next_obs])
    assert np.ptp(value) > 0.01
    expected = np.zeros((steps, envs))
    for env in range(envs):
        for t in reversed(range(steps)):
            following = value[t, env]
            if t + 1 < steps and not last[t, env]:
                following = (1 - decay) * following + decay * expected[t + 1, env]
            expected[t, env] = reward[t, env] + gamma * discount[t, env] * following
    observed = agent.process_rollout(state, rollout)[1]
    np.testing.assert_allclose(observed.extras, expected, rtol=1e-5)

"""Actor-critic against hand-computed numbers, rlax, and exact gradients and values."""

from functools import partial

import chex
import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from gymnax.environments.classic_control.cartpole import EnvParams as CartPoleParams

import purejaxrl_sac as prl
from purejaxrl_sac import distributions, envs, mdp, networks, normalize
from purejaxrl_sac.agents import a2c, ppo
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import built, compiled, init, quick, small
from tests.probes import CONTINUOUS, GAMMA, Params, Probe, trained

ON_POLICY = ("a2c", "reinforce", "ppo")
MANY = {
    "num_envs": 32,
    "rollout_length": 8,
    "entropy_coef": 0.0,
    "learning_rate": 1e-2,
    "learning_rate_end": 0.1,
    "hidden_sizes": (32,),
    "max_grad_norm": 10.0,
}


def values(config, state, obs):
    """V(s), from the extras that the agent stores with its actions."""
    _, agent, _ = built(config)
    return agent.act(jax.random.key(0), state.agent, obs, jnp.int32(0), ())[1].value


def obs(*rows):
    return jnp.array(rows, jnp.float32)


# learned values and policies


@pytest.mark.parametrize("algorithm", quick(ON_POLICY, "ppo"))
def test_values_are_discounted_and_actions_depend_on_the_state(algorithm):
    env = Probe(
        lambda sign, time, action: (time == 1) * (1 + sign * (2.0 * action - 1)),
        horizon=2,
        signs=(-1.0, 1.0),
    )
    config, state = trained(algorithm, env, 1_000, **MANY, env_params=Params(2))
    seen = obs([-1, 0], [1, 0], [-1, 0.5], [1, 0.5])
    np.testing.assert_allclose(values(config, state, seen), [2 * GAMMA, 2 * GAMMA, 2, 2], rtol=0.1)
    action = prl.policy(config, state)(jax.random.key(0), seen)
    np.testing.assert_array_equal(action[2:], [0, 1])


@pytest.mark.parametrize(
    ("algorithm", "trace_decay"),
    (
        ("a2c", 0.9),
        ("ppo", 0.9),
        pytest.param("reinforce", 1.0, marks=pytest.mark.slow),
    ),
)
def test_values_bootstrap_at_time_limits(algorithm, trace_decay):
    env = Probe(lambda sign, time, action: 1, horizon=0)
    changes = {**MANY, "env_params": Params(max_steps_in_episode=3), "trace_decay": trace_decay}
    config, state = trained(algorithm, env, 1_000, **changes)
    np.testing.assert_allclose(values(config, state, obs([1, 0])), 1 / (1 - GAMMA), rtol=0.07)


@pytest.mark.parametrize("algorithm", ("a2c", "ppo", "recurrent_a2c"))
def test_a_policy_with_several_log_probabilities_for_an_action_is_an_error(algorithm):
    def normal(env):
        usual = distributions.default(env)
        return usual._replace(distribution=lambda x: distrax.Normal(x[0], jnp.exp(x[1])))

    config = small(algorithm, env="Pendulum-v1")
    own = partial(config.algorithm, distribution=normal)
    with pytest.raises(ConfigError, match=r"the part distribution .*distrax.Independent\(..., 1\)"):
        jax.eval_shape(prl.make_train(config.replace(algorithm=own)), jax.random.key(0))


@pytest.mark.parametrize("policy", (distributions.clipped_gaussian, distributions.tanh_gaussian))
def test_the_best_continuous_action_of_each_observation_is_found(policy):
    env = Probe(
        lambda sign, time, action: -jnp.square(action - 0.5 * sign),
        signs=(-1.0, 1.0),
        action_space=CONTINUOUS,
    )
    algorithm = partial(a2c.actor_critic, distribution=policy, optimizer=prl.optimize.decaying_adam)
    config, state = trained("a2c", env, 800, **MANY, algorithm=algorithm)
    action = prl.policy(config, state)(jax.random.key(0), obs([-1, 0], [1, 0]))
    np.testing.assert_allclose(action.ravel(), [-0.5, 0.5], atol=0.1)


# advantages


def rollout_of(config, seed, steps=12, num_envs=3):
    """A rollout of random rewards that contains terminations and truncations."""
    rng = np.random.default_rng(seed)
    shape = (steps, num_envs)
    seen = rng.standard_normal((steps + 1, num_envs, 4), np.float32)
    ends = rng.integers(6, size=shape)  # 0 terminates, 1 truncates
    last = ends <= 1
    elsewhere = rng.standard_normal((*shape, 4), np.float32)
    _, agent, _ = built(config)
    key = jax.random.key(seed)
    state = agent.init(key, seen[0])
    action, choice, _ = jax.vmap(lambda obs: agent.act(key, state, obs, 0, ()))(seen[:-1])
    return (
        agent,
        state,
        Transition(
            obs=seen[:-1],
            action=action,
            reward=rng.standard_normal(shape, np.float32),
            discount=(ends != 0).astype(np.float32),
            next_obs=np.where(last[..., None], elsewhere, seen[1:]),
            last=last,
            extras=choice,
        ),
    )


advantages = jax.jit(rlax.truncated_generalized_advantage_estimation)


@pytest.mark.parametrize(
    ("algorithm", "trace_decay"), (("a2c", 0.0), ("a2c", 0.7), ("reinforce", 1.0), ("ppo", 0.9))
)
def test_advantages_agree_with_rlax_within_episodes(algorithm, trace_decay):
    config = small(algorithm, trace_decay=trace_decay, gamma=0.9)
    agent, state, rollout = rollout_of(config, 3)
    assert (rollout.last & (rollout.discount == 1)).any() and (rollout.discount == 0).any()
    _, observed = agent.process_rollout(state, rollout)
    choice = jax.tree.map(np.asarray, observed.extras)
    after = agent.act(jax.random.key(0), state, rollout.next_obs.reshape(-1, 4), 0, ())[1].value
    after = np.asarray(after).reshape(rollout.reward.shape)
    expected = np.zeros(rollout.reward.shape)
    for env in range(expected.shape[1]):
        ends = [*np.flatnonzero(rollout.last[:, env]), len(expected) - 1]
        start = 0
        for end in dict.fromkeys(ends):  # each episode separately
            rows = (slice(start, end + 1), env)
            baseline = np.append(choice.value[rows], after[end, env])
            expected[rows] = advantages(
                rollout.reward[rows], 0.9 * rollout.discount[rows], trace_decay, baseline
            )
            start = end + 1
    np.testing.assert_allclose(choice.advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(choice.target, expected + choice.value, rtol=1e-4, atol=1e-5)


def test_advantages_by_hand():
    """V is 10 everywhere; of three steps, the second terminates or truncates the episode."""
    config = small("a2c", trace_decay=0.5, gamma=0.9)
    agent, state, rollout = rollout_of(config, 0, steps=3, num_envs=2)
    params = jax.tree.map(jnp.zeros_like, state.params)
    critic = {**params["params"]["Dense_0"], "bias": jnp.full(1, 10.0)}
    state = state._replace(params={"params": {**params["params"], "Dense_0": critic}})
    rollout = rollout._replace(
        reward=jnp.array([[1.0, 1], [2, 2], [4, 4]]),
        discount=jnp.array([[1.0, 1], [0, 1], [1, 1]]),
        last=jnp.array([[False, False], [True, True], [False, False]]),
        extras=rollout.extras._replace(value=jnp.full((3, 2), 10.0)),
    )
    # delta_t = r + 0.9 d 10 - 10, A_t = delta_t + 0.45 A_{t+1} within the episode
    terminated, truncated, beyond = 2 - 10, 2 + 9 - 10, 4 + 9 - 10
    first = 1 + 9 - 10
    expected = [
        [first + 0.45 * terminated, first + 0.45 * truncated],
        [terminated, truncated],
        [beyond, beyond],
    ]
    _, observed = agent.process_rollout(state, rollout)
    np.testing.assert_allclose(observed.extras.advantage, expected, rtol=1e-5)


# REINFORCE


def test_reinforce_learns_from_the_steps_whose_episodes_end_in_the_rollout():
    """Whatever happens: the number of steps depends on the time limit only."""
    env = Probe(lambda sign, time, action: 1, horizon=0)
    config = small("reinforce", env=env, env_params=Params(max_steps_in_episode=3))
    for length, steps in ((3, 1), (4, 2), (7, 5)):
        _, _, memory = prl.build(config.replace(rollout_length=length))
        last = jnp.zeros((length, 2), bool)
        sample = memory.sample(Transition(*[last] * 6), None)
        expected = np.where(np.arange(length) < steps, length / steps, 0)
        np.testing.assert_allclose(sample.weight, expected[:, None] * np.ones(2), rtol=1e-6)


def test_reinforce_does_not_prefer_short_episodes():
    """Of action 1, the bad half ends at once and the good half after 8 more steps.

    Its mean return is 1.3, and 1 is that of action 0. Among the episodes that happen to end in the
    rollout, bad ones are more frequent, and the mean of action 1 is less than 1.
    """
    length, end = 8, 9
    P, R = np.zeros((2, end + 1, 2, end + 1))
    P[0, 0, end] = R[0, 0, end] = 1
    P[0, 1, [1, end]] = 0.5
    P[range(1, end), :, range(2, end + 1)] = 1
    R[length, :, end] = 2.6
    config = prl.ReinforceConfig(
        env=Tabular(mdp.make(P, R, terminal=[end]), max_steps=length + 1),
        gamma=1.0,
        num_envs=32,
        rollout_length=2 * (length + 1),
        hidden_sizes=(),
        learning_rate=1e-2,
        total_steps=32 * 18 * 200,
    )
    state, _ = jax.jit(prl.make_train(config))(jax.random.key(0))
    head = state.agent.params["params"]["head"]["Dense_0"]
    assert jax.nn.softmax(head["kernel"][0] + head["bias"])[1] > 0.8


def test_reinforce_needs_rollouts_of_the_longest_episode():
    config = prl.ReinforceConfig(rollout_length=499)
    with pytest.raises(ConfigError, match="rollout_length is 499, but must be at least 500, "):
        prl.build(config)
    prl.build(config.replace(rollout_length=500))
    endless = Params(max_steps_in_episode=np.inf)
    unlimited = config.replace(env=Probe(lambda sign, time, action: 1), env_params=endless)
    with pytest.raises(ConfigError, match=r"Probe has no time limit, .*: use a2c"):
        prl.build(unlimited)


def test_reinforce_by_hand():
    """V is 10 and pi is uniform; the first episode ends after two steps, the second goes on.

    Of three steps and episodes of at most two, the first two are learned from.
    """
    limit = CartPoleParams(max_steps_in_episode=2)
    sizes = {"rollout_length": 3, "hidden_sizes": ()}
    config = small("reinforce", gamma=0.9, value_coef=0.5, env_params=limit, **sizes)
    env = envs.bind(config.env, limit)
    agent, memory = a2c.reinforce(config, env, optimizer=lambda config: optax.sgd(1.0))
    agent = compiled(agent)
    obs = jnp.zeros((3, 2, 4))
    state = agent.init(jax.random.key(0), obs[0])
    params = jax.tree.map(jnp.zeros_like, state.params["params"])
    params["Dense_0"]["bias"] = jnp.full(1, 10.0)
    state = state._replace(params={"params": params})
    value, action = jnp.full((3, 2), 10.0), jnp.array([[1, 0], [1, 0], [1, 1]])
    rollout = Transition(
        obs=obs,
        action=action,
        reward=jnp.array([[1.0, 1], [2, 2], [4, 4]]),
        discount=jnp.array([[1.0, 1], [0, 1], [1, 0]]),
        next_obs=obs,
        last=jnp.array([[False, True], [True, False], [False, True]]),
        extras=a2c.Choice(action, jnp.full((3, 2), jnp.log(0.5)), value),
    )
    _, processed = agent.process_rollout(state, rollout)
    sample = memory.sample(processed, None)
    moved, _, metrics = agent.update(jax.random.key(0), state, sample, jnp.int32(0))
    # G - V: the first episode terminates; the second begins with a truncated step
    error = np.array([[1 + 0.9 * 2, 1 + 0.9 * 10], [2, 2 + 0.9 * 4]]) - 10
    sign = np.array([[1, -1], [1, -1]])  # of action 1, and of action 0
    after = moved.params["params"]
    # grad log pi(1|s) = (-1/2, 1/2) in the logits
    expected = 0.5 * (sign * error).mean() * np.array([-1, 1])
    np.testing.assert_allclose(after["head"]["Dense_0"]["bias"], expected, rtol=1e-5)
    np.testing.assert_allclose(after["Dense_0"]["bias"], 10 + 0.5 * error.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], 0.5 * (error**2).mean(), rtol=1e-5)


# objectives


def test_clipped_surrogate_by_hand():
    config = small("ppo", clip_ratio=0.2)
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5, 1.1])
    advantage = jnp.array([2.0, 2.0, -2.0, -2.0, 3.0])
    surrogate = ppo.clipped_surrogate(config, jnp.log(ratio), jnp.zeros(5), advantage)
    np.testing.assert_allclose(surrogate, [-2.4, -1.0, 3.0, 1.6, -3.3], rtol=1e-6)
    theirs = rlax.clipped_surrogate_pg_loss(ratio, advantage, 0.2)
    assert jax.grad(ppo.clipped_surrogate, 1)(config, 100.0, 0.0, 1.0) == 0  # exp(100) is inf
    np.testing.assert_allclose(surrogate.mean(), theirs, rtol=1e-6)


def test_clipped_value_loss_by_hand():
    value, old, target = jnp.array([1.1, 1.5, 0.2]), jnp.ones(3), jnp.full(3, 2.0)

    def loss(limit):
        return ppo.clipped_value_loss(small("ppo", value_clip=limit), value, old, target)

    np.testing.assert_allclose(loss(0.2), [0.9**2, 0.8**2, 1.8**2], rtol=1e-6)
    for limit in (None, float("inf")):
        np.testing.assert_allclose(loss(limit), [0.9**2, 0.5**2, 1.8**2], rtol=1e-6)


def test_the_clip_ratio_is_annealed():
    config = small("ppo", clip_ratio=0.2, total_steps=144)  # 10 iterations of 2 updates
    schedule = ppo.annealed_clip
    found = [schedule(config, jnp.int32(count)).clip_ratio for count in (0, 10, 19, 25)]
    np.testing.assert_allclose(found, [0.2, 0.1, 0.01, 0], rtol=1e-5)

    def loss(params, inputs):
        value, (priority, _) = a2c.actor_critic_loss(params, inputs)
        return value, (priority, {"clip_ratio": inputs.config.clip_ratio})

    agent = compiled(ppo.ppo(config, envs.bind(config.env), schedule=schedule, loss=loss)[0])
    _, state, rollout = rollout_of(config, 1)
    _, processed = agent.process_rollout(state, rollout)
    sample = Sample(processed, jnp.float32(1))
    _, _, metrics = agent.update(jax.random.key(0), state, sample, jnp.int32(5))
    np.testing.assert_allclose(metrics["clip_ratio"], 0.15, rtol=1e-6)


def test_advantages_are_normalised_over_the_rollout():
    config = small("ppo")
    whole = partial(ppo.ppo, normalize=a2c.unnormalized, normalize_rollout=a2c.standardized)
    agent, state, rollout = rollout_of(config.replace(algorithm=whole), 1)
    usual, *_ = rollout_of(config, 1)
    advantage = agent.process_rollout(state, rollout)[1].extras.advantage
    raw = usual.process_rollout(state, rollout)[1].extras.advantage
    np.testing.assert_allclose(advantage, (raw - raw.mean()) / raw.std(), rtol=1e-4)


@pytest.mark.parametrize("part", ("normalize", "normalize_rollout"))
def test_the_advantage_of_one_row_is_not_normalised(part):
    """It would be exactly 0, whatever the advantage."""
    config = small("a2c", num_envs=1, rollout_length=1)
    algorithm = partial(a2c.a2c, **{part: a2c.standardized})
    minibatches = small("ppo", num_updates=12)  # of 12 rows
    for single in (config.replace(algorithm=algorithm), minibatches):
        with pytest.raises(ConfigError, match="advantage of a single row, normalised, is always 0"):
            jax.eval_shape(prl.make_train(single), jax.random.key(0))


def test_updates_stop_once_the_policy_has_changed_enough():
    """`kl` of four updates is 0.01, 0.03, 0 and 0.01: the first of each rollout is made."""

    def update(key, state, sample, count):
        return state + 1, jnp.zeros(()), {"kl": sample}

    inner = prl.types.memoryless(lambda key, obs: jnp.int32(0), None, None, update)
    agent = ppo.early_stopping(None, None, inner, target_kl=0.02)
    state, made = agent.init(None, None), []
    for _ in range(2):
        state, _ = agent.process_rollout(state, None)
        for kl in (0.01, 0.03, 0.0, 0.01):
            state, _, metrics = agent.update(None, state, jnp.float32(kl), None)
            made.append((int(state.agent), float(metrics["stopped"])))
    assert made == [(1, 0), (1, 1), (1, 1), (1, 1), (2, 0), (2, 1), (2, 1), (2, 1)]


def test_early_stopping_wraps_ppo():
    @jax.jit
    @jax.vmap
    def ends(target_kl):
        wrapper = partial(ppo.early_stopping, target_kl=target_kl)
        config = small("ppo", total_steps=48, wrappers=(wrapper,))
        start = prl.init(jax.random.key(0), config)
        state, metrics = prl.run(start, config, 2)
        return start.agent.agent.params, state.agent.agent.params, metrics["stopped"]

    before, after, stopped = jax.tree.map(np.asarray, ends(jnp.array([1e6, -1e6])))
    np.testing.assert_array_equal(stopped, [[0, 0], [1, 1]])
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max((*range(1, x.ndim),)), before, after)
    for change in jax.tree.leaves(moved):
        assert change[0] > 0 and change[1] == 0


@pytest.mark.parametrize("first", (True, False))
def test_statistics_go_on_where_updates_are_skipped(first):
    """Whichever wrapper is the first; without updates, parameters stay."""
    wrappers = [normalize.observations, normalize.rewards]
    wrappers.insert(0 if first else 2, partial(ppo.early_stopping, target_kl=-1.0))
    config = small("ppo", env="Pendulum-v1", total_steps=48, wrappers=tuple(wrappers))
    start = prl.init(jax.random.key(0), config)
    state, metrics = jax.jit(partial(prl.run, config=config, iterations=2))(start)
    assert (metrics["stopped"] == 1).all()
    before, after, found = start.agent, state.agent, []
    while hasattr(after, "agent"):
        if hasattr(after, "used"):
            found.append((after.used, after.seen))
        before, after = before.agent, after.agent
    assert len(found) == 2
    for used, seen in found:
        chex.assert_trees_all_equal(used, seen)
        assert seen.number.value > 0
    chex.assert_trees_all_equal(before, after)


def test_actor_and_critic_have_their_own_learning_rates():
    rates = {"actor_torso": 0.1, "head": 0.1, "critic_torso": 0.3, "Dense_0": 0.3}
    both = {"actor": optax.sgd(0.1), "critic": optax.sgd(0.3)}
    config = small("a2c", env=Tabular(MDP))
    seen = jnp.arange(6)
    choice = a2c.Choice(seen % 3, jnp.zeros(6), jnp.zeros(6), jnp.ones(6), jnp.ones(6))
    batch = Transition(seen, seen % 3, jnp.ones(6), jnp.ones(6), (), seen > 9, choice)

    def moved(optimizer):
        agent, _ = a2c.a2c(config, envs.bind(config.env), optimizer=lambda config: optimizer)
        agent = compiled(agent)
        before = agent.init(jax.random.key(0), seen)
        after, _, _ = agent.update(None, before, Sample(batch, jnp.float32(1)), jnp.int32(0))
        return jax.tree.map(jnp.subtract, after.params, before.params)["params"]

    usual = moved(optax.sgd(1.0))
    apart = moved(optax.multi_transform(both, networks.actor_and_critic))
    assert usual.keys() == rates.keys()
    expected = {
        name: jax.tree.map(partial(jnp.multiply, rates[name]), usual[name]) for name in rates
    }
    chex.assert_trees_all_close(apart, expected, rtol=1e-3, atol=1e-6)
    assert all(optax.global_norm(usual[name]) > 1e-3 for name in rates)


def test_the_minatar_preset_is_purejaxrl_s():
    config = prl.preset("ppo", "Breakout-MinAtar")
    assert (config.activation, config.hidden_sizes, config.value_clip) == ("relu", (64, 64), 0.2)
    optimizer = ppo.decaying_adam(config)
    gradient = {"w": jnp.full(2, 1e-6)}
    step, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(step["w"], -5e-3 * 1e-6 / (1e-6 + 1e-5), rtol=1e-4)


def test_ppo_s_first_gradient_is_the_policy_gradient():
    log_prob, advantage = jnp.array([-0.3, -2.0]), jnp.array([1.5, -0.7])
    config = small("ppo")

    def slope(objective):
        return jax.grad(lambda x: objective(config, x, log_prob, advantage).sum())(log_prob)

    np.testing.assert_allclose(slope(ppo.clipped_surrogate), slope(a2c.policy_gradient))
    assert jnp.isclose(ppo.standardized(advantage).std(), 1, atol=1e-5)


def test_the_gradient_of_a2c_agrees_with_rlax():
    config = small("a2c", entropy_coef=0.03, value_coef=0.7)
    agent, state, rollout = rollout_of(config, 1)
    _, observed = agent.process_rollout(state, rollout)
    choice = observed.extras
    env = envs.bind(config.env)
    model = networks.separate_torsos(config, env.observation_space, distributions.default(env))

    def theirs(params):
        logits, value = model.apply(params, rollout.obs.reshape(-1, 4))
        ones = jnp.ones(logits.shape[0])
        actions, advantage = choice.sample.ravel(), choice.advantage.ravel()
        error = 0.5 * jnp.square(choice.target.ravel() - value).mean()
        return (
            rlax.policy_gradient_loss(logits, actions, advantage, ones)
            + 0.03 * rlax.entropy_loss(logits, ones)
            + 0.7 * error
        )

    plain, _ = a2c.actor_critic(config, env, optimizer=lambda config: optax.sgd(1.0))
    plain = compiled(plain)
    found = plain.init(jax.random.key(0), rollout.obs[0])._replace(params=state.params)
    moved, _, _ = plain.update(jax.random.key(0), found, Sample(observed, jnp.float32(1)), 0)
    ours = jax.tree.map(lambda x, y: x - y, state.params, moved.params)
    for x, y in zip(
        jax.tree.leaves(ours), jax.tree.leaves(jax.jit(jax.grad(theirs))(state.params)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


# exact solutions

MDP = mdp.garnet(jax.random.key(3), states=6, actions=3, branching=2)
LINEAR = {"env": Tabular(MDP), "gamma": 0.9, "hidden_sizes": (), "entropy_coef": 0.0}


def some_policy(key):
    """Parameters of a linear actor-critic, its (non-uniform) policy, and its value."""
    logits = jax.random.normal(key, (6, 3))
    pi = jax.nn.softmax(logits)
    value = dp.policy_evaluation(MDP, 0.9, pi)
    params = {
        "head": {"Dense_0": {"kernel": logits, "bias": jnp.zeros(3)}},
        "Dense_0": {"kernel": value[:, None], "bias": jnp.zeros(1)},
    }
    return {"params": params}, pi, value


@pytest.mark.parametrize("trace_decay", (0.0, 0.8, 1.0))
def test_the_gradient_estimates_the_exact_policy_gradient(trace_decay):
    """sum_s d(s) sum_a grad pi(a|s) A(s, a): d over the rollout's steps, A by a linear solve."""
    params, pi, value = some_policy(jax.random.key(5))
    config = prl.default_config("a2c").replace(
        **LINEAR, trace_decay=trace_decay, value_coef=0.0, num_envs=8_192, rollout_length=8
    )
    agent, _ = a2c.actor_critic(
        config, envs.bind(config.env), optimizer=lambda config: optax.sgd(1.0)
    )
    env = envs.bind(config.env)

    def act_with(state, key, obs, step, carry):
        return agent.act(key, state, obs, step, carry)

    @jax.jit
    def estimate(key):
        key_reset, key_rollout = jax.random.split(key)
        start = env.reset(key_reset, config.num_envs)
        state = agent.init(key, start.obs)._replace(params=params)
        keys = jax.random.split(key_rollout, (8, 1 + config.num_envs))
        act = partial(act_with, state)
        _, (rollout, _) = envs.rollout(env, keys, start, jnp.int32(0), act)
        state, observed = agent.process_rollout(state, rollout)
        moved, _, _ = agent.update(key, state, Sample(observed, jnp.float32(1)), jnp.int32(0))
        return (
            moved.params["params"]["head"]["Dense_0"]["kernel"]
            - params["params"]["head"]["Dense_0"]["kernel"]
        )

    P_pi = jnp.einsum("sa,sat->st", pi, MDP.P)
    visits, total = jnp.asarray(MDP.start), 0
    for _ in range(8):
        total, visits = total + visits / 8, visits @ P_pi
    advantage = dp.backup(MDP, 0.9, value) - value[:, None]

    def objective(logits):
        return (total[:, None] * jax.nn.softmax(logits) * advantage).sum()

    exact = jax.grad(objective)(params["params"]["head"]["Dense_0"]["kernel"])
    found = estimate(jax.random.key(7))
    cosine = (exact * found).sum() / jnp.sqrt(jnp.square(exact).sum() * jnp.square(found).sum())
    assert cosine > 0.99, cosine
    np.testing.assert_allclose(jnp.linalg.norm(found), jnp.linalg.norm(exact), rtol=0.1)


def test_the_critic_of_a_fixed_policy_converges_to_its_value():
    params, pi, value = some_policy(jax.random.key(5))
    frozen = partial(
        a2c.actor_critic,
        objective=lambda config, log_prob, old, advantage: 0 * advantage,
        optimizer=prl.optimize.decaying_adam,
    )
    config = prl.default_config("a2c").replace(
        **LINEAR, algorithm=frozen, num_envs=64, learning_rate=0.02, learning_rate_end=0.0,
        max_grad_norm=1e3, total_steps=64 * 8 * 4_000,
    )  # fmt: skip
    state = init(jax.random.key(0), config)
    actor = {**state.agent.params["params"], "head": params["params"]["head"]}
    state = state._replace(agent=state.agent._replace(params={"params": actor}))
    state, _ = jax.jit(prl.run, static_argnums=2)(state, config, config.iterations)
    found = values(config, state, jnp.arange(6))
    np.testing.assert_allclose(found, value, atol=0.05 * float(jnp.abs(value).max()))


# invalid configurations


@pytest.mark.parametrize(
    ("algorithm", "changes", "complaint"),
    (
        ("ppo", {"num_updates": 6, "num_epochs": 4}, "times a number of minibatches that divides"),
        ("ppo", {"num_updates": 12, "num_epochs": 4, "num_envs": 8}, "divides num_envs x rollout"),
        ("a2c", {"trace_decay": 1.5}, "trace_decay is 1.5, but must be between 0 and 1"),
        ("a2c", {"gamma": -0.1}, "gamma is -0.1, but must be between 0 and 1"),
        ("continuous_soft_q", {"alpha": 0.0}, "alpha is 0.0, but must be greater than zero"),
        ("ppo", {"clip_ratio": 2.0}, "clip_ratio is 2.0, but must be between 0 and 1"),
        ("a2c", {"entropy_coef": -1.0}, "entropy_coef is -1.0, but must be zero or more"),
    ),
)
def test_invalid_fields_are_named(algorithm, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        prl.make_train(prl.default_config(algorithm).replace(**changes))

"""Parts and fields of continuous agents: heads, entropy targets, noise, learning rates, resets."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import envs, networks, noise, normalize, resets
from purejaxrl_sac.agents import common, ppo, sac, sac_family, sac_v1, td3
from purejaxrl_sac.optimize import decaying_adam
from purejaxrl_sac.types import Sample, Transition, memoryless
from tests.conftest import built, compiled, small
from tests.probes import CONTINUOUS, Probe

PROBE = Probe(lambda *_: 0.0, action_space=CONTINUOUS)
ENV = envs.bind(PROBE)
SPACE, OBS = ENV.observation_space, jnp.ones((4, 2))
BATCH = Transition(OBS, jnp.zeros((4, 1)), jnp.arange(4.0), jnp.ones(4), OBS, jnp.zeros(4, bool))


def configured(algorithm, **changes):
    return prl.default_config(algorithm).replace(env=PROBE, hidden_sizes=(4,), **changes)


# heads and their initial parameters


def test_the_rescaled_tanh_is_that_of_simba_s_authors():
    x = np.array([-50.0, -1, 0, 0.5, 50])
    expected = -10 + 6 * (1 + np.tanh(x))
    np.testing.assert_allclose(networks.rescaled_tanh(jnp.float32(x), -10, 2), expected, rtol=1e-6)


def test_simba_s_heads_are_those_of_its_authors():
    config = prl.default_config("simba").replace(actor_width=16, critic_width=8, critic_blocks=1)
    actor = sac_family.residual_actor(config, SPACE, 3)
    params = jax.jit(actor.init)(jax.random.key(0), OBS)
    head = params["params"]["Dense_0"]
    np.testing.assert_allclose(head["kernel"].T @ head["kernel"], np.eye(6), atol=1e-5)
    bias = jnp.array([0, 0, 0, -9.0, 0.3, 9])
    head |= {"kernel": jnp.zeros_like(head["kernel"]), "bias": bias}
    _, log_std = jax.jit(actor.apply)(params, OBS)
    expected = -10 + 6 * (1 + np.tanh([-9.0, 0.3, 9]))
    np.testing.assert_allclose(log_std, np.tile(expected, (4, 1)), rtol=1e-5)
    critics = sac_family.residual_critics(config, SPACE)
    params = jax.jit(critics.init)(jax.random.key(1), OBS, BATCH.action)["params"]
    kernel = next(x for x in jax.tree.leaves(params) if x.shape == (2, 8, 1))
    np.testing.assert_allclose(jnp.square(kernel).sum(1), np.ones((2, 1)), rtol=1e-5)


@pytest.mark.parametrize("algorithm", ("sac", "crossq", "sac_v1", "fast_sac"))
def test_log_std_bounds_are_fields_and_their_kind_is_a_part(algorithm):
    config = configured(algorithm, log_std_min=-3.0, log_std_max=-2.0)
    actor = networks.gaussian_actor(config, SPACE, 1)
    smooth = networks.gaussian_actor(config, SPACE, 1, bound=networks.rescaled_tanh)
    shapes = jax.eval_shape(actor.init, jax.random.key(0), OBS)
    outputs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    np.testing.assert_allclose(jax.jit(actor.apply)(outputs, OBS)[1], -2)
    np.testing.assert_allclose(jax.jit(smooth.apply)(outputs, OBS)[1], -2.5)
    with pytest.raises(prl.ConfigError, match=r"log_std_min is -1\.0, but must be less than"):
        prl.validate(config.replace(log_std_min=-1.0))


# entropy targets


def test_the_largest_entropy_of_a_squashed_gaussian():
    x, w = np.polynomial.hermite_e.hermegauss(180)
    std = np.linspace(0.3, 2, 1_701)[:, None]
    log_slope = 2 * (np.log(2) - np.logaddexp(std * x, -std * x))  # log(1 - tanh^2)
    entropy = 0.5 * np.log(2 * np.pi * np.e * std[:, 0] ** 2) + log_slope @ w / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(common.MAX_ENTROPY, entropy.max(), atol=4e-5)
    assert common.MAX_ENTROPY < entropy.max() < np.log(2)


@pytest.mark.parametrize(
    ("algorithm", "field", "value", "largest"),
    [
        *((name, "target_entropy_per_dim", 1.0, "0.6836") for name in ("sac", "crossq", "tqc")),
        ("simba", "target_entropy_per_dim", 0.69, "0.6836"),
        ("discrete_sac", "target_entropy_ratio", 1.0, "1"),
        ("discrete_sac", "target_entropy_ratio_end", 1.5, "1"),
    ],
)
def test_targets_that_no_policy_reaches_are_refused(algorithm, field, value, largest):
    config = prl.default_config(algorithm).replace(**{field: value})
    with pytest.raises(
        prl.ConfigError, match=f"{field} is {value}, but must be less than {largest}"
    ):
        prl.validate(config)


# exploration noise


def drawn(made, steps, num_envs, action_dim):
    """Noise of one episode, [T, N, D]."""

    def step(carry, key):
        epsilon, carry = made.draw(key, (num_envs, action_dim), carry)
        return carry, epsilon

    keys = jax.random.split(jax.random.key(0), steps)
    return np.asarray(jax.jit(partial(jax.lax.scan, step))(made.init_carry(num_envs), keys)[1])


def test_pink_noise_has_the_autocovariance_of_its_processes():
    config = prl.default_config("sac")
    epsilon = drawn(noise.pink(config, 2), 33, 20_000, 2)
    rho = 1 - 2.0 ** -np.arange(10)
    for start in (0, 16):  # stationary from the first step on
        for lag in (0, 1, 4, 16):
            found = (epsilon[start] * epsilon[start + lag]).mean()
            np.testing.assert_allclose(found, (rho**lag).mean(), atol=0.02)
    assert abs((epsilon[:, :, 0] * epsilon[:, :, 1]).mean()) < 0.02  # independent dimensions
    assert abs((epsilon[:, 1:] * epsilon[:, :-1]).mean()) < 0.02  # and environments
    np.testing.assert_allclose((epsilon[-1] ** 4).mean(), 3, atol=0.15)  # a Gaussian's


def test_the_power_of_pink_noise_is_one_over_frequency():
    rho = 1 - 2.0 ** -np.arange(10)[:, None]
    frequency = np.geomspace(2 * np.pi / 1024, np.pi, 200)
    power = ((1 - rho**2) / (1 - 2 * rho * np.cos(frequency) + rho**2)).mean(0)
    level = frequency * power
    assert level.max() / level.min() < 1.6
    np.testing.assert_allclose(np.polyfit(np.log(frequency), np.log(power), 1)[0], -1, atol=0.05)


def test_pink_noise_refuses_repeated_noise():
    config = prl.default_config("sac").replace(noise_repeat=2, rollout_length=2)
    with pytest.raises(prl.ConfigError, match="set noise_repeat=1"):
        noise.pink(config, 1)
    with pytest.raises(prl.ConfigError, match="octaves is 0, but must be at least 1"):
        noise.pink(prl.default_config("sac"), 1, octaves=0)


@pytest.mark.parametrize("algorithm", (sac.sac, td3.td3), ids=("sac", "td3"))
def test_pink_exploration_is_carried_by_the_agent(algorithm):
    """Actions of an episode in one state, solved for their noise."""
    name = algorithm.__name__
    config = small(name, env=PROBE).replace(algorithm=partial(algorithm, noise=noise.pink))
    _, agent, _ = built(config)
    obs = jnp.zeros((2_000, 2))
    state = agent.init(jax.random.key(0), obs)  # biases are zero, so that outputs are, too

    def step(carry, key):
        action, _, carry = agent.act(key, state, obs, jnp.int32(0), carry)
        return carry, jnp.arctanh(action) if name == "sac" else action / config.exploration_noise

    keys = jax.random.split(jax.random.key(1), 9)
    found = jax.jit(partial(jax.lax.scan, step))(agent.init_carry(2_000), keys)[1]
    expected = drawn(noise.pink(config, 1), 9, 2_000, 1)
    assert found.shape == expected.shape
    for lag in (0, 1, 8):
        covariance = (found[0] * found[lag]).mean()
        np.testing.assert_allclose(
            covariance, ((1 - 2.0 ** -np.arange(10)) ** lag).mean(), atol=0.1
        )
    jax.eval_shape(prl.train, jax.random.key(0), config)


def test_white_exploration_is_a_sample_of_the_policy():
    config = configured("sac")
    agent = compiled(sac.sac(config, ENV)[0])
    state = agent.init(jax.random.key(0), OBS)
    key = jax.random.key(1)
    action, _, _ = agent.act(key, state, OBS, jnp.int32(0), ())
    actor = networks.gaussian_actor(config, SPACE, 1)

    @jax.jit
    def sampled(params):
        outputs = actor.apply(params, OBS)
        return prl.distributions.squashed_gaussian(*outputs).sample_and_log_prob(seed=key)[0]

    expected = sampled(state.actor.params)
    np.testing.assert_allclose(action, expected, rtol=1e-6)


def test_td3_s_noise_may_decay_over_the_run():
    class Decaying(prl.TD3Config, td3.Decay):
        algorithm: prl.Algorithm = prl.static(partial(td3.td3, noise_scale=td3.decaying))

    config = Decaying(
        env=PROBE, exploration_noise=0.4, exploration_noise_end=0.1, total_steps=8_000, num_envs=4
    )
    scales = [
        float(td3.decaying(config, jnp.int32(step))) for step in (0, 500, 1_000, 2_000, 9_000)
    ]
    np.testing.assert_allclose(scales, [0.4, 0.325, 0.25, 0.1, 0.1], rtol=1e-6)
    _, agent, _ = built(config)
    obs = jnp.zeros((4, 2))
    state, key = agent.init(jax.random.key(0), obs), jax.random.key(1)
    noises = [agent.act(key, state, obs, jnp.int32(step), ())[0] for step in (0, 2_000)]
    np.testing.assert_allclose(noises[0], 4 * noises[1], rtol=1e-5)
    with pytest.raises(prl.ConfigError, match="exploration_noise_end is -1"):
        prl.validate(config.replace(exploration_noise_end=-1))


# networks


class Wide(nn.Module):
    """A linear network of 7 hidden units, for any inputs."""

    outputs: int
    lead: tuple[int, ...] = ()
    split: bool = False

    @nn.compact
    def __call__(self, *inputs):
        x = nn.Dense(self.outputs)(nn.Dense(7)(jnp.concatenate(inputs, -1)))
        x = jnp.broadcast_to(x.squeeze(-1), (*self.lead, len(x))) if self.lead else x
        return tuple(jnp.split(x, 2, -1)) if self.split else x


def gaussian(config, space, action_dim):
    return Wide(2 * action_dim, split=True)


def deterministic(config, space, action_dim):
    return Wide(action_dim)


def ensemble(size):
    return lambda config, space: Wide(1, (size,))


@pytest.mark.parametrize(
    ("algorithm", "parts"),
    [
        ("td3", {"actor": deterministic, "critics": ensemble(2)}),
        ("crossq", {"actor": gaussian, "critics": ensemble(2)}),
        ("sac_v1", {"actor": gaussian, "critics": ensemble(2), "value": lambda *_: Wide(1)}),
        ("continuous_soft_q", {"sampler": deterministic, "critics": ensemble(1)}),
    ],
)
def test_networks_are_parts(algorithm, parts):
    config = configured(algorithm)
    agent, _ = config.algorithm(config, ENV, **parts)

    def learn(key):
        state = agent.init(key, OBS)
        return state, agent.update(key, state, Sample(BATCH, jnp.float32(1)), jnp.int32(0))[0]

    before, after = jax.eval_shape(learn, jax.random.key(0))
    assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)
    shapes = {x.shape for x in jax.tree.leaves(before)}
    assert (4,) not in shapes and (7,) in shapes  # not the default networks' hidden layers


# learning rates and the scale of rewards


def first_step(make, config):
    """Size of the first step of an optimiser on a gradient of 1."""
    optimizer, params = make(config), {"w": jnp.zeros((2, 1))}
    state = jax.jit(optimizer.init)(params)
    updates, _ = jax.jit(optimizer.update)({"w": jnp.ones((2, 1))}, state, params)
    return -float(updates["w"][0, 0])


@pytest.mark.parametrize("algorithm", ("sac", "td3", "crossq", "simba", "fast_sac", "redq"))
def test_actor_critics_and_temperature_have_their_own_learning_rates(algorithm):
    config = prl.default_config(algorithm).replace(learning_rate=1e-2)
    makers = (sac.default_actor_optimizer, sac.default_critic_optimizer)
    if algorithm in ("simba", "fast_sac"):
        makers = (sac_family.adamw_actor, sac_family.adamw_critics)
    found = [first_step(make, config) for make in makers]
    config = config.replace(actor_learning_rate=1e-3)
    found += [first_step(make, config) for make in makers]
    np.testing.assert_allclose(found, [1e-2, 1e-2, 1e-3, 1e-2], rtol=1e-4)
    if algorithm != "td3":
        config = config.replace(alpha_learning_rate=1e-4)
        found = first_step(sac.default_temperature_optimizer, config)
        np.testing.assert_allclose(found, 1e-4, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ("discrete_sac", "sac_v1", "continuous_soft_q"))
def test_an_optimiser_with_its_own_learning_rate_is_a_part(algorithm):
    config = prl.default_config(algorithm).replace(learning_rate=1e-2)
    own = first_step(lambda config: decaying_adam(config.replace(learning_rate=1e-3)), config)
    np.testing.assert_allclose(own, 1e-3, rtol=1e-4)


def test_the_reward_scale_of_sac_v1_multiplies_rewards():
    class Given:
        def __init__(self, value):
            self.value = value

        def apply(self, params, *inputs):
            return self.value

    q, following = jnp.array([[1.0, 2, 3, 4], [0, 0, 0, 0]]), jnp.array([[2.0], [4], [6], [8]])

    def loss(config):
        state = sac_v1.SACv1State(optax.EmptyState(), optax.EmptyState(), optax.EmptyState(), ())
        nets = (Given(None), Given(q), Given(following))
        inputs = sac_v1.LossInputs(config, *nets, state, BATCH, jnp.float32(1), None)
        return sac_v1.critic_loss((), inputs)[0]

    config = configured("sac_v1", gamma=0.5)
    for scale, factor in ((None, 1.0), (5.0, 5.0)):
        y = factor * np.arange(4) + 0.5 * np.asarray(following)[:, 0]
        expected = 0.5 * ((np.asarray(q) - y) ** 2).sum(0).mean()
        np.testing.assert_allclose(loss(config.replace(reward_scale=scale)), expected, rtol=1e-6)
    with pytest.raises(prl.ConfigError, match=r"reward_scale is 0\.0, but must be greater"):
        prl.validate(config.replace(reward_scale=0.0))


# resets


def counting():
    """An agent whose state is the number of its updates."""

    def update(key, state, sample, count):
        return state + 1, jnp.zeros(4), {}

    def act(key, state, obs, step):
        return jnp.zeros((len(obs), 1)), ()

    return memoryless(
        lambda key, obs: jnp.int32(0), act, lambda key, state, obs: jnp.zeros((len(obs), 1)), update
    )


def updated(agent, updates):
    def learn(state, count):
        sample = Sample(BATCH, jnp.float32(1))
        state, *_ = agent.update(jax.random.key(1), state, sample, count)
        return state, state

    start = agent.init(jax.random.key(0), OBS)
    return jax.lax.scan(learn, start, jnp.arange(updates))[1]


def test_resets_come_after_every_period_and_never_last():
    agent = resets.periodic(configured("sac"), ENV, counting(), period=3)
    np.testing.assert_array_equal(updated(agent, 7), [1, 2, 3, 1, 2, 3, 1])
    batched = jax.make_jaxpr(jax.vmap(lambda _: updated(agent, 7)))(jnp.zeros(2))
    assert str(batched).count("cond[") == 1
    for period in (0, 2.5):
        with pytest.raises(prl.ConfigError, match=f"period is {period}, but must be"):
            resets.periodic(configured("sac"), ENV, counting(), period=period)


@pytest.mark.parametrize("inside", (False, True))
def test_resets_keep_running_statistics(inside):
    config, agent = configured("sac", num_updates=1), counting()
    wrappers = [normalize.observations, normalize.rewards]
    learner = ppo.Stopping(normalize.Normalized("new", "none", "none"), "new")
    state = ppo.Stopping(normalize.Normalized("old", "used", "seen"), "old")
    assert normalize.with_statistics(state, learner) == (("new", "used", "seen"), "new")
    wrappers.insert(0 if inside else 2, partial(resets.periodic, period=2))
    for wrap in wrappers:
        agent = wrap(config, ENV, agent)
    agent = compiled(agent)
    state = agent.init(jax.random.key(0), OBS[:1])
    seen = jax.tree.map(jnp.ones_like, state.agent.seen)
    state = state._replace(agent=state.agent._replace(seen=seen))
    for count in range(3):
        sample = Sample(BATCH, jnp.float32(1))
        state, *_ = agent.update(jax.random.key(1), state, sample, jnp.int32(count))
    assert state.agent.agent == 1  # reset before the third update
    assert state.agent.seen.number.value == seen.number.value


def test_a_reset_of_sac_initialises_parameters_targets_and_optimisers():
    config = configured("sac", num_envs=4)
    agent, _ = sac.sac(config, ENV)
    sr_sac = resets.periodic(config, ENV, agent, period=5)
    key, sample = jax.random.key(1), Sample(BATCH, jnp.float32(1))
    key_init, key_update = jax.random.split(key)

    @jax.jit
    def both(old):
        fresh = agent.init(key_init, OBS)
        return sr_sac.update(key, old, sample, 5)[0], agent.update(key_update, fresh, sample, 5)[0]

    old = jax.tree.map(lambda x: x + 1, jax.jit(agent.init)(jax.random.key(0), OBS))
    found, expected = both(old)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


# integer actions


def integers(low, high, shape, dtype):
    return envs.bind(Probe(lambda *_: 0.0, action_space=spaces.Box(low, high, shape, dtype)))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 4, jnp.int32), (-2, 2, jnp.int32), (0, 255, jnp.uint8), (-128, 127, jnp.int8)],
)
def test_uniform_actions_are_uniform_integers(low, high, dtype):
    env, size = integers(low, high, (1,), dtype), high - low + 1
    middles = (jnp.arange(size) + 0.5) / size * 2 - 1
    everything = env.to_env(middles[:, None])
    assert everything.dtype == dtype
    np.testing.assert_array_equal(everything[:, 0], np.arange(low, high + 1))
    edge = 0.49 * 2 / size  # within an interval, from its middle
    for shifted in (middles - edge, middles + edge):
        np.testing.assert_array_equal(env.to_env(shifted[:, None]), everything)
    np.testing.assert_array_equal(env.to_env(jnp.array([[-1.0], [1.0]]))[:, 0], [low, high])
    if size == 5:
        random = np.asarray(env.to_env(env.random_action(jax.random.key(0), 50_000)))
        shares = [(random == value).mean() for value in range(low, high + 1)]
        np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_integer_bounds_may_differ_per_dimension():
    env = integers(jnp.array([0, -2]), jnp.array([4, 2]), (2,), jnp.int32)
    action = jnp.array([[-1.0, -1.0], [0, 0], [1, 1], [0.99, -0.99]])
    np.testing.assert_array_equal(env.to_env(action), [[0, -2], [2, 0], [4, 2], [4, -2]])


def test_no_action_leaves_its_box():
    rng = np.random.default_rng(0)
    low = np.float32(-rng.lognormal(sigma=2, size=100_000))
    high = np.float32(rng.lognormal(sigma=2, size=100_000))
    env = integers(jnp.array(low), jnp.array(high), low.shape, jnp.float32)
    assert (low + (high - low) > high).any()  # rounding alone would leave it
    for value in (-1.0, 0.9999999, 1.0):
        action = np.asarray(env.to_env(jnp.full((1, len(low)), value)))[0]
        assert (low <= action).all() and (action <= high).all()


@pytest.mark.parametrize("algorithm", (sac, td3))
def test_losses_are_parts_of_actor_and_critics(algorithm):
    """What has a loss of zero stays as it is."""
    name = algorithm.__name__.rpartition(".")[2]

    def of_zero(loss):
        def scaled(params, inputs):
            value, (other, metrics) = loss(params, inputs)
            return 0 * value, (other, metrics)

        return scaled

    config = configured(name).replace(num_updates=1)
    changed = {}
    for part in ("critic_loss", "actor_loss"):
        parts = {part: of_zero(getattr(algorithm, part))}
        config = config.replace(algorithm=partial(getattr(prl, name), **parts))
        agent = built(config)[1]
        before = agent.init(jax.random.key(0), OBS)
        after = before
        for count in range(2):
            sample = Sample(BATCH, jnp.float32(1))
            after, *_ = agent.update(jax.random.key(1), after, sample, jnp.int32(count))
        changed[part] = [
            not jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), a.params, b.params))
            for a, b in ((before.critic, after.critic), (before.actor, after.actor))
        ]
    assert changed == {"critic_loss": [False, True], "actor_loss": [True, False]}

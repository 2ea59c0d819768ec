"""One update of each variant of SAC against independently computed gradients.

Target and online parameters differ, weights are random, and a quarter of the rows terminate.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import envs, networks
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.optimize import adamw
from purejaxrl_sac.types import Sample, Transition
from tests.probes import CONTINUOUS, Probe, adam_gradient

ENV = Probe(lambda sign, time, action: action, action_space=CONTINUOUS)
SPACE = envs.bind(ENV).observation_space
SIZE, GAMMA, KEY = 32, 0.99, jax.random.key(9)
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def drawn():
    keys = jax.random.split(jax.random.key(3), 4)
    obs, next_obs = jax.random.normal(keys[0], (2, SIZE, 2))
    action = jax.random.uniform(keys[1], (SIZE, 1), minval=-1)
    reward = jax.random.normal(keys[2], (SIZE,))
    discount = (jnp.arange(SIZE) % 4 > 0).astype(jnp.float32)
    batch = Transition(obs, action, reward, discount, next_obs, jnp.zeros(SIZE, bool))
    return batch, jax.random.uniform(keys[3], (SIZE,))


BATCH, WEIGHT = drawn()


def built(algorithm, **changes):
    config = prl.default_config(algorithm).replace(env=ENV, hidden_sizes=(16, 16), **changes)
    _, agent, _ = prl.build(config)
    init = jax.jit(agent.init)
    one, other = (init(jax.random.key(k), BATCH.obs) for k in (4, 5))
    return agent, one, other


def update(agent, state, count):
    after, *_ = jax.jit(agent.update)(KEY, state, Sample(BATCH, WEIGHT), count)
    return after


def backup(following):
    return BATCH.reward + GAMMA * BATCH.discount * following


def regression(predict, params, target):
    """The gradient of the mean of weight (prediction - target)^2 / 2, as one vector."""
    found, back = jax.vjp(jax.jit(predict), params)
    return flat(back(WEIGHT * (found - target) / SIZE)[0])


def flat(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def mlp(**parts):
    return networks.torso(SPACE, (16, 16), "relu", **parts)


def test_one_update_of_td3():
    agent, state, other = built("td3", target_noise=0.5)
    state = state._replace(
        target_actor_params=other.actor.params, target_critic_params=other.critic.params
    )
    actor, critics = networks.DeterministicActor(mlp(), 1), networks.Critics(mlp(), 2)
    noise = np.clip(0.5 * np.asarray(jax.random.normal(KEY, (SIZE, 1))), -0.5, 0.5)
    assert noise.min() == -0.5 and noise.max() == 0.5
    smoothed = jnp.clip(actor.apply(state.target_actor_params, BATCH.next_obs) + noise, -1, 1)
    following = critics.apply(state.target_critic_params, BATCH.next_obs, smoothed)

    def predict(params):
        return critics.apply(params, BATCH.obs, BATCH.action)

    expected = regression(predict, state.critic.params, backup(following.min(0)))
    early, late = update(agent, state, 0), update(agent, state, 1)
    for after in (early, late):
        np.testing.assert_allclose(adam_gradient(after.critic.opt_state), expected, **CLOSE)
    for part in ("actor", "target_actor_params", "target_critic_params"):
        chex.assert_trees_all_equal(getattr(early, part), getattr(state, part))

    def objective(params):
        first = critics.apply(late.critic.params, BATCH.obs, actor.apply(params, BATCH.obs))[0]
        return -first.mean()

    expected = flat(jax.jit(jax.grad(objective))(state.actor.params))
    np.testing.assert_allclose(adam_gradient(late.actor.opt_state), expected, **CLOSE)
    online = (late.actor.params, late.critic.params)
    targets = (state.target_actor_params, state.target_critic_params)
    moved = jax.tree.map(lambda x, y: 0.005 * x + 0.995 * y, online, targets)
    found = (late.target_actor_params, late.target_critic_params)
    chex.assert_trees_all_close(found, moved, rtol=1e-5, atol=1e-7)


def test_one_update_of_sac_v1():
    agent, state, other = built("sac_v1", alpha=0.3)
    state = state._replace(target_params=other.value.params)
    after = update(agent, state, 0)
    critics, value = networks.Critics(mlp(), 2), networks.Head(mlp(), 1)
    actor = networks.GaussianActor(mlp(), 1)

    def predict(params):
        return critics.apply(params, BATCH.obs, BATCH.action)

    following = value.apply(state.target_params, BATCH.next_obs)[:, 0]
    expected = regression(predict, state.critic.params, backup(following))
    np.testing.assert_allclose(adam_gradient(after.critic.opt_state), expected, **CLOSE)

    mean, log_std = actor.apply(state.actor.params, BATCH.obs)
    u = squashed_gaussian(mean, log_std).distribution.sample(seed=KEY)
    noise = (u - mean) / jnp.exp(log_std)

    def soft_value(params):
        mean, log_std = actor.apply(params, BATCH.obs)
        u = mean + jnp.exp(log_std) * noise
        action, log_slope = jnp.tanh(u), -2 * jnp.log(jnp.cosh(u))
        log_prob = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi) - log_slope
        q = critics.apply(state.critic.params, BATCH.obs, action)
        return q.min(0) - 0.3 * log_prob[:, 0]

    expected = flat(jax.grad(lambda params: -soft_value(params).mean())(state.actor.params))
    np.testing.assert_allclose(adam_gradient(after.actor.opt_state), expected, **CLOSE)

    def predict_value(params):
        return value.apply(params, BATCH.obs)[:, 0]

    expected = regression(predict_value, state.value.params, soft_value(state.actor.params))
    np.testing.assert_allclose(adam_gradient(after.value.opt_state), expected, **CLOSE)


def test_one_update_of_crossq():
    changes = {"critic_hidden_sizes": (16, 16), "renorm_warmup": 0, "policy_delay": 1}
    alpha, entropy = 0.4, -0.7
    agent, state, _ = built("crossq", **changes, alpha=alpha, target_entropy_per_dim=entropy)
    after = update(agent, state, 0)

    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = networks.BatchRenorm(0)(x)
            x = networks.BatchRenorm(0)(nn.relu(nn.Dense(16)(x)))
            return networks.BatchRenorm(0)(nn.relu(nn.Dense(16)(x)))

    critics, actor = networks.Critics(Normalized(), 2), networks.GaussianActor(Normalized(), 1)
    key_next, key_actor = jax.random.split(KEY)
    outputs = actor.apply({**state.actor_stats, "params": state.actor.params}, BATCH.next_obs)
    next_action, next_log_prob = squashed_gaussian(*outputs).sample_and_log_prob(seed=key_next)
    both = (
        jnp.concatenate([BATCH.obs, BATCH.next_obs]),
        jnp.concatenate([BATCH.action, next_action]),
    )

    def predict(params):
        variables = {**state.critic_stats, "params": params}
        return critics.apply(variables, *both, mutable=["batch_stats"])

    q, back, stats = jax.vjp(jax.jit(predict), state.critic.params, has_aux=True)
    chex.assert_trees_all_close(after.critic_stats, stats, rtol=1e-5)
    target = backup(q[:, SIZE:].min(0) - alpha * next_log_prob)
    errors = jnp.concatenate([WEIGHT * (q[:, :SIZE] - target) / SIZE, jnp.zeros((2, SIZE))], 1)
    found = adam_gradient(after.critic.opt_state, 0.5)
    np.testing.assert_allclose(found, flat(back(errors)[0]), **CLOSE)

    def objective(params):
        variables = {**state.actor_stats, "params": params}
        outputs, _ = actor.apply(variables, BATCH.obs, mutable=["batch_stats"])
        action, log_prob = squashed_gaussian(*outputs).sample_and_log_prob(seed=key_actor)
        variables = {**after.critic_stats, "params": after.critic.params}
        q = critics.apply(variables, BATCH.obs, action)
        return (alpha * log_prob - q.min(0)).mean(), log_prob.mean()

    (_, log_prob), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(state.actor.params)
    np.testing.assert_allclose(adam_gradient(after.actor.opt_state, 0.5), flat(grads), **CLOSE)
    moment = next(x for x in jax.tree.leaves(after.log_alpha.opt_state) if x.dtype == jnp.float32)
    np.testing.assert_allclose(moment / 0.1, -alpha * (log_prob + entropy), rtol=1e-4)


def test_droq_applies_dropout_to_targets_predictions_and_actor():
    agent, state, other = built("droq", dropout_rate=0.5, policy_delay=1, alpha=0.4)
    state = state._replace(target_params=other.critic.params)
    after = update(agent, state, 0)

    def norm():
        return nn.Sequential([networks.Dropout(0.5), nn.LayerNorm()])

    critics, actor = networks.Critics(mlp(norm=norm), 2), networks.GaussianActor(mlp(), 1)
    key_next, key_actor, _, *keys = jax.random.split(KEY, 6)
    outputs = actor.apply(state.actor.params, BATCH.next_obs)
    next_action, next_log_prob = squashed_gaussian(*outputs).sample_and_log_prob(seed=key_next)
    dropped = [{"dropout": key} for key in keys]
    next_q = critics.apply(state.target_params, BATCH.next_obs, next_action, rngs=dropped[0])

    def predict(params):
        return critics.apply(params, BATCH.obs, BATCH.action, rngs=dropped[1])

    target = backup(next_q.min(0) - 0.4 * next_log_prob)
    expected = regression(predict, state.critic.params, target)
    np.testing.assert_allclose(adam_gradient(after.critic.opt_state), expected, **CLOSE)

    def objective(params):
        policy = squashed_gaussian(*actor.apply(params, BATCH.obs))
        action, log_prob = policy.sample_and_log_prob(seed=key_actor)
        q = critics.apply(after.critic.params, BATCH.obs, action, rngs=dropped[2])
        return (0.4 * log_prob - q.mean(0)).mean()

    expected = flat(jax.jit(jax.grad(objective))(state.actor.params))
    np.testing.assert_allclose(adam_gradient(after.actor.opt_state), expected, **CLOSE)


def test_batch_renormalisation_is_the_recursion_of_its_paper():
    """Three batches of plain batch normalisation, then clipped corrections (arXiv:1702.03275)."""
    x = np.asarray(jax.random.normal(jax.random.key(0), (64, 5)), np.float64)
    x = x * [1, 2, 3, 0.1, 20] + [0, 5, -40, 1, 2]
    layer = networks.BatchRenorm(3)
    variables = layer.init(jax.random.key(1), jnp.float32(x))
    mean, var = np.zeros(5), np.ones(5)
    for i in range(8):
        batch = x * (1 + 0.1 * i) + i
        found, seen = layer.apply(variables, jnp.float32(batch), mutable=["batch_stats"])
        variables = {**variables, **seen}
        std, running = (np.sqrt(v + 1e-3) for v in (batch.var(0), var))
        r = np.clip(std / running, 1 / 3, 3) if i >= 3 else 1
        d = np.clip((batch.mean(0) - mean) / running, -5, 5) if i >= 3 else 0
        np.testing.assert_allclose(found, (batch - batch.mean(0)) / std * r + d, atol=1e-4)
        mean, var = 0.99 * mean + 0.01 * batch.mean(0), 0.99 * var + 0.01 * batch.var(0)
    np.testing.assert_allclose(
        layer.apply(variables, jnp.float32(x)), (x - mean) / np.sqrt(var + 1e-3), rtol=1e-4
    )


def test_corrections_of_batch_renormalisation_are_constants():
    """As functions of the batch they would bring in gradients that normalisation removes."""
    x, slope = jax.random.normal(jax.random.key(0), (2, 16, 3), jnp.float32)
    x, layer = 2 * x + 1, networks.BatchRenorm(0)
    variables = layer.init(jax.random.key(1), x)
    mean, std = x.mean(0), jnp.sqrt(x.var(0) + 1e-3)
    r, d = std / jnp.sqrt(1 + 1e-3), mean / jnp.sqrt(1 + 1e-3)  # within their bounds

    def normalised(x):
        return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-3) * r + d

    found, back = jax.vjp(lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0], x)
    expected, pullback = jax.vjp(normalised, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back(slope)[0], pullback(slope)[0], rtol=1e-4, atol=1e-6)


def test_adamw_decays_weights_independently_of_their_gradient():
    params = {"w": jnp.array([2.0, -3.0])}
    optimizer = adamw(0.1, jnp.inf, 0.5)
    updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.1, 0.15], rtol=1e-6)


@pytest.mark.parametrize(
    "algorithm", ("sac", "td3", "sac_v1", "crossq", "tqc", "redq", "continuous_soft_q")
)
def test_critics_of_continuous_actions_reject_images(algorithm):
    class Screen(Probe):
        def get_obs(self, state, params=None, key=None):
            return jnp.zeros((10, 10, 3))

        def observation_space(self, params):
            return spaces.Box(0, 1, (10, 10, 3))

    screen = Screen(lambda sign, time, action: 0.0, action_space=CONTINUOUS)
    with pytest.raises(prl.ConfigError, match="not images of shape"):
        prl.make_train(prl.default_config(algorithm).replace(env=screen))


def test_tqc_works_with_a_single_quantile():
    agent, state, _ = built("tqc", num_critics=2, num_quantiles=1, num_dropped=0)
    after = update(agent, state, 0)
    assert np.isfinite(flat(after.critic.params)).all()

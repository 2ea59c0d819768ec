"""Variants of SAC against hand-computed numbers, exact solutions and known values."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import losses, mdp, networks, normalize
from purejaxrl_sac.agents import sac_family
from purejaxrl_sac.agents.sac import minimum
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.optimize import delayed_update, is_due
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import built, init, quick, run, small
from tests.probes import CONTINUOUS, GAMMA, Params, Probe, learned, trained

FAMILY = ("redq", "droq", "tqc", "simba", "fast_sac", "td3", "sac_v1", "crossq")
SIZES = {
    "redq": {"num_critics": 4, "policy_delay": 1},
    "droq": {"policy_delay": 1},
    "tqc": {"num_critics": 2, "num_quantiles": 8, "num_dropped": 1},
    "simba": {"actor_width": 16, "critic_width": 32, "critic_blocks": 1, "learning_rate": 1e-3},
    "fast_sac": {"policy_delay": 2, "learning_rate": 1e-3},
    "td3": {"policy_delay": 2},
    "sac_v1": {},
    "discrete_sac": {},
    "crossq": {
        "policy_delay": 1,
        "critic_hidden_sizes": (32, 32),
        "renorm_warmup": 500,
    },
}
COLD = {"alpha": 1e-6, "alpha_learning_rate": 0.0}


def settings(algorithm):
    config = prl.default_config(algorithm)
    return {**SIZES[algorithm], **{name: x for name, x in COLD.items() if hasattr(config, name)}}


def obs(*rows):
    return jnp.array(rows, jnp.float32)


@pytest.mark.parametrize("algorithm", quick(FAMILY, "tqc", "crossq"))
def test_the_best_action_of_each_observation_is_found(algorithm):
    env = Probe(
        lambda sign, time, action: -((action - 0.5 * sign) ** 2),
        signs=(-1.0, 1.0),
        action_space=CONTINUOUS,
    )
    config, state = trained(algorithm, env, 1_000, **settings(algorithm))
    action = prl.policy(config, state)(jax.random.key(0), obs([-1, 0], [1, 0]))
    np.testing.assert_allclose(action, [[-0.5], [0.5]], atol=0.15)


@pytest.mark.parametrize(
    "algorithm", quick((*FAMILY, "discrete_sac"), "td3", "sac_v1", "discrete_sac")
)
def test_values_bootstrap_at_time_limits(algorithm):
    env = Probe(
        lambda sign, time, action: 1,
        horizon=0,
        signs=(-1.0, -0.5, 0.5, 1.0),  # crossq needs observations that vary
        action_space=None if algorithm == "discrete_sac" else CONTINUOUS,
    )
    changes = {**settings(algorithm), "env_params": Params(max_steps_in_episode=3)}
    if hasattr(prl.default_config(algorithm), "tau"):
        changes["tau"] = 0.2
    *_, metrics = learned(algorithm, env, 1_000, **changes)
    q, worth = metrics["q"][-20:].mean(), 1 / (1 - GAMMA)
    # if time limits terminated, it would be 2.7
    if algorithm == "tqc":  # drops its largest quantiles
        assert 0.6 * worth < q < 1.03 * worth
    else:
        np.testing.assert_allclose(q, worth, rtol=0.07)


def test_redq_takes_the_minimum_over_a_random_subset():
    config = prl.default_config("redq").replace(num_critics=5, subset_size=2)
    meaning = sac_family.random_minimum(config)
    q = jnp.array([1.0, 2, 3, 4, 5])[:, None]
    keys = jax.random.split(jax.random.key(0), 4_000)
    drawn = np.asarray(jax.vmap(lambda key: meaning.next_return(key, q))(keys)).ravel()
    # the minimum of 2 out of 5 is k with probability (5 - k) / 10
    shares = [(drawn == k).mean() for k in range(1, 6)]
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.2, 0.1, 0], atol=0.03)
    np.testing.assert_allclose(meaning.value(q), [3.0])


def test_redq_takes_subsets_of_the_critics_that_there_are():
    meaning = sac_family.random_minimum(prl.default_config("redq").replace(subset_size=2))
    q = jnp.array([[1.0], [2.0]])  # two, not the configured number
    keys = jax.random.split(jax.random.key(0), 20)
    assert (jax.vmap(lambda key: meaning.next_return(key, q))(keys) == 1).all()
    with pytest.raises(ConfigError, match="subset_size is 2, but the part critics has 1: lower it"):
        meaning.next_return(keys[0], q[:1])


def test_redq_with_all_critics_in_the_subset_has_sac_s_targets():
    config = prl.default_config("redq").replace(num_critics=2, subset_size=2)
    q = jax.random.normal(jax.random.key(0), (2, 7))
    ours, theirs = sac_family.random_minimum(config), minimum(config)
    key = jax.random.key(1)
    chex.assert_trees_all_equal(ours.next_return(key, q), theirs.next_return(key, q))


def test_tqc_drops_the_largest_quantiles_of_all_critics():
    config = prl.default_config("tqc").replace(num_critics=2, num_quantiles=3, num_dropped=1)
    meaning = sac_family.truncated(config)
    q = jnp.array([[[1.0, 5, 9]], [[2.0, 8, 7]]])  # [E, B, K]
    kept = meaning.next_return(jax.random.key(0), q)
    np.testing.assert_array_equal(kept, [[1, 2, 5, 7]])
    np.testing.assert_allclose(meaning.value(q), [32 / 6], rtol=1e-6)
    # the definition: each quantile of each critic against each target
    fraction = (np.arange(3) + 0.5) / 3
    u = np.asarray(kept)[0][None, None] - np.asarray(q)[:, 0, :, None]
    rho = np.abs(fraction[None, :, None] - (u < 0))
    expected = (rho * np.where(np.abs(u) <= 1, u**2 / 2, np.abs(u) - 0.5)).mean(-1).sum((0, 1))
    np.testing.assert_allclose(meaning.loss(q, kept), [expected], rtol=1e-5)


def test_droq_has_minimum_targets_and_maximises_the_mean():
    meaning = sac_family.droq.keywords["critique"](prl.default_config("droq"))
    q = jnp.array([[1.0, 5.0], [3.0, 2.0]])  # [E, B]
    np.testing.assert_array_equal(meaning.next_return(None, q), [[1], [2]])
    np.testing.assert_array_equal(meaning.value(q), [2, 3.5])


def test_dropout_depends_on_the_key_and_is_off_without_one():
    config = prl.default_config("droq").replace(dropout_rate=0.5)
    space = type("Space", (), {"shape": (3,)})
    critics = sac_family.dropout_critics(config, space)
    x, a = jnp.ones((4, 3)), jnp.ones((4, 1))
    params = jax.jit(critics.init)(jax.random.key(0), x, a)
    apply = jax.jit(critics.apply)
    plain = apply(params, x, a)
    np.testing.assert_array_equal(plain, apply(params, x, a))
    one, two = (apply(params, x, a, rngs={"dropout": jax.random.key(k)}) for k in (1, 2))
    assert not np.allclose(one, two) and not np.allclose(one, plain)
    assert not np.allclose(one[0] - plain[0], one[1] - plain[1])  # critics have independent masks


def test_residual_blocks_by_hand():
    layer, x = networks.Residual(4, 1), jax.random.normal(jax.random.key(0), (5, 3))
    params = jax.jit(layer.init)(jax.random.key(1), x)
    p, x = jax.tree.map(np.asarray, (params["params"], x))

    def normal(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    stream = dense("Dense_0", x)
    stream = stream + dense("Dense_2", np.maximum(0, dense("Dense_1", normal(stream))))
    np.testing.assert_allclose(
        jax.jit(layer.apply)(params, x), normal(stream), rtol=1e-4, atol=1e-5
    )
    assert p["Dense_1"]["kernel"].shape == (4, 16)


def test_simba_normalises_observations(key):
    config = small("simba")
    state, _ = jax.jit(prl.train)(key, config)
    assert isinstance(state.agent, normalize.Normalized) and state.agent.used.number.value > 100


def test_delayed_updates_happen_once_per_period_and_keep_means():
    def updated(period, updates=6):
        def body(state, count):
            due = is_due(period, count)
            added, metrics = delayed_update(
                period, due, lambda: (jnp.int32(1), {"m": jnp.float32(5)})
            )
            return state + added, metrics

        return jax.lax.scan(body, jnp.int32(0), jnp.arange(updates))

    for period, made in ((1, 6), (2, 3), (3, 2)):
        state, metrics = updated(period)
        assert state == made
        assert metrics["m"][: period - 1].sum() == 0  # the last count of each period is due
        assert metrics["m"].mean() == 5


def test_a_delayed_actor_is_updated_every_second_time():
    config = small("sac", policy_delay=2, num_updates=1, warmup_steps=24)
    state = init(jax.random.key(0), config)
    moved = []
    for _ in range(4):
        after, _ = run(state, config, 1)
        moved.append(
            not np.array_equal(
                jax.tree.leaves(after.agent.actor.params)[0],
                jax.tree.leaves(state.agent.actor.params)[0],
            )
        )
        state = after
    assert moved == [False, True, False, True]


@pytest.mark.parametrize("algorithm", ("sac", "td3"))
def test_learning_rates_of_critics_and_delayed_actor_end_alike(algorithm):
    config = small(algorithm, policy_delay=2, learning_rate_end=0.0)
    late = init(jax.random.key(0), config)
    for _ in range(config.iterations - 1):
        late, _ = run(late, config, 1)
    last, _ = run(late, config, 1)
    beyond, _ = run(last, config, 1)
    for part in ("actor", "critic"):
        before, end, after = (getattr(x.agent, part).params for x in (late, last, beyond))
        assert not np.array_equal(jax.tree.leaves(before)[0], jax.tree.leaves(end)[0])
        chex.assert_trees_all_close(end, after, rtol=1e-6, atol=1e-9)


def test_a_delayed_update_stays_a_cond_under_vmap():
    """With a batched count, both branches would be computed."""
    config = small("sac", policy_delay=2)
    jaxpr = jax.make_jaxpr(jax.vmap(prl.make_train(config)))(jax.random.split(jax.random.key(0)))
    assert str(jaxpr).count("cond[") == 1


# discrete SAC

MDP = mdp.garnet(jax.random.key(3), states=6, actions=3, branching=2)
LAW = np.asarray(MDP.P).ravel()


@pytest.mark.parametrize("alpha", (0.1, 1.0))
def test_discrete_sac_converges_to_the_soft_optimal_policy(alpha):
    """Linear networks, updated on every transition with its probability as weight."""
    state, action, following = (x.ravel() for x in np.indices(MDP.P.shape, dtype=np.int32))
    ones = jnp.ones(LAW.shape)
    batch = Transition(state, action, jnp.ravel(MDP.R), ones, following, ones == 0)
    config = prl.default_config("discrete_sac").replace(
        env=Tabular(MDP), gamma=GAMMA, hidden_sizes=(), learning_rate=5e-2, tau=0.1,
        alpha=alpha, alpha_learning_rate=0.0,
    )  # fmt: skip
    _, agent, _ = built(config)

    def learn(state, xs):
        key, count = xs
        return agent.update(key, state, Sample(batch, jnp.float32(LAW)), count)[0], None

    def solved(key):
        keys = jax.random.split(key, 2_000)
        start = agent.init(keys[0], batch.obs)
        found, _ = jax.lax.scan(learn, start, (keys, jnp.arange(2_000)))
        return found

    found = jax.jit(solved)(jax.random.key(1))
    optimal = dp.soft_value_iteration(MDP, GAMMA, alpha)
    np.testing.assert_allclose(agent.q_values(found, jnp.arange(6)), optimal, rtol=5e-3, atol=0.05)
    config_pi = dp.boltzmann(optimal, alpha)
    drawn, *_ = jax.vmap(lambda key: agent.act(key, found, jnp.arange(6), jnp.int32(0), ()))(
        jax.random.split(jax.random.key(2), 4_000)
    )
    shares = jnp.stack([(drawn == a).mean(0) for a in range(3)], -1)
    np.testing.assert_allclose(shares, config_pi, atol=0.05)


def test_the_discrete_soft_value_is_finite_at_probability_zero():
    log_pi = jnp.array([[0.0, -jnp.inf], [jnp.log(0.5), jnp.log(0.5)]])
    q = jnp.array([[1.0, 7.0], [1.0, 3.0]])
    value = losses.discrete_soft_value(q, log_pi, 0.5)
    np.testing.assert_allclose(value, [1.0, 2 + 0.5 * np.log(2)], rtol=1e-6)


def test_the_discrete_soft_value_s_gradient_is_finite_there_too():
    def value(logits):
        return losses.discrete_soft_value(q, jax.nn.log_softmax(logits), 0.5).sum()

    q = jnp.array([[1.0, 7.0]])
    with jax.disable_jit():
        np.testing.assert_array_equal(jax.grad(value)(jnp.array([[300.0, 0.0]])), [[0, 0]])


def test_discrete_sac_keeps_the_target_entropy():
    env = Probe(lambda sign, time, action: 1.0 * action)
    *_, metrics = learned(
        "discrete_sac", env, 2_000, alpha_learning_rate=1e-2, target_entropy_ratio=0.6,
        target_entropy_ratio_end=0.6,
    )  # fmt: skip
    np.testing.assert_allclose(metrics["entropy"][-50:].mean(), 0.6 * np.log(2), rtol=0.07)


@pytest.mark.parametrize(
    ("algorithm", "changes", "complaint"),
    (
        ("redq", {"subset_size": 11}, "subset_size is 11, but there are 10 critics"),
        ("tqc", {"num_dropped": 25}, "leave at least one"),
        ("tqc", {"num_dropped": -1}, "num_dropped is -1, but must be zero or more"),
        ("droq", {"dropout_rate": 1.0}, "dropout_rate is 1.0, but must be less than 1"),
        ("simba", {"critic_blocks": 0}, "critic_blocks is 0, but must be at least 1"),
        ("simba", {"weight_decay": float("inf")}, "weight_decay is inf, but must be finite"),
        ("crossq", {"critic_hidden_sizes": (0,)}, "critic_hidden_sizes is .* must be a tuple"),
        ("crossq", {"renorm_warmup": 2.5}, "renorm_warmup is 2.5, but must be a whole number"),
        ("discrete_sac", {"env": "Pendulum-v1"}, "use sac"),
        (
            "td3",
            {"env": "CartPole-v1"},
            "TD3 needs continuous actions, but",
        ),
        ("sac", {"env": "CartPole-v1"}, "use discrete_sac or dqn"),
        ("sac", {"policy_delay": 0}, "policy_delay is 0, but must be at least 1"),
    ),
)
def test_invalid_fields_are_named(algorithm, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        prl.make_train(prl.default_config(algorithm).replace(**changes))

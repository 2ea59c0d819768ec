"""Forks outside the package: short, typed, and trained like any other algorithm."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from tests.conftest import init
from tests.forks.auxiliary_dqn import SmoothDQNConfig
from tests.forks.cautious_sac import CautiousSACConfig
from tests.forks.lion_sac import lion_sac
from tests.forks.scaled_sac import scaled_sac
from tests.forks.transformer_dqn import transformer_dqn

FORKS = sorted((Path(__file__).parent / "forks").glob("*_*[a-z].py"))
LONGER = {"total_steps": 2_400, "learning_rate": 0.03}
SIZES = {
    "total_steps": 120,
    "warmup_steps": 24,
    "capacity": 96,
    "batch_size": 8,
    "num_envs": 3,
    "rollout_length": 4,
    "hidden_sizes": (8,),
}


train = jax.jit(prl.train)


def trained(config):
    return train(jax.random.key(0), config)


@pytest.mark.parametrize("path", FORKS, ids=lambda path: path.stem)
def test_a_fork_has_at_most_30_lines(path):
    assert len(list(filter(str.strip, path.read_text().splitlines()))) <= 30


def test_a_caution_of_one_is_sac():
    ours, _ = trained(CautiousSACConfig(**SIZES, caution=1.0))
    plain, _ = trained(prl.SACConfig(**SIZES))
    for x, y in zip(jax.tree.leaves(ours.agent), jax.tree.leaves(plain.agent), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_caution_lowers_values_and_can_be_swept():
    config = CautiousSACConfig(**SIZES | LONGER)
    axes = jax.tree.map(lambda _: None, config).replace(caution=0)
    lanes = config.replace(caution=jnp.array([-1.0, 1.0, 5.0]))
    _, metrics = jax.jit(jax.vmap(prl.train, (None, axes)))(jax.random.key(0), lanes)
    bold, sac, cautious = metrics["q"][:, -1]
    assert cautious < sac < bold


def test_state_of_its_own_is_updated_and_used():
    config = prl.SACConfig(**SIZES).replace(algorithm=scaled_sac)
    state, metrics = trained(config)
    np.testing.assert_array_equal(state.agent.scale, metrics["reward_scale"][-1])

    env, agent, memory = prl.build(config)
    plain, _ = prl.sac(prl.SACConfig(**SIZES), env)
    draw = memory.draw(jax.random.key(1), state.memory, state.step, 1)
    sample = memory.sample(state.memory, jax.tree.map(lambda x: x[0], draw))
    found, _, _ = agent.update(jax.random.key(2), state.agent, sample, jnp.int32(0))
    reward = sample.transition.reward
    scale = 0.99 * state.agent.scale + 0.01 * np.abs(reward).mean()
    sample = sample._replace(transition=sample.transition._replace(reward=reward / scale))
    expected, _, _ = plain.update(jax.random.key(2), state.agent.agent, sample, jnp.int32(0))
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(found.agent), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_dqn_with_a_transformer():
    state, metrics = trained(prl.DQNConfig(**SIZES).replace(algorithm=transformer_dqn))
    assert "MultiHeadDotProductAttention_0" in state.agent.params["params"]
    assert np.isfinite(metrics["loss"]).all()


def test_a_custom_optimizer():
    config = prl.SACConfig(**SIZES).replace(algorithm=lion_sac)
    state, _ = trained(config)
    names = str(jax.tree.structure(state.agent.actor.opt_state))
    assert "ScaleByLionState" in names and "ScaleByAdamState" not in names
    start = init(jax.random.key(0), config)
    moved = jax.tree.map(
        lambda x, y: jnp.abs(x - y).max(), state.agent.actor.params, start.agent.actor.params
    )
    assert all(0 < x < 0.1 for x in jax.tree.leaves(moved))


def test_an_auxiliary_loss_with_its_own_metric():
    def roughness(weight):
        config = SmoothDQNConfig(**SIZES | {"total_steps": 2_400}, smoothness=weight)
        return trained(config)[1]["roughness"][-20:].mean()

    assert roughness(10.0) < roughness(0.0)

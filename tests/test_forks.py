"""Forks outside the package: short, typed, and trained like any other algorithm."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from tests.conftest import init
from tests.forks.auxiliary_dqn import SmoothDQNConfig
from tests.forks.conservative_sac import ConservativeSACConfig
from tests.forks.lion_sac import lion_sac
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
    assert len(path.read_text().splitlines()) <= 30


def test_a_conservative_penalty_lowers_unseen_actions():
    state, metrics = trained(ConservativeSACConfig(**SIZES))
    assert np.isfinite(metrics["penalty"]).all() and (metrics["penalty"] != 0).all()

    def gap(weight):
        """Mean Q of uniform actions minus mean Q of the actions of the replay memory."""
        config = ConservativeSACConfig(**SIZES | LONGER, penalty=weight)
        state, _ = trained(config)
        _, _, memory = prl.build(config)

        @jax.jit
        def estimate(state):
            draw = memory.draw(jax.random.key(1), state.memory, state.step, 1)
            batch = memory.sample(state.memory, jax.tree.map(lambda x: x[0], draw)).transition
            uniform = jax.random.uniform(jax.random.key(2), batch.action.shape, minval=-1, maxval=1)
            q = partial(prl.q_values, config, state, batch.obs)
            return q(uniform).mean() - q(batch.action).mean()

        return estimate(state)

    assert gap(20.0) < gap(0.0)


def test_a_penalty_of_zero_is_sac():
    ours, _ = trained(ConservativeSACConfig(**SIZES, penalty=0.0))
    plain, _ = trained(prl.SACConfig(**SIZES))
    for x, y in zip(jax.tree.leaves(ours.agent), jax.tree.leaves(plain.agent), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_the_penalty_can_be_swept_and_is_checked():
    config = ConservativeSACConfig(**SIZES)
    axes = jax.tree.map(lambda _: None, config).replace(penalty=0)
    lanes = config.replace(penalty=jnp.array([0.0, 5.0]))
    state, _ = jax.jit(jax.vmap(prl.train, (None, axes)))(jax.random.key(0), lanes)
    params = jax.tree.leaves(state.agent.critic.params)
    assert not all(np.allclose(x[0], x[1]) for x in params)  # biases of outputs stay equal
    with pytest.raises(prl.ConfigError, match=r"penalty is -1.0, but must be zero or more"):
        prl.make_train(config.replace(penalty=-1.0))


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

"""Algorithms under JAX's flags: 64 bits, strict promotion of dtypes, and checks for nans."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.agents.conservative import ConservativeDQNConfig, ConservativeSACConfig
from purejaxrl_sac.config import traced_fields
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import engine, plans
from tests.conftest import quick, small

TRACED = (
    "q_lambda", "rainbow", "iqn", "ppo", "continuous_soft_q", "crossq", "tqc", "simba", "td3",
)  # fmt: skip
FLAGS = {
    "64 bits": lambda: jax.enable_x64(True),
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
}


def everything(config, key):
    state, metrics = prl.train(key, config)
    action = prl.exploring_policy(config, state).step(key, state.env.obs, state.env.carry)
    return state, (metrics, action, prl.evaluate(key, config, state, 2, max_steps=3))


def trace(config, flag):
    with FLAGS[flag]():
        state, _ = jax.eval_shape(partial(everything, config), jax.random.key(0))
    # observations have the environment's dtype, agents compute with 32 bits
    assert {x.dtype.itemsize for x in jax.tree.leaves(state.agent)} <= {1, 4}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, *TRACED))
def test_algorithms_under_flags_on_dtypes(algorithm, flag):
    trace(small(algorithm), flag)


@pytest.mark.parametrize("fork", (ConservativeSACConfig, ConservativeDQNConfig))
def test_penalties_compute_with_32_bits(fork):
    config = prl.preset(fork, "Pendulum-v1" if fork is ConservativeSACConfig else "CartPole-v1")
    with jax.enable_x64(True):
        _, metrics = jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert metrics["conservative_gap"].dtype == jnp.float32


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(
    ("algorithm", "env"),
    (("ppo", "Pendulum-v1"), ("dqn", "Breakout-MinAtar"), ("q_learning", "cliff_walking")),
)
def test_environments_under_flags_on_dtypes(algorithm, env, flag):
    """Normalised observations and rewards, images, and a finite MDP."""
    config = small(algorithm, env=env)
    trace(config.replace(wrappers=prl.preset(algorithm, env).wrappers), flag)


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "q_learning"))
def test_algorithms_with_checks_for_nans(algorithm):
    with jax.debug_nans(True):
        jax.block_until_ready(jax.jit(partial(everything, small(algorithm)))(jax.random.key(0)))


def test_a_run_has_no_nan_where_no_evaluation_is_due():
    """Checks for nans would stop there."""
    plan = plans.plan(small("q_learning"), 2, chunks=2, eval_every=120, eval_episodes=1)
    mesh = mesh_for(2, 1)
    config, axes = plan.config_lanes(2)
    chunk = partial(engine._chunk, mesh, 1, 1, axes)
    keys = jax.random.split(jax.random.key(0), 2)
    assert "nan" not in str(jax.make_jaxpr(chunk)(engine.shapes(plan, mesh), config, keys, True))


def test_observed_states_have_32_bits_in_networks():
    trace(small("recurrent_pqn", env="t_maze"), "64 bits")


@pytest.mark.parametrize("algorithm", ("dqn", "per_dqn", "sac", "ppo"))
def test_numbers_of_64_bits_are_rounded(algorithm):
    """Swept fields are arrays, which have 64 bits there."""
    config = small(algorithm)
    config = config.replace(wrappers=(prl.normalize.rewards,), gamma=0.9)
    with jax.enable_x64(True):
        fields = {name: getattr(config, name) for name in traced_fields(config)}
        kinds = {int: np.int64, float: np.float64}
        wide = {name: kinds[type(x)](x) for name, x in fields.items() if np.isfinite(x)}
        jax.eval_shape(prl.make_train(config.replace(**wide)), jax.random.key(0))
        axes = jax.tree.map(lambda _: None, config).replace(gamma=0)
        lanes = config.replace(gamma=jnp.array([0.1, 0.2]))
        train = jax.vmap(prl.train, (None, axes))
        state, _ = jax.eval_shape(train, jax.random.key(0), lanes)
    assert {x.dtype.itemsize for x in jax.tree.leaves(state.agent)} <= {1, 4}

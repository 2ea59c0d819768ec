"""Algorithms under JAX's flags: 64 bits, strict promotion of dtypes, and checks for nans."""

from functools import partial

import jax
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
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

"""Algorithms under JAX's flags: 64 bits, strict promotion of dtypes, and checks for nans."""

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
    action = prl.exploring_policy(config, state)(key, state.env.obs)
    return state, (metrics, action, prl.evaluate(key, config, state, 2, max_steps=3))


def trace(config, flag):
    with FLAGS[flag]():
        state, _ = jax.eval_shape(lambda key: everything(config, key), jax.random.key(0))
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


def test_runs_with_checks_for_nans():
    """Also in the chunks of iterations after which no evaluation is due."""
    config = small("q_learning")
    plan = plans.plan(config, 2, chunks=4, eval_every=config.total_steps // 2, eval_episodes=1)
    with jax.debug_nans(True):
        programs = engine.compile_run(plan, mesh=mesh_for(2, 1))
        start = engine.initial_state(plan, programs)
        due = [bool(x.evaluation) for _, x in engine.run_chunks(plan, programs, start)]
    assert not due[0] and due[-1]

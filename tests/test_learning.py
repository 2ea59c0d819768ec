"""Scores of presets, with seeds that were not used for tuning."""

import jax
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.statistics import iqm
from scripts import multi_goal, overestimation_dqn

SEEDS = 16


def greedy_returns(config, episodes):
    keys = jax.random.split(jax.random.key(20), SEEDS)
    state, _ = jax.jit(jax.vmap(prl.make_train(config)))(keys)
    # different start states for each seed: returns vary more with the start than with the seed
    keys = jax.random.split(jax.random.key(21), SEEDS)
    play = jax.vmap(lambda key, state: prl.evaluate(key, config, state, episodes))
    scores = np.asarray(jax.jit(play)(keys, state)).mean(1)
    print(f"IQM {iqm(scores):.1f}, worst {scores.min():.1f}, all {np.sort(scores).round(1)}")
    return scores


@pytest.mark.slow
def test_double_dqn_learns_cartpole():
    config = prl.preset("double_dqn", "CartPole-v1")
    assert config.total_steps <= 100_000
    assert iqm(greedy_returns(config, 128)) >= 475


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ("per_dqn", "munchausen_dqn", "c51", "qr_dqn", "rainbow"))
def test_extensions_of_dqn_learn_cartpole(algorithm):
    config = prl.preset(algorithm, "CartPole-v1")
    assert config.total_steps <= 100_000
    assert iqm(greedy_returns(config, 128)) >= 475


@pytest.mark.slow
def test_double_dqn_overestimates_less_than_dqn(tmp_path):
    found = overestimation_dqn.main(["--seeds", "16", "--out", str(tmp_path / "curve.png")])
    (dqn, low, _), (double, _, high) = found["dqn"], found["double_dqn"]
    assert dqn > low > 0 and double < dqn and high < dqn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env", "least"),
    (
        ("a2c", "CartPole-v1", 475),
        ("a2c", "Acrobot-v1", -100),
        ("ppo", "CartPole-v1", 475),
        ("ppo", "Acrobot-v1", -100),
        ("ppo", "Pendulum-v1", -210),
        ("reinforce", "CartPole-v1", 475),
        ("discrete_sac", "CartPole-v1", 475),
        ("discrete_sac", "Acrobot-v1", -92.6),
        ("sac", "MountainCarContinuous-v0", 96),
        ("crossq", "Pendulum-v1", -155),
    ),
)
def test_actor_critics_learn(algorithm, env, least):
    config = prl.preset(algorithm, env)
    assert config.total_steps <= 500_000
    assert iqm(greedy_returns(config, 64)) >= least


@pytest.mark.slow
def test_continuous_soft_q_reaches_all_goals_and_sac_one(tmp_path):
    reached = multi_goal.main(["--seeds", "1", "--out", str(tmp_path / "goals.png")])
    assert reached[multi_goal.SOFT] == [4] and reached[multi_goal.SAC] == [1]


@pytest.mark.slow
def test_sac_learns_pendulum():
    config = prl.preset("sac", "Pendulum-v1")
    assert config.total_steps <= 10_000
    assert iqm(greedy_returns(config, 4_096)) >= -144

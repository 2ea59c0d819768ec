"""Value maps of finite MDPs, and exact returns."""

import numpy as np
import pytest
from PIL import Image

import purejaxrl_sac as prl
from purejaxrl_sac import mdp
from purejaxrl_sac.experiment.pictures import exact, value_maps
from purejaxrl_sac.mdp import dynamic_programming as dp


@pytest.mark.parametrize("name", mdp.NAMED)
def test_every_named_mdp_has_a_value_map(name, tmp_path):
    found = mdp.NAMED[name][0]()
    q = dp.value_iteration(found, 0.9)
    figure = value_maps.value_map(found, q, name, tmp_path / "values.png")
    assert Image.open(tmp_path / "values.png").size[0] > 500
    arrows = sum(
        text.arrow_patch is not None
        for text in figure.axes[0].texts
        if hasattr(text, "arrow_patch")
    )
    if name == "frozen_lake_not_slippery":  # one or two optimal actions in each of 11 cells
        assert 11 <= arrows <= 22
    if name == "taxi":  # several states per cell: a table
        assert arrows == 0


def test_values_must_have_the_shape_of_the_mdp():
    with pytest.raises(prl.ConfigError, match=r"q has shape \(48, 4\), but the MDP \(5, 2\)"):
        value_maps.value_map(mdp.chain(), np.zeros((48, 4)), "")


def test_exact_returns_of_greedy_policies():
    config = prl.default_config("q_learning").replace(env="FrozenLake-misc")
    found = exact.finite_mdp(config)
    assert exact.optimal_return(config, found) == pytest.approx(0.740, abs=5e-4)
    q = np.stack([np.asarray(dp.value_iteration(found, 0.99)), np.zeros((16, 4))])
    optimal, left = exact.greedy_returns(config, found, q)
    assert optimal == pytest.approx(0.740, abs=5e-4)
    assert left == 0  # ties take the first action, which never reaches the goal
    whole = config.replace(env="frozen_lake_not_slippery", gamma=1.0)
    assert (
        exact.optimal_return(whole, exact.finite_mdp(whole)) == 1
    )  # some optimal actions never reach the goal
    assert exact.finite_mdp(prl.default_config("dqn")) is None
    assert exact.finite_mdp(prl.preset("sac", "Pendulum-v1")) is None

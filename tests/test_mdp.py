"""Finite MDPs: compared with other implementations, as environments, and their validation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import envs, mdp
from purejaxrl_sac.envs.tabular import Tabular, exact, tables
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import named_mdps


@pytest.mark.parametrize("name", named_mdps.GYMNASIUM)
def test_every_transition_equals_gymnasium(name):
    assert named_mdps.largest_difference(name) < 1e-12


@pytest.mark.parametrize("slippery", (True, False))
def test_every_transition_equals_gymnax(slippery):
    ours, found = named_mdps.gymnax_frozen_lake(slippery, "4x4")
    sigmas, reward_error, ends = named_mdps.compare(ours, found)
    assert sigmas < 5 and reward_error == 0 and ends


def test_four_rooms_equals_gymnax():
    ours, found = named_mdps.gymnax_four_rooms()
    sigmas, reward_error, ends = named_mdps.compare(ours, found)
    assert sigmas < 5 and reward_error < 1e-6 and ends
    assert len(ours.P) == 104
    assert ours.grid.position[int(np.argmax(ours.start))] == (4, 1)


def test_the_exact_mdp_of_gymnax_frozen_lake():
    for kwargs, expected in (
        ({}, mdp.frozen_lake()),
        ({"map_name": "8x8", "is_slippery": False}, mdp.frozen_lake(8, slippery=False)),
    ):
        import gymnax

        found = exact(gymnax.make("FrozenLake-misc", **kwargs)[0])
        np.testing.assert_allclose(found.P, expected.P, atol=1e-7)
        np.testing.assert_allclose(found.R, expected.R, atol=1e-7)
        np.testing.assert_array_equal(found.terminal, expected.terminal)
    assert exact(envs.make("CartPole-v1")) is None
    assert exact(envs.make("taxi")) is envs.make("taxi").mdp


@pytest.mark.parametrize("name", mdp.NAMED)
def test_named_mdps_are_valid(name):
    build, max_steps = mdp.NAMED[name]
    found = build()
    mdp.validate(found)
    assert max_steps >= 10
    terminal = np.asarray(found.terminal)
    np.testing.assert_array_equal(np.asarray(found.P)[terminal, :, terminal], 1)
    assert (np.asarray(found.R)[terminal] == 0).all()


def test_named_mdps_by_hand():
    lake = mdp.frozen_lake()
    assert lake.terminal.sum() == 5 and lake.start[0] == 1
    # action down in state 14: left to 13, down stays, right to the goal, with probability 1/3 each
    np.testing.assert_allclose(lake.P[14, 1, [13, 14, 15]], 1 / 3)
    assert lake.r[14, 1] == pytest.approx(1 / 3) and lake.R[14, 1, 15] == 1

    cliff = mdp.cliff_walking()
    assert cliff.P[36, 1, 36] == 1 and cliff.r[36, 1] == -100 and cliff.r[36, 0] == -1
    assert cliff.P[35, 2, 47] == 1 and cliff.terminal[47] and cliff.terminal.sum() == 1

    taxi = mdp.taxi()
    assert (taxi.start > 0).sum() == 300
    assert sorted(np.unique(taxi.r[~taxi.terminal])) == [-10, -1, 20]
    assert (taxi.r == 20).sum() == 4  # one for each destination

    chain = mdp.chain()
    np.testing.assert_allclose(chain.r, [[0.4, 1.6]] * 4 + [[8.4, 3.6]])
    np.testing.assert_allclose(chain.P[2, 0], [0.2, 0, 0, 0.8, 0])

    sea = mdp.deep_sea(10)
    assert dp.value_iteration(sea, 1.0)[0].max() == pytest.approx(0.99, abs=1e-6)
    assert (sea.r == 0).sum() == 100 + 2 and sea.r[99, 1] == pytest.approx(0.999)
    assert sea.P[0, 1, 11] == 1 and sea.P[0, 0, 10] == 1 and sea.P[90, 0, 100] == 1

    bias = mdp.maximization_bias()
    assert bias.legal.sum() == 2 + 10 + 10
    np.testing.assert_allclose(bias.r[1], -0.1)
    assert (bias.noise[1] == 1).all() and (bias.noise[[0, 2]] == 0).all()
    assert bias.P[0, 0, 1] == bias.P[0, 1, 2] == 1
    assert dp.value_iteration(bias, 1.0)[0, 0] == pytest.approx(-0.1)


def test_garnets_are_random_and_can_be_vmapped():
    many = jax.vmap(lambda key: mdp.garnet(key, 12, 3, 4, terminal=2))(
        jax.random.split(jax.random.key(0), 5)
    )
    np.testing.assert_allclose(many.P.sum(-1), 1, atol=1e-6)
    inner = np.asarray(many.P)[:, :10]
    assert ((inner > 0).sum(-1) == 4).all()
    assert not np.allclose(inner[0], inner[1])
    mdp.validate(jax.tree.map(lambda x: x[0], many))


def test_custom_maps():
    found = mdp.from_map(
        """
        S.G
        .#C
        """,
        rewards={"G": 5.0, "C": -3.0, ".": -1.0},
    )
    assert found.P.shape == (5, 4, 5)
    assert found.P[1, 1, 2] == 1 and found.R[1, 1, 2] == 5 and found.terminal[2]
    assert found.P[1, 2, 1] == 1 and found.R[1, 2, 1] == -1  # into the wall
    assert found.grid.position == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2))
    onto_cliff = mdp.from_map("SG .C", rewards={"C": -3.0}).P[2, 1]
    np.testing.assert_array_equal(onto_cliff, [1, 0, 0, 0])  # back to the start


TWO = np.array([[[0.5, 0.5]], [[0.0, 1.0]]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mdp.make(0.9 * TWO, np.zeros((2, 1))), r"P\[0, 0\] sums to 0.9 .*sum to 1"),
        (lambda: mdp.make([[[1.5, -0.5]], TWO[1]], np.zeros((2, 1))), "smallest entry -0.5"),
        (lambda: mdp.make(TWO[0], np.zeros((2, 1))), r"must be \[S, A, S\]"),
        (lambda: mdp.make(TWO, np.zeros((3, 1))), r"R has shape \(3, 1\)"),
        (lambda: mdp.make(TWO, np.full((2, 1), np.nan)), "rewards must be finite"),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), start=2), "start is state 2, but the states are"),
        (
            lambda: mdp.make(TWO, np.zeros((2, 1)), start=[0, 0]),
            r"start sums to 0, but must be probabilities",
        ),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), start=[1]), r"start has shape \(1,\)"),
        (
            lambda: mdp.make(TWO, np.zeros((2, 1)), start=1, terminal=[1]),
            "state 1 is both a start and terminal",
        ),
        (
            lambda: mdp.make(TWO, np.zeros((2, 1)), legal=np.zeros((2, 1))),
            "state 0 has no legal action",
        ),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), terminal=[5]), "terminal has state 5, but"),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), noise=-1.0), "it is a standard deviation"),
        (
            lambda: mdp.make(TWO, np.zeros((2, 1)), terminal=np.array([[True]])),
            "terminal has shape",
        ),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), terminal=[0.5]), "indices of states"),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), legal=np.ones(3)), "legal has shape"),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), noise=np.ones(2)), "noise has shape"),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), start=0.5), "must be the index of a state"),
        (lambda: mdp.make(TWO, np.zeros((2, 1)), grid=mdp.cliff_walking().grid), "48 positions"),
        (lambda: mdp.from_map("SG", moves=((0, 1),) * 3), "moves has shape"),
        (lambda: mdp.from_map("SG", turn=0.8), "four probabilities"),
        (lambda: mdp.from_map("SG", rewards={"S.": 1}), "rewards has the letter 'S.'"),
        (lambda: mdp.from_map([1, 2]), "must be text"),
        (lambda: Tabular("cliff_walking"), "Tabular needs an MDP"),
        (lambda: mdp.garnet(jax.random.key(0), 3, 2, branching=5), "cannot have branching 5"),
        (
            lambda: dp.finite_horizon_evaluation(
                mdp.maximization_bias(), 1.0, np.full((3, 10), 0.1), 5
            ),
            "pi takes action 2 in state 0, where it is illegal",
        ),
        (
            lambda: dp.value_iteration(mdp.from_map("S.G", rewards={".": 1, "S": 1}), 1.0),
            "values do not converge at gamma 1.0",
        ),
        (lambda: mdp.make("two", 1), "must be arrays of numbers"),
        (lambda: mdp.frozen_lake(5), "no FrozenLake of size 5: use 4 or 8"),
        (lambda: mdp.from_map(""), "the map is empty"),
        (lambda: dp.policy_iteration(mdp.frozen_lake(), 1.0), "gamma < 1, .*value_iteration"),
        (lambda: dp.soft_value_iteration(mdp.chain(), 0.9, 0.0), "alpha is 0.0, but must be"),
        (lambda: dp.soft_policy_iteration(mdp.chain(), 0.9, alpha=-1), "alpha is -1, but must be"),
        (
            lambda: dp.policy_evaluation(mdp.chain(), 0.9, np.ones((5, 2))),
            "every row of pi must be probabilities",
        ),
        (lambda: dp.policy_evaluation(mdp.chain(), 0.9, np.ones((2, 5))), "pi has shape"),
        (lambda: mdp.from_map("SX FG"), "row 0 of the map has the letter 'X': use S start"),
        (lambda: mdp.from_map("SF G"), "make them all equally long"),
        (lambda: mdp.from_map("FF FG"), "the map has no S"),
        (lambda: mdp.from_map("S#G"), "no G can be reached from the S in row 0, column 0"),
        (lambda: mdp.from_map("SHG"), "no G can be reached"),
        (lambda: mdp.from_map("SG", rewards={"g": 1}), "rewards has the letter 'g'"),
        (lambda: mdp.from_map("SG", turn=(0.5, 0, 0, 0)), "four probabilities"),
        (lambda: Tabular(mdp.chain(), max_steps=0), "max_steps is 0"),
        (lambda: dp.value_iteration(mdp.chain(), 1.0), "gamma is 1, but from state 0 no terminal"),
        (lambda: dp.soft_value_iteration(mdp.chain(), 1.0, 0.1), "lower gamma"),
        (lambda: dp.value_iteration(mdp.chain(), 1.1), "gamma is 1.1, but must be between"),
        (lambda: dp.value_iteration(mdp.chain(), np.array([0.5, 1.1])), "gamma is .*1.1.*, but"),
        (lambda: dp.value_iteration(mdp.chain(), np.array([-0.5, 0.1])), "gamma is .*-0.5.*, but"),
        (
            lambda: dp.policy_evaluation(mdp.cliff_walking(), 1.0, np.eye(4)[[3] * 48]),
            "the policy never terminates",
        ),
        (lambda: envs.make("clif_walking"), "did you mean cliff_walking"),
    ],
)
def test_invalid_arguments_raise_one_clear_line(build, message):
    with pytest.raises(prl.ConfigError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


WHOLE = {  # functions of an argument that must be a whole number, by its name
    "size": (mdp.deep_sea, mdp.frozen_lake),
    "length": (mdp.chain,),
    "actions": (mdp.maximization_bias, lambda x: mdp.garnet(jax.random.key(0), 3, x)),
    "states": (lambda x: mdp.garnet(jax.random.key(0), x),),
    "branching": (lambda x: mdp.garnet(jax.random.key(0), branching=x),),
    "terminal": (lambda x: mdp.garnet(jax.random.key(0), terminal=x),),
    "max_steps": (lambda x: Tabular(mdp.chain(), max_steps=x),),
    "rounds": (lambda x: dp.soft_policy_iteration(mdp.chain(), 0.9, 1.0, rounds=x),),
    "horizon": (
        lambda x: dp.finite_horizon_evaluation(mdp.chain(), 0.9, np.eye(2)[[0] * 5], x),
    ),
    "a number of rows or columns in moves": (
        lambda x: mdp.from_map("SG", moves=[(0, x)] + [(0, 1)] * 3),
    ),
}  # fmt: skip
NUMBERS = {
    "slip": (lambda x: mdp.chain(slip=x),),
    "mean": (lambda x: mdp.maximization_bias(mean=x),),
    "std": (lambda x: mdp.maximization_bias(std=x),),
    "gamma": (
        lambda x: dp.value_iteration(mdp.chain(), x),
        lambda x: dp.policy_iteration(mdp.chain(), x),
        lambda x: dp.finite_horizon_evaluation(mdp.chain(), x, np.eye(2)[[0] * 5], 3),
    ),
    "alpha": (
        lambda x: dp.soft_value_iteration(mdp.chain(), 0.9, x),
        lambda x: dp.soft_policy_evaluation(mdp.chain(), 0.9, x, np.eye(2)[[0] * 5]),
    ),
    "the reward of 'G'": (lambda x: mdp.from_map("SG", rewards={"G": x}),),
}


@pytest.mark.parametrize(
    ("name", "function", "value"),
    [
        *((n, f, x) for n, fs in WHOLE.items() for f in fs for x in (2.5, "3", None, True)),
        *((n, f, x) for n, fs in NUMBERS.items() for f in fs for x in ("0.5", None, True)),
    ],
)
def test_what_is_no_number_is_named(name, function, value):
    with pytest.raises(prl.ConfigError, match=f"^{name} is {value!r}, but must be a (whole )?num"):
        function(value)


def test_rewards_that_are_no_mapping():
    with pytest.raises(prl.ConfigError, match=r"rewards is 3, but must be like \{'G': 1.0"):
        mdp.from_map("SG", rewards=3)


def test_numbers_of_numpy_and_jax_are_numbers():
    assert mdp.chain(np.int64(3), np.float32(0.5)).P.shape == (3, 2, 3)
    assert mdp.deep_sea(jnp.int32(2)).P.shape == (5, 2, 5)
    gammas = np.array([0.5, 0.9])
    q = jax.vmap(lambda gamma: dp.value_iteration(mdp.chain(), gamma))(gammas)
    for gamma, values in zip(gammas, q, strict=True):
        np.testing.assert_allclose(dp.value_iteration(mdp.chain(), gamma), values, rtol=1e-6)


@pytest.mark.parametrize("algorithm", ("q_learning", "sarsa"))
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "CartPole-v1"}, "finitely many states.* CartPole-v1 has continuous observations"),
        ({"env": "chain", "gamma": 1.0}, "gamma is 1, but from state 0"),
        ({"learning_rate": 1.5}, "learning_rate is 1.5, but must be between 0 and 1"),
        ({"exploration": "boltzman"}, "did you mean boltzmann"),
        ({"omega": -1.0}, "omega is -1.0, but must be zero or more"),
        ({"alpha": 0.0}, "alpha is 0.0, but must be greater than zero"),
    ],
)
def test_invalid_tabular_configurations_raise(algorithm, changes, message):
    config = prl.default_config(algorithm).replace(**changes)
    with pytest.raises(prl.ConfigError, match=message) as error:
        prl.make_train(config)
    assert "\n" not in str(error.value)


def play(env, steps, num_envs=64):
    bound = envs.bind(env)

    def actor(key, obs, step, carry):
        return bound.random_action(key, num_envs), (), carry

    keys = jax.random.split(jax.random.key(1), (steps, 1 + num_envs))
    start = bound.reset(jax.random.key(0), num_envs)
    return jax.jit(partial(envs.rollout, bound, actor=actor))(keys, start, 0)[1][0]


@pytest.mark.parametrize("name", ("frozen_lake", "taxi", "chain", "garnet", "maximization_bias"))
def test_the_environment_follows_the_mdp(name):
    """Frequencies of successors, rewards, starts, terminations, time limits and next_obs."""
    found = mdp.NAMED[name][0]()
    env = Tabular(found, name, max_steps=7)
    rows = play(env, 2_000)
    s, a, t = (np.asarray(x) for x in (rows.obs, rows.action, rows.next_obs))
    P = np.asarray(found.P)
    assert (P[s, a, t] > 0).all()
    counts = np.zeros(P.shape)
    np.add.at(counts, (s, a, t), 1)
    trials = counts.sum(-1, keepdims=True)
    error = np.sqrt(np.maximum(P * (1 - P), 1e-9) * trials) + 1e-6
    assert (np.abs(counts - trials * P) / error).max() < 5.5

    noise = np.asarray(found.noise)[s, a]
    gap = np.asarray(rows.reward) - np.asarray(found.R)[s, a, t]
    np.testing.assert_allclose(gap[noise == 0], 0, atol=1e-6)
    if (noise > 0).any():
        z = (gap / np.maximum(noise, 1e-9))[noise > 0]
        assert abs(z.mean()) < 5 / np.sqrt(len(z)) and abs(z.std() - 1) < 5 / np.sqrt(len(z))

    terminal = np.asarray(found.terminal)[t]
    np.testing.assert_array_equal(rows.discount, 1 - terminal)
    is_start = np.vstack([np.ones((1, 64), bool), np.asarray(rows.last)[:-1]])
    assert (np.asarray(found.start)[s[is_start]] > 0).all()
    np.testing.assert_array_equal(t[:-1][~is_start[1:]], s[1:][~is_start[1:]])
    lengths = np.diff(np.flatnonzero(np.asarray(rows.last)[:, 0]))
    assert lengths.max() <= 7 and np.asarray(rows.last)[terminal].all()
    if not terminal.any():
        assert (lengths == 7).all()


def test_parameters_take_precedence_over_the_mdp_of_tabular():
    env = Tabular(mdp.frozen_lake(slippery=False), max_steps=7)
    bound = envs.bind(env, tables(mdp.frozen_lake(), 7))
    start = bound.reset(jax.random.key(0), 300)
    right = jnp.full(300, 2)
    after, *_ = bound.step(jax.random.split(jax.random.key(1), 300), start, right)
    assert set(np.unique(after.obs)) == {0, 1, 4}


def test_terminal_states_need_no_legal_action():
    found = mdp.make(TWO, np.ones((2, 1)), terminal=[1], legal=[[True], [False]])
    assert found.legal.all()
    config = prl.default_config("soft_q_learning").replace(env=Tabular(found), total_steps=50)
    assert jnp.isfinite(jax.jit(prl.train)(jax.random.key(0), config)[0].agent.q).all()


def test_random_starts_follow_their_distribution():
    rows = play(Tabular(mdp.make(TWO, np.zeros((2, 1)), start=[0.25, 0.75]), max_steps=1), 500)
    assert np.asarray(rows.obs == 1).mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.19 / 32_000))


def test_environments_can_be_vmapped_over_stacked_mdps(key):
    """Runs on several random MDPs in one program equal separate runs."""
    many = jax.vmap(mdp.garnet)(jax.random.split(key, 3))
    each = [jax.tree.map(lambda x, i=i: x[i], many) for i in range(3)]
    params = [tables(found, max_steps=20) for found in each]
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *params)
    config = prl.default_config("q_learning").replace(
        env=Tabular(each[0], "garnet", 20), total_steps=500, gamma=0.9
    )
    lanes = config.replace(env_params=stacked)
    axes = jax.tree.map(lambda _: None, lanes).replace(
        env_params=jax.tree.map(lambda _: 0, stacked)
    )
    state, _ = jax.jit(jax.vmap(prl.train, (None, axes)))(key, lanes)
    assert not np.allclose(state.agent.q[0], state.agent.q[1])
    for lane, one in enumerate(params):
        solo, _ = jax.jit(prl.train)(key, config.replace(env_params=one))
        np.testing.assert_allclose(state.agent.q[lane], solo.agent.q, rtol=1e-4, atol=1e-5)


def test_gymnax_can_be_imported_inside_a_trace():
    import subprocess
    import sys

    code = (
        "import sys, jax, purejaxrl_sac as prl\n"
        "config = prl.default_config('q_learning').replace(total_steps=20)\n"
        "jax.jit(prl.init)(jax.random.key(0), config)\n"
        "jax.jit(prl.train)(jax.random.key(0), config)\n"
        "assert 'gymnax' in sys.modules\n"
        "slow = {'seaborn', 'pandas', 'matplotlib.pyplot'}\n"
        "assert not slow & set(sys.modules)\n"
        "from gymnax.environments.misc import pong\n"
        "assert pong.plt.Circle.__name__ == 'Circle'\n"
        "assert len(pong.sns.color_palette('cubehelix', 3)) == 3\n"
        "import matplotlib.pyplot as plt, seaborn\n"
        "assert plt is sys.modules['matplotlib.pyplot'] and plt.subplots is pong.plt.subplots\n"
        "assert seaborn.__version__ and seaborn is sys.modules['seaborn']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

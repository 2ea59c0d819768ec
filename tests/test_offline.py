"""Learning from datasets: exact fixed points, penalties by hand, and runs on disk."""

import json
import shutil
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli, mdp, normalize
from purejaxrl_sac.agents import conservative, off_policy, sac
from purejaxrl_sac.agents.conservative import (
    ConservativeCrossQConfig,
    ConservativeDQNConfig,
    ConservativeSACConfig,
)
from purejaxrl_sac.experiment.pictures import run_figures
from purejaxrl_sac.experiment.runs import datasets, record
from purejaxrl_sac.mdp import dynamic_programming
from tests.conftest import FULL_COMPILATION, compiled, init, small
from tests.probes import Probe

COUNTS = np.array([3, 1])  # of both actions in every state
GAMMA = 0.9


@pytest.fixture(scope="module")
def chain():
    """The chain MDP, and a dataset with exactly its transition probabilities."""
    m = mdp.chain(5)
    P, R = np.asarray(m.P), np.asarray(m.R)
    rows = [
        (s, a, R[s, a, after], after)
        for s, a, after in np.ndindex(P.shape)
        for _ in range(round(10 * P[s, a, after] * COUNTS[a]))
    ]
    s, a, r, after = map(np.array, zip(*rows, strict=True))
    ones, last = np.ones(len(rows), np.float32), np.zeros(len(rows), bool)
    data = prl.Transition(s.astype(np.int32), a.astype(np.int32), r.astype(np.float32), ones,
                          after.astype(np.int32), last)  # fmt: skip
    return m, data


@pytest.fixture(scope="module")
def swings():
    """Two episodes of twenty steps of Pendulum-v1."""
    config = small("td3")
    state = init(jax.random.key(0), config)
    return prl.record_dataset(jax.random.key(1), config, state, 2, max_steps=20)


@pytest.fixture(scope="module")
def learn(chain):
    """A function that returns Q [S, A] after learning from the chain's dataset."""
    config = ConservativeDQNConfig(
        env="chain", hidden_sizes=(), learning_rate=0.05, learning_rate_end=1e-4, batch_size=200,
        num_updates=50, total_steps=300, target_period=50, tau=1.0, gamma=GAMMA,
    )  # fmt: skip
    config = prl.offline(config, chain[1])
    train = jax.jit(prl.train, compiler_options=FULL_COMPILATION)

    @cache
    def learned(weight):
        state, metrics = train(jax.random.key(0), config.replace(conservative_weight=weight))
        assert not metrics["episodes"].any() and (state.step == 300).all()
        return np.asarray(prl.q_values(config, state, jnp.arange(5)))

    return learned


def test_a_dataset_is_printed_as_types_and_shapes(chain):
    config = prl.offline(prl.default_config("dqn").replace(env="chain"), chain[1])
    rows = len(chain[1].reward)
    assert f"obs=int32[{rows}], action=int32[{rows}]" in repr(config)
    assert len(repr(config.dataset)) < 200
    assert "obs=None" in repr(jax.tree.map(lambda _: None, config).dataset)
    shapes = jax.eval_shape(lambda c: c.dataset, config)
    assert repr(shapes) == repr(config.dataset)


def test_without_a_penalty_the_optimal_values_are_learned(chain, learn):
    expected = dynamic_programming.value_iteration(chain[0], GAMMA)
    np.testing.assert_allclose(learn(0.0), expected, atol=0.25)


def test_the_fixed_point_of_the_conservative_penalty(chain, learn):
    """It is Q(s, a) = y(s, a) - w (softmax(Q)(a|s) / d(a|s) - 1), d the data's policy."""
    m, _ = chain
    P, R, d = np.asarray(m.P), np.asarray(m.R), COUNTS / COUNTS.sum()
    q = np.zeros(P.shape[:2])
    for _ in range(2_000):
        y = (P * (R + GAMMA * q.max(1))).sum(-1)
        pi = np.exp(q - q.max(1, keepdims=True))
        pi /= pi.sum(1, keepdims=True)
        q = 0.5 * q + 0.5 * (y - 0.5 * (pi / d - 1))
    found, plain = learn(0.5), learn(0.0)
    np.testing.assert_allclose(found, q, atol=0.25)
    assert abs(plain - q).mean() > 4 * abs(found - q).mean()  # the penalty makes the difference
    assert (found < plain).all()


def test_the_penalty_of_discrete_actions_by_hand():
    q = jnp.array([[1.0, 2.0], [3.0, 0.0]])
    config = ConservativeDQNConfig(conservative_weight=2.0)
    inputs = prl.agents.dqn.LossInputs(
        config, outputs=lambda params, obs, **keys: obs, head=prl.heads.scalar(config),
        batch=prl.Transition(q[..., None], jnp.array([0, 0]), None, None, None, None),
        weight=jnp.array([1.0, 0.5]), next_return=None, backup=None,
        keys=prl.agents.dqn.Keys(*jax.random.split(jax.random.key(0), 6)),
        legal=lambda obs, q: q,
    )  # fmt: skip
    found, metrics = conservative.conservative_values(None, inputs)
    gaps = np.array([np.log(np.exp(1) + np.exp(2)) - 1, np.log(np.exp(3) + 1) - 3])
    expected = (gaps * [1, 0.5]).mean()
    np.testing.assert_allclose(metrics["conservative_gap"], expected, rtol=1e-6)
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-6)


def test_the_penalty_of_continuous_actions_estimates_an_integral():
    """For Q(s, a) = c a in one dimension, log of the integral of exp Q is log(2 sinh(c) / c)."""
    slope = jnp.array([1.5, -0.5])  # of two critics

    def sample(key, params, obs):
        action = jax.random.uniform(key, (len(obs), 1), minval=-1, maxval=1)
        return action, jnp.full(len(obs), -jnp.log(2.0))

    def critic(params, obs, action, dropout=None):
        return slope[:, None] * action[:, 0]

    config = ConservativeSACConfig(conservative_weight=3.0, conservative_samples=4_000)
    data = jnp.array([[0.25], [-0.5], [1.0]])
    batch = prl.Transition(jnp.zeros((3, 2)), data, None, None, jnp.zeros((3, 2)), None)
    state = sac.SACState(prl.optimize.Learned(None, None), None, None, None)
    keys = sac.Keys(*jax.random.split(jax.random.key(1), 6))
    networks = sac.Networks(sample, critic, None)
    inputs = sac.LossInputs(config, networks, state, batch, jnp.float32(1), None, keys)
    found, metrics = conservative.conservative_critics(None, inputs)
    integral = np.log(2 * np.sinh(slope) / slope)
    expected = (integral - np.mean(slope * data, 0)).sum()
    np.testing.assert_allclose(metrics["conservative_gap"], expected, atol=0.02)
    np.testing.assert_allclose(found, 3 * metrics["conservative_gap"], rtol=1e-6)


@pytest.mark.parametrize("name", ["sac", "td3", "sac_v1", "tqc", "crossq", "discrete_sac", "dqn"])
def test_a_penalty_is_part_of_the_loss(name):
    """The gradient of w |theta|^2 / 2 shrinks the critics' parameters by lr w, with plain steps."""

    def half_square(params):
        return sum(jnp.square(x).sum() for x in jax.tree.leaves(params)) / 2

    config = small(name)
    env = prl.envs.bind(config.env)
    obs = jnp.zeros((8, *env.observation_space.shape))
    action = jnp.zeros(8, int) if env.num_actions else jnp.zeros((8, env.action_dim))
    batch = prl.Transition(obs, action, jnp.ones(8), jnp.ones(8), obs, jnp.zeros(8, bool))

    @jax.jit
    @jax.vmap
    def norms(weight):
        """|theta|^2 / 2 in an update, and after it."""

        def penalty(params, inputs):
            return weight * half_square(params), {"norm": half_square(params)}

        _, agent, _ = prl.build(
            config.replace(algorithm=partial(config.algorithm, penalty=penalty))
        )
        shapes = jax.eval_shape(agent.init, jax.random.key(0), obs)
        state = jax.tree.map(lambda x: jnp.full(x.shape, 0.1, x.dtype), shapes)
        sample = prl.types.Sample(batch, jnp.ones(8))
        state, _, metrics = agent.update(jax.random.key(1), state, sample, jnp.int32(0))
        params = state.params if name == "dqn" else state.critic.params
        return metrics["norm"], half_square(params)

    during, (plain, penalised) = norms(jnp.array([0.0, 0.1]))
    assert (during > 0).all() and penalised < plain


def test_the_penalty_of_crossq_has_running_statistics():
    """Its critics are those that the actor maximises, its samples those of the exploring policy."""
    inputs = []

    def penalty(params, given):
        inputs.append(given)
        networks, state = given.networks, given.state
        q = networks.critic(params, given.batch.obs, given.batch.action)
        action, log_prob = networks.sample(key, state.actor.params, given.batch.obs)
        assert log_prob.shape == q.shape[1:]
        seen = {f"q_{i}": x for i, x in enumerate(q.min(0))}
        return 0.0 * q.sum(), seen | {f"action_{i}": x for i, x in enumerate(action[:, 0])}

    key = jax.random.key(3)
    config = small("crossq").replace(algorithm=partial(prl.crossq, penalty=penalty))
    _, agent, _ = prl.build(config)
    obs, next_obs = np.random.default_rng(0).standard_normal((2, 8, 3), np.float32)
    action, reward = np.tanh(obs[:, :1]), obs[:, 1]
    batch = prl.Transition(obs, action, reward, np.ones(8), next_obs, np.zeros(8, bool))

    @jax.jit
    def updated():
        """A state whose statistics are not the first ones, metrics and keys of its update."""
        state = agent.init(jax.random.key(0), obs)
        statistics = {"actor_stats": state.actor_stats, "critic_stats": state.critic_stats}
        state = state._replace(**jax.tree.map(lambda x: x + 0.5, statistics))
        sample = prl.types.Sample(batch, jnp.ones(8))
        _, _, metrics = agent.update(jax.random.key(2), state, sample, jnp.int32(0))
        keys = [inputs[-1].key, *inputs[-1].keys]
        return state, metrics, [jax.random.key_data(key) for key in keys]

    state, metrics, keys = updated()
    agent = compiled(agent)
    expected = agent.q_values(state, obs, action)
    seen = [metrics[f"q_{i}"] for i in range(len(expected))]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    acted, _, _ = agent.act(key, state, obs, jnp.int32(0), ())
    seen = [metrics[f"action_{i}"] for i in range(len(expected))]
    np.testing.assert_allclose(seen, acted[:, 0], atol=1e-5)
    assert len({tuple(key.tolist()) for key in keys}) == 7


def test_crossq_is_conservative_on_a_dataset(swings):
    """log of the integral of exp Q - Q of the data is smaller with a larger weight."""
    config = ConservativeCrossQConfig(
        env="Pendulum-v1", hidden_sizes=(), critic_hidden_sizes=(16,), batch_size=32,
        num_updates=40, total_steps=10, conservative_samples=4,
    )  # fmt: skip
    config = prl.offline(config, swings)

    @jax.jit
    @jax.vmap
    def gap(weight):
        _, metrics = prl.train(jax.random.key(2), config.replace(conservative_weight=weight))
        return metrics["conservative_gap"][-1]

    conservative, plain = np.asarray(gap(jnp.array([5.0, 0.0])))
    assert conservative < plain - 0.1


def test_a_dataset_of_a_policy(tmp_path):
    config = small("dqn")
    state = init(jax.random.key(0), config)
    data = prl.record_dataset(jax.random.key(1), config, state, 3, policy=prl.policy)
    lengths = prl.evaluate(jax.random.key(1), config, state, 3)  # rewards of 1 per step
    assert len(data.reward) == lengths.sum() and data.obs.shape == (len(data.reward), 4)
    assert data.last.sum() == 3 and data.extras == ()
    datasets.save(tmp_path / "data.npz", data)
    again = datasets.load(tmp_path / "data.npz")
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), data, again))
    assert datasets.checksum(again) == datasets.checksum(data)
    assert datasets.checksum(data._replace(reward=data.reward + 1)) != datasets.checksum(data)


def test_actions_of_a_dataset_are_in_canonical_units():
    config = small("sac")  # Pendulum, whose actions are within -2 and 2
    state = init(jax.random.key(0), config)
    play = partial(prl.rollout_episodes, episodes=2, policy=prl.policy, max_steps=5)
    played, running = play(jax.random.key(1), config, state)
    data = prl.record_dataset(jax.random.key(1), config, state, 2, policy=prl.policy, max_steps=5)
    np.testing.assert_allclose(data.action, np.asarray(played.action)[running] / 2, atol=1e-6)
    prl.offline(config, data)


def test_actions_of_narrow_integers_are_recorded_exactly():
    """Of uint8, whose differences wrap around; a component with one value is recorded as 0."""
    space = spaces.Box(
        jnp.array([0, 3], jnp.uint8), jnp.array([255, 3], jnp.uint8), (2,), jnp.uint8
    )
    env = Probe(lambda sign, time, action: 0.0, horizon=4, action_space=space)
    config, played = small("sac", env=env), jnp.array([[0, 3], [64, 3], [160, 3], [255, 3]])
    state = init(jax.random.key(0), config)

    def policy(config, state):
        def act(key, obs):
            time = (4 * obs[:, 1]).astype(int)
            return played.astype(jnp.uint8)[time]

        return act

    data = prl.record_dataset(jax.random.key(1), config, state, 1, policy=policy, max_steps=4)
    np.testing.assert_allclose(data.action[:, 0], played[:, 0] / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(data.action[:, 1], 0)
    np.testing.assert_array_equal(prl.build(config)[0].to_env(data.action), played)


def test_seeds_share_a_dataset_and_differ(chain):
    config = prl.offline(small("dqn", env="chain"), chain[1])
    keys = jax.random.split(jax.random.key(0), 3)
    state, metrics = jax.jit(jax.vmap(prl.train, (0, None)))(keys, config)
    assert state.memory == () and metrics["loss"].shape == (3, config.iterations)
    assert len(np.unique(metrics["loss"][:, -1])) == 3


QUIET = ["--quiet", "--no-cache"]
SIZES = ["--hidden-sizes", "4", "--steps=60", "--seeds=2", "--episodes=4", "--batch-size=8"]
LINE = ["dqn", "--env=chain", "--dataset=data.npz", "--chunks=3", *SIZES, *QUIET]


@pytest.fixture
def folder(chain, tmp_path, monkeypatch):
    """The working directory, with the chain's dataset."""
    monkeypatch.chdir(tmp_path)
    datasets.save("data.npz", chain[1])


@pytest.fixture
def whole(folder):
    """A finished run, `whole`, with all its checkpoints."""
    keep = ["--checkpoint-minutes=0", "--keep=9"]
    assert cli.main(["train", *LINE, *keep, "--out=whole"]) == 0
    return prl.experiment.load("whole")


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(run_figures, "compile_episode", lambda config: None)
    monkeypatch.setattr(run_figures, "write_figures", lambda *_: {})


def same_agents(one, other):
    agents = one.state.agent, other.state.agent
    return jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), *agents))


def test_an_offline_run_is_stopped_and_resumed_and_repeated(chain, whole, no_pictures):
    document = json.loads(Path("whole/config.json").read_text())
    assert document["config"]["dataset"] == datasets.checksum(chain[1])
    assert whole.summary["greedy_returns"] is not None and whole.evaluate(4).shape == (2, 4)
    shutil.copytree("whole", "half")
    Path("half/summary.json").unlink()
    shutil.rmtree("half/checkpoints/60")
    assert cli.main(["resume", "half", *QUIET]) == 0
    assert same_agents(prl.experiment.load("half"), whole)
    assert cli.main(["train", "--config=whole", "--out=again", *QUIET]) == 0
    assert same_agents(prl.experiment.load("again"), whole)
    other = chain[1]._replace(reward=chain[1].reward + 1)
    datasets.save("half/dataset.npz", other)
    with pytest.raises(ConfigError, match="is not the dataset that the run was created with"):
        prl.experiment.load("half")
    Path("half/dataset.npz").unlink()
    with pytest.raises(ConfigError, match="cannot read the dataset"):
        prl.experiment.load("half")


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (small("n_step_dqn", env="chain"), {}, "learns with n-step returns"),
        (small("per_dqn", env="chain"), {}, "learns with priorities"),
        (small("ppo", env="chain"), {}, "learns from its own rollouts"),
        (small("q_learning", env="chain"), {}, "learns from its own rollouts"),
        (small("dqn", env="chain").replace(wrappers=(normalize.rewards,)), {}, "leave them out"),
        (small("dqn"), {}, r"obs of the dataset has shape \(200,\), but must be \(200, 4\)"),
        (small("dqn", env="chain"), {"reward": jnp.zeros(())}, "has no rows"),
        (small("dqn", env="chain"), {"reward": jnp.zeros(0)}, "has no rows"),
        (
            small("dqn", env="chain"),
            {"last": jnp.zeros(3)},
            "last of the dataset has shape",
        ),
        (small("dqn", env="chain"), {"action": jnp.full(200, 2)}, "within 0 and 1"),
        (small("dqn", env="chain"), {"reward": jnp.full(200, jnp.nan)}, "reward .* not finite"),
        (small("dqn", env="chain"), {"action": np.full(200, 0.5)}, "action .* type float64"),
        (small("dqn", env="chain"), {"reward": np.full(200, 1j)}, "reward .* type complex"),
        (small("dqn", env="chain"), {"discount": np.full(200, 7.0)}, "within 0 and 1"),
        (small("dqn", env="chain"), {"next_obs": np.full(200, 99)}, "next_obs .* within 0 and 4"),
        (
            small("dqn", env="chain"),
            {"last": np.zeros(200)},
            "last .* type float64, but must be booleans",
        ),
        (small("dqn", env="chain"), {"reward": np.full(200, 1e300)}, "reward .* not finite"),
        (small("dqn", env="chain"), {"obs": [[1], [1, 2]] * 100}, "obs .* different lengths"),
    ],
)
def test_datasets_and_algorithms_that_do_not_fit(config, changes, message, chain):
    with pytest.raises(ConfigError, match=message):
        prl.offline(config, chain[1]._replace(**changes))


def test_a_sweep_learns_from_the_dataset(folder, no_pictures):
    grid = ["--grid", "hidden-sizes=4,8", "--fresh-seeds=0"]
    assert cli.main(["sweep", *LINE, *grid, "--out=sweep"]) == 0
    whole = Path("sweep/seeds.csv").read_text()
    for name in ("table.csv", "seeds.csv", "summary.json"):
        Path("sweep", name).unlink()
    shutil.rmtree(sorted(Path("sweep/batches").iterdir())[-1])
    assert cli.main(["resume", "sweep", *QUIET]) == 0
    assert Path("sweep/seeds.csv").read_text() == whole


def test_a_memory_of_ones_own_is_refused(chain):
    algorithm = partial(prl.dqn, memory=off_policy.uniform_replay)
    config = small("dqn", env="chain").replace(algorithm=algorithm)
    with pytest.raises(ConfigError, match="the part memory of dqn cannot be used with a dataset"):
        prl.offline(config, chain[1])


def test_an_algorithm_that_processes_rollouts_is_refused(swings):
    """Its statistics of observations would stay those of the start."""
    with pytest.raises(ConfigError, match="SimBaConfig processes rollouts"):
        prl.offline(small("simba"), swings)


def test_a_dataset_is_recorded_with_the_state_of_one_seed():
    config = small("dqn", env="chain")
    states = jax.jit(jax.vmap(prl.init, (0, None)))(jax.random.split(jax.random.key(0), 2), config)
    with pytest.raises(ConfigError, match=r"take one, seed_state\(state, 0\)"):
        prl.record_dataset(jax.random.key(1), config, states, 1)


def test_what_is_no_dataset_or_configuration(chain, tmp_path):
    with pytest.raises(ConfigError, match="dataset is a dict, but must be a Transition"):
        datasets.save(tmp_path / "data.npz", {})
    with pytest.raises(ConfigError, match="dataset is a dict, but must be a Transition"):
        prl.offline(small("dqn"), {})
    with pytest.raises(ConfigError, match="config is 'dqn', but must be a configuration"):
        prl.offline("dqn", chain[1])


def test_fields_of_a_dataset_may_be_lists(chain):
    data = chain[1]._replace(reward=chain[1].reward.tolist())
    found = prl.offline(small("dqn", env="chain"), data).dataset
    np.testing.assert_array_equal(found.reward, chain[1].reward)


@pytest.mark.parametrize("algorithm", ["crossq", "tqc"])
def test_numbers_of_a_dataset_have_the_types_of_transitions(algorithm, swings):
    """Of NumPy's 64 bits, which JAX keeps under jax_enable_x64."""
    wide = jax.tree.map(lambda x: np.asarray(x, bool if x.dtype == bool else float), swings)
    with jax.enable_x64(True):
        config = prl.offline(small(algorithm), wide)
        state, _ = jax.eval_shape(prl.make_train(config), jax.random.key(0))
    data = config.dataset
    assert {x.dtype for x in (data.action, data.reward, data.discount)} == {np.dtype(np.float32)}
    assert {x.dtype.itemsize for x in jax.tree.leaves(state.agent)} <= {1, 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 4}, "num_envs is 4, but must be 1 with a dataset: leave it"),
        ({"warmup_steps": 8}, "warmup_steps is 8, but must be 0 with a dataset: leave it"),
        (
            {"env": "CartPole-v1"},
            r"of the dataset have shape \[\], but those of .* \[4\]",
        ),
        ({"wrappers": (normalize.observations,)}, "wrappers cannot be used with a dataset"),
    ],
)
def test_what_a_dataset_fixes_cannot_be_changed_afterwards(changes, message, chain):
    config = prl.offline(small("dqn", env="chain"), chain[1])
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(prl.train, jax.random.key(0), config.replace(**changes))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100, None])
def test_damaged_files(content, tmp_path):
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the dataset"):
        datasets.load(path)


def test_pickled_and_incomplete_files(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, obs=np.array([{"a": 1}], object))
    with pytest.raises(ConfigError, match="cannot read the dataset"):
        datasets.load(path)
    np.savez(path, obs=np.zeros(3))
    with pytest.raises(ConfigError, match="has no array action"):
        datasets.load(path)


def test_the_dataset_of_a_run_with_64_bits_is_the_same_without(tmp_path):
    path, obs = tmp_path / "dataset.npz", np.random.default_rng(0).normal(size=(3, 4))
    last = np.zeros(3, bool)
    data = prl.Transition(obs, np.zeros(3, int), np.ones(3), np.ones(3), obs, last)
    with jax.enable_x64(True):
        config = prl.offline(small("dqn"), data)
        written = record.config_to_dict(config)
    datasets.save(path, config.dataset)
    assert config.dataset.obs.dtype == np.float64
    found = record.config_with_dataset(written, record.NOTHING, path).dataset
    assert found.obs.dtype == np.float32


def test_flags_that_a_dataset_fixes_are_refused(swings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    datasets.save("data.npz", swings)
    line = ["train", "sac", "--env=Pendulum-v1", "--dataset=data.npz", "--dry-run"]
    assert cli.main([*line, "--num-envs=4"]) == 2
    assert "num_envs is 4, but must be 1 with a dataset" in capsys.readouterr().err
    assert cli.main([*line, "--warmup-steps", "0"]) == 0


def test_conservative_sac_from_the_command_line(swings, tmp_path, no_pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.save("data.npz", swings)
    name = "purejaxrl_sac.agents.conservative:ConservativeSACConfig"
    line = ["train", name, "--env=Pendulum-v1", "--dataset=data.npz", "--steps=20", "--out=run"]
    line += ["--hidden-sizes", "4", "--episodes=2", "--batch-size=4", "--conservative-samples=2"]
    assert cli.main([*line, "--quiet", "--no-cache"]) == 0
    row = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(row["conservative_gap"]).all()

"""Curricula: the parameters that rollouts use at each iteration, in every kind of run."""

import json
import re
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli, envs
from purejaxrl_sac.experiment.errors import StoppedError
from purejaxrl_sac.experiment.runs import record
from tests.conftest import init, run, small
from tests.probes import replayed
from tests.test_runs import Recorder, same


@struct.dataclass
class Params:
    reward: float = -1.0
    max_steps_in_episode: int = 5
    actions: int = 2
    mode: str = struct.field(pytree_node=False, default="plain")


class Paying(environment.Environment):
    """Every step pays the parameter `reward`; there are `actions` actions."""

    @property
    def name(self):
        return "Paying"

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        return jnp.zeros(2), jnp.int32(0)

    def step_env(self, key, state, action, params):
        return jnp.zeros(2), state + 1, jnp.float32(params.reward), jnp.bool_(False), {}

    def is_truncated(self, state, params):
        return state >= params.max_steps_in_episode

    def action_space(self, params=None):
        return spaces.Discrete(2 if params is None else params.actions)

    def observation_space(self, params):
        return spaces.Box(-1.0, 1.0, (2,))


ENV = Paying()
train = jax.jit(prl.train)
ROLLOUT, NUM_ENVS, WARMUP, STEPS = 4, 2, 32, 128  # fractions of them are exact
SIZES = {"total_steps": STEPS, "capacity": STEPS, "warmup_steps": WARMUP, "num_envs": NUM_ENVS}


def rising(params, progress):
    return params.replace(reward=progress)


def growing(params, progress):
    return params.replace(max_steps_in_episode=jnp.where(progress < 0.5, 1, 2))


def scaled(params, progress, factor=1.0):
    return params.replace(reward=params.reward + factor * progress)


def config_of(curriculum, **changes):
    sizes = {"hidden_sizes": (8,), **SIZES, **changes}
    return small("dqn", env=ENV, curriculum=curriculum, **sizes)


def rewards(config, state):
    """The stored rewards [T, N] of a run whose memory holds all of its steps."""
    return replayed(config, state).reward


@cache
def trained():
    """A run of the curriculum `rising`: its configuration, final state and metrics."""
    config = config_of(rising)
    return config, *train(jax.random.key(0), config)


def expected(steps=STEPS, total=STEPS):
    """The progress before each rollout, warm-up included, for each of its steps: [T, N]."""
    before = np.arange(steps // (ROLLOUT * NUM_ENVS)) * ROLLOUT * NUM_ENVS
    progress = np.float32(before / NUM_ENVS) / np.float32(total / NUM_ENVS)
    return np.repeat(progress, ROLLOUT)[:, None] * np.ones(NUM_ENVS, np.float32)


def test_rollouts_have_the_parameters_of_their_iteration():
    config, state, metrics = trained()
    found = rewards(config, state)
    np.testing.assert_array_equal(found, expected())
    assert found[0, 0] == 0 and len(np.unique(found)) == STEPS // (ROLLOUT * NUM_ENVS)
    assert (metrics["returns"] >= 0).all()
    plain, _ = train(jax.random.key(0), config.replace(curriculum=None))
    assert (rewards(config, plain) == -1).all()


def test_a_curriculum_starts_from_the_parameters_of_the_configuration():
    config = config_of(partial(scaled, factor=2.0)).replace(env_params=Params(reward=0.5))
    state, _ = jax.jit(prl.make_train(config))(jax.random.key(0))
    np.testing.assert_array_equal(rewards(config, state), 0.5 + 2 * expected())


def test_evaluation_is_under_the_parameters_of_the_configuration():
    config, state, _ = trained()
    np.testing.assert_array_equal(prl.evaluate(jax.random.key(1), config, state, 3), -5)
    other = config.replace(env_params=Params(reward=2.0))
    np.testing.assert_array_equal(prl.evaluate(jax.random.key(1), other, state, 3), 10)


def test_the_time_limit_may_change():
    """Episodes of 1 step in the first half, of 2 after it; evaluations have the task's 5."""
    config = config_of(growing, total_steps=256, capacity=256)
    state, metrics = train(jax.random.key(0), config)
    length = np.asarray(metrics["lengths"] / metrics["episodes"])
    half = 128 // (ROLLOUT * NUM_ENVS) - WARMUP // (ROLLOUT * NUM_ENVS)
    assert (length[:half] == 1).all() and (length[half:] == 2).all()
    assert prl.build(config)[0].max_steps == 5
    np.testing.assert_array_equal(prl.evaluate(jax.random.key(1), config, state, 3), -5)


def test_twice_n_iterations_equal_n_twice():
    config = config_of(rising)
    start = init(jax.random.key(0), config)
    whole, metrics = run(start, config, 8)
    half, first = run(start, config, 4)
    again, second = run(half, config, 4)
    assert same(again, whole)
    for name, x in metrics.items():
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), x)


def test_seeds_share_the_progress():
    config = config_of(rising)
    keys = jax.random.split(jax.random.key(0), 2)
    states, _ = jax.jit(jax.vmap(prl.make_train(config)))(keys)
    for seed in range(2):
        np.testing.assert_array_equal(rewards(config, prl.seed_state(states, seed)), expected())


def test_parameters_may_be_swept_under_a_curriculum():
    """`vmap` over traced `env_params`, of which the curriculum makes those of the rollouts."""
    config = config_of(scaled)
    lanes = config.replace(env_params=Params(reward=jnp.array([1.0, 3.0])))
    axes = jax.tree.map(lambda _: None, lanes).replace(
        env_params=Params(reward=0, max_steps_in_episode=None, actions=None)
    )
    states, _ = jax.jit(lambda key: jax.vmap(prl.train, (None, axes))(key, lanes))(
        jax.random.key(0)
    )
    for lane, reward in enumerate((1, 3)):
        found = rewards(config, prl.seed_state(states, lane))
        np.testing.assert_array_equal(found, reward + expected())


def test_without_a_curriculum_no_program_changes(monkeypatch):
    """Not even the environment is bound again."""
    from purejaxrl_sac import curriculum

    config, key = config_of(None), jax.random.key(0)
    before = str(jax.make_jaxpr(prl.make_train(config))(key))
    monkeypatch.setattr(curriculum, "at", lambda config, env, step: env)
    monkeypatch.setattr(curriculum, "check", lambda config, env: None)
    assert str(jax.make_jaxpr(prl.make_train(config))(key)) == before
    assert str(jax.make_jaxpr(prl.make_train(config_of(rising)))(key)) == before


def branching(params, progress):
    return params.replace(reward=1.0) if progress > 0.5 else params


def resizing(params, progress):
    return params.replace(actions=2 + (progress > 0.5))


def stretching(params, progress):
    return params.replace(reward=jnp.zeros(3) + progress)


def switching(params, progress):
    return params.replace(mode="other")


def fractional(params, progress):
    return params.replace(reward=progress, actions=2 + jnp.int32(progress))


def broken(params, progress):
    return params.no_such_field


def assigning(params, progress):
    params.reward = progress
    return params


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        (3, "curriculum is 3, but must be a function"),
        (lambda params, progress: {"reward": 1.0}, "returned a dict, but must return a Params"),
        (lambda params, progress: None, "returned None, but must return a Params"),
        (lambda params: params, "the curriculum <lambda> fails: TypeError"),
        (broken, "the curriculum broken fails: AttributeError"),
        (assigning, "assigning fails: FrozenInstanceError: .* in test_curriculum.py, line"),
        (branching, "the curriculum branching needs the value of the progress"),
        (resizing, "resizing changes actions, which Paying must know before compilation"),
        (fractional, "fractional changes actions, which Paying must know before compilation"),
        (stretching, r"changes the shape of reward from \(\) to \(3,\)"),
        (switching, "switching changes a static field of Paying's parameters"),
    ],
)
def test_curricula_that_cannot_be_used_are_one_line(curriculum, message, tmp_path):
    config = config_of(curriculum)
    for function in (
        lambda: prl.make_train(config),
        lambda: prl.init(jax.random.key(0), config),
        lambda: prl.experiment.run(config, out=tmp_path / "run"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            function()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


class Branching(Paying):
    """Its code branches on the parameter, outside of gymnax's own `jit`."""

    def step(self, key, state, action, params=None):
        sign = 1 if params.reward > 0 else -1
        return super().step(key, state, sign * action, params)


def test_code_that_branches_on_a_parameter_is_named():
    config = config_of(rising).replace(env=Branching())
    with pytest.raises(ConfigError, match=r"changes reward, .*\(its code needs the value\)"):
        prl.build(config)
    prl.build(config_of(growing).replace(env=Branching()))  # which leaves that parameter alone


class Holding(Paying):
    """Its state has the type of the time limit."""

    def reset_env(self, key, params):
        obs, time = super().reset_env(key, params)
        return obs, time.astype(jnp.result_type(params.max_steps_in_episode))


def test_types_that_change_are_named():
    def half(params, progress):
        return params.replace(max_steps_in_episode=5 * progress, reward=progress)

    config = config_of(half).replace(env=Holding())
    with pytest.raises(ConfigError, match=r"half changes max_steps_in_episode, .*types of its"):
        prl.build(config)


def test_named_environments_have_curricula():

    def lighter(params, progress):
        return params.replace(masspole=0.1 + progress)

    def chain(params, progress):
        return params.replace(chain_length=10 + jnp.int32(10 * progress))

    def bounds(params, progress):
        return params.replace(max_torque=1 + progress)

    prl.build(small("dqn", env="CartPole-v1", curriculum=lighter))
    prl.build(small("dqn", env="UmbrellaChain-bsuite", curriculum=chain))
    config = small("sac", env="Pendulum-v1", curriculum=bounds, hidden_sizes=(8,))
    state, _ = train(jax.random.key(0), config)
    assert np.isfinite(rewards(config, state)).all()


def test_datasets_and_legal_actions_exclude_curricula():
    class Masked(Paying):
        def legal_actions(self, obs, params):
            return jnp.array([True, params.reward > 0])

    with pytest.raises(ConfigError, match="declares legal actions, which agents know under its"):
        prl.build(config_of(rising).replace(env=Masked()))
    row = prl.Transition(
        np.zeros((4, 2), np.float32), np.zeros(4, np.int32), np.zeros(4, np.float32),
        np.ones(4, np.float32), np.zeros((4, 2), np.float32), np.zeros(4, bool),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="of which a dataset takes the place: remove it"):
        prl.offline(config_of(rising), row)


RUN = {"seeds": 2, "chunks": 4, "episodes": 4}


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    config = config_of(rising)
    whole = prl.experiment.run(config, out=tmp_path / "whole", **RUN)
    with pytest.raises(StoppedError):
        prl.experiment.run(config, out=tmp_path / "run", reporter=Recorder(2), **RUN)
    with pytest.raises(ConfigError, match="add --trust"):
        prl.experiment.resume(tmp_path / "run", env=ENV)
    with pytest.raises(ConfigError, match=r"curriculum is .*test_curriculum:growing, but was"):
        prl.experiment.resume(tmp_path / "run", env=ENV, curriculum=growing)
    resumed = prl.experiment.resume(tmp_path / "run", env=ENV, curriculum=rising)
    assert same(resumed.state, whole.state)
    found = prl.experiment.load(tmp_path / "run", env=ENV, trust=True, whole=True)
    assert found.config == config and max(found.summary["greedy_returns"]) == -5
    np.testing.assert_array_equal(rewards(config, found.seed_state(1)), expected())


def test_a_curriculum_with_parameters_in_runs_and_sweeps(tmp_path):
    """The run's `env_params` become constants; the curriculum begins with them."""
    config = config_of(partial(scaled, factor=4.0)).replace(env_params=Params(reward=0.5))
    run = prl.experiment.run(config, out=tmp_path / "run", **RUN)
    assert run.summary["greedy_returns"] == [2.5, 2.5]
    whole = prl.experiment.load(run.path, env=ENV, trust=True, whole=True)
    np.testing.assert_array_equal(rewards(config, whole.seed_state(0)), 0.5 + 4 * expected())
    points = prl.experiment.points.grid(**{"env_params.reward": [0.5, 1.5]})
    swept = prl.experiment.sweep.run(config, points, out=tmp_path / "sweep", fresh_seeds=0, **RUN)
    np.testing.assert_array_equal(swept.scores, [[2.5, 2.5], [7.5, 7.5]])
    for name, reward in (("00000-00000", 0.5), ("00001-00001", 1.5)):
        path = tmp_path / "sweep" / "batches" / name
        batch = prl.experiment.load(path, env=ENV, trust=True, whole=True)
        np.testing.assert_array_equal(rewards(config, batch.seed_state(1)), reward + 4 * expected())


def test_a_curriculum_is_recorded_and_read_only_with_trust():
    config = small("dqn", env="CartPole-v1", curriculum=partial(rising))
    data = json.loads(json.dumps(record.config_to_dict(config)))
    assert data["curriculum"].endswith("test_curriculum:rising()")
    assert data["recipe"]["curriculum"]["function"].endswith("test_curriculum:rising")
    with pytest.raises(ConfigError, match="its curriculum is custom code"):
        record.config_from_dict(data)
    found = record.config_from_dict(data, record.Given(trust=True))
    assert record.config_to_dict(found) == data
    again = record.config_from_dict(data, record.Given(curriculum=rising))
    with pytest.raises(ConfigError, match="curriculum is"):
        record.check_equal(again, data, Path("run"))
    plain = record.config_to_dict(small("dqn", env="CartPole-v1"))
    assert "curriculum" not in plain and "recipe" not in plain  # as before there were curricula
    local = config.replace(curriculum=lambda params, progress: params)
    data = json.loads(json.dumps(record.config_to_dict(local)))
    with pytest.raises(ConfigError, match="no reference names: pass curriculum="):
        record.config_from_dict(data, record.Given(trust=True))


FORK = """
import jax.numpy as jnp

def shorter(params, progress):
    return params.replace(max_steps_in_episode=jnp.where(progress < 0.5, 2, 4))
"""
LINE = ["--env=taxi", "--steps=216", "--num-envs=3", "--rollout-length=4", "--seeds=2"]
LINE += ["--episodes=4", "--chunks=3", "--quiet", "--no-cache"]
LINE += ["--env-params", "max_steps_in_episode=6"]
NAMED = ["--curriculum", "curriculum_of_fork.py:shorter"]


def test_a_curriculum_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("curriculum_of_fork.py").write_text(FORK)
    assert cli.main(["train", "q_learning", *LINE, *NAMED, "--out=one"]) == 0

    def lengths(name):
        rows = [json.loads(x) for x in Path(name, "metrics.jsonl").read_text().splitlines()]
        return [row["episode_length"] for row in rows]

    found = lengths("one")
    assert found[0] == [2, 2] and found[-1] == [4, 4]
    text = Path("one/config.toml").read_text()
    assert 'curriculum = "curriculum_of_fork.py:shorter"' in text
    again = ["train", "--config=one", "--quiet", "--no-cache", "--out=two"]
    capsys.readouterr()
    assert cli.main(again) == 2
    assert "names code, curriculum_of_fork.py:shorter" in capsys.readouterr().err
    assert cli.main([*again, "--trust"]) == 0 and lengths("two") == found
    documents = [json.loads(Path(x, "config.json").read_text()) for x in ("one", "two")]
    assert documents[0] == documents[1]
    assert documents[0]["config"]["env_params"]["max_steps_in_episode"] == 6
    for command in (["eval", "one"], ["render", "one", "--out=a.gif"], ["export", "one"],
                    ["resume", "one", "--steps=432", "--quiet", "--no-cache"]):  # fmt: skip
        capsys.readouterr()
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert re.search(r"its curriculum is custom code, .* with --curriculum \(", error)
        assert cli.main([*command, *NAMED]) == 0
    assert lengths("one")[-1] == [4, 4]
    sweep = ["sweep", "q_learning", *LINE, *NAMED, "--out=sweep", "--fresh-seeds=0"]
    assert cli.main([*sweep, "--grid", "gamma=0.9,0.99"]) == 0
    assert lengths("sweep/batches/00000-00001") == [[*x, *x] for x in found]
    assert cli.main(["resume", "sweep", "--quiet"]) == 2
    assert cli.main(["resume", "sweep", "--quiet", "--no-cache", *NAMED]) == 0
    for wrong, message in (("shorter", "must be file.py:name"), ("nowhere.py:x", "no file")):
        capsys.readouterr()
        assert cli.main(["train", "q_learning", *LINE, "--out=x", f"--curriculum={wrong}"]) == 2
        assert message in capsys.readouterr().err


def test_parameters_of_a_rollout_are_bound_as_others():
    from purejaxrl_sac import curriculum

    env = envs.bind("Pendulum-v1")
    config = small("sac", env="Pendulum-v1").replace(
        curriculum=lambda params, progress: params.replace(max_torque=1 + progress)
    )
    half = jnp.int32(config.total_steps // config.num_envs // 2)
    found = curriculum.at(config, env, half).to_env(jnp.ones((1, 1)))
    np.testing.assert_allclose(found, [[1.5]], rtol=1e-6)
    late = curriculum.at(config, env, 10 * half).to_env(jnp.ones((1, 1)))
    np.testing.assert_allclose(late, [[2.0]], rtol=1e-6)  # more steps than planned

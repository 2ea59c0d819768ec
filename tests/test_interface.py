"""Environments of one's own: what is missing or wrong is said in one line, before compilation."""

from functools import partial

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import purejaxrl_sac as prl
from purejaxrl_sac import envs
from purejaxrl_sac.envs.parameters import fixed
from purejaxrl_sac.experiment.runs import plans


@struct.dataclass
class State(environment.EnvState):
    x: jnp.ndarray


@struct.dataclass
class Timeless:
    x: jnp.ndarray


class Line(environment.Environment):
    """A point on a line."""

    name = "Line"
    default_params = environment.EnvParams(max_steps_in_episode=5)

    def reset_env(self, key, params):
        state = State(time=0, x=jnp.float32(0))
        return jnp.stack([state.x]), state

    def step_env(self, key, state, action, params):
        state = State(time=state.time + 1, x=state.x + action)
        return jnp.stack([state.x]), state, 1.0, state.x > 3, {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0, 9, (1,))


def bound(**changes):
    """The environment with some attributes replaced, or removed if they are None."""
    removed = {
        name: getattr(environment.Environment, name)
        for name, x in changes.items()
        if not (x or name == "__hash__")
    }
    return envs.bind(type("Line", (Line,), changes | removed)())


def test_an_environment_with_the_interface_is_accepted():
    assert bound().max_steps == 5


@pytest.mark.parametrize(
    "method", ("reset_env", "step_env", "action_space", "observation_space", "default_params")
)
def test_what_is_missing_is_named(method):
    with pytest.raises(prl.ConfigError, match=rf"^the environment Line has no .*{method}"):
        bound(**{method: None})


def branching(self, key, state, action, params):
    if state.x > 3:
        state = state.replace(x=0)
    return Line.step_env(self, key, state, action, params)


def with_numpy(self, key, state, action, params):
    return Line.step_env(self, key, state.replace(x=np.abs(state.x)), action, params)


def as_gymnasium(self, key, state, action, params):
    return (*Line.step_env(self, key, state, action, params), {})


def in_whole_numbers(self, key, params):
    return jnp.stack([jnp.float32(0)]), State(time=0, x=jnp.int32(0))


def by_halves(self, key, state, action, params):
    state = State(time=state.time + 1, x=state.x + action / 2)
    return jnp.stack([state.x]), state, 1.0, state.x > 3, {}


def stepping(i, change):
    """`step_env` with a change of its i-th value."""

    def step_env(self, key, state, action, params):
        values = [*Line.step_env(self, key, state, action, params)]
        values[i] = change(values[i])
        return tuple(values)

    return step_env


@pytest.mark.parametrize("dtype", [int, float, jnp.uint8])
def test_terminated_may_be_a_number(dtype):
    """The complement of an integer is not that of a bool: ~1 is -2."""
    expected, found = (
        bound(max_steps=9, step_env=stepping(3, lambda x, kind=kind: x.astype(kind)))
        for kind in (bool, dtype)
    )
    key, keys = jax.random.key(0), jax.random.split(jax.random.key(1), 2)
    ends = []
    for env in (expected, found):
        state, action = env.reset(key, 2), jnp.ones(2, jnp.int32)
        for _ in range(4):
            state, transition, _ = env.step(keys, state, action)
        assert transition.last.dtype == bool
        ends.append(transition)
    assert ends[0].last.all()
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_number_of_actions_may_be_an_array():
    assert bound(action_space=lambda *_: spaces.Discrete(jnp.int32(2))).num_actions == 2


def without_time(self, key, params):
    return jnp.stack([jnp.float32(0)]), Timeless(x=jnp.float32(0))


def with_legacy_observations(self, key, params):
    state = State(time=0, x=jnp.float32(0))
    return self.get_obs(state), state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_env": branching}, r"use jnp\.where .* instead of `if`"),
        ({"step_env": branching}, r"in test_interface\.py, line \d+"),
        ({"step_env": with_numpy}, r"use jax\.numpy instead of numpy"),
        ({"step_env": as_gymnasium}, r"returns 6 values, but must return obs, state, reward, term"),
        (
            {"reset_env": in_whole_numbers, "step_env": by_halves},
            r"^state\.x .* is float32\[\] .* but int32\[\]",
        ),
        ({"reset_env": without_time}, r"no field time"),
        (
            {"reset_env": lambda self, key, params: jnp.zeros(1)},
            r"returns 1 value, but must return obs, state$",
        ),
        (
            {"reset_env": with_legacy_observations},
            r"has no method get_obs",
        ),
        ({"observation_space": lambda self, params: spaces.Box(0, 1, (3,))}, r"\(1,\).*\(3,\)"),
        (
            {"reset_env": lambda self, *args: Line.reset_env(self, *args)[::-1]},
            "returns state, obs, but must return obs, state",
        ),
        ({"step_env": stepping(3, lambda x: x[None])}, r"terminated .* is bool\[1\] .* scalar"),
        (
            {"step_env": stepping(2, lambda x: jnp.ones(2))},
            r"returned a reward of shape \(2,\) from step",
        ),
        ({"observation_space": lambda *_: None}, "is None without a shape, but must be a Box"),
        ({"observation_space": lambda *_: spaces.Dict({})}, "is a Dict without a shape"),
        ({"observation_space": lambda *_: spaces.Box(0, 1, None)}, "is a Box without a shape"),
        ({"action_space": lambda *_: spaces.Discrete(0)}, "actions of Line is 0, but must be at l"),
        ({"action_space": lambda *_: spaces.Discrete(2.5)}, "2.5, but must be a whole number"),
        ({"action_space": lambda *_: spaces.Box(1, -1, (1,))}, "whose low exceeds their high"),
        ({"action_space": lambda *_: spaces.Box(-jnp.ones(3), 1, (1,))}, r"arrays of shape \[1\]"),
        ({"action_space": lambda *_: spaces.Box([-1.0], [1.0], (1,))}, "are a list, but must be"),
        (
            {"action_space": lambda *_: gymnasium.spaces.Discrete(2)},
            r"kind Discrete\(2\) of Gymnasium: need Discrete or Box of gymnax\.environments\.space",
        ),
        ({"__hash__": None}, r"cannot be hashed, .*: a dataclass can with @dataclass\(eq=False\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes, message):
    with pytest.raises(prl.ConfigError, match=message) as raised:
        bound(**changes)
    assert len(str(raised.value).splitlines()) == 1
    assert "networks" not in str(raised.value)


class Delegating:
    """An environment that gets its methods from another one."""

    def __init__(self, env):
        self.env = env

    def __getattr__(self, name):
        return getattr(self.env, name)


def by_hand():
    env = type("Line", (Line,), {})()
    env.step_env = partial(Line.step_env, env)
    return env


def one_step_bandit():
    return type("Line", (Line,), {"default_params": environment.EnvParams()})()


def weak_state(self, key, params):
    return jnp.zeros(1), State(time=0, x=0)


def in_small_integers(self, key, state, action, params):
    state = State(time=state.time + 1, x=state.x + jnp.uint8(1))
    return jnp.stack([state.x]).astype(float), state, 1.0, state.x > 3, {}


WEAK = {"reset_env": weak_state, "step_env": in_small_integers}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Delegating(Line()),
        by_hand,
        one_step_bandit,
        type("Line", (Line,), WEAK),
        type("Line", (Line,), {"__eq__": lambda self, other: 1 / 0, "__hash__": lambda self: 7}),
    ],
)
def test_valid_environments_are_accepted(make):
    env = make()
    assert envs.bind(env).game is env


@struct.dataclass
class Horizon(environment.EnvParams):
    horizon: int = 50


@pytest.mark.parametrize("params", (Horizon(), environment.EnvParams()))
def test_an_environment_that_ends_episodes_itself_declares_their_length(params):
    changes = {"default_params": params, "is_truncated": lambda self, state, _: state.time > 50}
    with pytest.raises(prl.ConfigError, match=r"episode of 1, after .*: declare it in"):
        bound(**changes)
    declared = environment.EnvParams(max_steps_in_episode=50)
    assert bound(**changes | {"default_params": declared}).max_steps == 50


def test_a_limit_of_one_step_is_not_inherited():
    with pytest.raises(prl.ConfigError, match=r"after one step: declare it in Horizon$"):
        bound(default_params=Horizon())
    env = type("Line", (Line,), {"default_params": Horizon()})()
    assert envs.bind(env, Horizon(max_steps_in_episode=7)).max_steps == 7


def test_parameters_of_ones_own_take_the_place_of_default_ones():
    env = type("Line", (Line,), {"default_params": environment.Environment.default_params})()
    assert envs.bind(env, environment.EnvParams(max_steps_in_episode=7)).max_steps == 7


def test_parameters_of_a_run_are_checked_as_elsewhere():
    """An environment with parameters of its own is no other kind of environment."""
    params = environment.EnvParams()
    config = prl.default_config("dqn").replace(env=one_step_bandit(), env_params=params)
    assert envs.bind(fixed(config).env).max_steps == envs.bind(config.env, params).max_steps == 1


@pytest.mark.parametrize("name", ["Pendulum-v1", "PointRobot-misc"])
def test_objects_of_gymnax_are_accepted_in_64_bits(name):
    with jax.enable_x64(True):
        assert envs.bind(gymnax.make(name)[0]).action_dim


@pytest.mark.parametrize(
    ("begun", "final", "message"),
    [
        (jnp.zeros(2, int), jnp.ones(2), "are float32 from step, but int32 from reset"),
        (jnp.zeros(2), jnp.float32(1), r"a final_observation of shape \(\) .* of shape \(2,\)"),
        (jnp.zeros(2), jnp.ones(2, int), ""),
    ],
)
def test_observations_of_a_step_of_ones_own_are_as_those_of_reset(begun, final, message):
    """Halves would silently be rounded to whole numbers."""

    def step(self, key, state, action, params):
        return begun + 0.5, state, 1.0, False, False, {"final_observation": final}

    env = {
        "name": "Own",
        "default_params": Horizon(max_steps_in_episode=9),
        "reset": lambda self, key, params: (begun, State(time=0, x=0)),
        "step": step,
        "action_space": Line.action_space,
        "observation_space": lambda self, params: spaces.Box(0, 9, (2,)),
    }
    if not message:
        assert envs.bind(type("Own", (), env)()).max_steps == 9
        return
    with pytest.raises(prl.ConfigError, match=message):
        envs.bind(type("Own", (), env)())


def test_other_objects_are_refused():
    with pytest.raises(prl.ConfigError, match=r"the class Line: pass an object, Line\(\)"):
        envs.bind(Line)
    with pytest.raises(prl.ConfigError, match="of Gymnasium, which does not run in JAX"):
        envs.bind(gymnasium.make("CartPole-v1"))


def test_an_environment_is_checked_once(monkeypatch):
    calls = []

    def reset_env(self, key, params):
        calls.append(key)
        return Line.reset_env(self, key, params)

    env = type("Line", (Line,), {"reset_env": reset_env})()
    envs.bind(env)
    count = len(calls)
    envs.bind(env)
    assert len(calls) == count > 0


@pytest.mark.parametrize("name", [x for x in gymnax.registered_envs if "MNIST" not in x])
def test_environments_of_gymnax_have_the_interface(name):
    env, _ = gymnax.make(name)
    assert envs.bind(env).game is env


def test_what_needs_a_time_limit_names_the_environment():
    """Not its object, such as <corridor.Corridor object at 0x7fd4d62a6290>."""
    params = environment.EnvParams(max_steps_in_episode=jnp.inf)
    config = prl.default_config("dqn").replace(env=Line(), env_params=params)
    message = "eval_every needs a time limit, which Line does not have: declare max_steps_in_epi"
    with pytest.raises(prl.ConfigError, match=message):
        plans.plan(config, eval_every=100)


def test_a_run_whose_time_does_not_advance_is_warned_of():
    def standing(self, key, state, action, params):
        return *Line.step_env(self, key, state, action, params)[:1], state, 1.0, False, {}

    endless = type("Line", (Line,), {"step_env": standing})()
    config = prl.default_config("dqn").replace(env=endless, num_envs=2)
    shared = dict.fromkeys(plans.Progress._fields)

    def note(config, *episodes, steps=22):
        history = [
            plans.Progress(**{**shared, "steps": steps, "episodes": np.array(x)}) for x in episodes
        ]
        return plans.endless_note(config, history)

    assert "no episode has ended in 11 steps" in note(config, [0, 0], [0, 0])
    assert note(config, [0, 0], steps=20) == note(config, [0, 1], [0, 0]) == ""
    assert note(config.replace(dataset=0), [0, 0]) == ""

"""Exports a trained policy as a StableHLO program that needs only jax and numpy."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from purejaxrl_sac.checks import check_train_state
from purejaxrl_sac.config import Config, ConfigError, unknown
from purejaxrl_sac.envs import Env
from purejaxrl_sac.evaluate import Policy, PolicyFactory, Step, policy
from purejaxrl_sac.experiment.devices.mesh import is_key
from purejaxrl_sac.experiment.runs import record
from purejaxrl_sac.train import build
from purejaxrl_sac.types import InitCarry, TrainState, no_carry

EXPORT_FORMAT = 2  # as in LOADER; 1 had no carries
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# jax's own `Exported.serialize` needs flatbuffers, which jax does not install. Besides the program
# it stores only types, which the loader takes from an export of `zeros`, a function of equal types.
LOADER = '''\
"""Loads the policy in this directory, as `act(obs)`; needs only jax and numpy."""

import dataclasses
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

here = Path(__file__).parent
about = json.loads((here / "policy.json").read_text())
content = (here / "policy.stablehlo").read_bytes()
if about.get("format") != 2:
    raise ValueError(f"{here} has another format than this load.py: export the policy again")
crc32 = about.pop("crc32", None)
if crc32 != zlib.crc32(json.dumps(about, sort_keys=True).encode() + content):
    raise ValueError(f"{here} was changed after it was written: export the policy again")
observation, action = about["observation"], about["action"]
remembered = about["carry"]  # arrays of one environment, their types and initial values
dtypes = [array["dtype"] for array in (observation, action, *remembered)]
x64 = jax.config.jax_enable_x64 or any(dtype.endswith("64") for dtype in dtypes)
randomness = np.random.default_rng()


@jax.jit
def zeros(key, obs, *carry):
    actions = jnp.zeros((obs.shape[0], *action["shape"]), action["dtype"])
    return (actions, *carry) if carry else actions


batch = export.symbolic_shape("batch")
types = [jax.ShapeDtypeStruct((2,), "uint32")]
for array in (observation, *remembered):
    types.append(jax.ShapeDtypeStruct((*batch, *array["shape"]), array["dtype"]))
with jax.enable_x64(x64):
    exported = export.export(zeros, platforms=about["platforms"])(*types)
program = dataclasses.replace(
    exported,
    mlir_module_serialized=content,
    calling_convention_version=about["calling_convention_version"],
)
call = jax.jit(program.call)


def initial_carry(batch):
    """The memory of the policy at the beginning of B episodes: arrays [B, ...]."""
    arrays = (np.array(array["initial"], array["dtype"]) for array in remembered)
    return [np.broadcast_to(array, (batch, *array.shape)) for array in arrays]


def act(obs, key=None, carry=None):
    """Actions [B, ...] for observations [B, ...], in the environment's own units.

    A stochastic policy, about["stochastic"], samples with the key, uint32 [2], or a random one.
    A policy that remembers its episode, about["carry"], returns actions and a carry, which the
    next call takes; without one, an episode begins.
    """
    obs = np.asarray(obs, observation["dtype"])
    key = randomness.integers(2**32, size=2) if key is None else key
    if not obs.ndim or list(obs.shape[1:]) != observation["shape"]:
        expected = ", ".join(map(str, ["B", *observation["shape"]]))
        raise ValueError(f"obs has shape {obs.shape}, but must have shape [{expected}]")
    first = initial_carry(len(obs))
    carry = first if carry is None else list(carry)
    if [np.shape(array) for array in carry] != [array.shape for array in first]:
        raise ValueError(f"this is no carry of {len(obs)} episodes: see initial_carry")
    with jax.enable_x64(x64):
        found = call(np.asarray(key, np.uint32), obs, *carry)
    return (np.asarray(found[0]), found[1:]) if remembered else np.asarray(found)


if __name__ == "__main__":
    print(act(np.zeros((1, *observation["shape"]))))
'''


def export_policy(
    config: Config,
    state: TrainState,
    path: str | Path,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    policy: PolicyFactory = policy,
) -> None:
    """Exports the policy of one seed, for use without this package.

    Creates the directory `path` with three files: `policy.stablehlo`, the program (key uint32 [2],
    obs [B, ...]) -> actions [B, ...] in the environment's own units, for any B and with the
    parameters as constants (with the arrays of the carry as further inputs and outputs, if the
    policy has one); `policy.json`, the types of its inputs and outputs; and `load.py`,
    which needs only jax and numpy, verifies the checksum of the other two, and defines `act(obs)`.
    Nothing in the two files is executed but the program, by XLA. jax guarantees to read exported
    programs for six months of releases.

    Args:
        state: one seed's state.
        path: a directory that does not exist yet.
        platforms: on which the program will run; they need not be available here.
        policy: `evaluate.policy` (the default) or `evaluate.exploring_policy`, or your own.

    Raises:
        ConfigError: it is no state, or one of several seeds, the policy cannot be exported for
            batches of any size or for these platforms, or the directory exists or is not writable.
    """
    check_train_state(state)
    if state.key.ndim:
        raise ConfigError(
            f"the state has an axis of {state.key.shape[0]} seeds: export one of them, for example"
            " seed_state(state, 0)"
        )
    for platform in platforms:
        if platform not in PLATFORMS:
            raise unknown("platform", platform, PLATFORMS)
    state = state._replace(agent=jax.tree.map(jnp.asarray, state.agent))  # may be numpy arrays
    env, _, _ = build(config)
    obs = jax.eval_shape(lambda key: env.reset(key, 1), state.key).obs
    chosen = policy(config, state)
    step, initial = _with_carry(chosen)
    carry = _carry(initial)
    program, stochastic = _program(step, initial, obs, platforms)
    document = _document(config, env, obs, program) | {"stochastic": stochastic, "carry": carry}
    text = json.dumps(document, sort_keys=True).encode()
    document["crc32"] = zlib.crc32(text + program.mlir_module_serialized)
    files = {
        "policy.stablehlo": program.mlir_module_serialized,
        "policy.json": (json.dumps(document, indent=2) + "\n").encode(),
        "load.py": LOADER.encode(),
    }
    _write(Path(path), files)


def _with_carry(chosen: Callable[..., Any]) -> tuple[Step, InitCarry]:
    """A policy as (key, obs, carry) -> action, carry, and its initial carry."""
    if isinstance(chosen, Policy):
        return chosen.step, chosen.init_carry
    return lambda key, obs, carry: (chosen(key, obs), carry), no_carry


def _carry(initial: InitCarry) -> list[dict[str, Any]]:
    """The arrays of a carry: their types, and initial values of one environment.

    Raises:
        ConfigError: there are keys among them, or the initial values of two environments differ.
    """
    found = []
    for leaf in jax.tree.leaves(initial(2)):
        if is_key(leaf) or bool((leaf[0] != leaf[1]).any()):
            raise ConfigError("this policy's carry is random, which cannot be exported")
        one = np.asarray(leaf[0])
        found.append({"shape": one.shape, "dtype": str(one.dtype), "initial": one.tolist()})
    return found


def _program(
    step: Step, initial: InitCarry, spec: jax.ShapeDtypeStruct, platforms: Sequence[str]
) -> tuple[export.Exported, bool]:
    """The policy for batches of any size, and whether it is stochastic."""
    like, structure = jax.tree.flatten(initial(1))

    @jax.jit
    def act(key_data: jax.Array, obs: jax.Array, *carry: jax.Array) -> Any:
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        action, after = step(key, obs, jax.tree.unflatten(structure, carry))
        return (action, *jax.tree.leaves(after)) if carry else action

    def exported(batch: Any) -> export.Exported:
        inputs = [jax.ShapeDtypeStruct((2,), jnp.uint32)]
        inputs += [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in (spec, *like)]
        return export.export(act, platforms=tuple(platforms))(*inputs)

    try:
        stochastic = 0 in exported(1).module_kept_var_idx  # fixed shapes drop unused arguments
        return exported(*export.symbolic_shape("batch")), stochastic
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ConfigError(
            f"this policy cannot be exported for batches of any size ({reason})"
        ) from error


def _document(
    config: Config, env: Env, spec: jax.ShapeDtypeStruct, program: export.Exported
) -> dict[str, Any]:
    """The content of `policy.json`."""
    action = program.out_avals[0]
    low, high = 0, (env.num_actions or 0) - 1
    if env.num_actions is None:
        bounds = jnp.array([[-1.0], [1.0]]) * jnp.ones(env.action_dim)
        low, high = np.asarray(env.to_env(bounds)).tolist()
    names = record.config_to_dict(config.replace(env_params=None))
    return {
        "format": EXPORT_FORMAT,
        "algorithm": names["algorithm"],
        "environment": names["env"],
        "observation": {
            "shape": list(spec.shape[1:]),
            "dtype": str(spec.dtype),
        },
        "action": {
            "shape": list(action.shape[1:]),
            "dtype": str(action.dtype),
            "low": low,
            "high": high,
        },
        "platforms": list(program.platforms),
        "calling_convention_version": program.calling_convention_version,
        "versions": record.versions(),
    }


def _write(path: Path, files: dict[str, bytes]) -> None:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{path} exists already: export to another directory") from None
    except OSError as error:
        raise ConfigError(f"cannot create {path}: {error.strerror}") from None
    try:
        for name, content in files.items():
            (path / name).write_bytes(content)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise ConfigError(f"cannot write to {path}: {error.strerror}") from None

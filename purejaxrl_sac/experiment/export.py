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

from purejaxrl_sac.config import Config, ConfigError, unknown
from purejaxrl_sac.envs import Env
from purejaxrl_sac.evaluate import Policy, PolicyFactory, policy
from purejaxrl_sac.experiment.runs import record
from purejaxrl_sac.train import build
from purejaxrl_sac.types import TrainState

EXPORT_FORMAT = 1  # as in LOADER
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
if about.get("format") != 1:
    raise ValueError(f"{here} has another format than this load.py: export the policy again")
crc32 = about.pop("crc32", None)
if crc32 != zlib.crc32(json.dumps(about, sort_keys=True).encode() + content):
    raise ValueError(f"{here} was changed after it was written: export the policy again")
observation, action = about["observation"], about["action"]
randomness = np.random.default_rng()


@jax.jit
def zeros(key, obs):
    return jnp.zeros((obs.shape[0], *action["shape"]), action["dtype"])


key_type = jax.ShapeDtypeStruct((2,), "uint32")
shape = (*export.symbolic_shape("batch"), *observation["shape"])
obs_type = jax.ShapeDtypeStruct(shape, observation["dtype"])
program = dataclasses.replace(
    export.export(zeros, platforms=about["platforms"])(key_type, obs_type),
    mlir_module_serialized=content,
    calling_convention_version=about["calling_convention_version"],
)
call = jax.jit(program.call)


def act(obs, key=None):
    """Actions [B, ...] for observations [B, ...], in the environment's own units.

    A stochastic policy, about["stochastic"], samples with the key, uint32 [2], or a random one.
    """
    key = randomness.integers(2**32, size=2) if key is None else key
    return np.asarray(call(np.asarray(key, np.uint32), np.asarray(obs, observation["dtype"])))


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
    parameters as constants; `policy.json`, the types of its inputs and outputs; and `load.py`,
    which needs only jax and numpy, verifies the checksum of the other two, and defines `act(obs)`.
    Nothing in the two files is executed but the program, by XLA. jax guarantees to read exported
    programs for six months of releases.

    Args:
        state: one seed's state.
        path: a directory that does not exist yet.
        platforms: on which the program will run; they need not be available here.
        policy: `evaluate.policy` (the default) or `evaluate.exploring_policy`, or your own.

    Raises:
        ConfigError: the state has several seeds, the policy cannot be exported for batches of any
            size or for these platforms, or the directory exists or is not writable.
    """
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
    if isinstance(chosen, Policy) and jax.tree.leaves(chosen.init_carry(1)):
        raise ConfigError("a policy with a carry cannot be exported yet: evaluate it from the run")
    program, stochastic = _program(chosen, obs, platforms)
    document = _document(config, env, obs, program) | {"stochastic": stochastic}
    text = json.dumps(document, sort_keys=True).encode()
    document["crc32"] = zlib.crc32(text + program.mlir_module_serialized)
    files = {
        "policy.stablehlo": program.mlir_module_serialized,
        "policy.json": (json.dumps(document, indent=2) + "\n").encode(),
        "load.py": LOADER.encode(),
    }
    _write(Path(path), files)


def _program(
    choose: Callable[..., Any], spec: jax.ShapeDtypeStruct, platforms: Sequence[str]
) -> tuple[export.Exported, bool]:
    """The policy for batches of any size, and whether it is stochastic."""

    @jax.jit
    def act(key_data: jax.Array, obs: jax.Array) -> jax.Array:
        return choose(jax.random.wrap_key_data(key_data, impl="threefry2x32"), obs)

    def exported(batch: Any) -> export.Exported:
        obs = jax.ShapeDtypeStruct((batch, *spec.shape[1:]), spec.dtype)
        key_data = jax.ShapeDtypeStruct((2,), jnp.uint32)
        return export.export(act, platforms=tuple(platforms))(key_data, obs)

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
    (action,) = program.out_avals
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

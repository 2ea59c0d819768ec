import dataclasses
import gc
import os
import tempfile

import jax
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.experiment.devices.mesh import use_cpu_devices

use_cpu_devices(2)  # so that tests of several seeds cover sharding over devices


QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # which has no such flag
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
# as in use: where rounding is compared, and of programs that run for longer than they compile
FULL_COMPILATION = {"xla_backend_optimization_level": 3}
if jax.__version_info__ < (0, 11):
    FULL_COMPILATION["xla_cpu_use_fusion_emitters"] = True


def pytest_configure(config):
    """Compile fast tests in a third of the time, and each program once: it is most of their work.

    With JAX_COMPILATION_CACHE_DIR set to a folder that is kept, the next run compiles only programs
    that have changed (29 CPU-seconds of test_sac.py become 10).
    """
    settings = {"jax_persistent_cache_min_compile_time_secs": 0.0}  # reading is always faster
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = tempfile.TemporaryDirectory(prefix="programs-")
        config.add_cleanup(cache.cleanup)
        settings["jax_compilation_cache_dir"] = cache.name
    gc.set_threshold(200_000, 20, 20)  # tracing makes many objects that live on: 7 % of the time
    for name, value in settings.items():
        if name.upper() not in os.environ:  # which workers and other processes inherit
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)
    if config.option.markexpr == "not slow":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} {QUICK_COMPILATION}"


@pytest.fixture
def key():
    return jax.random.key(0)


TABULAR = {name for name, (module, *_) in ALGORITHMS.items() if module == "q_learning"}
CONTINUOUS = {
    "sac",
    "redq",
    "droq",
    "tqc",
    "simba",
    "fast_sac",
    "td3",
    "sac_v1",
    "crossq",
    "recurrent_sac",
}


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Free the compiled programs of a module, of which few are used again.

    Compilation becomes slower with the number of programs in the process (after 200 s of it a small
    one takes three times as long). Each is mapped into memory, with at most 65,530 maps.
    """
    yield
    jax.clear_caches()


ENVS = {
    **{name: "CartPole-v1" for name in ALGORITHMS if name not in TABULAR},
    **dict.fromkeys(CONTINUOUS, "Pendulum-v1"),
    "continuous_soft_q": "multi_goal",
}


init = jax.jit(prl.init)  # without `jit`, each operation compiles a program
run = jax.jit(prl.run, static_argnums=2)


def compiled(agent):
    """The agent with each of its functions as one program."""
    functions = {name: f and jax.jit(f) for name, f in agent._asdict().items()}
    return agent._replace(**{**functions, "init_carry": agent.init_carry})


def built(config):
    """`prl.build`, with a compiled agent."""
    env, agent, memory = prl.build(config)
    return env, compiled(agent), memory


def quick(algorithms, *few):
    """Mark all parameters but `few` as slow: each one compiles a program."""
    slow = pytest.mark.slow
    return [pytest.param(x, marks=() if x in few else slow) for x in algorithms]


def small(algorithm, **changes):
    """A preset reduced to a few iterations of several environments and updates."""
    config = prl.preset(algorithm, ENVS.get(algorithm, "maximization_bias"))
    sizes = {
        "total_steps": 240,
        "num_envs": 3,
        "rollout_length": 4,
        "num_updates": 2,
        "num_epochs": 1,
        "warmup_steps": 24,
        "capacity": 96,
        "batch_size": 8,
        "hidden_sizes": (8,),
        "actor_width": 8,
        "critic_width": 8,
        "memory_size": 8,
        "sequence_length": 2,
    }
    if hasattr(config, "burn_in"):
        sizes |= {"sequence_length": 8, "burn_in": 4}
    if getattr(config, "policy_delay", 1) > 1:
        sizes["policy_delay"] = 2
    if algorithm == "reinforce" and "env" not in changes:  # episodes end in the rollout
        sizes["env_params"] = prl.envs.bind("CartPole-v1").params.replace(max_steps_in_episode=2)
    known = {field.name for field in dataclasses.fields(config)}
    sizes = {name: value for name, value in sizes.items() if name in known}
    return config.replace(**{**sizes, **changes})

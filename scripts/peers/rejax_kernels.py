"""Compile rejax ahead of time for a GPU; the argument is one JSON request.

Runs in rejax's virtual environment and imports only `targets` of this project. The HLO text is
written to the file named in the request, the figures to standard output as JSON.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import targets

ITERATIONS, WARMUP = 200, 256


def build(request):
    """One environment, one step and one update per iteration, networks of 64 x 64."""
    import rejax

    kind = {"dqn": rejax.DQN, "sac": rejax.SAC}[request["algorithm"]]
    extra = {}
    if request["algorithm"] == "dqn":
        extra = {"ddqn": False, "agent_kwargs": {"activation": "relu"}}
    algorithm = kind.create(
        env=request["env"],
        num_envs=1,
        total_timesteps=ITERATIONS + WARMUP,
        eval_freq=ITERATIONS + WARMUP,
        skip_initial_evaluation=True,
        fill_buffer=WARMUP,
        buffer_size=10_000,
        batch_size=256 if request["algorithm"] == "sac" else 128,
        learning_rate=1e-3,
        **extra,
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())

    def train(key):
        return algorithm.train(key)[0]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.PRNGKey(0), request["seeds"]))
    return jax.vmap(train), keys


request = json.loads(sys.argv[1])
function, keys = build(request)
start_time = time.perf_counter()
program = targets.compiled(targets.find(request["target"]), function, keys)
seconds = time.perf_counter() - start_time
Path(request["text"]).write_text(program.as_text())
answer = {
    "temp_bytes": program.memory_analysis().temp_size_in_bytes,
    **targets.costs(program),
    "compile_seconds": round(seconds, 2),
}
print(json.dumps(answer))

"""Compiles rejax for a GPU that is not there; the argument is one JSON question.

Runs in rejax's own environment and imports nothing of this project but how to compile. The text of
the program goes to the file that the question names, its figures to standard output as JSON.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import targets

ITERATIONS, WARMUP = 200, 256


def build(question):
    """One environment, one step and one update an iteration, networks of 64 x 64."""
    import rejax

    kind = {"dqn": rejax.DQN, "sac": rejax.SAC}[question["algorithm"]]
    extra = {}
    if question["algorithm"] == "dqn":
        extra = {"ddqn": False, "agent_kwargs": {"activation": "relu"}}
    algorithm = kind.create(
        env=question["env"],
        num_envs=1,
        total_timesteps=ITERATIONS + WARMUP,
        eval_freq=ITERATIONS + WARMUP,
        skip_initial_evaluation=True,
        fill_buffer=WARMUP,
        buffer_size=10_000,
        batch_size=256 if question["algorithm"] == "sac" else 128,
        learning_rate=1e-3,
        **extra,
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())

    def train(key):
        return algorithm.train(key)[0]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.PRNGKey(0), question["seeds"]))
    return jax.vmap(train), keys


question = json.loads(sys.argv[1])
function, keys = build(question)
began = time.perf_counter()
program = targets.compiled(targets.find(question["target"]), function, keys)
seconds = time.perf_counter() - began
Path(question["text"]).write_text(program.as_text())
answer = {
    "temp_bytes": program.memory_analysis().temp_size_in_bytes,
    **targets.costs(program),
    "compile_seconds": round(seconds, 2),
}
print(json.dumps(answer))

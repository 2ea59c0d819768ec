"""Times rejax on request: one JSON question per line in, one answer per line out.

Runs in rejax's own environment and imports nothing of this project. A question with fields
compiles that work and answers with the compile seconds; an empty one runs it once.
"""

import json
import sys
import time

import jax


def build(q):
    import rejax

    kind = {"dqn": rejax.DQN, "sac": rejax.SAC}[q["algorithm"]]
    extra = {}
    if q["algorithm"] == "dqn":
        extra = {"ddqn": False, "agent_kwargs": {"activation": "relu"}}
    algorithm = kind.create(
        env=q["env"],
        num_envs=1,
        total_timesteps=q["iterations"] + q["warmup"],
        eval_freq=q["iterations"] + q["warmup"],
        skip_initial_evaluation=True,
        fill_buffer=q["warmup"],
        buffer_size=q["capacity"],
        batch_size=q["batch_size"],
        learning_rate=1e-3,
        **extra,
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())

    def train(key):
        return algorithm.train(key)[0]

    keys = jax.random.split(jax.random.PRNGKey(0), q["seeds"])
    return (train, keys[0]) if q["seeds"] == 1 else (jax.vmap(train), keys)


program, keys = None, None
for line in sys.stdin:
    question = json.loads(line)
    began = time.perf_counter()
    if question:
        function, keys = build(question)
        program = jax.jit(function).lower(keys).compile()
        seconds = time.perf_counter() - began
        jax.block_until_ready(program(keys))
    else:
        jax.block_until_ready(program(keys))
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds}), flush=True)

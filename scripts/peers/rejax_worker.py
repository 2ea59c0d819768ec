"""Time rejax: one JSON request per input line, one JSON answer per output line.

Runs in rejax's virtual environment and imports nothing of this project. A request with fields
compiles that work and returns the compile seconds; an empty one runs it once.
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
    request = json.loads(line)
    start_time = time.perf_counter()
    if request:
        function, keys = build(request)
        program = jax.jit(function).lower(keys).compile()
        seconds = time.perf_counter() - start_time
        jax.block_until_ready(program(keys))
    else:
        jax.block_until_ready(program(keys))
        seconds = time.perf_counter() - start_time
    print(json.dumps({"seconds": seconds}), flush=True)

"""Time rejax: one JSON request per input line, one JSON answer per output line.

Runs in rejax's virtual environment and imports nothing of this project. A request with fields
compiles that work and returns the compile seconds; an empty one runs it once.
"""

import json
import sys
import time

import jax
import rejax_training


def build(request):
    train = rejax_training.one_update(request, request["iterations"])
    keys = rejax_training.keys(request["seeds"])
    return (train, keys[0]) if request["seeds"] == 1 else (jax.vmap(train), keys)


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

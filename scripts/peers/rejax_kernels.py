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
import rejax_training
import targets

ITERATIONS, WARMUP = 200, 256


def build(request):
    """One environment, one step and one update per iteration, networks of 64 x 64."""
    batch_size = 256 if request["algorithm"] == "sac" else 128
    request = {**request, "warmup": WARMUP, "capacity": 10_000, "batch_size": batch_size}
    train = rejax_training.one_update(request, ITERATIONS)
    keys = jax.eval_shape(lambda: rejax_training.keys(request["seeds"]))
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

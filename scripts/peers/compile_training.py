"""Compile a peer's training ahead of time for a GPU.

    python compile_training.py rejax_training REQUEST

Runs in the peer's virtual environment and imports only `targets` of this project. The arguments are
a module beside this one, whose `work(request)` returns a function and its arguments, and one JSON
request. The HLO text is written to the file named in the request, the figures to standard output as
JSON.
"""

import importlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import targets

module, text = sys.argv[1:]
request = json.loads(text)
function, arguments = importlib.import_module(module).work(request)
shapes = jax.eval_shape(lambda: arguments)
start_time = time.perf_counter()
program = targets.compiled(targets.find(request["target"]), function, *shapes)
seconds = time.perf_counter() - start_time
Path(request["text"]).write_text(program.as_text())
answer = {
    "jax": jax.__version__,
    "temp_bytes": program.memory_analysis().temp_size_in_bytes,
    **targets.costs(program),
    "compile_seconds": round(seconds, 2),
}
print(json.dumps(answer))

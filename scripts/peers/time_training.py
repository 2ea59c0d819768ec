"""Time a peer's training: one JSON request per input line, one JSON answer per output line.

    python time_training.py rejax_training

Runs in the peer's virtual environment and imports only `phases` of this project. The argument is a
module beside this one, whose `work(request)` returns a function and its arguments. A request with
fields compiles that work and returns the compile seconds; an empty one runs it once. Each answer
also has the version of jax and the device.
"""

import importlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from scripts import phases

work = importlib.import_module(sys.argv[1]).work
program, arguments = None, None
for line in sys.stdin:
    request = json.loads(line)
    start_time = time.perf_counter()
    if request:
        function, arguments = work(request)
        program = jax.jit(function).lower(*arguments).compile()
        seconds = time.perf_counter() - start_time
        jax.block_until_ready(program(*arguments))
    else:
        jax.block_until_ready(program(*arguments))
        seconds = time.perf_counter() - start_time
    print(json.dumps({"seconds": seconds, **phases.origin()}), flush=True)

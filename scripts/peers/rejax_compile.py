"""Compile rejax's training and evaluations as one program; the argument is one JSON request.

Runs in rejax's virtual environment and imports only `phases` of this project. The figures are
written to standard output as JSON.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import rejax_training

from scripts import phases

request = json.loads(sys.argv[1])
seeds = request.pop("seeds")
algorithm = rejax_training.create(**request)
keys = rejax_training.keys(seeds)
phases.warm_up()
answer = {
    "library": f"rejax {version('rejax')}",
    "version": version("rejax"),
    "code": "",
    **phases.origin(),
    "programs": {"training": phases.measured(jax.jit(jax.vmap(algorithm.train)), keys)},
}
print(json.dumps(answer))

"""Virtual environments of peers, whose dependencies differ from this project's."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from purejaxrl_sac.config import ConfigError

REJAX = ("rejax==0.1.3", "gymnax<1")
SBX = ("sbx-rl==0.28.0",)
PUREJAXRL = ("flax", "optax", "distrax", "gymnax<1")  # its code is read from a clone


def peer_python(directory: Path, packages: Sequence[str] = REJAX, jax_package: str = "jax") -> Path:
    """The Python of a peer's virtual environment, which is created if it does not exist.

    Args:
        packages: of the peer, with the bounds that it needs.
        jax_package: jax with its extras, such as jax[cuda12]; its version is that of this process.

    Raises:
        ConfigError: installation fails.
    """
    python = directory / "bin" / "python"
    if not python.exists():
        packages = [*packages, f"{jax_package}=={jax.__version__}"]
        try:
            venv.create(directory, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        except OSError as error:
            raise ConfigError(
                f"cannot create {directory}: {error.strerror}: give another folder"
            ) from None
        except subprocess.CalledProcessError:
            python.unlink(missing_ok=True)  # the next call retries
            raise ConfigError(
                f"{packages[0]} cannot be installed in {directory}: see pip's error above"
            ) from None
    return python


class Peer:
    """A subprocess that times a peer's training, see `time_training`."""

    def __init__(self, python: Path, module: str) -> None:
        script = Path(__file__).parent / "time_training.py"
        self.process = subprocess.Popen(
            [python, script, module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def request(self, **fields: Any) -> float:
        """Seconds to compile the work that is described by fields; without fields, to run it."""
        print(json.dumps(fields), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())["seconds"]

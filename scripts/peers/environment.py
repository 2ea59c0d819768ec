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
from scripts import phases

REJAX = ("rejax==0.1.3", "gymnax<1")
SBX = ("sbx-rl==0.28.0",)
PUREJAXRL = ("flax", "optax", "distrax", "gymnax<1")  # its code is read from a clone


def peer_python(directory: Path, packages: Sequence[str] = REJAX, jax_package: str = "jax") -> Path:
    """The Python of a peer's virtual environment, which is created if it is not complete.

    Args:
        packages: of the peer, with the bounds that it needs.
        jax_package: jax with its extras, such as jax[cuda12]; its version is that of this process.

    Raises:
        ConfigError: installation fails.
    """
    python, marker = directory / "bin" / "python", directory / "installed"
    if not marker.exists():  # new, or its installation was interrupted
        packages = [*packages, f"{jax_package}=={jax.__version__}"]
        try:
            venv.create(directory, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
            marker.touch()
        except OSError as error:
            raise ConfigError(
                f"cannot create {directory}: {error.strerror}: give another folder"
            ) from None
        except subprocess.CalledProcessError:
            raise ConfigError(
                f"{packages[0]} cannot be installed in {directory}: see pip's error above"
            ) from None
    return python


def checked(answer: dict[str, Any], here: dict[str, str]) -> dict[str, Any]:
    """A worker's answer, if it was measured with the same jax, and on the same device.

    Args:
        here: `phases.origin()` of what it is compared with, or one of its fields.

    Raises:
        ConfigError: a field differs.
    """
    for name, value in here.items():
        if answer[name] != value:
            raise ConfigError(
                f"{name} of the peer is {answer[name]}, and not {value}: remove its virtual"
                " environment, or measure on the same device"
            )
    return answer


class Peer:
    """A subprocess that times a peer's training, see `time_training`."""

    def __init__(self, python: Path, module: str) -> None:
        script = Path(__file__).parent / "time_training.py"
        self.process = subprocess.Popen(
            [python, script, module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def request(self, **fields: Any) -> float:
        """Seconds to compile the work that is described by fields; without fields, to run it.

        Raises:
            ConfigError: the worker fails, or has another jax or device.
        """
        print(json.dumps(fields), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise ConfigError("the peer cannot be measured: see its error above")
        return checked(json.loads(line), phases.origin())["seconds"]

"""Virtual environments of peers, whose dependencies differ from this project's."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import jax

from purejaxrl_sac.config import ConfigError


def rejax_python(directory: Path, jax_package: str = "jax") -> Path:
    """The Python of rejax's virtual environment, which is created if it does not exist.

    Args:
        jax_package: jax with its extras, such as jax[cuda12]; its version is that of this process.

    Raises:
        ConfigError: installation fails.
    """
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
        packages = ["rejax==0.1.3", "gymnax<1", f"{jax_package}=={jax.__version__}"]
        try:
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        except subprocess.CalledProcessError:
            python.unlink()  # the next call retries
            raise ConfigError(
                f"rejax cannot be installed in {directory}: see pip's error above"
            ) from None
    return python

"""Configurations as TOML: the files that `train --config` reads, and that a run has beside it.

    algorithm = "sac"
    env = "Pendulum-v1"
    seeds = 8
    learning_rate = 0.001

Keys are the flags of `train` with underscores: fields of the configuration and options of the run.
`env_params`, `parts` and `measure` are tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import tomli_w

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.runs import names, recipes, record
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.normalize import WRAPPERS

HIDDEN = (
    *("schema", "algorithm", "env", "wrappers", "env_params", "curriculum", "recipe", "dataset"),
)


def of_config(config: Config) -> dict[str, Any]:
    """A configuration as the contents of a file.

    Code that is not listed is named by its references; where it has none, there is the text of
    `names`, which `train` refuses. So are further fields that are code, which have no flags, unless
    they are the default of the configuration's class.
    """
    data = record.config_to_dict(config)
    recipe = data.get("recipe", {})
    default_code = recipes.code_fields(type(config)())
    for name, described in recipe.get("fields", {}).items():
        if getattr(config, name) is default_code.get(name):
            del data[name]
        elif isinstance(described, str):
            data[name] = described
    algorithm, parts = _algorithm(recipe.get("algorithm"))
    if kind := recipe.get("config"):
        default = names.function_name(type(config)().algorithm)
        algorithm, parts = kind, {} if default == data["algorithm"] else parts
    found: dict[str, Any] = {
        "algorithm": algorithm or data["algorithm"],
        "env": recipe.get("env") or data["env"],
        **{name: "None" if x is None else x for name, x in data.items() if name not in HIDDEN},
    }
    found = {name: math.inf if x == "inf" else x for name, x in found.items()}
    wrappers = [str(x) for x in recipe.get("wrappers", data["wrappers"])]
    listed = list(itertools.takewhile(WRAPPERS.__contains__, wrappers))
    found["normalize"] = listed  # the innermost ones, as `train --normalize --wrap` has them
    if others := wrappers[len(listed) :]:
        found["wrap"] = others
    if config.curriculum is not None:
        described = recipe.get("curriculum")
        found["curriculum"] = described if isinstance(described, str) else data["curriculum"]
    if data.get("env_params") is not None:
        defaults = record.to_json(envs.make(parameters.free(config).env).default_params)
        params = data["env_params"]
        found["env_params"] = {k: x for k, x in params.items() if x != defaults.get(k)}
    return found | ({"parts": parts} if parts else {})


def of_plan(plan: Plan, measures: Mapping[str, str | None]) -> dict[str, Any]:
    """As `of_config`, with the options of the run."""
    tables = ("env_params", "parts")
    config = of_config(plan.config)
    options: dict[str, Any] = {
        "seeds": plan.seeds,
        "seed": plan.seed,
        "chunks": -(-plan.config.iterations // plan.chunk),
        "episodes": plan.episodes,
        "eval_every": plan.eval_every,
        "eval_episodes": plan.eval_episodes,
    }
    if plan.config.dataset is not None:
        options["dataset"] = "dataset.npz"  # beside the file
    known = {name: reference for name, reference in measures.items() if reference}
    first = {name: x for name, x in config.items() if name not in tables}
    last = {name: config[name] for name in tables if name in config}
    return {**first, **options, **last, **({"measure": known} if known else {})}


def text(contents: Mapping[str, Any], comment: str = "") -> str:
    """The text of a file, after a comment of one line."""
    return (f"# {comment}\n" if comment else "") + tomli_w.dumps(contents)


def _algorithm(described: Any) -> tuple[str | None, dict[str, str]]:
    """An algorithm of a recipe as a name and its parts; no name if it is composed otherwise."""
    if not isinstance(described, dict):
        return described, {}
    parts = {name: x.get("code") for name, x in described["keywords"].items()}
    simple = isinstance(described["function"], str) and not described["args"]
    if simple and all(isinstance(part, str) for part in parts.values()):
        return described["function"], parts
    return None, {}

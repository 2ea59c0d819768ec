"""Returns of uniformly random actions: the zero of the learning scoreboard.

    python scripts/random_returns.py CartPole-v1 'MemoryChain-bsuite(memory_length=30)'

Prints one JSON row per environment, appended to `--record`: the mean return over episodes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

import purejaxrl_sac as prl
from purejaxrl_sac import envs
from scripts import cells, record
from scripts.options import Parser, count


def returns(name: str, params: Any, episodes: int, root: int) -> jax.Array:
    """Returns of episodes with random actions, [episodes]."""
    env = envs.bind(name, params)

    def policy(config: prl.Config, state: None) -> prl.Policy:
        def act(key: jax.Array, obs: jax.Array, carry: tuple) -> tuple:
            return env.to_env(env.random_action(key, episodes)), carry

        return prl.Policy(act, lambda num_envs: ())

    config = prl.default_config("dqn").replace(env=name, env_params=params)
    play = jax.jit(lambda key: prl.evaluate(key, config, None, episodes, policy=policy))
    return play(jax.random.key(root))


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("environments", nargs="+")
    parser.add_argument("--episodes", type=count, default=1_024)
    parser.add_argument("--root", type=int, default=20)
    record.add_record(parser, "learning")
    options = parser.parse_args()
    try:
        found = {text: cells.named(text) for text in options.environments}
        for named in found.values():
            envs.bind(*named)
    except prl.ConfigError as error:
        parser.error(str(error))
    for text, (name, params) in found.items():
        stamp = record.stamp("learning", depends=["envs", "evaluate"])
        mean = float(returns(name, params, options.episodes, options.root).mean())
        row = {
            **stamp,
            "algorithm": "random",
            "environment": text,
            "root": options.root,
            "episodes": options.episodes,
            "value": round(mean, 3),
        }
        record.append(options.record, row)


if __name__ == "__main__":
    main()

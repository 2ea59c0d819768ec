"""Returns of an algorithm's preset on an environment, over many seeds.

    python scripts/benchmark_learning.py double_dqn CartPole-v1
    python scripts/benchmark_learning.py pqn Breakout-MinAtar --seeds 3 --set total_steps=1_000_000
    python scripts/benchmark_learning.py rainbow Seaquest-MinAtar --directory sea
    python scripts/benchmark_learning.py --fill --minutes 60 --only CartPole-v1 ppo

Trains all seeds in one batch, evaluates each greedily from different start states, and prints one
JSON row, appended to `--record`: the interquartile mean (IQM) over seeds with its 95 % bootstrap
interval, the worst seed, and the learning curve of training returns. Their number is that of the
environment in the scoreboard (`results/cells.toml`), 30 if it has none. The seeds differ from those
used to tune presets, which have `--root 0`.

With `--directory` the run is kept there, and the same command continues one that was stopped. The
row is of the code with which the run was started; with other code it is not continued.

`--fill` measures all cells of the scoreboard that are missing or stale, the cheapest first, and
records them; the next call continues what the time limit stops.
"""

from __future__ import annotations

import ast
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rich.console import Console

import purejaxrl_sac as prl
from purejaxrl_sac.experiment import errors
from purejaxrl_sac.experiment.runs import files, metric_rows
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import ConsoleReporter
from purejaxrl_sac.experiment.runs.plans import Plan, Progress, has_time_limit, plan
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from scripts import cells, record
from scripts.options import Parser, minutes


def setting(text: str) -> tuple[str, Any]:
    """Parse `name=value` into a field and its value."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


class Reporter(ConsoleReporter):
    """Progress, without the table at the end."""

    def on_finished(self, title: str, summary: Mapping[str, Any], path: Path) -> None:
        pass


def started(folder: Path, stamp: dict) -> dict:
    """The stamp in a folder, with which its run was started; that of this process if it is new.

    Raises:
        ConfigError: the folder has other files, or a run of other code.
    """
    file = folder / "stamp.json"
    if not file.exists():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise prl.ConfigError(f"{folder} has no stamp.json of a run: give another --directory")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_text(file, json.dumps(stamp) + "\n")
        except OSError as error:
            raise prl.ConfigError(f"cannot write {file}: {error.strerror}") from None
    found: dict = json.loads(file.read_text())
    if found["code"] != stamp["code"]:
        raise prl.ConfigError(
            f"{folder} has a run of other code ({found['version']}, {found['commit']}): move it"
            " away, or give another --directory"
        )
    return found


def trained(
    wanted: Plan, folder: Path, stamp: dict
) -> tuple[prl.experiment.Run, list[Progress], dict]:
    """The finished run of a plan in a folder, its history, and the stamp of its start.

    Args:
        stamp: that of a run which is started now.

    Raises:
        ConfigError: the folder has a run of another plan or other code, or a seed has diverged.
    """
    stamp = started(folder, stamp)
    path = folder / "run"
    directory = RunDirectory(path)
    begun = (path / "config.json").exists()
    if begun and directory.read_plan() != wanted:
        raise prl.ConfigError(f"{folder} has a run of other settings: give another --directory")
    reporter = Reporter(Console(stderr=True))
    if not begun:
        run = prl.experiment.run(
            wanted.config, wanted.seeds, out=path, seed=wanted.seed, episodes=wanted.episodes,
            reporter=reporter,
        )  # fmt: skip
    elif directory.read_summary() is None:
        run = prl.experiment.resume(path, reporter=reporter)
    else:
        run = prl.experiment.load(path)
    if run.failed.any():
        failed = ", ".join(map(str, np.flatnonzero(run.failed)))
        raise prl.ConfigError(f"seeds have diverged, and an IQM would leave them out: {failed}")
    metrics = directory.read_metrics(wanted.lanes, wanted.total)
    if metrics.lost:
        raise prl.ConfigError(f"{directory.metrics}: {metrics.warning}, so that there is no curve")
    return run, metric_rows.history(metrics.rows, wanted, wanted.total), stamp


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("algorithm", nargs="?")
    parser.add_argument("env", nargs="?", help="a name, or NAME(FIELD=VALUE), quoted")
    parser.add_argument("--seeds", type=int, help="default: those of the scoreboard, or 30")
    parser.add_argument("--episodes", type=int, help="over all seeds; default: likewise, or 1000")
    parser.add_argument("--root", type=int, help="seed of all random numbers; likewise, or 20")
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="NAME=VALUE")
    parser.add_argument("--fill", action="store_true", help="measure missing and stale cells")
    parser.add_argument("--minutes", type=minutes, default=60.0, help="time limit of --fill")
    parser.add_argument("--jobs", type=int, default=1, help="processes of --fill at a time")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="for --fill")
    parser.add_argument("--directory", type=Path, help="of the run, to continue it if it is there")
    record.add_record(parser, "learning")
    options = parser.parse_args()
    try:
        if options.fill and options.algorithm:
            raise prl.ConfigError("--fill measures many cells: choose them by --only")
        of_one = ("seeds", "episodes", "root", "set", "directory")
        given = [f"--{name}" for name in of_one if vars(options)[name] != parser.get_default(name)]
        if options.fill and given:
            raise prl.ConfigError(f"--fill measures cells as they are: leave {given[0]} out")
        if options.fill:
            file = options.record or cells.LEARNING
            sys.exit(cells.fill(file, options.minutes, options.jobs, options.only))
        if options.env is None:
            raise prl.ConfigError("name an algorithm and an environment, or pass --fill")
        config = cells.configuration(options.algorithm, options.env).replace(**dict(options.set))
        cell = cells.cell(options.algorithm, options.env)
        chosen = ((name, vars(options)[name]) for name in ("seeds", "episodes", "root"))
        cell = cell._replace(**{name: x for name, x in chosen if x is not None})
        episodes = -(-cell.episodes // max(1, cell.seeds))
        wanted = plan(config, cell.seeds, seed=cell.root, episodes=episodes)
        if not has_time_limit(config):
            raise prl.ConfigError(
                f"{options.env} has no time limit, so that greedy returns are undefined"
            )
    except (prl.ConfigError, TypeError) as error:
        sys.exit(f"error: {error}")

    depends = ["preset", "evaluate", "experiment.runs.engine"]
    depends += record.algorithm_modules(options.algorithm)
    names = {"algorithm": options.algorithm, "environment": options.env}
    stamp = record.stamp("learning", depends=depends, **names)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.directory or Path(temporary)
            run, history, stamp = trained(wanted, folder, stamp)
    except (prl.ConfigError, errors.RunError, errors.StoppedError) as error:
        sys.exit(f"error: {error}")
    scores = run.greedy_returns
    low, high = bootstrap_interval(scores)
    row = {
        **stamp,
        **names,
        "steps": config.total_steps,
        "seeds": cell.seeds,
        "root": cell.root,
        "episodes": episodes * cell.seeds,
        "changed": dict(options.set),
        "tried": None if options.set else cells.tried(options.algorithm, options.env),
        "value": digits(iqm(scores)),
        "interval": [digits(low), digits(high)],
        "worst": digits(scores.min()),
        "best": digits(scores.max()),
        "train_seconds": round(history[-1].seconds),
        "curve": curve(history),
    }
    record.append(options.record, row)


def digits(value: Any) -> float:
    """A figure with five significant digits: returns may be fractions of 1, or hundreds."""
    return float(f"{value:.5g}")


def curve(history: Sequence[Progress]) -> dict[str, list]:
    """Environment steps, and the IQM of training returns over seeds with its interval.

    A seed that finished no episode in a chunk keeps its latest return: leaving such chunks out
    would leave out the long episodes. Chunks before every seed has finished one have no point.
    """
    found: dict[str, list] = {"steps": [], "value": [], "low": [], "high": []}
    for progress in history:
        returns = np.asarray(progress.latest_return)
        if np.isfinite(returns).all():
            values = (iqm(returns), *bootstrap_interval(returns))
            found["steps"].append(progress.steps)
            for name, value in zip(("value", "low", "high"), values):
                found[name].append(digits(value))
    return found


if __name__ == "__main__":
    main()

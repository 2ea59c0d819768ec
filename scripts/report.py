"""Render the recorded rows: the pages in `scripts/results/`, their pictures, README's table of
algorithms, and the scores that `purejaxrl-sac list` shows.

    python scripts/report.py             # writes everything
    python scripts/report.py --check     # writes nothing; exit status 1 if a file is outdated

Figures of earlier code are marked: by † in tables, by hollow markers or dashed lines in pictures.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts import cells, dependencies, pictures, record
from scripts.accelerators import report as accelerators
from scripts.options import Parser
from scripts.pages import costs, learning, reliability, speed, theory
from scripts.pages.tables import grid, marked

PAGE = record.FOLDER / "README.md"
README = record.ROOT / "README.md"
RECORDED = "# greedy return, IQM [95 % interval]: "  # before a score in the files of presets
SCORES = dependencies.PACKAGE / "cli" / "scores.json"
TOPICS = {"learning": learning, "speed": speed, "reliability": reliability, "theory": theory}
INTRODUCTION = """# Results

One table for each topic; most topics have a page with all their figures. They are rendered by
`python scripts/report.py` from the rows of the `.jsonl` files in this folder. Each row also has its
command, commit, device, root key and date: search a file for the algorithm and environment.

**† means: measured with earlier code.** Code that the figure depends on has changed since then, so
that it may differ now. The version is the one that was measured. A column headed "version, all †"
marks all its rows."""
NO_PROSE = ("#", "|", "!", "* ", "1. ", "```")  # how other parts of a page begin


BACK = "[Results](README.md): what † means, and the other topics."


def paths_and_pages() -> dict[Path, str]:
    """All pages of results."""
    pages = {
        record.FOLDER / f"{name}.md": _joined([topic.page()[0], BACK, *topic.page()[1:]])
        for name, topic in TOPICS.items()
    }
    pages[accelerators.PAGE] = accelerators.current()
    return {PAGE: first_page(pages), **pages}


def first_page(pages: dict[Path, str]) -> str:
    """The page with one table for each topic.

    Args:
        pages: those of topics.
    """
    topics = {
        "Learning": (learning.summary(), "learning.md"),
        "Speed": (speed.summary(), "speed.md"),
        "Compile time": (costs.compile_time(), ""),
        "Accelerators": (costs.accelerator(), "accelerators.md"),
        "Memory": (costs.memory(), ""),
        "Reliability": (reliability.summary(), "reliability.md"),
        "Theory": (theory.summary(), "theory.md"),
    }
    lines, total, daggers = [], 0, 0
    for name, (parts, file) in topics.items():
        count, old = marked(pages[record.FOLDER / file] if file else _joined(parts))
        total, daggers = total + count, daggers + old
        link = f"[{name}](#{name.lower().replace(' ', '-')})"
        lines.append((link, f"[{file}]({file})" if file else "", f"{count:,}", f"{old:,}"))
    share = f"Of {total:,} rows on all pages, {daggers:,} have it:"
    index = grid(["topic", "all figures", "rows", "with †"], lines)
    sections = [part for parts, _ in topics.values() for part in parts]
    return _joined([f"{INTRODUCTION} {share}", index, *sections])


def _joined(parts: Sequence[str]) -> str:
    """Parts of a page, with blank lines between them, and lines of prose that are not long."""
    return "\n\n".join(map(_wrapped, filter(None, parts))) + "\n"


def _wrapped(part: str) -> str:
    paragraphs = part.split("\n\n")
    options = {"break_long_words": False, "break_on_hyphens": False}
    return "\n\n".join(
        text if text.startswith(NO_PROSE) else textwrap.fill(text, 100, **options)
        for text in paragraphs
    )


def learned(readme: str) -> str:
    """README with the last column of its table of algorithms: the environments of their scores.

    † marks an environment if the scores page has no other rows of the algorithm on it. Of many, the
    first without it are named. Algorithms of one line are named, unless their environments are the
    same.
    """
    found: dict[str, dict[str, bool]] = {}
    for row in learning.newest():
        if "library" not in row:
            environments = found.setdefault(row["algorithm"], {})
            name = row["environment"].partition("(")[0]  # without parameters
            environments[name] = environments.get(name, True) and record.stale(row)

    def filled(line: re.Match) -> str:
        names: dict[str, list[str]] = {}
        for name in re.findall(r"`(\w+)`", line[1]):
            environments = sorted(found.get(name, {}).items(), key=lambda item: item[1])
            named = len(environments) if len(environments) < 5 else 3
            shown = ", ".join(f"{env}{' †' * old}" for env, old in environments[:named])
            more = f" and {len(environments) - named} more" if environments[named:] else ""
            names.setdefault(shown + more or "not measured", []).append(f"`{name}`")
        cells = [f"{', '.join(of)}: {shown}" for shown, of in names.items()]
        return f"{line[1]}| {'; '.join(cells) if len(cells) > 1 else next(iter(names))} |"

    return re.sub(r"(?m)^(\| `\w+`.*\|[^|]*)\|[^|]*\|$", filled, readme)


def preset_files() -> dict[Path, str]:
    """The files of presets, with the recorded scores above their tables."""
    found = json.loads(scores())
    texts = {}
    for path in sorted((dependencies.PACKAGE / "presets").glob("*.toml")):
        envs = tomllib.loads(path.read_text())["env"]
        envs = [envs] if isinstance(envs, str) else envs
        lines = []
        for line in path.read_text().splitlines():
            if table := re.fullmatch(r"\[(\w+)\]", line):
                for env in envs:
                    if score := found.get(f"{table[1]} {env}"):
                        prefix = f"{env}: " if len(envs) > 1 else ""
                        lines.append(f"{RECORDED}{prefix}{scored(score)}")
            if not line.startswith(RECORDED):
                lines.append(line)
        texts[path] = "\n".join(lines) + "\n"
    return texts


def scored(score: dict) -> str:
    """A recorded score as text."""
    low, high = score.get("interval", ("?", "?"))
    worst = f", worst {score['worst']:g}" if "worst" in score else ""
    return (
        f"{score['value']:g} [{low:g}, {high:g}]{worst} over {score['seeds']} seeds"
        f" ({score['version']})"
    )


def scores() -> str:
    """The last score of each preset as JSON, which `purejaxrl-sac list` shows."""
    found = {}
    for row in record.rows(cells.LEARNING):
        name = f"{row['algorithm']} {row['environment']}"
        others = ("changed", "library", "kind")
        if row["algorithm"] != "random" and not any(row.get(field) for field in others):
            fields = ("steps", "seeds", "value", "interval", "worst", "version")
            found[name] = {field: row[field] for field in fields if field in row}
    lines = (f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def outdated() -> list[Path]:
    """Rendered files that do not show the rows as they are now."""
    readme = learned(README.read_text())
    texts = {README: readme, SCORES: scores(), **preset_files(), **paths_and_pages()}
    wrong = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    return wrong + pictures.outdated()


def main() -> int:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        wrong = outdated()
        for path in wrong:
            print(f"{path.relative_to(record.ROOT)} is outdated: run scripts/report.py")
        return bool(wrong)
    for path, text in paths_and_pages().items():
        path.write_text(text)
    README.write_text(learned(README.read_text()))
    SCORES.write_text(scores())
    for path, text in preset_files().items():
        path.write_text(text)
    pictures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())

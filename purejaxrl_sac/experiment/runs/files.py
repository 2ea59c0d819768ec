"""Files of runs and sweeps: replaced atomically, with checksums; every field is checked when read.

A document is a JSON object with a `schema` number and the CRC-32 of each of its fields; its fields
and their types are those of a `TypedDict`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
import types
import typing
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from purejaxrl_sac.config import ConfigError, shown

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = TypeVar("Document")
NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    types.NoneType: "null",
}
FIGURE_FILES: Any = {
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "purejaxrl_sac",
    "savefig.bbox": None,  # the size is that of the figure
}
RESTORE = "restore the file from a copy, or train again; other settings are a new run"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` once it is complete; a link is replaced, not followed."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces a CSV file atomically; the fields are those of the first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_figure(path: str | Path, figure: Figure) -> None:
    """Replaces an image file atomically; its suffix is the format, PNG without one.

    Text stays text, in TrueType fonts, and equal figures are equal files: they hold no date.
    """
    import matplotlib as mpl

    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(".png")
    date = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
    with mpl.rc_context(FIGURE_FILES), replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], metadata=date)


def exists(path: Path) -> bool:
    """Whether a path exists.

    Raises:
        ConfigError: this cannot be found out, for example because the path is too long.
    """
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def read_text(path: Path) -> str:
    """Reads a text file; bytes that are not UTF-8 become U+FFFD.

    Raises:
        ConfigError: it is no file, or cannot be read.
    """
    try:
        if not path.is_file():  # a pipe would block
            raise ConfigError(f"{path} is not a file: move it away, or restore it from a copy")
        return path.read_text(errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def parse(text: str) -> dict[str, Any] | None:
    """A JSON object; None if the text is not one."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def checksum(value: object) -> str:
    """The CRC-32 of a JSON value, which does not depend on the order of its fields."""
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def sealed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its checksum."""
    return {**row, "crc32": checksum(row)}


def unsealed(text: str) -> dict[str, Any] | None:
    """The object that `sealed` returned, from its text; None if that is damaged."""
    row = parse(text)
    return None if row is None or row.pop("crc32", None) != checksum(row) else row


def checksums(document: Mapping[str, Any]) -> dict[str, str]:
    """The checksum of every field; of an object's fields, as 'config.gamma'."""
    fields: dict[str, Any] = {}
    for name, value in document.items():
        nested = value.items() if isinstance(value, dict) else ()
        fields |= {f"{name}.{key}": x for key, x in nested} or {name: value}
    return {name: checksum(value) for name, value in fields.items()}


def to_json(value: Any) -> Any:
    """Dictionaries, sequences and numbers as JSON data: nan is null, infinity "inf"."""
    if isinstance(value, Mapping):
        return {name: to_json(x) for name, x in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def from_json(value: Any) -> Any:
    """The number or other value that `to_json` returned."""
    return float(value) if value in ("inf", "-inf") else value


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces a document atomically, and adds its checksums."""
    document = to_json(document)
    sealed = {**document, "checksums": checksums(document)}
    write_text(path, json.dumps(sealed, indent=2, allow_nan=False) + "\n")


def read_document(path: Path, kind: type[Document], schema: int) -> Document:
    """Reads a document.

    Args:
        kind: a `TypedDict`.
        schema: the number that the document must have.

    Raises:
        ConfigError: it cannot be read, another version wrote it, or a field is missing, has another
            type or not its checksum; one line that names file and field.
    """
    document = parse(read_text(path))
    if document is None:
        raise ConfigError(f"{path} cannot be read, it is damaged: {RESTORE}")
    if document.get("schema") != schema:
        versions = document.get("versions")
        version = versions.get("purejaxrl_sac") if isinstance(versions, dict) else None
        raise ConfigError(
            f"{path} was written by another version of purejaxrl_sac ({version or 'unknown'}),"
            " which this one cannot read: use that version, or retrain"
        )
    written = document.pop("checksums", None)
    found = checksums(document)
    if not isinstance(written, dict):
        raise ConfigError(f"{path} has no checksums: {RESTORE}")
    for name in dict.fromkeys((*written, *found)):
        if name not in found:
            raise ConfigError(f"{path} has no field {name}: {RESTORE}")
        if found[name] != written.get(name):
            raise ConfigError(f"{path}: {name} was changed after it was written: {RESTORE}")
    check(document, kind, str(path))
    return typing.cast(Document, document)


def check(value: object, kind: Any, name: str) -> None:
    """Checks the type of a JSON value.

    Args:
        kind: a type, a union, list[...], dict[str, ...] or a `TypedDict`.
        name: of the value, for the message.

    Raises:
        ConfigError: one line with the name, the value and the type it must have.
    """
    if violation := _violation(value, kind):
        raise ConfigError(f"{name}{violation}: {RESTORE}")


def _violation(value: Any, kind: Any) -> str:
    """How a value differs from a type, after its name; empty if it does not."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return ""
    if origin in (types.UnionType, typing.Union):
        found = [_violation(value, option) for option in arguments]
        return "" if "" in found else max(found, key=lambda text: text.startswith(": "))
    typed = typing.is_typeddict(kind)
    outer: Any = dict if typed else origin or kind
    accepted: Any = (int, float) if outer is float else outer
    boolean = isinstance(value, bool) and outer is not bool
    huge = isinstance(value, int) and abs(value) >= 2**64
    if not isinstance(value, accepted) or boolean or huge:
        return f" is {shown(value)}, but must be {NAMES[outer]}"
    hints = typing.get_type_hints(kind) if typed else {}
    optional = kind.__optional_keys__ if typed else frozenset()
    if typed and (different := (value.keys() ^ hints.keys()) - optional):
        name = min(different)
        return f" has no field {name}" if name in hints else f" has an unknown field {name}"
    fields: Any = value.items() if outer is dict else enumerate(value) if outer is list else ()
    for name, x in fields:
        if inner := _violation(x, hints[name] if typed else arguments[-1]):
            return f": {name}{inner}"
    return ""


def contents(path: Path, below: Collection[str]) -> dict[str, str]:
    """The CRC-32 of every file in some subdirectories of a directory, by its relative path."""
    found = {}
    for name in sorted(below):
        for file in sorted((path / name).rglob("*")):
            if file.is_file():
                crc = 0
                with file.open("rb") as content:
                    while chunk := content.read(2**20):
                        crc = zlib.crc32(chunk, crc)
                found[file.relative_to(path).as_posix()] = f"{crc:08x}"
    return found


def numbered(path: Path) -> list[int]:
    """The numbers that directories are named by, in ascending order."""
    names = (x.name for x in path.glob("*") if x.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def links_outside(path: Path) -> list[Path]:
    """The links in a directory, at any depth, that lead out of it."""
    root = path.resolve()
    found = []
    for folder, folders, files in os.walk(path):
        entries = (Path(folder) / name for name in (*folders, *files))
        links = (entry for entry in entries if entry.is_symlink())
        found += [link for link in links if not link.resolve().is_relative_to(root)]
    return sorted(found)


def size_on_disk(path: Path) -> int:
    """Bytes of all files below a directory; files removed in the meantime are ignored."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total


def remove(folder: Path, *names: str) -> None:
    """Removes files and folders of these names from a folder, and the folder if it is empty."""
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # it has others
        folder.rmdir()

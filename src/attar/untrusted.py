"""Opens untrusted files: of a model folder, an exported folder or a run.

A name in such a folder can be a link to a file elsewhere, a FIFO that blocks forever, an endless
device, a directory, or a file larger than memory. So a file is first opened, without following
links and without blocking, and then checked; it cannot be replaced in between.

    accepted    a regular file of its own folder, not larger than the caller's limit
    links       within the folder; in the hub's cache, from a snapshot to its repository's blobs

JSON has additional limits, because a small file can make the parser fail: deep nesting exceeds
Python's stack, and long numbers exceed its limit for integers.

Left out: libraries that open files by name (safetensors, the runtimes) get the name from `checked`,
so someone who can write to the folder can still replace the file before it is opened.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from attar.errors import ArtifactError

MIB = 2**20
MAX_JSON_BYTES = 32 * MIB
"""The index of a checkpoint with 200,000 tensors takes 20 MiB; JSON can take twenty times its size
in memory."""
MAX_JSON_DEPTH = 64
"""Known files have a nesting depth below 12."""
MAX_DIGITS = 40
"""A tokenizer without a maximum length has a model_max_length with 31 digits."""
FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC")
)
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def has_entry(file: Path) -> bool:
    """Whether an entry with this name exists, even a FIFO or a broken link.

    `Path.is_file` treats these as missing, so an optional file would be silently ignored; with
    this function, opening it raises an error.
    """
    return os.path.lexists(file)


def open_file(file: Path, max_bytes: int | None = None) -> BinaryIO:
    """Open a regular file of its folder for reading.

    Args:
        max_bytes: maximum size; None: unlimited, for files that are read in parts.
    Raises:
        ArtifactError: the file does not exist, is not a regular file, is a link out of its folder,
            is too large, or cannot be read by this user.
    """
    target = _target(file)
    try:
        descriptor = os.open(target, FLAGS)
    except FileNotFoundError as error:
        link = f" (a link to {target})" if file.is_symlink() else ""
        raise ArtifactError(
            f"{file}{link} does not exist; get the folder again, or run the step that made it"
        ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be opened ({error}); get it again") from error
    found = os.fstat(descriptor)
    kind = KINDS.get(stat.S_IFMT(found.st_mode))
    if kind or (max_bytes is not None and found.st_size > max_bytes):
        os.close(descriptor)
        if kind:
            raise ArtifactError(f"{file} is {kind}, expected a regular file; get it again")
        raise ArtifactError(
            f"{file} has {found.st_size:,} bytes, at most {max_bytes:,} are read; get it again"
        )
    return os.fdopen(descriptor, "rb")


def checked(file: Path, max_bytes: int | None = None) -> Path:
    """Check a file as `open_file` does, and return its path for a library that opens it by name."""
    open_file(file, max_bytes).close()
    return file


def read_bytes(file: Path, max_bytes: int) -> bytes:
    """Read a whole file, with the checks of `open_file`."""
    with open_file(file, max_bytes) as stream:
        return stream.read()


def read_json(file: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: as `open_file`, or it is not UTF-8, not JSON, or beyond the limits above.
    """
    return parse_json(read_bytes(file, max_bytes), file)


def parse_json(raw: bytes, file: Path) -> Any:
    """Parse JSON with limits on nesting and digits; `file` is only used in messages.

    Raises:
        ArtifactError: as `read_json`.
    """
    try:
        content = json.loads(raw.decode("utf-8"), parse_int=_integer)
        _require_flat(content)
    except (ValueError, RecursionError) as error:  # including invalid JSON or UTF-8
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ArtifactError(
            f"{file} is damaged ({reason}); get it again, or remove its folder and run the step "
            "that made it again"
        ) from error
    return content


def named_values(content: Any, *, apart_from: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Every (name, value) of the JSON objects in `content`, at any depth.

    Args:
        apart_from: names to skip, with everything below them.
    """
    if isinstance(content, Mapping):
        for name, value in cast("Mapping[str, Any]", content).items():
            if name not in apart_from:
                yield str(name), value
                yield from named_values(value, apart_from=apart_from)
    elif isinstance(content, list):
        for value in cast("list[Any]", content):
            yield from named_values(value, apart_from=apart_from)


def _target(file: Path) -> Path:
    """The target of `file`, unless it is outside its folder (except links of the hub cache)."""
    try:
        folder, target = file.parent.resolve(), file.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # circular links, or NUL in the name
        raise ArtifactError(f"{file} cannot be opened ({error}); get it again") from error
    is_hub_cache = (
        folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs"
    )
    if target.parent != folder and not is_hub_cache:
        raise ArtifactError(
            f"{file} is a link to {target}, outside its folder, so it is refused; copy the file "
            "into the folder if you trust it"
        )
    return target


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits, at most {MAX_DIGITS} are read")
    return int(text)


def _require_flat(content: Any) -> None:
    level = [content]
    for _ in range(MAX_JSON_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += cast("dict[str, Any]", value).values()
            elif isinstance(value, list):
                inner += cast("list[Any]", value)
        level = [value for value in inner if isinstance(value, (dict, list))]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")

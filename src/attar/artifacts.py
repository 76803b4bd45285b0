"""Artifacts: the folder of a step, written to a staging folder, sealed with the sha256 of every
file, and published by one rename.

A run can be killed at any time, so nothing under its final name is ever incomplete. A step writes
to a staging folder; `seal` syncs and hashes every file and writes `result.json` last;
`put_in_place` renames the folder. A folder without `result.json` is not an artifact. A file that
was changed later does not match its hash; `result.json` also contains a hash of itself. The hashes
detect damage and accidental edits, but not a deliberate forgery.

    runs/<name>/.staging/<step>-<key>/   being written
    runs/<name>/<step>/                  published: files + result.json
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from attar.errors import ArtifactError, AttarError, ResourceError
from attar.untrusted import checked
from attar.untrusted import read_json as read_json  # artifacts are untrusted files too

RESULT_FILE = "result.json"
CARD_FILE = "README.md"
"""For people: no step reads it, and it is completed when an export has been evaluated."""
OUTDATED = ".outdated-"
"""Prefix of the name of a replaced artifact until it is removed."""
MIB = 2**20
CHUNK_BYTES = MIB
"""Bytes hashed at a time, so that memory does not depend on the size of the file."""


@dataclass(frozen=True)
class Result:
    """`result.json`: settings, files and metrics of a step. The fields are documented in the
    contract."""

    step: str
    run: str
    key: str
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    """Total duration over all sessions, if the step was interrupted and resumed."""
    peak_rss_mib: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    made_from: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The content that the key is a hash of: settings, seed, keys of inputs and of data."""
    machine: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Number of usable cores, and the waiting policy of threads."""
    sha256: str = ""
    """Hash of all other fields; "" in results of earlier versions."""


FORM: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("step", "run", "key", "sha256"), str),
    **dict.fromkeys(("inputs", "metrics", "files", "versions", "made_from", "machine"), dict),
    **dict.fromkeys(("seconds", "peak_rss_mib"), (int, float)),
}
"""Field of a result → its type in JSON."""


def sha256_of(file: Path) -> str:
    """Hexadecimal sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def key_of(content: Any) -> str:
    """A 16-character hash of plain data (as in JSON), independent of the order of names.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
        True
    """
    text = json.dumps(
        content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def result_hash(content: Mapping[str, Any]) -> str:
    """sha256 of the content of a `result.json` without the hash itself, independent of the order
    of names and of white space."""
    plain = {name: value for name, value in content.items() if name != "sha256"}
    # Round trip through JSON: keys become strings and numpy scalars plain numbers, as in the file.
    plain = json.loads(json.dumps(plain, default=_plain_number))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder` except its own `result.json`, in a fixed order."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if path != folder / RESULT_FILE]


def size_mib(folder: Path) -> float:
    """MiB on disk of all files below `folder`."""
    return sum(path.stat().st_size for path in files_below(folder)) / MIB


NO_SPACE = ("No space left on device", "Disk quota exceeded")
"""Messages of libraries that do not raise OSError (safetensors, tokenizers, torch)."""


@contextmanager
def disk_errors_explained(folder: Path, needed_bytes: int | None = None) -> Generator[None]:
    """Convert "no space left on device" to a `ResourceError` with numbers; other errors pass."""
    try:
        yield
    except AttarError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and not any(
            words in str(error) for words in NO_SPACE
        ):
            raise
        existing = next(path for path in [folder, *folder.parents] if path.exists())
        free = shutil.disk_usage(existing).free / MIB
        needed = (
            "more is needed" if needed_bytes is None else f"{needed_bytes / MIB:.1f} MiB are needed"
        )
        raise ResourceError(
            f"disk full while writing below {folder}: {free:.1f} MiB are free, {needed}; finished "
            "steps are intact; free some space or choose another folder with --out, then run again"
        ) from error


def write_json(file: Path, content: Any) -> None:
    """Write plain data as JSON, atomically.

    Numpy scalars are converted. NaN and infinity are errors, because JSON does not have them.

    Raises:
        ValueError: something in `content` is not plain data; the message gives its place.
    """
    try:
        text = json.dumps(
            content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain_number
        )
    except (TypeError, ValueError) as error:
        place, value = _not_plain(content) or ("", content)
        raise ValueError(
            f"{file.name}: {place or 'the content'} is not JSON data but {value!r:.80} ({error})"
        ) from error
    write_text(file, text + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees either the old or the new content."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with disk_errors_explained(file.parent, len(content)):
        try:
            aside.unlink(missing_ok=True)
            with aside.open("xb") as stream:  # "x" does not follow links
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)


def _plain_number(value: Any) -> Any:
    """Convert a numpy scalar to a Python number without importing numpy."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON data")


def _not_plain(content: Any, place: str = "") -> tuple[str, Any] | None:
    """Place and value of the first element that is not valid in JSON."""
    if isinstance(content, Mapping):
        table = cast("Mapping[Any, Any]", content)
        found = (_not_plain(inner, f"{place}.{name}".strip(".")) for name, inner in table.items())
        return next((hit for hit in found if hit), None)
    if isinstance(content, (list, tuple)):
        items = cast("Sequence[Any]", content)
        found = (_not_plain(inner, f"{place}.{i}".strip(".")) for i, inner in enumerate(items))
        return next((hit for hit in found if hit), None)
    try:
        json.dumps(content, allow_nan=False, default=_plain_number)
    except (TypeError, ValueError):
        return place, content
    return None


def seal(staging: Path, result: Result, sha256: Callable[[Path], str] = sha256_of) -> Result:
    """Sync and hash every file, then write `result.json`, which makes the folder an artifact.

    Args:
        sha256: function that hashes a file.
    Returns: the result as written, with `files` filled in.
    Raises:
        ResourceError: the disk is full.
    """
    files = files_below(staging)
    with disk_errors_explained(staging):
        for path in files:
            sync(path)
    hashes = {path.relative_to(staging).as_posix(): sha256(path) for path in files}
    sealed = replace(result, files=hashes)
    with suppress(TypeError, ValueError):  # not plain data: reported by write_json
        sealed = replace(sealed, sha256=result_hash(asdict(sealed)))
    write_json(staging / RESULT_FILE, asdict(sealed))
    return sealed


def put_in_place(sealed: Path, final: Path, kept: Path | None = None) -> None:
    """Rename a sealed folder to its final name, replacing an older artifact.

    After a kill between the two renames, the sealed folder is still in staging, and the next run
    publishes it.

    Args:
        kept: where to move the older artifact; None: remove it.
    """
    outdated = kept or final.with_name(f"{OUTDATED}{final.name}-{os.getpid()}")
    with disk_errors_explained(final.parent):
        outdated.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            shutil.rmtree(outdated, ignore_errors=True)
            final.rename(outdated)
        try:
            sealed.rename(final)
        except OSError:
            if not final.exists() and outdated.exists():
                outdated.rename(final)  # restore the older artifact
            raise
        sync(final.parent)
    if kept is None:
        shutil.rmtree(outdated, ignore_errors=True)


def put_beside(file: Path, folder: Path) -> None:
    """Hard-link a file of the scratch folder into the artifact, so that nothing is lost if the run
    is killed before sealing. The file is copied if hard links are not supported."""
    with disk_errors_explained(folder, file.stat().st_size):
        try:
            (folder / file.name).hardlink_to(file)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            shutil.copyfile(file, folder / file.name)


def remove_outdated(folder: Path) -> None:
    """Remove replaced artifacts that were left by a killed run."""
    for outdated in folder.glob(f"{OUTDATED}*"):
        shutil.rmtree(outdated, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_result(folder: Path) -> Result:
    """Read the result of a published artifact and check its hash, if it has one.

    Raises:
        ArtifactError: the result is missing, invalid, or was changed.
    """
    file = folder / RESULT_FILE
    if kind := _special(file):
        raise ArtifactError(f"{file} is {kind}, not a file; remove {folder} and run again")
    content = read_json(file)
    try:
        result = Result(**content)
        _require_form(result)
    except TypeError as error:
        raise ArtifactError(
            f"{file} does not have the form of a result ({error}); remove {folder} and run again"
        ) from error
    if result.sha256 and result_hash(content) != result.sha256:
        raise ArtifactError(
            f"{file} was changed after it was written (its sha256 differs), so its numbers cannot "
            f"be trusted; remove {folder} and run again"
        )
    return result


def _require_form(result: Result) -> None:
    """Check the types of the fields, because `result.json` is untrusted."""
    for name, kinds in FORM.items():
        value = getattr(result, name)
        if not isinstance(value, kinds):
            raise TypeError(f"{name} has the wrong type")
    for table in (result.inputs, result.files, result.versions):
        if not all(isinstance(text, str) for text in cast("Mapping[str, Any]", table).values()):
            raise TypeError("inputs, files or versions holds values other than text")


def published_fingerprint(folder: Path, sha256: Callable[[Path], str] = sha256_of) -> str:
    """A fingerprint of an artifact that depends only on its files, without the card.

    Raises:
        ArtifactError: as `read_result` and `require_unchanged`.
    """
    result = read_result(folder)
    require_unchanged(folder, result, result.files, sha256)
    return key_of({name: digest for name, digest in result.files.items() if name != CARD_FILE})


def require_unchanged(
    folder: Path,
    result: Result,
    names: Iterable[str],
    sha256: Callable[[Path], str] = sha256_of,
) -> None:
    """Check files of another run's artifact against its manifest; additional files are allowed.

    Raises:
        ArtifactError: a file is missing, is outside the folder, or was changed.
    """
    faults = _changed(folder, result, names, lambda file: sha256(checked(file)))
    if faults:
        raise damaged(folder, result, "; ".join(faults))


def damaged(folder: Path, result: Result, why: str) -> ArtifactError:
    """The error for a damaged artifact of another run."""
    return ArtifactError(
        f"{folder} is damaged: {why}; copy the folder again, or remove it and run the step "
        f"{result.step!r} of its recipe again"
    )


def _changed(
    folder: Path, result: Result, names: Iterable[str], sha256: Callable[[Path], str]
) -> list[str]:
    return [
        f"{name} was changed after it was written (sha256 differs)"
        for name in names
        if sha256(folder / name) != result.files.get(name)
    ]


def _special(path: Path) -> str | None:
    """The type of a path that is neither a regular file nor a folder; links are not followed."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "a link" if stat.S_ISLNK(mode) else "a FIFO, socket or device"


def verify(folder: Path, sha256: Callable[[Path], str] = sha256_of) -> Result:
    """Check every file of an artifact against its manifest.

    Args:
        sha256: function that hashes a file; the default reads the whole file.
    Raises:
        ArtifactError: a file is missing, was added, changed, or replaced by a link; the message
            lists the files.
    """
    result = read_result(folder)
    special = {
        path.relative_to(folder).as_posix(): kind
        for path in sorted(folder.rglob("*"))
        if (kind := _special(path))
    }
    present = {path.relative_to(folder).as_posix() for path in files_below(folder)} - set(special)
    faults = [f"{name} is {kind}, which no step writes" for name, kind in special.items()]
    faults += [f"{name} is missing" for name in sorted(set(result.files) - present - set(special))]
    faults += [f"{name} is not in the manifest" for name in sorted(present - set(result.files))]
    faults += _changed(folder, result, sorted(present & set(result.files)), sha256)
    if faults:
        raise ArtifactError(
            f"artifact {folder} is damaged: {'; '.join(faults)}; "
            "remove the folder and run again to rebuild it"
        )
    return result

"""A step's folder on disk: written aside, sealed with the sha256 of every file, put in place by one
rename.

A run can be killed between any two bytes, so nothing under its final name is ever half-written. A
step writes into a staging folder beside the final one; `seal` syncs and hashes every file and
writes `result.json` last, `put_in_place` renames. A folder without `result.json` is not an
artifact, and a file whose bytes changed later no longer fits its hash. `result.json` holds a hash
of its own content too. The hashes find damage and careless edits; someone who computes them again
can still forge a result.

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
from attar.untrusted import read_json as read_json  # artifacts are read as strangers' files are

RESULT_FILE = "result.json"
OUTDATED = ".outdated-"
"""Beginning of the name an artifact has between being replaced and being removed."""
MIB = 2**20
CHUNK_BYTES = MIB
"""Bytes hashed at a time: memory stays flat however large the file."""


@dataclass(frozen=True)
class Result:
    """`result.json`: what a step was, what it made, and what it measured. See the contract for
    each field."""

    step: str
    run: str
    key: str
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    """Over all sessions of a step that was stopped or killed and resumed."""
    peak_rss_mib: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    made_from: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the key is a hash of: settings, seed, keys of inputs and of data."""
    machine: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Cores that could be used, and how threads waited for each other."""
    sha256: str = ""
    """Of all other fields; "" in a result that was written before there was one."""


FORM: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("step", "run", "key", "sha256"), str),
    **dict.fromkeys(("inputs", "metrics", "files", "versions", "made_from", "machine"), dict),
    **dict.fromkeys(("seconds", "peak_rss_mib"), (int, float)),
}
"""Field of a result → its type in JSON."""


def sha256_of(file: Path) -> str:
    """Hexadecimal sha256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def key_of(content: Any) -> str:
    """A 16-character key of plain data (what JSON can say), independent of the order of names.

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
    # Once through JSON: names of tables become text, numpy's numbers plain ones, as in the file.
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
"""How libraries that do not raise OSError (safetensors, tokenizers, torch) say it."""


@contextmanager
def disk_errors_explained(folder: Path, needed_bytes: int | None = None) -> Generator[None]:
    """Turn "no space left on device" into a `ResourceError` with the numbers; others pass."""
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
            f"disk full while writing below {folder}: {free:.1f} MiB are free, {needed}; "
            "finished steps are intact; free some space or choose another folder with --out, then "
            "run again"
        ) from error


def write_json(file: Path, content: Any) -> None:
    """Write plain data as JSON in one atomic replacement.

    Numpy's scalars count as numbers. NaN and infinity are refused, as JSON has no word for them.

    Raises:
        ValueError: something in `content` is not plain data; the message names its place.
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
    """Write a text file in one atomic replacement."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file in one atomic replacement: a reader sees the old one or the new one."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with disk_errors_explained(file.parent, len(content)):
        try:
            aside.unlink(missing_ok=True)
            with aside.open("xb") as stream:  # "x" follows no link
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)


def _plain_number(value: Any) -> Any:
    """A numpy scalar as Python's own number, without importing numpy."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON data")


def _not_plain(content: Any, place: str = "") -> tuple[str, Any] | None:
    """The first place, and what stands there, that JSON cannot say."""
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
        sha256: what hashes a file.
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
    with suppress(TypeError, ValueError):  # not plain data: write_json says where
        sealed = replace(sealed, sha256=result_hash(asdict(sealed)))
    write_json(staging / RESULT_FILE, asdict(sealed))
    return sealed


def put_in_place(sealed: Path, final: Path, kept: Path | None = None) -> None:
    """Rename a sealed folder to its final name, replacing an older artifact.

    A kill between the two renames leaves the sealed folder whole where it was: the next run puts it
    in place then.

    Args:
        kept: where the older artifact is moved to; None: it is removed.
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
                outdated.rename(final)  # the older artifact stays where it was
            raise
        sync(final.parent)
    if kept is None:
        shutil.rmtree(outdated, ignore_errors=True)


def put_beside(file: Path, folder: Path) -> None:
    """Give a file of the scratch folder a second name in the artifact's, so that a kill before the
    artifact is sealed loses nothing; copied where the file system has no second names."""
    with disk_errors_explained(folder, file.stat().st_size):
        try:
            (folder / file.name).hardlink_to(file)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            shutil.copyfile(file, folder / file.name)


def remove_outdated(folder: Path) -> None:
    """Remove replaced artifacts that a kill kept from being removed."""
    for outdated in folder.glob(f"{OUTDATED}*"):
        shutil.rmtree(outdated, ignore_errors=True)


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_result(folder: Path) -> Result:
    """The result of a published artifact, its own hash checked where it has one.

    Raises:
        ArtifactError: there is none, it does not have the form of one, or it was changed.
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
    """Types only: `result.json` may come from anywhere."""
    for name, kinds in FORM.items():
        value = getattr(result, name)
        if not isinstance(value, kinds):
            raise TypeError(f"{name} has the wrong type")
    for table in (result.inputs, result.files, result.versions):
        if not all(isinstance(text, str) for text in cast("Mapping[str, Any]", table).values()):
            raise TypeError("inputs, files or versions holds values other than text")


def published_fingerprint(folder: Path, sha256: Callable[[Path], str] = sha256_of) -> str:
    """The same for equal files of an artifact.

    Raises:
        ArtifactError: as `read_result` and `require_unchanged`.
    """
    result = read_result(folder)
    require_unchanged(folder, result, result.files, sha256)
    return key_of(dict(result.files))


def require_unchanged(
    folder: Path,
    result: Result,
    names: Iterable[str],
    sha256: Callable[[Path], str] = sha256_of,
) -> None:
    """Hold files of another run's artifact against its manifest; others may lie beside them.

    Raises:
        ArtifactError: a file is missing, is not a file of this folder, or was changed.
    """
    faults = _changed(folder, result, names, lambda file: sha256(checked(file)))
    if faults:
        raise damaged(folder, result, "; ".join(faults))


def damaged(folder: Path, result: Result, why: str) -> ArtifactError:
    """What is said of a damaged artifact of another run."""
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
    """What a path is when it is not a regular file and no folder; a link is not followed."""
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
        sha256: what hashes a file; the default reads every byte.
    Raises:
        ArtifactError: a file is missing, was added or replaced by a link, or one of its bytes
        changed; the message names the files.
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

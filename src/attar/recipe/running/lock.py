"""Lock of a run folder: only one run at a time.

`flock` on `<run folder>/.lock`: the kernel releases the lock when the process ends for any reason,
so it is never stale. The holder (host, process) is written to the file only for the error message
of another run.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from attar.artifacts import disk_errors_explained
from attar.errors import UsageError

LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Holder:
    """The process that runs in a folder."""

    host: str
    pid: int
    since: str
    """Local time, ISO 8601 with offset."""


@contextmanager
def refusals_explained(folder: Path, but: tuple[type[OSError], ...] = ()) -> Generator[None]:
    """Convert an OSError in a run folder to a `UsageError` with its reason, or to a `ResourceError`
    if the disk is full. Errors of the types `but` pass."""
    try:
        with disk_errors_explained(folder):
            yield
    except but:
        raise
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be the folder of a run: {error.strerror}; choose one with --out"
        ) from None


@contextmanager
def run_lock(folder: Path) -> Generator[None]:
    """Hold the folder's lock.

    Raises:
        UsageError: another process holds the lock, or the folder does not support locks.
    """
    with refusals_explained(folder):
        descriptor = _open(folder, os.O_RDWR | os.O_CREAT)
    try:
        try:
            with refusals_explained(folder, but=(BlockingIOError,)):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            who = (
                f"process {holder.pid} on {holder.host} (since {holder.since})"
                if holder
                else "another process"
            )
            raise UsageError(
                f"another run is at work in {folder}: {who}; wait for it, stop it, or choose "
                "another folder with --out"
            ) from None
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        _write(descriptor, Holder(socket.gethostname(), os.getpid(), now))
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def lock_holder(folder: Path) -> Holder | None:
    """The process that runs in `folder`; None if there is none. This briefly takes the lock, for
    microseconds."""
    try:
        with refusals_explained(folder, but=(FileNotFoundError,)):
            descriptor = _open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(descriptor) or Holder("an unknown host", 0, "an unknown time")
    finally:
        os.close(descriptor)


def _open(folder: Path, flags: int) -> int:
    """Open the lock, which must be a regular file: the target of a link would be truncated, and
    opening a FIFO would block."""
    file = folder / LOCK_FILE
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(file.lstat().st_mode):
            raise UsageError(
                f"{file} is a link, a folder or a device, not a file; remove it, or choose another "
                "folder with --out"
            )
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(file, flags, 0o644)


def _write(descriptor: int, holder: Holder) -> None:
    """Write the holder. On a full disk it is missing, but the lock is still held."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _read(descriptor: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None

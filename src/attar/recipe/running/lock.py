"""One run at a time in one folder: the second refuses and names who is there.

`flock` on `<run folder>/.lock`: the kernel releases it when the process ends, however it ends, so a
lock is never stale. Who holds it (host, process) is written into the file for the message of the
other side only.
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
    """Who is running in a folder."""

    host: str
    pid: int
    since: str
    """Local time, ISO 8601 with offset."""


@contextmanager
def refusals_explained(folder: Path, but: tuple[type[OSError], ...] = ()) -> Generator[None]:
    """Turn what the system refuses in a run's folder into a `UsageError` with its reason; a full
    disk is a `ResourceError`, and `but` passes."""
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
        UsageError: another process holds it, or the folder refuses a lock.
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
    """Who runs in `folder` now; None when nobody does. Takes nothing away from a run that starts at
    the same moment beyond the microseconds of the look."""
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
    """Open the lock, which must be a regular file: a link would be emptied where it points to, and
    a FIFO waited for."""
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
    """On a full disk the name of the holder is missing; the lock holds all the same."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _read(descriptor: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None

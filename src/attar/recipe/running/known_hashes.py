"""Caches the sha256 of files, to avoid reading unchanged files again.

A run verifies all files of finished steps, models and data before it reuses anything; for 10 GB
this takes more than ten seconds. So a file in the run folder stores the hashes:

    .hashes.json    device:inode → size, mtime_ns, ctime_ns, sha256

A hash is valid while all of these are unchanged. Programs cannot set ctime, so a changed file with
restored mtime is detected. In a copy of the folder, on this or another machine, the entries match
no file.

A file that is written twice within one tick of the file system's clock has the same times with
different contents (the racy git problem). So a hash is stored only if the last change was more than
one tick before reading started. Left out: bit rot on disk, which only a full read finds
(`attar status --verify`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from attar.artifacts import CHUNK_BYTES, key_of, read_json, write_text
from attar.errors import ArtifactError

HASHES_FILE = ".hashes.json"
SMALLEST = 2**16
"""Files with fewer bytes are always read, because opening them takes most of the time."""
MOST = 20_000
"""Maximum number of stored hashes, in about 3 MB."""
TICK_S = 0.05
"""Linux stamps files with the time of its last timer interrupt, at most 10 ms ago."""
COARSE_TICK_S = 3.0
"""For file systems with times in whole seconds (ext3, NFS servers with it) or even seconds (FAT).
"""
BYTES_PER_S = 1e9
"""Approximate speed of sha256."""
SECOND_NS = 10**9

Entry = tuple[int, int, int, str]


class KnownHashes:
    """Cached hashes of the files of one run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / HASHES_FILE
        self._known = _read(self._file)
        self._is_saved = True
        self.bytes_read = 0

    def sha256(self, file: Path) -> str:
        """Hexadecimal sha256 of a file's bytes, read only if the file may have changed."""
        found = file.stat()
        known = self._known.get(_name(found))
        if known is not None and known[:3] == _times(found):
            return known[3]
        return self.read(file)

    def read(self, file: Path) -> str:
        """Compute the sha256 of the current contents, and cache it if that is safe."""
        _wait_for_a_tick(file.stat())
        digest, began = hashlib.sha256(), time.time_ns()
        with file.open("rb") as stream:
            before = os.fstat(stream.fileno())
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                self.bytes_read += len(chunk)
            after = os.fstat(stream.fileno())
        if (
            after.st_size >= SMALLEST
            and _times(before) == _times(after)
            and _seconds_to_wait(before, began) <= 0
        ):
            entry = (*_times(before), digest.hexdigest())
            self._known[_name(before)] = entry
            self._is_saved = False
        return digest.hexdigest()

    def save(self) -> None:
        """Save the cache if this process has computed hashes; the oldest entries are dropped."""
        if not self._is_saved:
            files = dict(list(self._known.items())[-MOST:])
            content = {"files": files, "key": key_of(files)}
            write_text(self._file, json.dumps(content))
            self._is_saved = True


def _name(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}"


def _times(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _seconds_to_wait(found: os.stat_result, now_ns: int) -> float:
    """Seconds until another change of the file would have different times."""
    tick = TICK_S if found.st_ctime_ns % SECOND_NS else COARSE_TICK_S
    return tick - (now_ns - max(found.st_mtime_ns, found.st_ctime_ns)) / SECOND_NS


def _wait_for_a_tick(found: os.stat_result) -> None:
    """After a large file was written, wait for a tick so that the next run need not read it."""
    seconds = _seconds_to_wait(found, time.time_ns())
    if 0 < seconds < found.st_size / BYTES_PER_S:
        time.sleep(seconds)


def _read(file: Path) -> dict[str, Entry]:
    """Entries of an earlier run; empty if the file is missing, damaged or not a regular file."""
    with suppress(ArtifactError, AttributeError, KeyError, TypeError, ValueError):
        content: Any = read_json(file)
        if content["key"] == key_of(content["files"]):
            return {
                name: (int(size), int(mtime), int(ctime), str(sha256))
                for name, (size, mtime, ctime, sha256) in content["files"].items()
            }
    return {}

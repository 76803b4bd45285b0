"""A disk that can be filled up: a small tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_of(kib: int, disk: Path) -> Iterator[Path]:
    """A disk of this size at a folder that is made for it."""
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        # lazy: a caught error may still hold a map of a file
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, but_kib: int) -> Path:
    """Fill the disk up to `but_kib` KiB."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - but_kib * 1024))
    return filler

"""What a step could not use, as a file: a line of JSON for each row, with the reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from attar.artifacts import disk_errors_explained
from attar.data.tables import SetAside


def write_set_aside(file: Path, rows: Iterable[SetAside]) -> None:
    """Equal rows give equal bytes.

    Raises:
        ResourceError: the disk is full.
    """
    with (
        disk_errors_explained(file.parent),
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,  # no name, no time
    ):
        for row in rows:
            line = json.dumps({"row": row.row, "reason": row.reason}, ensure_ascii=False)
            packed.write(f"{line}\n".encode())

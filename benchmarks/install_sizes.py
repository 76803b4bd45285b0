"""What does each extra of attar take on disk?

    python benchmarks/install_sizes.py

Adds up the files that pip recorded for an extra's libraries and for everything they depend on, less
those of the base. Nothing is installed or removed: what the environment does not have is named.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from attar.artifacts import MIB
from record import table, write_page

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


@cache
def mib_of(name: str) -> float:
    """MiB of the files of one installed package."""
    files = distribution(name).files or ()
    places = (Path(str(file.locate())) for file in files)
    return sum(place.stat().st_size for place in places if place.is_file()) / MIB


def closure(wanted: Iterable[str]) -> tuple[set[str], set[str]]:
    """Names of all packages that some requirements need, and of those that are not installed."""
    waiting = [Requirement(each) for each in wanted]
    found: set[str] = set()
    absent: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if (name, frozenset(one.extras)) in seen:
            continue
        seen.add((name, frozenset(one.extras)))
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            absent.add(name)
            continue
        found.add(name)
        for need in map(Requirement, needs):
            extras = one.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(need)
    return found, absent


def main() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def flat(listed: Iterable[str]) -> list[str]:
        """With the extras of attar itself written out."""
        inner = [Requirement(each) for each in listed]
        own = [part for each in inner if each.name == "attar" for part in sorted(each.extras)]
        others = [str(each) for each in inner if each.name != "attar"]
        return others + [each for part in own for each in flat(extras[part])]

    base, _ = closure(project["dependencies"])
    rows: list[tuple[object, ...]] = [("(base)", f"{sum(map(mib_of, base)):,.0f}", "")]
    for extra, listed in extras.items():
        found, absent = closure(flat(listed))
        size = sum(map(mib_of, found - base))
        rows.append((extra, f"{size:,.0f}", ", ".join(sorted(absent))))
    head = ("extra", "MiB beside the base", "not installed here, not counted")
    write_page("install-sizes", "What does each extra take on disk?", table(head, rows))


if __name__ == "__main__":
    main()

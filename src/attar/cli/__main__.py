"""`python -m attar.cli`: the `attar` command."""

from __future__ import annotations

from attar.cli import main

if __name__ == "__main__":
    main()

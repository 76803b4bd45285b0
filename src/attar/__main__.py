"""`python -m attar`: the `attar` command, wherever its script is not on the path."""

from __future__ import annotations

from attar.cli import main

if __name__ == "__main__":
    main()

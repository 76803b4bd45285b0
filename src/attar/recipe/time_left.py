"""How long the whole run still takes, from estimates made beforehand and corrected by what was
measured since.

    left = (seconds measured / seconds estimated, over the steps made so far) · estimate of the rest

Without an estimate for every step that is left there is no answer: a number that pretends is worse
than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class TimeLeft:
    """Learns from each step that was made."""

    def __init__(self, estimates: Mapping[str, float]) -> None:
        self._estimates = estimates
        self._measured = 0.0
        self._estimated = 0.0

    def made(self, name: str, seconds: float) -> None:
        """Step `name` took `seconds`."""
        if name in self._estimates:
            self._measured += seconds
            self._estimated += self._estimates[name]

    def seconds(self, left: Iterable[str]) -> float | None:
        """Seconds that the steps `left` will take; None when one of them has no estimate.

        Example:
            >>> time = TimeLeft({"teacher": 10.0, "student": 20.0})
            >>> time.made("teacher", 15.0)
            >>> time.seconds(["student"])
            30.0
        """
        names = list(left)
        if not names or any(name not in self._estimates for name in names):
            return None
        factor = self._measured / self._estimated if self._estimated > 0 else 1.0
        return factor * sum(self._estimates[name] for name in names)

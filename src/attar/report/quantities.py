"""Formats numbers for people: three significant digits, a unit, and a minus sign (−).

report.json has the raw numbers; the formatted text is for the HTML page and its Markdown version. A
number and its unit are joined by a no-break space.
"""

from __future__ import annotations

from attar.numerics.metric_names import (
    CALIBRATION,
    CLASSES,
    LANGUAGE,
    LOWER_IS_BETTER,
    QUOTES,
    RANKING,
    ROUGE,
    SCORES,
    SPANS,
    ZERO_SHOT,
)
from attar.progress import counted

NBSP = "\u00a0"
MINUS = "\u2212"
DASH = "–"
"""Shown for missing values."""
SHOWN_AS_PERCENT = frozenset(
    {"accuracy", "f1", "macro_f1", "micro_f1", *CALIBRATION, *SPANS, *QUOTES, *ZERO_SHOT}
)
"""Shares; correlations keep three decimals."""
QUALITIES = frozenset({*CLASSES, *SCORES, *RANKING, *SPANS, *QUOTES, *ROUGE, *ZERO_SHOT})
"""Metrics between −1 and 1: a point is a hundredth of any of them."""
ALIKE_WITHIN = 0.15
"""On an idle machine, the ratios of single rounds of equally fast models are this close to 1."""
AS_FAST = "as fast"
BUSY = "speed not measurable: the machine is busy"
EQUAL_WITHIN = 0.05
"""Latencies or sizes with a ratio this close to 1 are called the same in the headline."""


def clipped(text: str, most: int) -> str:
    """Shorten a text to `most` characters by removing its middle.

    Example:
        >>> clipped("student", 9), clipped("x" * 40, 9)
        ('student', 'xxxx…xxxx')
    """
    if len(text) <= most:
        return text
    start = most // 2
    return f"{text[:start]}…{text[len(text) - (most - start - 1) :]}"


def fixed_text(value: float, digits: int, *, is_signed: bool = False) -> str:
    """Format with this many decimals and a real minus sign; zero has no sign.

    Args:
        is_signed: whether positive numbers have a sign.
    Example:
        >>> fixed_text(-0.04, 1), fixed_text(-0.5, 1), fixed_text(1.234, 2, is_signed=True)
        ('0.0', '−0.5', '+1.23')
    """
    rounded = round(value, digits) + 0.0  # no −0.0
    sign = "+" if is_signed and rounded > 0 else ""
    return f"{sign}{rounded:.{digits}f}".replace("-", MINUS)


def number_text(value: float | None, digits: int = 3) -> str:
    """Format with significant digits, without an exponent, with grouped thousands.

    Example:
        >>> number_text(41.234), number_text(7.05), number_text(1480), number_text(None)
        ('41.2', '7.05', '1,480', '–')
    """
    if value is None:
        return DASH
    if value == int(value):
        return f"{value:,.0f}".replace("-", MINUS)
    size = abs(value)
    whole_digits = 1 if size < 1 else len(str(int(size)))
    if size and size < 1:
        text = f"{value:.{digits}g}" if size >= 1e-4 else f"{value:.1e}"
    else:
        text = f"{value:,.{max(digits - whole_digits, 0)}f}"
    return text.replace("-", MINUS)


def count_text(count: float | None) -> str:
    """Format a count with a suffix for thousands or millions.

    Example:
        >>> count_text(22_713_216).replace(NBSP, " "), count_text(812)
        ('22.7 M', '812')
    """
    if count is None:
        return DASH
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= factor:
            return f"{number_text(count / factor)}{NBSP}{letter}"
    return f"{count:,.0f}"


def sample_text(metric: str, count: int) -> str:
    """What a metric was measured on.

    Example:
        >>> sample_text("accuracy", 60), sample_text("nll", 1)
        ('60 texts', '1 passage')
    """
    return counted(count, "passage" if metric in LANGUAGE else "text")


def unit_text(value: float | None, unit: str) -> str:
    """A measured value with its unit.

    Example:
        >>> unit_text(7.052, "ms").replace(NBSP, " ")
        '7.05 ms'
    """
    return DASH if value is None else f"{number_text(value)}{NBSP}{unit}"


def metric_text(metric: str, value: float | None) -> str:
    """Format a metric in its usual notation.

    Example:
        >>> metric_text("accuracy", 0.8312).replace(NBSP, " "), metric_text("pearson", 0.8709)
        ('83.1 %', '0.871')
    """
    if value is None:
        return DASH
    if metric in SHOWN_AS_PERCENT:
        return f"{fixed_text(100 * value, 1)}{NBSP}%"
    return fixed_text(value, 3) if abs(value) < 10 else number_text(value)


def share_text(part: float, whole: float) -> str:
    """A part of a whole, in percent.

    Example:
        >>> share_text(1, 3).replace(NBSP, " "), share_text(0, 0)
        ('33.3 %', '–')
    """
    return metric_text("accuracy", part / whole if whole else None)


def interval_text(metric: str, low: float | None, high: float | None) -> str:
    """Format an interval in the scale of the metric, without the unit; "" for an interval of zero
    width, which metrics like F1 have if all rows are equal.

    Example:
        >>> interval_text("accuracy", 0.81, 0.85)
        '81.0 to 85.0'
    """
    if low is None or high is None or low == high:
        return ""
    ends = [metric_text(metric, end).removesuffix(f"{NBSP}%") for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def text_with_interval(metric: str, value: float, low: float | None, high: float | None) -> str:
    """A metric, and its interval in parentheses if it has one.

    Example:
        >>> text_with_interval("f1", 0.83, 0.81, 0.85).replace(NBSP, " ")
        '83.0 % (81.0 to 85.0)'
    """
    ends = interval_text(metric, low, high)
    return metric_text(metric, value) + (f" ({ends})" if ends else "")


def points_text(difference: float) -> str:
    """A difference of qualities in points.

    Example:
        >>> points_text(0.01), points_text(0.004)
        ('1 point', '0.4 points')
    """
    shown = f"{difference * 100:.3g}"
    return f"{shown} {'point' if shown == '1' else 'points'}"


def change_text(metric: str, change: float) -> str:
    """A difference in quality, in words.

    Example:
        >>> change_text("accuracy", -0.0041), change_text("pearson", 0.012), change_text("f1", 0.0)
        ('0.4 points lower', '1.2 points higher', 'equal')
    """
    shown = f"{abs(change) * 100:.1f} points" if metric in QUALITIES else f"{abs(change):.3f}"
    if not any(digit in shown for digit in "123456789"):
        return "equal"
    return f"{shown} {'higher' if change > 0 else 'lower'}"


def ratio_text(ratio: float | None) -> str:
    """How many times.

    Example:
        >>> ratio_text(4.08), ratio_text(13.2)
        ('4.1×', '13×')
    """
    if ratio is None:
        return DASH
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×" if ratio >= 1 else f"{ratio:.2f}×"


def undecided(low: float | None, high: float | None) -> str:
    """Text for a latency ratio whose rounds are on both sides of 1: if they are close to 1, the
    models are equally fast, otherwise the machine was too busy; "" for any other ratio.

    Example:
        >>> undecided(0.6, 2.2), undecided(0.97, 1.04), undecided(1.4, 2.2)
        ('speed not measurable: the machine is busy', 'as fast', '')
    """
    if low is None or high is None or not low < 1 < high:
        return ""
    return AS_FAST if low >= 1 - ALIKE_WITHIN and high <= 1 + ALIKE_WITHIN else BUSY


def speed_text(ratio: float | None, low: float | None, high: float | None) -> str:
    """How much faster, by the median of paired rounds; with their range if they differ by more than
    equally fast models on an idle machine (`ALIKE_WITHIN`).

    Example:
        >>> speed_text(4.1, 3.9, 4.4), speed_text(12.0, 5.6, 17.2), speed_text(0.5, 0.4, 0.6)
        ('4.1× faster', '12× faster (5.6 to 17×)', '2.0× slower (1.7 to 2.5×)')
        >>> speed_text(4.1, 3.9, 5.0), speed_text(1.3, 0.6, 2.2)
        ('4.1× faster (3.9 to 5.0×)', 'speed not measurable: the machine is busy')
    """
    if ratio is None:
        return ""
    if words := undecided(low, high):
        return words
    words = compared_text(ratio, "faster", "slower", AS_FAST)
    if low is None or high is None:
        return words
    if low >= ratio * (1 - ALIKE_WITHIN) and high <= ratio * (1 + ALIKE_WITHIN):
        return words
    ends = (1 / high, 1 / low) if words.endswith("slower") else (low, high)
    return f"{words} ({ratio_text(ends[0])[:-1]} to {ratio_text(ends[1])})"


def difference_figures(metric: str, *differences: float) -> tuple[list[str], str]:
    """Signed differences in a metric's scale, and their unit, preceded by a space.

    Example:
        >>> difference_figures("accuracy", -0.05, 0.0)
        (['−5.0', '0.0'], ' points')
    """
    scale, digits, unit = (100, 1, " points") if metric in QUALITIES else (1, 3, "")
    return [fixed_text(scale * difference, digits) for difference in differences], unit


def difference_text(
    metric: str, value: float, low: float | None, high: float | None, count: int | None = None
) -> str:
    """A difference in quality, whether it is significant, and its 95 % interval.

    Args:
        count: number of texts or passages; None: unknown.
    Example:
        >>> difference_text("accuracy", -0.021, -0.036, -0.004, 1104)
        'accuracy 2.1 points lower on 1,104 texts (a real difference: 95 % interval −3.6 to −0.4)'
        >>> difference_text("accuracy", -0.004, -0.011, 0.003)
        'accuracy 0.4 points lower (not significant: 95 % interval −1.1 to 0.3)'
        >>> difference_text("bits_per_byte", 0.02, 0.01, 0.03).partition(": ")[2]
        '95 % interval 0.010 to 0.030; lower is better)'
    """
    name, change = metric.replace("_", " "), change_text(metric, value)
    on = f" on {sample_text(metric, count)}" if count else ""
    claim = f"equal {name}{on}" if change == "equal" else f"{name} {change}{on}"
    if low is None or high is None:
        return claim
    ends, _ = difference_figures(metric, low, high)
    verdict = "not significant" if low <= 0 <= high else "a real difference"
    hint = "; lower is better" if metric in LOWER_IS_BETTER else ""
    return f"{claim} ({verdict}: 95 % interval {ends[0]} to {ends[1]}{hint})"


def compared_text(ratio: float, better: str, worse: str, same: str) -> str:
    """A ratio of before to after, in words.

    Example:
        >>> compared_text(4.1, "faster", "slower", "as fast")
        '4.1× faster'
        >>> compared_text(0.5, "faster", "slower", "as fast")
        '2.0× slower'
    """
    if abs(ratio - 1) <= EQUAL_WITHIN:
        return same
    return f"{ratio_text(ratio)} {better}" if ratio > 1 else f"{ratio_text(1 / ratio)} {worse}"

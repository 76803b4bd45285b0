"""The second pass over rows whose answer is a text: a target is kept, or its row is set aside.

The same promise as for labels: kept + set aside = read. An empty target is no answer, so its row is
set aside like one without a label; in a hidden test set it is kept, with the target "".
"""

from __future__ import annotations

import numpy as np

from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.rows import Taken, text_of
from attar.data.tables import UNLABELLED, SetAside, Settled, Split


def settle_targets(taken: Taken, column: str | None, *, may_lack_targets: bool = False) -> Settled:
    """What `take_texts` found as labels, as target texts.

    Args:
        column: where the targets stand; None: there are none.
        may_lack_targets: keep rows without a target, as "".

    Returns: the kept rows, and all rows of the split that were set aside in both passes, in order.
    """
    kept: list[int] = []
    targets: list[str] = []
    set_aside = list(taken.set_aside)
    for i, target in enumerate(taken.labels):
        text = text_of(column or "target", target)
        if isinstance(text, Unreadable) and may_lack_targets:
            text = ""
        if isinstance(text, Unreadable):
            set_aside.append(SetAside(taken.split, taken.rows[i], text.reason))
        else:
            kept.append(i)
            targets.append(text)
    set_aside.sort(key=lambda fault: fault.row)
    unlabelled = np.full(len(kept), UNLABELLED, dtype=np.int64)
    return Split(tuple(taken.texts[i] for i in kept), unlabelled, tuple(targets)), set_aside

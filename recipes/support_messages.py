"""Made-up support messages for `support_messages.toml`: 500 labelled ones, 20,000 that nobody has
labelled, and 1,000 labelled ones that judge the models.

    python recipes/support_messages.py recipes/support_messages

The same files for the same seed. The messages are sentences put together from parts, some with a
typing error, some about two things at once; one in fifty has the wrong label. Replace them with
your own.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

ROWS = {"labelled": 500, "raw": 20_000, "validation": 1_000}
WRONG_LABELS = 0.02
TOPICS = {
    "billing": (
        (
            "my invoice",
            "the last payment",
            "my card",
            "the yearly plan",
            "the refund",
            "my receipt",
        ),
        ("was charged twice", "shows the wrong amount", "was declined", "is not in my account"),
    ),
    "login": (
        ("my password", "the sign-in page", "my account", "the code by mail", "two-factor login"),
        ("is not accepted", "does not arrive", "is locked", "keeps asking again", "has expired"),
    ),
    "delivery": (
        ("my parcel", "the order", "the courier", "the tracking number", "the replacement"),
        ("has not arrived", "went to the wrong address", "came damaged", "has been late for days"),
    ),
    "bug": (
        ("the app", "the export", "the search", "the start page", "the upload", "the report"),
        ("crashes", "shows an empty screen", "is very slow", "loses my changes", "freezes"),
    ),
    "praise": (
        ("your team", "the new version", "the support", "the last update", "your service"),
        ("is great", "helped me a lot", "saved my day", "works perfectly", "is a joy to use"),
    ),
}
BEFORE = ("", "hello,", "hi team,", "urgent:", "good morning,", "second time I write:", "well,")
AFTER = ("", "since yesterday", "on my phone", "again", "after the update", "please help", "thanks")


def message(draw: random.Random) -> tuple[str, str]:
    """A text and its label."""
    label = draw.choice(list(TOPICS))
    subjects, claims = TOPICS[label]
    words = [draw.choice(BEFORE), draw.choice(subjects), draw.choice(claims), draw.choice(AFTER)]
    if draw.random() < 0.25:
        others, more = TOPICS[draw.choice(list(TOPICS))]
        words += ["and", draw.choice(others), draw.choice(more)]
    words.append(f"(ticket {draw.randrange(10**6)})")
    text = " ".join(filter(None, words))
    if draw.random() < 0.3:  # two neighbouring letters change places
        place = draw.randrange(len(text) - 1)
        text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text, draw.choice(list(TOPICS)) if draw.random() < WRONG_LABELS else label


def main(folder: Path) -> None:
    """Write one file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, rows in ROWS.items():
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["message"] if split == "raw" else ["message", "label"])
            for _ in range(rows):
                text, label = message(draw)
                writer.writerow([text] if split == "raw" else [text, label])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "support_messages"))

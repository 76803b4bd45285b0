"""Made-up texts for the recipes in this folder: comments, and requests of a bank's customers.

    python recipes/business/make_data.py            # writes recipes/business/data
    python recipes/business/make_data.py FOLDER --seed 1

    comments     3,000 comments: fine, spam or abuse
    requests     2,400 requests in eight intents, one in ten of them for no intent at all

Sentences are drawn from templates and filled with names, numbers and slips of the pen; one label
in fifty is wrong, as in real data. They show how a recipe works. How good a model is on your texts
only your texts can say.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

WRONG_LABELS = 0.02
SLIPS = 0.25
"""Share of the texts with a slip of the pen."""
SLOTS: Mapping[str, Sequence[str]] = {
    "product": (
        *("the mobile app", "your web shop", "the desktop client", "my router", "the printer"),
        *("the smart speaker", "the invoice portal", "the calendar", "the backup tool"),
    ),
    "number": tuple(str(number) for number in range(10_412, 98_000, 997)),
    "money": tuple(f"{euros}.{cents}" for euros in (9, 14, 29, 49, 120) for cents in ("00", "90")),
    "name": ("Anna", "Ben", "Carla", "David", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas"),
    "date": tuple(
        f"{month} {day}" for month in ("March", "May", "July") for day in (2, 11, 19, 28)
    ),
    "site": ("best-deals.example", "win-now.example", "cheap-meds.example", "fast-cash.example"),
    "place": ("the airport", "a hotel", "the supermarket", "an online shop", "a petrol station"),
}
OPENINGS = ("", "", "", "Hello, ", "Hi there, ", "Good morning, ", "Dear team, ", "hey ")
CLOSINGS = (
    "",
    "",
    "",
    " Thanks.",
    " Please help.",
    " Regards, {name}",
    " What can I do?",
    " Thank you!",
)

COMMENTS: Mapping[str, Sequence[str]] = {
    "fine": (
        "I had the same problem with {product}, restarting it helped.",
        "Not convinced. The battery of {product} does not last a day.",
        "Great article, {name}, the part about {place} made me laugh.",
        "This is wrong, the deadline was {date}, see the notes.",
        "What a terrible film, I want my {money} back.",
        "Does anyone know whether {product} works offline?",
    ),
    "spam": (
        "Earn {money} euros an hour from home, visit {site} today!!!",
        "{name} made {number} in a week, the secret is on {site}",
        "Cheap watches and bags, only until {date}, {site}",
        "I was sceptical too, but {site} paid me {money} at once",
        "Click {site} and win {product}, only {number} left",
    ),
    "abuse": (
        "You are an idiot, {name}, nobody wants to read this.",
        "Shut up and crawl back to {place}, {name}.",
        "People like you should be thrown off this site, you make me sick.",
        "{name}, I know where you live, watch your back.",
        "What a stupid loser, learn to write first.",
    ),
}
REQUESTS: Mapping[str, Sequence[str]] = {
    "card_lost": (
        "I left my card at {place}, please block it.",
        "My wallet is gone, what do I do about the card ending in {number}?",
        "Somebody stole my card near {place}.",
    ),
    "card_new": (
        "When will my new card arrive?",
        "I need a second card for {name}.",
        "My card expires in May, do I get a new one by {date}?",
    ),
    "transfer": (
        "Please send {money} to {name} today.",
        "My transfer of {money} euros to {name} has not arrived.",
        "Can I cancel the transfer from {date}?",
    ),
    "balance": (
        "How much money do I have left?",
        "What was my balance on {date}?",
        "Is the {money} from {name} on my account yet?",
    ),
    "dispute": (
        "I do not recognise a payment of {money} at {place}.",
        "{place} charged me {money} twice on {date}.",
        "I want to dispute the payment {number}.",
    ),
    "limits": (
        "How much can I withdraw abroad?",
        "Raise my daily limit to {number}, please.",
        "My payment at {place} failed because of a limit.",
    ),
    "loan": (
        "What would a loan of {number} euros cost me a month?",
        "Can I repay my loan before {date}?",
        "I would like to talk about a mortgage.",
    ),
    "other": (
        "Are you open on {date}?",
        "{name} was very kind at the counter, please pass it on.",
        "Does your app have a dark mode?",
        "Where can I park near {place}?",
    ),
}


def text_of(template: str, draw: random.Random) -> str:
    """One message: opening, sentence and closing, filled in, sometimes with a slip of the pen."""
    words = draw.choice(OPENINGS) + template + draw.choice(CLOSINGS)
    filled = words.format_map({slot: draw.choice(values) for slot, values in SLOTS.items()})
    return slipped(filled, draw) if draw.random() < SLIPS else filled


def slipped(text: str, draw: random.Random) -> str:
    """Two letters in each other's place, or everything in lower case."""
    if draw.random() < 0.4:
        return text.lower()
    place = draw.randrange(len(text) - 1)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def rows(
    classes: Mapping[str, Sequence[str]], count: int, draw: random.Random
) -> list[tuple[str, str]]:
    """(text, label), labels in turn and then shuffled."""
    names = list(classes)
    made: list[tuple[str, str]] = []
    for number in range(count):
        name = names[number % len(names)]
        label = draw.choice(names) if draw.random() < WRONG_LABELS else name
        made.append((text_of(draw.choice(classes[name]), draw), label))
    draw.shuffle(made)
    return made


def write(file: Path, lines: Sequence[tuple[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("message", "label"), *lines])
    print(f"{file}: {len(lines):,} rows")


def make(folder: Path, seed: int = 0) -> None:
    """Write the data sets; equal arguments write equal files."""
    for name, classes, train, validation in (
        ("comments", COMMENTS, 2400, 600),
        ("requests", REQUESTS, 1920, 480),
    ):
        made = rows(classes, train + validation, random.Random(f"{seed} {name}"))
        write(folder / name / "train.csv", made[:train])
        write(folder / name / "validation.csv", made[train:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the data of the recipes in this folder.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()

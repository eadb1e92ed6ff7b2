"""The card of a trained network as text."""

from collections.abc import Iterator, Mapping
from typing import Any

SCORES = {"dice": "Dice", "ap50": "AP at IoU 0.5", "ap": "mean AP", "count_error": "found - true"}


def card_text(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown: what the network is for, data, licences, scores of each image, failures.

    Args:
        card: Card, as `read_card` returns it.

    Example:
        >>> from gconv_ga.pretrained import card_text, read_card
        >>> card_text(read_card("nuclei")).splitlines()[0]
        '# nuclei'
    """
    return "\n".join(_lines(card)) + "\n"


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    parts = card["scores"].items()
    yield from (f"# {card['name']}", "", card["purpose"], "")
    yield from (f"- **{title}**: {text}" for title, text in card["facts"].items())
    yield from ("", "## Where it fails", "", *(f"- {text}" for text in card["fails"]))
    yield from ("", "## Scores", "", "Means over images, none of which it was trained or chosen on.", "")
    yield from _table("images", {name: {"number": part["images"], **part["mean"]} for name, part in parts})
    for name, part in parts:
        yield from ("", f"### {name[:1].upper()}{name[1:]}, by image", "")
        yield from _table("image", part["by_image"])


def _table(first: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table; a column for each key of the first row."""
    keys = list(next(iter(rows.values())))
    yield f"| {first} | " + " | ".join(SCORES.get(key, key) for key in keys) + " |"
    yield "|---" * (len(keys) + 1) + "|"
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(_cell(key, row[key]) for key in keys) + " |"


def _cell(key: str, value: float | None) -> str:
    """Format a score; a number of objects without zeros that say nothing."""
    return "-" if value is None else f"{value:.3g}" if key in ("count_error", "number") else f"{value:.3f}"

"""Put the tables that a benchmark prints into README.md, each in place of the one with the same titles.

    python benchmarks/study.py --table benchmarks/results/study.jsonl | python benchmarks/page_tables.py study

The argument is the section of the page. Tables without a place are named and left out.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("README.md")


def tables_of(text: str) -> Iterator[list[str]]:
    """Yield the lines of each table in a text."""
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            yield lines
            lines = []


def replaced(page: str, section: str, printed: str) -> tuple[str, list[str]]:
    """Return the page with its section's tables as printed, and the titles of the tables that have no place there.

    Of printed tables with the same titles the first one counts.

    Raises:
        ValueError: The page has no such section, or the section has two tables with the same titles.
    """
    head = f"\n## {section}\n"
    if page.count(head) != 1:
        raise ValueError(f"section must be a heading of the page, got {section!r}")
    before, after = page.split(head)
    body, next_head, rest = after.partition("\n## ")
    without_place: list[str] = []
    done: set[str] = set()
    for table in tables_of(printed):
        if table[0] in done:
            continue
        done.add(table[0])
        old = [each for each in tables_of(body) if each[0] == table[0]]
        if len(old) > 1:
            raise ValueError(
                f"section {section!r} has {len(old)} tables with the titles {table[0]}; one can be replaced"
            )
        if old:
            body = body.replace("\n".join(old[0]), "\n".join(table))
        else:
            without_place.append(table[0])
    return before + head + body + next_head + rest, without_place


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite the page from the tables on standard input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", help="heading of the section, such as study")
    section = parser.parse_args(arguments).section
    page, without_place = replaced(PAGE.read_text(encoding="utf-8"), section, sys.stdin.read())
    PAGE.write_text(page, encoding="utf-8")
    for titles in without_place:
        print(f"no place for: {titles}", file=sys.stderr)


if __name__ == "__main__":
    main()

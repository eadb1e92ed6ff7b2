"""A CSV that says which image goes with which mask, and what becomes of it."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._validate import invalid
from ._folders import SPLITS, PairFiles, Problem

OWNERS = ("patient", "slide")


@dataclass(frozen=True)
class Table:
    """What a table of images and masks says.

    Args:
        pairs: The files, in the order of the rows.
        problems: What is wrong with rows: files that are not there or lie outside the table's folder, images that are
            there twice, a patient in two parts of the split.
        split: For the name of each pair "train", "val" or "test"; None if the table has no such column.
        together: For the name of each pair its patient or slide; None if the table has no such column.

    Example:
        >>> Table(pairs=(), problems=(), split=None, together=None).pairs
        ()
    """

    pairs: Sequence[PairFiles]
    problems: Sequence[Problem]
    split: Mapping[str, str] | None
    together: Mapping[str, str] | None


def read_table(path: str | Path) -> Table:
    r"""Reads a CSV with the columns image and mask; split (train, val, test) and patient or slide may be there too.

    Paths are relative to the folder of the CSV, and what they lead to, links followed, must lie inside of it: a table
    that was got from elsewhere reads no other file. A pair is called by its image's path without the ending.

    Args:
        path: The CSV.

    Raises:
        ValueError: It cannot be read, lacks a column, has no row, has both patient and slide, an empty cell, or another
            word under split.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.tif", "a.png"):
        ...         Path(folder, name).touch()
        ...     _ = Path(folder, "table.csv").write_text("image,mask,split\na.tif,a.png,valid\n../b.tif,b.png,train\n")
        ...     table = read_table(f"{folder}/table.csv")
        >>> [pair.name for pair in table.pairs], table.split, [problem.file for problem in table.problems]
        (['a'], {'a': 'val'}, ['../b.tif', 'b.png'])
    """
    rows, owner = _rows(Path(path))
    folder = Path(path).parent.resolve()
    pairs: list[PairFiles] = []
    problems: list[Problem] = []
    split: dict[str, str] = {}
    together: dict[str, str] = {}
    for row in rows:
        image, mask = (_inside(folder, row[column], problems) for column in ("image", "mask"))
        if image is None or mask is None:
            continue
        name = image.relative_to(folder).with_suffix("").as_posix()
        if name in together:
            problems.append(Problem(row["image"], "another image of this name is in the table"))
            continue
        pairs.append(PairFiles(image, mask, name))
        split[name] = SPLITS[row["split"]] if "split" in row else ""
        together[name] = row[owner] if owner else name
    if "split" in rows[0] and owner:
        problems += _torn(split, together, owner)
    return Table(tuple(pairs), tuple(problems), split if "split" in rows[0] else None, together if owner else None)


def _rows(path: Path) -> tuple[list[dict[str, str]], str | None]:
    """The rows, every cell filled, and which column says whose an image is."""
    takes = "a CSV with the columns image and mask"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            head = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise invalid("path", takes, str(path), f"it cannot be read: {error}") from None
    if not rows or not {"image", "mask"} <= set(head):
        raise invalid("path", takes, str(path), f"this one has {', '.join(head) if rows else 'no rows'}")
    owners = [column for column in OWNERS if column in head]
    if len(owners) > 1:
        raise invalid("path", "a CSV with one of the columns patient and slide", str(path))
    used = [column for column in ("image", "mask", "split", *owners) if column in head]
    for number, row in enumerate(rows, start=2):
        empty = [column for column in used if not (row[column] or "").strip()]
        if empty:
            raise invalid("path", "a CSV without empty cells", str(path), f"line {number} has no {empty[0]}")
    found = [{column: row[column].strip() for column in used} for row in rows]
    wrong = sorted({row["split"] for row in found if "split" in row} - SPLITS.keys())
    if wrong:
        raise invalid("path", "a CSV whose splits are train, val or test", str(path), f"it has {wrong[0]!r}")
    return found, owners[0] if owners else None


def _inside(folder: Path, cell: str, problems: list[Problem]) -> Path | None:
    """The file that a cell names, if it is there and in the folder."""
    try:
        file = (folder / cell).resolve()
        there = file.is_file()
    except (OSError, ValueError):  # a name that the system does not take
        problems.append(Problem(cell, "no name of a file"))
        return None
    if not file.is_relative_to(folder):
        problems.append(Problem(cell, "outside the folder of the table"))
        return None
    if not there:
        problems.append(Problem(cell, "there is no such file"))
        return None
    return file


def _torn(split: Mapping[str, str], together: Mapping[str, str], owner: str) -> list[Problem]:
    """Patients that are in more than one part."""
    parts = defaultdict(set)
    for name, who in together.items():
        parts[who].add(split[name])
    return [
        Problem(f"{owner} {who}", f"is in {' and in '.join(sorted(where))}")
        for who, where in parts.items()
        if len(where) > 1
    ]

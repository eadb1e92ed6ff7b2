"""Image files and their masks: formats, folders, tables, and splits into training and validation."""

import csv
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._validate import as_int, invalid

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff", ".svs", ".ndpi", ".scn", ".qptiff", ".lsm"),
    "NPY": (".npy",),
    "WebP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
}
"""Formats of image files, and the endings of their names."""

SUFFIXES = tuple(itertools.chain.from_iterable(FORMATS.values()))
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Problem:
    """A fault of a file.

    Args:
        file: Name of the file.
        what: Description of the fault.

    Example:
        >>> from gconv_ga.images import Problem
        >>> print(Problem("a.png", "no mask of this name"))
        a.png: no mask of this name
    """

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class PairFiles:
    """An image file and its mask file.

    Args:
        image: The image file.
        mask: The mask file.
        title: Name of the pair. If empty, the name of the image file without its ending.

    Example:
        >>> from gconv_ga.images import PairFiles
        >>> from pathlib import Path
        >>> PairFiles(Path("images/a.tif"), Path("masks/a.png")).name
        'a'
    """

    image: Path
    mask: Path
    title: str = ""

    @property
    def name(self) -> str:
        """Name of the pair."""
        return self.title or self.image.stem


def find_images(path: str | Path) -> list[Path]:
    """Return the image files of a folder (`FORMATS`; without subfolders), sorted by name, or a single file.

    Args:
        path: The folder or the file.

    Raises:
        ValueError: The path does not exist, or there is no image in the folder.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import find_images
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.TIF", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     [file.name for file in find_images(folder)]
        ['a.TIF', 'b.png']
    """
    place = Path(path)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise invalid("path", "a folder of images or an image file", str(path), "there is no such file or folder")
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise invalid("path", f"a folder with images ({' '.join(SUFFIXES)})", str(path), "there are none in it")
    return files


def match_masks(images: Sequence[Path], masks: str | Path) -> tuple[list[PairFiles], list[Problem]]:
    """Pair each image with the mask of the same name; the endings may differ.

    Args:
        images: The image files.
        masks: Folder of the masks.

    Returns:
        The pairs, and the faults: images without a mask, masks without an image, files of the same name.

    Raises:
        ValueError: ``masks`` is not a folder, or there is no image in it.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import match_masks
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.png").touch()
        ...     pairs, problems = match_masks([Path("a.tif"), Path("b.tif")], folder)
        >>> [pair.name for pair in pairs], [str(problem) for problem in problems]
        (['a'], ['b.tif: no mask of this name'])
    """
    files = find_images(masks)
    problems = [*_namesakes(images, "images"), *_namesakes(files, "masks")]
    by_name, wanted = {file.stem: file for file in files}, {image.stem for image in images}
    pairs = [PairFiles(image, by_name[image.stem]) for image in images if image.stem in by_name]
    problems += [Problem(image.name, "no mask of this name") for image in images if image.stem not in by_name]
    problems += [Problem(file.name, "a mask without an image") for file in files if file.stem not in wanted]
    return pairs, problems


def _namesakes(files: Sequence[Path], kind: str) -> list[Problem]:
    """Faults: files whose names differ in the ending only."""
    counts = Counter(file.stem for file in files)
    return [
        Problem(file.name, f"one of {counts[file.stem]} {kind} of this name") for file in files if counts[file.stem] > 1
    ]


def draw_split(
    names: Sequence[str], *, share: float = 0.2, seed: int = 0, together: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Split names at random into "train" and "val", with at least one in each if there are two.

    Args:
        names: The names, in any order.
        share: Share of the names that goes to "val", from 0 up to but not including 1.
        seed: Random seed.
        together: Patient or slide of each name. Names of one patient stay in one part, so that a network is never
            validated on a patient that it was trained on; the share is then met as closely as whole patients allow. If
            None, every name stands alone.

    Raises:
        ValueError: ``share`` is out of its range, or a name has no patient.

    Example:
        >>> from gconv_ga.images import draw_split
        >>> split = draw_split(["a", "b", "c", "d", "e"])
        >>> sorted(split.values())
        ['train', 'train', 'train', 'train', 'val']
    """
    if not 0 <= share < 1:
        raise invalid("share", "from 0 up to but not including 1", share)
    missing = [name for name in names if together is not None and name not in together]
    if missing:
        raise invalid("together", "a patient or slide for every name", together, f"there is none for {missing[0]!r}")
    owner = {name: name if together is None else together[name] for name in names}
    sizes = Counter(owner.values())
    order = sorted(sizes)
    random.Random(as_int("seed", seed, minimum=0)).shuffle(order)
    wanted, held_out, count = max(1, round(share * len(names))), set[str](), 0
    for who in order[:-1] if share else ():  # the last one is for training, whatever remains
        # At least one; then those that bring the count closer to the wanted one.
        if not held_out or abs(count + sizes[who] - wanted) < abs(count - wanted):
            held_out.add(who)
            count += sizes[who]
    return {name: "val" if owner[name] in held_out else "train" for name in names}


def read_split(path: str | Path, names: Sequence[str]) -> dict[str, str]:
    r"""Read a split from a CSV with the columns ``file`` and ``split`` (train, val, test); other columns are ignored.

    Files are matched to ``names``, with or without their endings; no file outside is ever opened.

    Args:
        path: The CSV.
        names: Names that must be in it, without endings. Rows about other files are ignored.

    Raises:
        ValueError: The CSV cannot be read, lacks a column or a name, or has another word in the column split.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import read_split
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "split.csv").write_text("file,split\na.png,train\nb.png,test\n")
        ...     read_split(f"{folder}/split.csv", ["a", "b"])
        {'a': 'train', 'b': 'test'}
    """
    takes = "a CSV with the columns file and split"
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise invalid("path", takes, str(path), f"it cannot be read: {error}") from None
    if not rows or not {"file", "split"} <= rows[0].keys():
        raise invalid("path", takes, str(path), f"this one has {', '.join(rows[0]) if rows else 'no rows'}")
    words = {Path(row["file"]).stem: row["split"] for row in rows}
    missing = [name for name in names if name not in words]
    if missing:
        advice = f"it lacks {missing[0]!r}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
        raise invalid("path", "a CSV that lists every image", str(path), advice)
    wrong = sorted({str(words[name]) for name in names} - SPLITS.keys())
    if wrong:
        raise invalid("path", "a CSV whose splits are train, val or test", str(path), f"it has {wrong[0]!r}")
    return {name: SPLITS[words[name]] for name in names}


OWNERS = ("patient", "slide")


@dataclass(frozen=True)
class Table:
    """Content of a table of images and masks.

    Args:
        pairs: The files, in the order of the rows.
        problems: Faults of rows: files that do not exist or lie outside the folder of the table, images that occur
            twice, a patient in two parts of the split.
        split: "train", "val" or "test" for the name of each pair; None if the table has no such column.
        together: Patient or slide for the name of each pair; None if the table has no such column.

    Example:
        >>> from gconv_ga.images import Table
        >>> Table(pairs=(), problems=(), split=None, together=None).pairs
        ()
    """

    pairs: Sequence[PairFiles]
    problems: Sequence[Problem]
    split: Mapping[str, str] | None
    together: Mapping[str, str] | None


def read_table(path: str | Path) -> Table:
    r"""Read a CSV with the columns image and mask, and optionally split (train, val, test) and patient or slide.

    Paths are relative to the folder of the CSV. The files, with links followed, must lie inside it, so that a table
    from elsewhere cannot read other files. The name of a pair is the path of its image without the ending.

    Args:
        path: The CSV.

    Raises:
        ValueError: The CSV cannot be read, lacks a column, has no rows, both patient and slide, an empty cell, or
            another word in the column split.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import read_table
        >>> from pathlib import Path
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
            problems.append(Problem(row["image"], "another image in the table has this name"))
            continue
        pairs.append(PairFiles(image, mask, name))
        split[name] = SPLITS[row["split"]] if "split" in row else ""
        together[name] = row[owner] if owner else name
    if "split" in rows[0] and owner:
        problems += _divided(split, together, owner)
    return Table(tuple(pairs), tuple(problems), split if "split" in rows[0] else None, together if owner else None)


def _rows(path: Path) -> tuple[list[dict[str, str]], str | None]:
    """Rows without empty cells, and the column of the patient or slide, if there is one."""
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
    """File that a cell names; None, and a fault, if it does not exist or lies outside the folder."""
    try:
        file = (folder / cell).resolve()
        exists = file.is_file()
    except (OSError, ValueError):  # a name that the system refuses
        problems.append(Problem(cell, "not the name of a file"))
        return None
    if not file.is_relative_to(folder):
        problems.append(Problem(cell, "outside the folder of the table"))
        return None
    if not exists:
        problems.append(Problem(cell, "there is no such file"))
        return None
    return file


def _divided(split: Mapping[str, str], together: Mapping[str, str], owner: str) -> list[Problem]:
    """Faults: patients in more than one part."""
    parts = defaultdict(set)
    for name, who in together.items():
        parts[who].add(split[name])
    return [
        Problem(f"{owner} {who}", f"is in {' and in '.join(sorted(where))}")
        for who, where in parts.items()
        if len(where) > 1
    ]

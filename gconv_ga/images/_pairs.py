"""Image files and their masks: formats, folders, tables, and splits into training and validation."""

import itertools
import os
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .._validate import as_int, invalid
from ._rows import read_rows

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

OPENSLIDE = (".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide")  # read by OpenSlide, as slides
ZARR = ".zarr"  # of a folder
ZARR_GROUP = (".zgroup", "zarr.json")  # files in it, and in the folder of an image inside it
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
        title: Name of the pair. If empty, the name of the image file without its ending, with composed letters (NFC).

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
        return self.title or composed(self.image.stem)


def composed(name: str) -> str:
    """Return a name with composed letters (NFC): a file from a Mac may write "ü" as a "u" and two dots."""
    return unicodedata.normalize("NFC", name)


def find_images(
    path: str | Path, *, recursive: bool = False, slides: bool = False, note: Callable[[str], Any] | None = None
) -> list[Path]:
    """Return the image files of a folder (`FORMATS`), sorted by name, or a single file.

    Hidden files, such as ``._a.png`` that macOS writes, and files with other endings are left out. A link that leads
    nowhere is not: it is a fault of a file.

    Args:
        path: The folder or the file.
        recursive: Whether to go through the folders in it too; links to folders are followed.
        slides: Whether to look for formats of whole slides only too, such as MRXS, and for folders of OME-Zarr.
        note: Called with a line about what is left out, if anything is.

    Raises:
        ValueError: The path does not exist or cannot be read, or there is no image in the folder.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import find_images
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.TIF", "notes.txt", "._b.png"):
        ...         Path(folder, name).touch()
        ...     lines = []
        ...     [file.name for file in find_images(folder, note=lines.append)], lines[0].removeprefix(folder)
        (['a.TIF', 'b.png'], ': 2 left out: 1 .txt, 1 hidden')
    """
    place = Path(path)
    if place.is_file() or (slides and is_zarr(place)):
        return [place]
    if not place.is_dir():
        raise invalid("path", "a folder of images or an image file", str(path), "there is no such file or folder")
    try:
        files, left_out = _listing(place, recursive=recursive, slides=slides)
    except OSError as error:
        raise invalid("path", "a folder that can be read", str(path), f"the system says: {error}") from None
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    if not files:
        advice = "there are none in it" + (f", but {counts}" if counts else "")
        raise invalid("path", f"a folder with images ({' '.join(SUFFIXES)})", str(path), advice)
    if counts and note is not None:
        note(f"{path}: {left_out.total()} left out: {counts}")
    return sorted(files)


def is_zarr(place: Path) -> bool:
    """Return True for the folder of an OME-Zarr, and for that of an image inside it, which may have any name."""
    return place.is_dir() and (place.suffix.lower() == ZARR or any((place / name).is_file() for name in ZARR_GROUP))


def _listing(folder: Path, *, recursive: bool, slides: bool) -> tuple[list[Path], Counter[str]]:
    """Image files of a folder, and the number of other entries of each kind."""
    suffixes = (*SUFFIXES, *OPENSLIDE) if slides else SUFFIXES
    files, left_out = [], Counter[str]()
    waiting, seen = [folder], set[Path]()
    while waiting:
        place = waiting.pop()
        if place.resolve() in seen:  # a link that leads back up
            continue
        seen.add(place.resolve())
        for entry in place.iterdir():
            suffix = entry.suffix.lower()
            if entry.name.startswith("."):
                left_out["hidden"] += 1
            elif slides and is_zarr(entry):
                files.append(entry)
            elif entry.is_dir():
                waiting += [entry] if recursive else []
                left_out["in folders (see --recursive)"] += 0 if recursive else _count(entry)
            elif suffix not in suffixes:
                left_out[suffix or "without an ending"] += 1
            elif entry.exists() and not entry.is_file():
                left_out["no files"] += 1
            else:
                files.append(entry)
    return files, +left_out


def _count(folder: Path) -> int:
    """Number of images in a folder that is left out."""
    try:
        return sum(entry.suffix.lower() in SUFFIXES and entry.name[:1] != "." for entry in folder.iterdir())
    except OSError:
        return 0


def match_masks(
    images: Sequence[Path],
    masks: str | Path,
    *,
    suffix: str = "",
    root: str | Path | None = None,
    note: Callable[[str], Any] | None = None,
) -> tuple[list[PairFiles], list[Problem]]:
    """Pair each image with the mask of the same name; the endings may differ, and so may the forms of letters (NFC).

    Args:
        images: The image files.
        masks: Folder of the masks. It may be that of the images if there is a suffix.
        suffix: What the name of a mask has beyond that of its image, such as "_mask" for ``a.tif`` and ``a_mask.png``.
        root: Folder of the images, if they lie in folders of it: names are then paths relative to it, and masks are
            looked for in the folders of ``masks`` too.
        note: As for `find_images`.

    Returns:
        The pairs, and the faults: images without a mask, masks without an image, files of the same name.

    Raises:
        ValueError: ``masks`` is not a folder, or there is no image in it.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import match_masks
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a_mask.png").touch()
        ...     pairs, problems = match_masks([Path("a.tif"), Path("b.tif")], folder, suffix="_mask")
        >>> [pair.name for pair in pairs], [str(problem) for problem in problems]
        (['a'], ['b.tif: no mask of this name'])
    """
    files = find_images(masks, recursive=root is not None, note=note)
    ending = composed(suffix)
    names = {file: name_in(file, None if root is None else masks) for file in files}
    found = {file: name.removesuffix(ending) for file, name in names.items() if name.endswith(ending)}
    wanted = {image: name_in(image, root) for image in images}
    if ending:  # where images and masks lie in one folder
        places = {file.resolve() for file in found}
        wanted = {image: name for image, name in wanted.items() if image.resolve() not in places}
    problems = [*_namesakes(wanted, "images"), *_namesakes(found, "masks")]
    by_name, there = {name: file for file, name in found.items()}, set(wanted.values())
    pairs = [
        PairFiles(image, by_name[name], "" if root is None else name)
        for image, name in wanted.items()
        if name in by_name
    ]
    problems += [Problem(image.name, "no mask of this name") for image, name in wanted.items() if name not in by_name]
    problems += [Problem(file.name, "a mask without an image") for file, name in found.items() if name not in there]
    own = {image.resolve() for image in images} if len(found) < len(files) else set()
    problems += [
        Problem(file.name, f"a mask whose name does not end in {suffix}")
        for file in files
        if file not in found and file.resolve() not in own
    ]
    return pairs, problems


def name_in(file: Path, root: str | Path | None) -> str:
    """Return the name of a file without its ending, as a path relative to ``root`` if there is one."""
    return composed(file.stem if root is None else file.relative_to(root).with_suffix("").as_posix())


def _namesakes(names: Mapping[Path, str], kind: str) -> list[Problem]:
    """Faults: files whose names differ in the ending or the form of letters only."""
    counts = Counter(names.values())
    return [
        Problem(file.name, f"one of {counts[name]} {kind} of this name")
        for file, name in names.items()
        if counts[name] > 1
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


def read_split(path: str | Path, names: Sequence[str], *, note: Callable[[str], Any] | None = None) -> dict[str, str]:
    r"""Read a split from a CSV with the columns ``file`` and ``split`` (train, val, test); other columns are ignored.

    Files are matched to ``names``, with or without their endings and folders; no file outside is ever opened.

    Args:
        path: The CSV, as spreadsheets write it: comma, semicolon or tab, with or without a byte order mark.
        names: Names that must be in it, without endings. Rows about other files are ignored.
        note: Called with a line about the rows of other files, if there are any.

    Raises:
        ValueError: The CSV cannot be read, lacks a column or a name, has another word in the column split, or two rows
            put one image into different parts.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import read_split
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "split.csv").write_text("file,split\na.png,train\nb.png,test\n")
        ...     read_split(f"{folder}/split.csv", ["a", "b"])
        {'a': 'train', 'b': 'test'}
    """
    known = {composed(name): name for name in names}
    split: dict[str, str] = {}
    lines: dict[str, int] = {}
    others = []
    for line, row in read_rows(path, ("file", "split")):
        name = _known_name(row["file"], known)
        if name is None:
            others.append(row["file"])
            continue
        part = SPLITS.get(row["split"].casefold())
        if part is None:
            raise invalid("path", "a CSV whose splits are train, val or test", str(path), f"it has {row['split']!r}")
        if split.setdefault(name, part) != part:
            advice = f"line {lines[name]} puts {name!r} into {split[name]}, line {line} ({row['file']!r}) into {part}"
            raise invalid("path", "a CSV that puts each image into one part", str(path), advice)
        lines.setdefault(name, line)
    missing = [name for name in names if name not in split]
    if missing:
        advice = f"it lacks {missing[0]!r}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
        raise invalid("path", "a CSV that lists every image", str(path), advice)
    if others and note is not None:
        note(f"{path}: {len(others)} of its rows are about other files, such as {others[0]!r}")
    return {name: split[name] for name in names}


def _known_name(cell: str, known: Mapping[str, str]) -> str | None:
    """Name that a cell means, which may have an ending and a folder; None if it means none of the known ones."""
    path = PurePosixPath(composed(cell.replace("\\", "/")))
    forms = (str(path), str(path.parent / path.stem), path.name, path.stem)
    return next((known[form] for form in forms if form in known), None)


OWNERS = ("patient", "slide")


@dataclass(frozen=True)
class Table:
    """Content of a table of images and masks.

    Args:
        pairs: The files, in the order of the rows.
        problems: Faults of rows: files that do not exist, paths that lead out of the folder of the table, images that
            occur twice, a patient in two parts of the split.
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

    Paths are relative to the folder of the CSV and must not lead out of it, so that a table from elsewhere cannot read
    other files; links are followed wherever they lead. The name of a pair is the path of its image without the ending.

    Args:
        path: The CSV, as for `read_split`.

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
    rows, owner = _rows(path)
    folder = Path(path).parent.absolute()
    pairs: list[PairFiles] = []
    problems: list[Problem] = []
    split: dict[str, str] = {}
    together: dict[str, str] = {}
    for row in rows:
        image, mask = (_inside(folder, row[column], problems) for column in ("image", "mask"))
        if image is None or mask is None:
            continue
        name = name_in(image, folder)
        if name in together:
            problems.append(Problem(row["image"], "another image in the table has this name"))
            continue
        pairs.append(PairFiles(image, mask, name))
        split[name] = row.get("split", "")
        together[name] = row[owner] if owner else name
    if "split" in rows[0] and owner:
        problems += _divided(split, together, owner)
    return Table(tuple(pairs), tuple(problems), split if "split" in rows[0] else None, together if owner else None)


def _rows(path: str | Path) -> tuple[list[dict[str, str]], str | None]:
    """Rows, and the column of the patient or slide, if there is one."""
    rows = [row.cells for row in read_rows(path, ("image", "mask"), ("split", *OWNERS))]
    owners = [column for column in OWNERS if column in rows[0]]
    if len(owners) > 1:
        raise invalid("path", "a CSV with one of the columns patient and slide", str(path))
    for row in rows:
        if "split" in row:
            word = row["split"]
            row["split"] = SPLITS.get(word.casefold(), "")
            if not row["split"]:
                raise invalid("path", "a CSV whose splits are train, val or test", str(path), f"it has {word!r}")
    return rows, owners[0] if owners else None


def _inside(folder: Path, cell: str, problems: list[Problem]) -> Path | None:
    """File that a cell names; None, and a fault, if it does not exist or its path leads out of the folder."""
    # Of "..", not of links: those the user has made.
    path = Path(os.path.normpath(folder / (cell if "/" in cell else cell.replace("\\", "/"))))
    if path.is_relative_to(folder.resolve()):
        path = folder / path.relative_to(folder.resolve())
    if not path.is_relative_to(folder):
        advice = "put the table into a folder above all of its files"
        problems.append(Problem(cell, f"outside the folder of the table; {advice}"))
        return None
    try:
        file = _present(folder, path.relative_to(folder))
        exists = file is not None and file.is_file()
    except (OSError, ValueError):  # a name that the system refuses
        problems.append(Problem(cell, "not the name of a file"))
        return None
    if not exists:
        problems.append(Problem(cell, "there is no such file" if file is None else lost_link(file) or "not a file"))
        return None
    return file


def _present(folder: Path, path: Path) -> Path | None:
    """File or folder of a path, whose names may have letters in another form (NFC, NFD); None if there is none."""
    for part in path.parts:
        if not os.path.lexists(folder / part):
            same = [entry for entry in folder.iterdir() if composed(entry.name) == composed(part)]
            if not same:
                return None
            part = same[0].name
        folder = folder / part
    return folder


def lost_link(file: Path) -> str | None:
    """Return the fault of a link that leads nowhere; None for other files."""
    return f"a link to {file.readlink()}, which is not there" if file.is_symlink() and not file.exists() else None


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

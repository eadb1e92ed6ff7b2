"""Folders of images and of masks: which files there are, and which belong together."""

import csv
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._validate import as_int, invalid
from ._open_raster import SUFFIXES

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file.

    Args:
        file: Its name.
        what: What is wrong.

    Example:
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
        title: What the pair is called; empty for the name of the image file without its ending.

    Example:
        >>> from pathlib import Path
        >>> PairFiles(Path("images/a.tif"), Path("masks/a.png")).name
        'a'
    """

    image: Path
    mask: Path
    title: str = ""

    @property
    def name(self) -> str:
        """What the pair is called."""
        return self.title or self.image.stem


def find_images(path: str | Path) -> list[Path]:
    """The image files of a folder (PNG, JPEG, TIFF, NPY; not of its subfolders), sorted by name; or a single file.

    Args:
        path: The folder or the file.

    Raises:
        ValueError: There is nothing of that name, or no image in the folder.

    Example:
        >>> import tempfile
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
        raise invalid("path", "a folder of images or an image file", str(path), "there is nothing of that name")
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise invalid("path", f"a folder with images ({' '.join(SUFFIXES)})", str(path), "there are none in it")
    return files


def match_masks(images: Sequence[Path], masks: str | Path) -> tuple[list[PairFiles], list[Problem]]:
    """Pairs each image with the mask of the same name; the endings may differ.

    Args:
        images: The image files.
        masks: The folder of masks.

    Returns:
        The pairs, and what is wrong: images without a mask, masks without an image, two files of one name.

    Raises:
        ValueError: ``masks`` is no folder, or there is no image in it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.png").touch()
        ...     pairs, problems = match_masks([Path("a.tif"), Path("b.tif")], folder)
        >>> [pair.name for pair in pairs], [str(problem) for problem in problems]
        (['a'], ['b.tif: no mask of this name'])
    """
    files = find_images(masks)
    problems = [*_twins(images, "images"), *_twins(files, "masks")]
    there, wanted = {file.stem: file for file in files}, {image.stem for image in images}
    pairs = [PairFiles(image, there[image.stem]) for image in images if image.stem in there]
    problems += [Problem(image.name, "no mask of this name") for image in images if image.stem not in there]
    problems += [Problem(file.name, "a mask without an image") for file in files if file.stem not in wanted]
    return pairs, problems


def _twins(files: Sequence[Path], kind: str) -> list[Problem]:
    """Files of one name that differ in the ending only."""
    counts = Counter(file.stem for file in files)
    return [
        Problem(file.name, f"one of {counts[file.stem]} {kind} of this name") for file in files if counts[file.stem] > 1
    ]


def draw_split(
    names: Sequence[str], *, share: float = 0.2, seed: int = 0, together: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Splits names at random into "train" and "val"; at least one is in each, if there are two.

    Args:
        names: The names; their order does not matter.
        share: Of them that go to "val", from 0 up to but not including 1.
        seed: Of the draw.
        together: For each name the patient or slide that it is of: those of one stay in one part, so that a network is
            never validated on a patient it was trained on. The share of names is then met as nearly as whole patients
            allow; None where every name stands alone.

    Raises:
        ValueError: ``share`` is no such share, or a name belongs to no patient.

    Example:
        >>> split = draw_split(["a", "b", "c", "d", "e"])
        >>> sorted(split.values())
        ['train', 'train', 'train', 'train', 'val']
    """
    if not 0 <= share < 1:
        raise invalid("share", "from 0 up to but not including 1", share)
    lacking = [name for name in names if together is not None and name not in together]
    if lacking:
        raise invalid("together", "a patient or slide for every name", together, f"there is none for {lacking[0]!r}")
    owner = {name: name if together is None else together[name] for name in names}
    sizes = Counter(owner.values())
    order = sorted(sizes)
    random.Random(as_int("seed", seed, minimum=0)).shuffle(order)
    wanted, held, there = max(1, round(share * len(names))), set[str](), 0
    for who in order[:-1] if share else ():  # the last one is for training, whatever is left over
        # At least one; then as many as come nearer to what is wanted.
        if not held or abs(there + sizes[who] - wanted) < abs(there - wanted):
            held.add(who)
            there += sizes[who]
    return {name: "val" if owner[name] in held else "train" for name in names}


def read_split(path: str | Path, names: Sequence[str]) -> dict[str, str]:
    r"""Reads a split from a CSV with the columns ``file`` and ``split`` (train, val, test); other columns are ignored.

    Files are looked up among ``names``, with their ending or without; nothing outside is ever opened.

    Args:
        path: The CSV.
        names: The names that must be in it, without their endings. Rows about other files are ignored.

    Raises:
        ValueError: It cannot be read, lacks a column, has another word under ``split``, or lacks a name.

    Example:
        >>> import tempfile
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
    lacking = [name for name in names if name not in words]
    if lacking:
        advice = f"it says nothing of {lacking[0]!r}" + (f" and {len(lacking) - 1} more" if lacking[1:] else "")
        raise invalid("path", "a CSV that lists every image", str(path), advice)
    wrong = sorted({str(words[name]) for name in names} - SPLITS.keys())
    if wrong:
        raise invalid("path", "a CSV whose splits are train, val or test", str(path), f"it has {wrong[0]!r}")
    return {name: SPLITS[words[name]] for name in names}

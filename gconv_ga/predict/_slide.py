"""Prediction of whole slides: in units that are done once, in any order and by any process, and kept on disk."""

import itertools
import json
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._files import growing, remove_unfinished, write_atomically
from .._validate import as_int
from ..groups import Group
from ..images import Normalization, Reading, SlideImage
from ._objects import ObjectFiles, classes_of, network_for
from ._predictions import WEIGHT, class_colors, growing_png
from ._pyramid import paste, write_pyramid
from ._tiles import evaluating, finite
from ._tissue import Tissue, darkened, find_tissue, shown, tiles_with_tissue

if TYPE_CHECKING:
    from ._slide_objects import SlideObjects

UNIT = 1536  # side of a unit in pixels, about
OPEN = 10  # units whose results are held in memory
ENDING = ".ome.tif"


class Span(NamedTuple):
    """A tile along one axis.

    Args:
        start: First pixel whose class it decides.
        stop: The one after the last of those.
        first: First pixel that the network sees.
        last: The one after the last of those.
    """

    start: int
    stop: int
    first: int
    last: int


def spans(size: int, tile: int) -> list[Span]:
    """Cut an axis into tiles, each of which decides about its own pixels and sees those around them.

    Reversed, the axis is cut at the same places: pixels of a rotated slide are decided by the rotated tile. A tile sees
    an eighth of its length or more beyond its own pixels, except at the end of the axis. All are ``tile`` long; the one
    in the middle has a pixel less where the parity of ``size`` asks for it. An axis of up to ``tile`` pixels is one.

    Args:
        size: Number of pixels.
        tile: Length of a tile.
    """
    if size <= tile:
        return [Span(0, size, 0, size)]
    halo = tile // 8
    count = max(2, -(-(size - 2 * halo) // (tile - 2 * halo)))
    while True:
        # The middle of an odd axis is a pixel, which one tile must have in its middle.
        count += size % 2 and count % 2 == 0
        middle = tile - (size - tile) % 2 if count % 2 else 0
        span = size - tile
        near = [-(-place * span // (count - 1)) for place in range(count // 2)]
        windows = [(start, start + tile) for start in near]
        windows += [((size - middle) // 2, (size + middle) // 2)] if middle else []
        windows += [(size - start - tile, size - start) for start in reversed(near)]
        if all(one[1] - other[0] >= 2 * halo for one, other in itertools.pairwise(windows)):
            break
        count += 1
    # Between two tiles in the middle of what both see, rounded to the middle of the axis.
    half = [
        min((windows[place][1] + windows[place + 1][0] + 1) // 2, (size - 1) // 2) for place in range((count - 1) // 2)
    ]
    cuts = half + ([size // 2] if count % 2 == 0 else []) + [size - cut for cut in reversed(half)]
    return [Span(*own, *seen) for own, seen in zip(zip([0, *cuts], [*cuts, size], strict=True), windows, strict=True)]


class Unit(NamedTuple):
    """A block of tiles, which is predicted at once.

    Args:
        number: Number by which it is known on disk.
        rows: Its rows of tiles.
        columns: Its columns of tiles.
    """

    number: int
    rows: range
    columns: range


class Phase:
    """Units of one kind, all of which are done before the next phase begins. Any process may do any unit.

    Args:
        name: What the units find.
        units: Number of tiles of each unit.
        result: Function that returns the file of the result of a unit; it exists only when it is complete.
        work: Function that does a unit and writes that file.

    Example:
        >>> from pathlib import Path
        >>> from gconv_ga.predict import Phase
        >>> phase = Phase("classes", {3: 64, 5: 12}, lambda unit: Path(f"missing-{unit}"), print)
        >>> phase.waiting(), phase.total, phase.run(5)
        5
        ([3, 5], 76, 12)
    """

    def __init__(
        self, name: str, units: Mapping[int, int], result: Callable[[int], Path], work: Callable[[int], Any]
    ) -> None:
        self.name = name
        self.units = units
        self._result, self._work = result, work

    @property
    def total(self) -> int:
        """Number of tiles of all units."""
        return sum(self.units.values())

    def waiting(self) -> list[int]:
        """Return the units that are not done."""
        return [unit for unit in self.units if not self._result(unit).exists()]

    def run(self, unit: int) -> int:
        """Do a unit and return the number of its tiles.

        Args:
            unit: Number of the unit.

        Raises:
            ValueError: As for `SlideJob`.
            OSError: The disk is full.
        """
        self._work(unit)
        return self.units[unit]


class SlideJob:
    """The prediction of one slide, in units that are done once, in any order, and by any number of processes.

    A tile decides about the pixels that are its own and sees some around them; its result depends on nothing else. The
    tiles are placed symmetrically, and with ``group`` the network sees a tile and its rotated copies in one
    orientation: the classes of a slide that is rotated by 90 degrees or reflected by an element of the group are the
    rotated or reflected classes, to the last pixel. Without it, so they are if the network is equivariant: a tile in
    which two classes are equal up to the rounding of float32 at some pixel is computed again in float64. Tiles without
    tissue are skipped; their class is 0.

    The result of a unit, a block of tiles of about 1536 x 1536 pixels, is a file in the folder ``NAME.parts`` beside
    the prediction, which exists only when it is complete: after an interruption, what is there is not done again. Once
    all units are done, `finish` writes the prediction and removes the folder.

    Args:
        model: Module that returns logits.
        image: Slide at the resolution of the prediction.
        path: The prediction, ``NAME.ome.tif``.
        normalization: Normalization of the training. If None, the network takes the units of the file.
        reading: How files are read, with the number type of the training images. If None, any type is read.
        tile: Side of a tile in pixels.
        device: Device of the network.
        group: Group under which the network is equivariant. If None, it is not known.
        everything: Whether tiles without tissue are predicted too.
        names: Names of the classes by index.
        colors: Red, green and blue of each class. If None, black for class 0 and a palette for the others.
        objects: Rules by which objects are found, too. They are written as ``NAME_objects.csv``,
            ``NAME_objects.geojson`` and, if asked for and no side of the slide is above 60534 pixels, as
            ``NAME_rois.zip``, in pixels of the finest level and in micrometres; and as ``NAME_objects.ome.tif``, the
            number of the object of each pixel of the prediction. If None, they are not looked for. Regions of touching
            objects that are longer than 2048 pixels along a side are left out, except by the method "flow".

    Attributes:
        path: The prediction.
        phases: Units of tiles that have tissue.
        too_large: Number of units with a region that is too large, once `finish` has written the objects.

    Raises:
        ValueError: The slide is damaged, or not as the training images are; ``tile`` is below 8; the network's output
            is not finite; the rules need maps that the network does not predict, or a file about objects is asked for
            that the slide cannot have.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import tifffile
        >>> import torch
        >>> from gconv_ga.images import Slide
        >>> from gconv_ga.predict import SlideJob
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tifffile.imwrite(f"{folder}/a.tif", np.zeros((70, 45), np.uint8))
        ...     image = Slide(f"{folder}/a.tif").at(level=0)
        ...     job = SlideJob(torch.nn.Conv2d(1, 3, 1), image, f"{folder}/b.ome.tif", tile=32)
        ...     for phase in job.phases:
        ...         for unit in phase.waiting():
        ...             count = phase.run(unit)
        ...     tifffile.imread(job.finish()).shape
        (70, 45)
    """

    def __init__(
        self,
        model: nn.Module,
        image: SlideImage,
        path: str | Path,
        *,
        normalization: Normalization | None = None,
        reading: Reading | None = None,
        tile: int = 256,
        device: str | torch.device = "cpu",
        group: Group | str | None = None,
        everything: bool = False,
        names: Sequence[str] | None = None,
        colors: Sequence[Sequence[int]] | None = None,
        objects: ObjectFiles | None = None,
    ) -> None:
        self.model, self.image, self.path = model, image, Path(path)
        self.device, self.names, self.colors = device, names, colors
        side = as_int("tile", tile, minimum=8)
        self.file = image.normalized(normalization, reading)
        self.network, self._extra = network_for(model, None if objects is None else objects.decoder, group)
        self.objects = None if objects is None else self._object_rules(objects)
        self.too_large = 0
        self._map: ClassMap | None = None
        self.folder = self.path.with_name(f"{self.name}.parts")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tissue = self._tissue(everything=everything)
        self.file.scale_by(self._brightness())
        self.rows, self.columns = (spans(size, side) for size in image.shape[1:])
        self.wanted = tiles_with_tissue(
            self.tissue.mask, image.shape[1:], *([span[:2] for span in axis] for axis in (self.rows, self.columns))
        )
        self.step = max(1, UNIT // (side - side // 4))
        self.units = {unit.number: unit for unit in self._blocks() if self._count(unit)}
        counts = {number: self._count(unit) for number, unit in self.units.items()}
        self.phases = [Phase("classes", counts, self.result, self._predict)]
        if self.objects is not None:
            self.phases.append(Phase("objects", counts, self.objects_of, self._find_objects))

    @property
    def name(self) -> str:
        """Name of the prediction without its ending."""
        return self.path.name.removesuffix(ENDING)

    def _object_rules(self, objects: ObjectFiles) -> "SlideObjects":
        from ._slide_objects import SlideObjects  # loads scikit-image

        files = objects if objects.names is not None else replace(objects, names=self.names)
        return SlideObjects(self.image, files, self._window, self.file.unnormalized())

    def _blocks(self) -> Iterator[Unit]:
        """All units, those without tissue too."""
        number = 0
        for top in range(0, len(self.rows), self.step):
            for left in range(0, len(self.columns), self.step):
                ends = min(top + self.step, len(self.rows)), min(left + self.step, len(self.columns))
                yield Unit(number, range(top, ends[0]), range(left, ends[1]))
                number += 1

    def _count(self, unit: Unit) -> int:
        """Number of tiles with tissue in a unit."""
        return int(self.wanted[unit.rows.start : unit.rows.stop, unit.columns.start : unit.columns.stop].sum())

    def _tissue(self, *, everything: bool) -> Tissue:
        """Find the tissue, once: a slide without a coarse level is read as a whole for it."""
        kept = self.folder / "tissue.npz"
        if kept.exists():
            with np.load(kept) as arrays:
                view, mask = (torch.from_numpy(arrays[name]) for name in ("view", "mask"))
                threshold = float(arrays["threshold"])
            return Tissue(view, mask, threshold if threshold >= 0 else None)
        tissue = find_tissue(self.image, everything=everything)
        picture = darkened(shown(tissue.view), tissue.mask)
        with growing_png(self.path.with_name(f"{self.name}_tissue.png"), *picture.shape[:2]) as add:
            add(picture)
        threshold = -1.0 if tissue.threshold is None else tissue.threshold
        with growing(kept) as file:
            np.savez(file, view=tissue.view.numpy(), mask=tissue.mask.numpy(), threshold=np.float64(threshold))
        return tissue

    def _brightness(self) -> Tensor | None:
        """Return the brightness that the slide is scaled by, for which it is read as a whole, once."""
        kept = self.folder / "brightness.json"
        if kept.exists():
            return torch.tensor(json.loads(kept.read_text()), dtype=torch.float32)
        level = self.file.level()
        if level is not None:
            write_atomically(kept, json.dumps(level.tolist()).encode())
        return level

    def result(self, number: int) -> Path:
        """Return the file of the classes of a unit.

        Args:
            number: Number of the unit.
        """
        return self.folder / f"classes-{number:06}.npz"

    def _predict(self, number: int) -> None:
        """Predict the tiles of a unit and keep the result."""
        unit = self.units[number]
        places = [(row, column) for row in unit.rows for column in unit.columns if self.wanted[row, column]]
        tiles = [(self.rows[row], self.columns[column]) for row, column in places]
        top, left = (min(tile[axis].first for tile in tiles) for axis in (0, 1))
        bottom, right = (max(tile[axis].last for tile in tiles) for axis in (0, 1))
        pixels = self.file.window(top, left, bottom - top, right - left)
        origin = self.rows[unit.rows.start].start, self.columns[unit.columns.start].start
        size = self.rows[unit.rows[-1]].stop - origin[0], self.columns[unit.columns[-1]].stop - origin[1]
        classes = np.zeros(size, np.uint8)
        probability = np.zeros(size if self.objects is not None else (0, 0), np.uint8)
        kept = self.maps_like(size)
        with torch.no_grad(), evaluating(self.network.to(self.device)):
            for down, across in tiles:
                x = pixels[:, down.first - top : down.last - top, across.first - left : across.last - left]
                own = (slice(down.start - down.first, down.stop - down.first),
                       slice(across.start - across.first, across.stop - across.first))  # fmt: skip
                output = finite(self.network(x[None].to(self.device))[0][:, own[0], own[1]], "image")
                logits, maps = output.split((len(output) - self._extra, self._extra))
                if len(logits) > 256 and classes.dtype == np.uint8:
                    classes = classes.astype(np.uint16)
                place = down.start - origin[0], across.start - origin[1]
                found, likely = (values.cpu().numpy() for values in classes_of(logits))
                paste(classes, found.astype(classes.dtype), *place)
                if self.objects is not None:
                    paste(probability, np.rint(255 * likely).astype(np.uint8), *place)
                    if self.objects.maps is not None:
                        paste(kept, self.objects.maps.pack(maps.cpu().numpy()), *place)
        with growing(self.result(number)) as file:
            # Of the maps no more than what lies on objects: most of a slide is none.
            np.savez_compressed(file, classes=classes, probability=probability, maps=kept[:, classes > 0])

    def maps_like(self, size: tuple[int, int]) -> NDArray[Any]:
        """Return zeros for what is kept of the predicted maps, ``[channels, *size]``; no channels if nothing is."""
        maps = None if self.objects is None else self.objects.maps
        if maps is None:
            return np.zeros((0, *size), np.uint8)
        return np.zeros((maps.channels.stop - maps.channels.start, *size), maps.dtype)

    def objects_of(self, number: int) -> Path:
        """Return the file of the objects of a unit.

        Args:
            number: Number of the unit.
        """
        return self.folder / f"objects-{number:06}.json"

    def _find_objects(self, number: int) -> None:
        """Find the objects of a unit and keep them."""
        from ._slide_objects import keep_objects

        assert self.objects is not None
        unit = self.units[number]
        first, last = (self.rows[unit.rows[0]], self.columns[unit.columns[0]]), (
            self.rows[unit.rows[-1]], self.columns[unit.columns[-1]])  # fmt: skip
        core = first[0].start, first[1].start, last[0].stop, last[1].stop
        keep_objects(self.objects_of(number), self.objects.find(core, self.colors))

    def _window(self, top: int, left: int, height: int, width: int, name: str) -> NDArray[Any]:
        """Return a window of the classes, their probabilities or the maps, once the units around it are done."""
        if self._map is None:
            self._map = ClassMap(self)
        return self._map.window(top, left, height, width, name)

    def finish(self) -> Path:
        """Write the prediction of a slide whose units are all done, and remove their results.

        Beside ``NAME.ome.tif`` this is ``NAME_preview.png``, the classes on a small view of the slide.

        Returns:
            The path of the prediction.

        Raises:
            OSError: The disk is full.
        """
        if self.objects is not None:
            results = [self.objects_of(number) for number in self.units]
            self.too_large = self.objects.write(results, self.path.with_name(self.name))
        classes = ClassMap(self)
        write_pyramid(
            self.path, self.image.shape[1:], classes.window, classes.dtype, names=self.names,
            pixel_size=self.image.pixel_size, preview=self._write_preview,
        )  # fmt: skip
        shutil.rmtree(self.folder)
        return self.path

    def _write_preview(self, classes: NDArray[Any]) -> None:
        """Write the coarsest level of the classes over the small view of the slide."""
        height, width = classes.shape
        view = shown(self.tissue.view)
        rows, columns = (
            np.arange(side) * large // side for side, large in zip((height, width), view.shape, strict=False)
        )
        picture = view[np.ix_(rows, columns)]
        paint = class_colors(int(classes.max(initial=0)) + 1, self.colors)[classes]
        mixed = np.rint(picture * (1 - WEIGHT) + paint * WEIGHT).astype(np.uint8)
        with growing_png(self.path.with_name(f"{self.name}_preview.png"), height, width) as add:
            add(np.where(classes[..., None] > 0, mixed, picture))


class ClassMap:
    """What the units of a slide have predicted, read by window; only some units are held in memory.

    Args:
        job: Prediction whose units are done.
    """

    def __init__(self, job: SlideJob) -> None:
        self._units = {(unit.rows.start, unit.columns.start): unit for unit in job.units.values()}
        self._starts = [[span.start for span in axis[:: job.step]] for axis in (job.rows, job.columns)]
        self._step = job.step
        self._maps_like = job.maps_like
        self.arrays = lru_cache(maxsize=OPEN)(lambda number: _load(job.result(number)))
        self.dtype: type[np.unsignedinteger[Any]] = np.uint8
        if job.units and self.arrays(next(iter(job.units)))["classes"].dtype == np.uint16:
            self.dtype = np.uint16

    def window(self, top: int, left: int, height: int, width: int, name: str = "classes") -> NDArray[Any]:
        """Return the values of a window; 0 where no unit has tissue.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.
            name: The values that are wanted: "classes", "probability" or "maps".

        Shape:
            - output: ``[height, width]``; maps: ``[channels, height, width]``
        """
        part = np.zeros((height, width), self.dtype if name == "classes" else np.uint8)
        if name == "maps":
            part = self._maps_like((height, width))
        reach = [
            range(bisect_right(starts, begin) - 1, bisect_right(starts, begin + length - 1))
            for starts, begin, length in zip(self._starts, (top, left), (height, width), strict=True)
        ]
        for row in reach[0]:
            for column in reach[1]:
                unit = self._units.get((row * self._step, column * self._step))
                if unit is not None:
                    arrays = self.arrays(unit.number)
                    values = arrays[name]
                    if name == "maps":
                        values = self._maps_like(arrays["classes"].shape)
                        values[:, arrays["classes"] > 0] = arrays[name]
                    paste(part, values, self._starts[0][row] - top, self._starts[1][column] - left)
        return part


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def predict_slide(job: SlideJob, *, progress: Callable[[int, int], Any] | None = None) -> Path:
    """Predict a slide in this process: do the units that are missing, and write the files.

    Args:
        job: Prediction.
        progress: Called after each unit with the number of tiles done in its phase and their total.

    Returns:
        The path of the prediction.

    Raises:
        ValueError: As for `SlideJob`.
        OSError: The disk is full.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import tifffile
        >>> import torch
        >>> from gconv_ga.images import Slide
        >>> from gconv_ga.predict import SlideJob, predict_slide
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tifffile.imwrite(f"{folder}/a.tif", np.zeros((70, 45), np.uint8))
        ...     image = Slide(f"{folder}/a.tif").at(level=0)
        ...     job = SlideJob(torch.nn.Conv2d(1, 3, 1), image, f"{folder}/b.ome.tif", tile=32)
        ...     predict_slide(job).name
        'b.ome.tif'
    """
    remove_unfinished(job.folder)
    for phase in job.phases:
        waiting = phase.waiting()
        done = phase.total - sum(phase.units[unit] for unit in waiting)
        for unit in waiting:
            done += phase.run(unit)
            if progress is not None:
                progress(done, phase.total)
    return job.finish()

"""Scores of the images of ``gconv-ga evaluate``, in one process or in several."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from .._files import printable
from .._journal import Journal, source_stamp
from ..groups import DihedralGroup

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluate import ImageObjects, ImageScores
    from ..images import MaskEncoding, MaskFile, PairDataset, PairFiles, Problem, Reading
    from ..segmenter import Checkpoint, Team


class Scorer:
    """Scores of single images, which several processes may compute.

    Args:
        runs: Networks to score, by role.
        pairs: Images with their masks.
        true: True objects of each image, if they are to be scored.
        encoding: Encoding of the masks. In a process beside the main one the values of the classes are those that come
            with each image.
        readings: How each network reads the files, by role.
        options: Arguments of `evaluate_image`.
    """

    def __init__(
        self,
        runs: "dict[str, Checkpoint]",
        pairs: Sequence["PairFiles"],
        true: Sequence["MaskFile"] | None,
        encoding: "MaskEncoding",
        readings: "dict[str, Reading]",
        options: dict[str, Any],
    ) -> None:
        self.runs = runs
        self.pairs = pairs
        self.true = true
        self.encoding = encoding
        self.readings = readings
        self.options = options
        self.moves = "D4" if any(_reflects(run) for run in runs.values()) else "C4"
        self.places = {printable(pair.name): place for place, pair in enumerate(pairs)}
        self.datasets = self._datasets()

    def _datasets(self) -> "dict[str, PairDataset]":
        from ..images import PairDataset

        return {
            role: PairDataset(self.pairs, run.config.normalization, self.encoding, self.readings[role])
            for role, run in self.runs.items()
        }

    def stamp(self, name: str) -> list[list[int]]:
        """Return the stamp of the files of an image."""
        place = self.places[name]
        true = [] if self.true is None else [self.true[place].path]
        return source_stamp(self.pairs[place].image, self.pairs[place].mask, *true)

    def score(self, unit: Sequence[Any]) -> dict[str, Any]:
        """Score one image.

        Args:
            unit: Role of the network, name of the image, values of the classes in the masks.

        Returns:
            The stamp of its files, and the scores, or what is wrong with the image.
        """
        from ..evaluate import evaluate_image, evaluate_objects

        role, name, values = unit
        if values != (self.encoding.values and list(self.encoding.values)):
            self.encoding = replace(self.encoding, values=values)
            self.datasets = self._datasets()
        place, run = self.places[name], self.runs[role]
        found: dict[str, Any] = {}
        try:
            found["stamp"] = self.stamp(name)
            image, mask = self.datasets[role][place]
            scores = evaluate_image(run.model, image, mask, classes=len(run.config.classes), **self.options)
            found["scores"] = asdict(scores)
            if self.true is not None:
                where = {name: self.options[name] for name in ("tile", "device")}
                mark = self.encoding.ignore_index
                found["objects"] = evaluate_objects(
                    run.model, image, whole_mask(self.true[place]), decoder=run.config.decoder, group=self.moves,
                    ignored=None if mark is None else mask == mark, **where,
                )  # fmt: skip
        except ValueError as error:
            found["problem"] = str(error)
        return found

    def all_scores(
        self, role: str, team: "Team", journal: Journal
    ) -> "tuple[dict[str, ImageScores], dict[str, ImageObjects] | None, dict[str, Problem]]":
        """Return the scores of each image, those of its objects, and why some images have none, with a progress bar."""
        from ..images import Problem
        from ._progress import progress_bars

        results = {name: journal.result(f"{role}/{name}", self.stamp(name)) for name in self.places}
        waiting = [name for name, result in results.items() if result is None]
        values = self.encoding.values and list(self.encoding.values)
        with progress_bars() as bars:
            task = bars.add_task("images", total=len(results), completed=len(results) - len(waiting), note="")

            def score(unit: Sequence[Any]) -> dict[str, Any]:
                bars.update(task, note=unit[1])
                return self.score(unit)

            def done(unit: Sequence[Any], result: dict[str, Any]) -> None:
                results[unit[1]] = result
                if "problem" not in result:
                    journal.add(f"{role}/{unit[1]}", result["stamp"], result)
                bars.advance(task)

            team.share([[role, name, values] for name in waiting], score, done)
        whole = {name: result for name, result in results.items() if "problem" not in result}
        failed = {
            name: Problem(self.pairs[self.places[name]].image.name, result["problem"])
            for name, result in results.items()
            if "problem" in result
        }
        objects = None if self.true is None else {name: _read_objects(each["objects"]) for name, each in whole.items()}
        return {name: _read_scores(each["scores"]) for name, each in whole.items()}, objects, failed


def _reflects(checkpoint: "Checkpoint") -> bool:
    """Return True if the group of a network contains rotations by 90 degrees and reflections."""
    group = checkpoint.config.group
    return isinstance(group, DihedralGroup) and group.n % 4 == 0


def _read_scores(content: dict[str, Any]) -> "ImageScores":
    """Return the scores of an image from JSON."""
    from ..evaluate import BoundaryDistance, ImageScores

    boundary = tuple(None if each is None else BoundaryDistance(*each) for each in content["boundary"])
    return ImageScores(**{**{name: tuple(each) for name, each in content.items()}, "boundary": boundary})


def _read_objects(content: Sequence[Any]) -> "ImageObjects":
    """Return the scores of the objects of an image from JSON."""
    from ..evaluate import ImageObjects
    from ..objects import ObjectChanges, ObjectScores

    (found, true, precisions, *rest), changes = content
    scores = ObjectScores(found, true, tuple(precisions), *rest)
    return ImageObjects(scores, tuple(ObjectChanges(*each) for each in changes))


def whole_mask(file: "MaskFile") -> "Tensor":
    """Return all values of a mask."""
    return file.window(0, 0, *file.shape)

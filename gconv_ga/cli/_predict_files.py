"""The files of ``gconv-ga predict``: which are done, and the prediction of the others in one process or in several."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from .._files import LOCK, alone_in, remove_unfinished, write_atomically
from .._journal import Journal, source_stamp
from ._options import list_problems, note, refuse
from ._predict_slides import ENDING, say_left_out

if TYPE_CHECKING:
    import torch

    from ..predict import SlideJob
    from ..segmenter import Team

SETTINGS, JOURNAL, SOURCE = "predict.json", "predict.jsonl", "source.json"
GEOJSON = "_objects.geojson"
OF_SLIDES = (ENDING, "_tissue.png", "_preview.png", "_objects.csv", GEOJSON, f"_objects{ENDING}", "_rois.zip")


class PredictImage(Protocol):
    """Function that predicts an image file and writes the files about it."""

    def __call__(
        self, file: Path, target: Path, *, device: "str | torch.device", progress: Callable[[int, int], Any]
    ) -> Any: ...


class OpenSlide(Protocol):
    """Function that opens the prediction of a slide."""

    def __call__(self, file: Path, target: Path, *, device: "str | torch.device") -> "SlideJob": ...


def endings(settings: Mapping[str, Any]) -> list[str]:
    """Return the endings of the files about an image that a prediction writes.

    Args:
        settings: Settings of the prediction.
    """
    about = settings.get("objects")
    objects = {} if about is None else {"_objects.tif": True, "_objects.csv": True, GEOJSON: about["geojson"],
                                        "_rois.zip": about["rois"], "_coco.json": about["coco"]}  # fmt: skip
    kinds = {".npy": settings["probabilities"], "_overlay.png": settings["overlay"], **objects}
    return [".png", *(ending for ending, is_written in kinds.items() if is_written)]


def keep_settings(out: Path, settings: dict[str, Any], targets: Mapping[str, str], *, overwrite: bool) -> None:
    """Write the settings into the folder; if it holds other ones, refuse it, or remove what was predicted with them.

    Args:
        out: Folder of the predictions.
        settings: All that the predictions depend on, besides the images.
        targets: File of each prediction in the folder, by its name.
        overwrite: Whether to remove what was predicted with other settings.

    Raises:
        typer.BadParameter: The folder holds other predictions, and they are not to be removed, or cannot be; or it
            holds files of the same names and no settings, such as masks that a person has drawn.
    """
    file, content = out / SETTINGS, (json.dumps(settings, indent=2) + "\n").encode()
    if not file.exists():
        there = [target for target in targets.values() if (out / target).exists()]
        if there and not overwrite:
            text = f"{out} has no {SETTINGS}, but holds {there[0]}, which may be no prediction and would be replaced"
            refuse("--out", f"{text}; use another folder, or --overwrite")
        write_atomically(file, content)
    if file.read_bytes() == content:
        return
    if not overwrite:
        text = "holds predictions of another checkpoint or with other options; use another folder, or --overwrite"
        refuse("--out", f"{out} {text}")
    try:
        before = json.loads(file.read_bytes())
        written = [*endings(before), *OF_SLIDES]
    except (ValueError, KeyError, TypeError) as error:
        refuse("--out", f"{file} is damaged; use another folder", error)
    for name in {*Journal(out / JOURNAL, before).names(), *targets}:
        _remove(out, name, written)
        shutil.rmtree(out / f"{name}.parts", ignore_errors=True)
    write_atomically(file, content)


def _remove(out: Path, name: str, written: Sequence[str]) -> None:
    """Remove what was predicted for an image, first the file without which the image is not done."""
    for ending in written:
        (out / f"{name}{ending}").unlink(missing_ok=True)


class Predictions:
    """The images of a command, and their predictions.

    Args:
        out: Folder of the predictions.
        names: Names of the predictions by image.
        slides: The images that are slides.
        settings: All that the predictions depend on, besides the images.
        predict_image: Function that predicts an image.
        open_slide: Function that opens the prediction of a slide, whose units any process may do.
    """

    def __init__(
        self,
        out: Path,
        names: Mapping[Path, str],
        slides: "set[Path]",
        settings: Mapping[str, Any],
        predict_image: PredictImage,
        open_slide: OpenSlide,
    ) -> None:
        self.out = out
        self.files = {name: file for file, name in names.items()}
        self.targets = {name: out / f"{name}{ENDING if file in slides else '.png'}" for file, name in names.items()}
        self.slides = {names[file] for file in slides}
        self.settings = settings
        self.predict_image, self.open_slide = predict_image, open_slide
        self.problems = dict[str, str]()
        self.count = 0  # images that were not done
        self._open: tuple[str, SlideJob] | None = None  # the slide that this process worked on last

    def work(self, unit: Sequence[Any], team: "Team", progress: Callable[[int, int], Any]) -> dict[str, Any]:
        """Predict an image, or do a unit of a slide.

        Args:
            unit: Name of the image; of a slide also number of the phase and number of the unit.
            team: Processes that work together.
            progress: Called after each tile of an image with the number of tiles done and their total.

        Returns:
            What is wrong with the image; else its stamp, or the number of tiles of the unit.
        """
        name, *of_slide = unit
        file, target = self.files[name], self.targets[name]
        try:
            if of_slide:
                if self._open is None or self._open[0] != name:
                    self._open = name, self.open_slide(file, target, device=team.device)
                phase, number = of_slide
                return {"tiles": self._open[1].phases[phase].run(number)}
            stamp = source_stamp(file)
            _remove(self.out, name, endings(self.settings))  # of the image that this one replaces
            self.predict_image(file, target, device=team.device, progress=progress)
            return {"stamp": stamp}
        except ValueError as error:
            return {"problem": str(error)}

    def predict_all(self, team: "Team") -> None:
        """Predict what is not done, or help with it.

        Args:
            team: Processes that work together.
        """
        from ._progress import progress_bars

        if not team.is_main:
            team.serve(lambda unit: self.work(unit, team, lambda done, total: None))
            return
        journal = Journal(self.out / JOURNAL, self.settings)
        waiting = [name for name in self.files if not self._is_done(journal, name)]
        for folder in {target.parent for target in self.targets.values()}:
            remove_unfinished(folder)
        with progress_bars() as bars:
            task = bars.add_task("images", total=len(self.files), completed=len(self.files) - len(waiting), note="")
            tiles = bars.add_task("tiles", total=None, note="")

            def work(unit: Sequence[Any]) -> dict[str, Any]:
                bars.update(task, note=unit[0])
                return self.work(unit, team, lambda done, total: bars.update(tiles, completed=done, total=total))

            def done(unit: Sequence[Any], result: dict[str, Any]) -> None:
                if "problem" in result:
                    self.problems[unit[0]] = result["problem"]
                    return
                journal.add(unit[0], result["stamp"])
                bars.advance(task)

            team.share([[name] for name in waiting if name not in self.slides], work, done)
            for name in waiting:
                if name in self.slides:
                    bars.update(task, note=name)
                    self._predict_slide(
                        name, team, journal, lambda done, total: bars.update(tiles, completed=done, total=total)
                    )
                    bars.advance(task, 0 if name in self.problems else 1)
        self.count = len(waiting)

    def _is_done(self, journal: Journal, name: str) -> bool:
        try:
            return self.targets[name].exists() and journal.result(name, source_stamp(self.files[name])) is not None
        except ValueError:  # the image is gone, which `work` reports; its prediction stays
            return False

    def _predict_slide(self, name: str, team: "Team", journal: Journal, progress: Callable[[int, int], Any]) -> None:
        """Share out the units of a slide, and write its prediction, unless another program is about to."""
        parts = self.out / f"{name}.parts"
        with ExitStack() as held:
            try:
                stamp = source_stamp(self.files[name])
                parts.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone_in(parts))
                self._begin_parts(name, parts, stamp)
                job = self.open_slide(self.files[name], self.targets[name], device=team.device)
            except BlockingIOError:
                self.problems[name] = f"another program is at work on it in {self.out}"
                return
            except ValueError as error:
                self.problems[name] = str(error)
                return
            self._predict_parts(name, job, team, progress)
            if name not in self.problems:
                journal.add(name, stamp)

    def _predict_parts(self, name: str, job: "SlideJob", team: "Team", progress: Callable[[int, int], Any]) -> None:
        self._open = name, job
        for number, phase in enumerate(job.phases):
            waiting = phase.waiting()
            finished = phase.total - sum(phase.units[unit] for unit in waiting)

            def done(unit: Sequence[Any], result: dict[str, Any], total: int = phase.total) -> bool:
                nonlocal finished
                if "problem" in result:
                    self.problems[name] = result["problem"]
                    return True
                finished += result["tiles"]
                progress(finished, total)
                return False

            units = [[name, number, unit] for unit in waiting]
            team.share(units, lambda unit: self.work(unit, team, lambda done, total: None), done)
            if name in self.problems:
                return
        job.finish()
        say_left_out(job)

    def _begin_parts(self, name: str, folder: Path, stamp: list[list[int]]) -> None:
        """Keep the finished units of a slide if they are of this slide as it is now and with these settings."""
        content = (json.dumps({"stamp": stamp, "settings": self.settings}) + "\n").encode()
        source = folder / SOURCE
        if not source.exists() or source.read_bytes() != content:
            _remove(self.out, name, OF_SLIDES)
            for part in folder.iterdir():
                if part.name != LOCK:
                    part.unlink()
            write_atomically(source, content)
        remove_unfinished(folder)

    def print_outcome(self) -> None:
        """Print what was done, once the other processes have left.

        Raises:
            typer.Exit: Some images cannot be predicted. They are listed.
        """
        from ..images import Problem

        if self.problems:
            list_problems(
                [Problem(name + self.files[name].suffix, self.problems[name])
                 for name in self.files if name in self.problems]
            )  # fmt: skip
            others = f"; the others are done, in {self.out}" if len(self.problems) < len(self.files) else ""
            note(f"{len(self.problems)} of {len(self.files)} images cannot be predicted{others}")
            raise typer.Exit(1)
        skipped = len(self.files) - self.count
        text = f"{self.count} image{'' if self.count == 1 else 's'} done"
        print(f"{self.out}: {text}" + (f", {skipped} skipped" if skipped else ""))

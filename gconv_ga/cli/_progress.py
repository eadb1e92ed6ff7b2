"""Progress: bars in a terminal, and elsewhere, as in the log of a job, one line each half minute."""

import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn

from .._files import printable

EVERY = 30.0  # seconds between lines


def progress_bars() -> Progress:
    """Return progress on the standard error. Each task has a field ``note`` that is shown at the right."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    return Bars(*columns, console=console) if console.is_terminal else Lines(*columns, console=console, disable=True)


class Bars(Progress):
    """Progress bars that show names of files as they can be shown."""

    def update(self, task_id: TaskID, *args: Any, **fields: Any) -> None:
        """Update a task."""
        super().update(task_id, *args, **{name: _shown(name, value) for name, value in fields.items()})


class Lines(Bars):
    """Progress as lines, each about all tasks that have begun and are not finished."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._written = time.monotonic()

    def update(self, task_id: TaskID, *args: Any, **fields: Any) -> None:
        """Update a task, and write a line if it is time."""
        super().update(task_id, *args, **fields)
        self._write()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task, and write a line if it is time."""
        super().advance(task_id, advance)
        self._write()

    def _write(self) -> None:
        if time.monotonic() - self._written >= EVERY:
            self._written = time.monotonic()
            if begun := [_line(task) for task in self.tasks if task.completed and not task.finished and task.visible]:
                print("; ".join(begun), file=sys.stderr, flush=True)


def _shown(name: str, value: Any) -> Any:
    return printable(value) if name == "note" else value


def _line(task: Task) -> str:
    """Return a task in words, such as ``training 40 of 1000, loss 0.345, 0:12:30 left``."""
    parts = [f"{task.description} {task.completed:.0f}" + ("" if task.total is None else f" of {task.total:.0f}")]
    parts += [str(task.fields["note"])] if task.fields.get("note") else []
    parts += [] if task.time_remaining is None else [f"{timedelta(seconds=int(task.time_remaining))} left"]
    return ", ".join(parts)

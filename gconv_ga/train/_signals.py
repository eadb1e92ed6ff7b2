"""Ctrl-C and SIGTERM during a training: it stops after the step in progress, so that its state can be saved."""

import signal
import threading
from types import FrameType

import torch
import torch.distributed as dist

from ._processes import process_count

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Context in which the first SIGINT or SIGTERM is only noted, and a second one ends the program at once.

    Outside of the main thread, where Python allows no handlers, signals keep their effect.
    """

    def __init__(self) -> None:
        self.received = 0
        self._is_main_thread = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "StopSignals":
        if self._is_main_thread:
            self._before = [signal.getsignal(number) for number in SIGNALS]
            self.install()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main_thread:
            for number, handler in zip(SIGNALS, self._before, strict=True):
                signal.signal(number, handler)

    def install(self) -> None:
        """Set the handlers, again if another package has replaced them meanwhile."""
        if self._is_main_thread:
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise self.error(number)
        self.received = number

    def reached_any(self, device: torch.device) -> bool:
        """Return True if one of the processes that train together has received a signal; all of them must call this.

        Args:
            device: Device of the process.
        """
        if process_count() > 1:
            highest = torch.tensor(self.received, device=device)
            dist.all_reduce(highest, dist.ReduceOp.MAX)
            self.received = int(highest)
        return self.received != 0

    def error(self, number: int | None = None) -> BaseException:
        """Return what ends the program: as Python's own for Ctrl-C, exit code 143 for SIGTERM."""
        received = self.received if number is None else number
        return KeyboardInterrupt() if received == signal.SIGINT else SystemExit(128 + received)

"""Commands in processes of their own that are forked from the tests: a new Python would import for seconds first."""

import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path

PATIENCE = 200  # seconds


class Forked:
    """The program with some arguments in a forked process; its output goes to two files.

    Args:
        folder: Folder for the two files.
        arguments: Arguments of the program.
        cwd: Its current folder. If None, that of the tests.
        environment: Variables that are set in it, or removed where the value is None.
    """

    def __init__(self, folder, *arguments, cwd=None, **environment):
        number = len(list(Path(folder).glob("*.out")))
        self.files = [Path(folder) / f"{number}.{kind}" for kind in ("out", "err")]
        for file in self.files:
            file.touch()
        self.process = multiprocessing.get_context("fork").Process(
            target=_run, args=(self.files, [str(argument) for argument in arguments], cwd, environment)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: the threads of the tests stay behind
            self.process.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.join()

    @property
    def output(self):
        return self.files[0].read_text()

    @property
    def errors(self):
        return self.files[1].read_text()

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self):
        """Return the exit code."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"it runs for more than {PATIENCE} s"
        return self.process.exitcode

    def wait_for(self, path):
        """Wait until it has written a file."""
        end = time.monotonic() + PATIENCE
        while not path.exists():
            assert self.process.is_alive(), self.errors
            assert time.monotonic() < end
            time.sleep(0.01)


def _run(files, arguments, cwd, environment):
    from gconv_ga.cli import main

    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY), descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update({name: value for name, value in environment.items() if value is not None})
    for name in environment:
        if environment[name] is None:
            os.environ.pop(name, None)
    if cwd:
        os.chdir(cwd)
    main(arguments)

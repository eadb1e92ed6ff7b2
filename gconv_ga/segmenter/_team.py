"""Several processes, on one machine or many, that share out pieces of work; the main one collects the results."""

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from ._devices import Machines
from ._place import Place, find_place, start_others

if TYPE_CHECKING:
    import torch

JOINING = 300.0  # seconds in which all processes must have joined
LEAVING = 60.0  # seconds that the main process waits at the end for those that it has started
KEY = "gconv_ga/team"

Work = Callable[[Any], Any]
Done = Callable[[Any, Any], Any]


class LostProcessError(RuntimeError):
    """One of the processes that work together was killed, has failed, or cannot be reached.

    Example:
        >>> from gconv_ga.segmenter import LostProcessError
        >>> LostProcessError("process 2 of 4 was killed").args
        ('process 2 of 4 was killed',)
    """


class Team:
    """Processes that work together. This class itself is a team of one; `together` makes larger ones.

    The main process shares out units of work, as often as it likes; each other one serves until the main one leaves.

    Args:
        count: Number of processes.
        rank: Number of this process, from 0.
        device: Device of this process.

    Example:
        >>> from gconv_ga.segmenter import Team
        >>> Team().share(["a", "b"], str.upper, lambda unit, result: print(unit, result))
        a A
        b B
    """

    def __init__(self, count: int = 1, rank: int = 0, device: "str | torch.device" = "cpu") -> None:
        self.count = count
        self.rank = rank
        self.device = device

    @property
    def is_main(self) -> bool:
        """True in the one process that shares out, collects the results, and prints."""
        return self.rank == 0

    def share(self, units: Sequence[Any], work: Work, done: Done) -> None:
        """Share out units of work among all processes, and return when all are done; for the main process.

        Units go one by one, in their order, to whichever process is free, this one among them.

        Args:
            units: Units, as JSON can hold them.
            work: Function of a unit that returns what JSON can hold.
            done: Function of a unit and its result, tuples in it as lists. It is called here alone, for one unit at a
                time, in the order in which units are finished. If it returns True, units that nobody has begun are
                left out.

        Raises:
            LostProcessError: A process was killed or has failed. The others have finished their unit, and those results
                were passed on.
        """
        for unit in units:
            if done(unit, _as_sent(work(unit))) is True:
                return

    def serve(self, work: Work) -> None:
        """Do units of work until the main process leaves; for the other processes.

        Args:
            work: As for `share`, and the same function.

        Raises:
            LostProcessError: The main process is gone, or has ended the job.
        """


def _as_sent(result: Any) -> Any:
    """Return a result as it arrives from another process."""
    return json.loads(json.dumps(result))


@contextmanager
def together(machines: Machines, say: Callable[[str], Any] = print, *, joining: float = JOINING) -> Iterator[Team]:
    """Work in the processes of ``machines``: start those that are to be started, and let all find each other.

    Lightning's rules say which processes there are: on each machine the command starts itself again for its other
    devices, or torchrun or ``srun`` has started all. They meet at a store of `torch.distributed`, and each keeps a
    connection to the main process, whose end tells that a process has died.

    Args:
        machines: Devices to work on.
        say: Function that prints a line, as soon as a process is lost.
        joining: Seconds in which all processes must have joined.

    Raises:
        ValueError: As for `Machines.rank`.
        LostProcessError: A process has not joined.

    Example:
        >>> from gconv_ga.segmenter import Machines, together
        >>> with together(Machines("cpu")) as team:
        ...     team.share(["a", "b"], str.upper, print)
        a A
        b B
    """
    import torch

    place, device = find_place(machines), torch.device(machines.device)
    if machines.devices > 1 and device.type != "cpu":
        device = torch.device(device.type, place.local_rank)
    if machines.processes == 1:
        yield Team(device=device)
    elif place.rank == 0:
        main = _Main(machines, device, say)
        with main.working(place, joining):
            yield main
    else:
        with _Worker(machines, device, place.rank, say).working(place, joining) as worker:
            yield worker


def _store(place: Place, joining: float) -> Any:
    """Return the store at which all processes meet; under torchrun it is that of its agent."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    is_host = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    limit = timedelta(seconds=joining)
    return TCPStore(place.address, place.port, is_master=is_host, timeout=limit, wait_for_workers=False)


def _key() -> str:
    return f"{KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


class _Line:
    """Connection over which JSON objects go, each a line. A dead process or machine ends it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):  # a machine without power is noticed after a minute and a half
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._file = connection.makefile("rb")

    def send(self, **content: Any) -> None:
        self.connection.sendall((json.dumps(content) + "\n").encode())

    def receive(self) -> dict[str, Any] | None:
        """Return the next object, or None if the connection has ended."""
        try:
            line = self._file.readline()
        except (OSError, ValueError):
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self.connection.close()


class _Main(Team):
    """The main process: hands out units, also to itself, and collects results."""

    def __init__(self, machines: Machines, device: "torch.device", say: Callable[[str], Any]) -> None:
        super().__init__(machines.processes, 0, device)
        self.machines = machines
        self.say = say
        self._changed = threading.Condition()  # guards all below
        self._units: deque[Any] = deque()
        self._left = 0  # units that are not done, those at hand included
        self._done: Done = lambda unit, result: None
        self._leaving = False
        self._lost = ""
        self._failed: Exception | None = None  # what `done` has raised
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._lines: list[_Line] = []
        self._threads: list[threading.Thread] = []

    @contextmanager
    def working(self, place: Place, joining: float) -> "Iterator[_Main]":
        """Start and await the other processes; at the end wait for them, or on an exception end them."""
        store = _store(place, joining)
        everywhere = socket.has_dualstack_ipv6()
        listener = socket.create_server(
            ("", 0), family=socket.AF_INET6 if everywhere else socket.AF_INET, dualstack_ipv6=everywhere,
            backlog=self.count,
        )  # fmt: skip
        in_peace = False
        try:
            if place.starts:
                self._started = start_others(self.machines, place, store.port)
            token = secrets.token_hex(16)
            store.set(_key(), json.dumps([listener.getsockname()[1], token]))
            self._await_all(listener, token, joining)
            yield self
            self._leave()
            for thread in self._threads:
                thread.join(LEAVING)
            in_peace = True
        finally:
            self._leave()
            listener.close()
            for line in self._lines:
                if not in_peace:
                    with suppress(OSError):
                        line.send(stop=True)
                line.close()
            end_processes(list(self._started.values()), LEAVING if in_peace else 0)

    def _leave(self) -> None:
        with self._changed:
            self._leaving = True
            self._changed.notify_all()

    def _await_all(self, listener: socket.socket, token: str, joining: float) -> None:
        """Wait until every process has joined."""
        end, missing = time.monotonic() + joining, set(range(1, self.count))
        listener.settimeout(0.2)
        while missing:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                self._check_missing(missing, joining, is_late=time.monotonic() > end)
                continue
            connection.settimeout(10)  # whoever else calls may say nothing for ever
            line = _Line(connection)
            hello = line.receive() or {}
            if hello.get("token") != token or hello.get("rank") not in missing:
                line.close()
                continue
            connection.settimeout(None)
            missing.remove(hello["rank"])
            self._lines.append(line)
            self._threads.append(threading.Thread(target=self._serve_one, args=(line, hello), daemon=True))
            self._threads[-1].start()

    def _check_missing(self, missing: set[int], joining: float, *, is_late: bool) -> None:
        for rank, process in self._started.items():
            if rank in missing and process.poll() is not None:
                raise LostProcessError(
                    f"process {rank} of {self.count} (counted from 0; {_ended(process)}) did not join"
                )
        if is_late:
            named = ", ".join(str(rank) for rank in sorted(missing))
            raise LostProcessError(
                f"of {self.count} processes, counted from 0, these have not joined within {joining:.0f} seconds: "
                f"{named}. Was the command started on all machines, and do they reach MASTER_ADDR?"
            )

    def share(self, units: Sequence[Any], work: Work, done: Done) -> None:
        with self._changed:
            self._units, self._left, self._done = deque(units), len(units), done
            self._changed.notify_all()
        while (unit := self._take()) is not None:
            self._finish(*unit, _as_sent(work(*unit)))
        with self._changed:
            while self._left and self._is_well():
                self._changed.wait()
        if self._failed is not None:
            raise self._failed
        if self._lost:
            for thread in self._threads:
                thread.join()  # the other processes finish their units
            raise LostProcessError(self._lost)

    def serve(self, work: Work) -> NoReturn:
        raise NotImplementedError("the main process shares")

    def _is_well(self) -> bool:
        return not self._lost and self._failed is None

    def _take(self) -> tuple[Any] | None:
        """Return the next unit, if there is one."""
        with self._changed:
            return (self._units.popleft(),) if self._units and self._is_well() else None

    def _finish(self, unit: Any, result: Any) -> None:
        with self._changed:
            try:
                if self._done(unit, result) is True:
                    self._left -= len(self._units)
                    self._units.clear()
            except Exception as error:  # noqa: BLE001  the main process raises it, where it shares
                self._failed = error
            self._left -= 1
            self._changed.notify_all()

    def _answer(self) -> dict[str, Any]:
        """Return the answer to a process that asks for a unit, as soon as there is one."""
        with self._changed:
            while True:
                if not self._is_well():
                    return {"stop": True}
                if self._leaving:
                    return {"over": True}
                if self._units:
                    return {"unit": self._units.popleft()}
                self._changed.wait()

    def _serve_one(self, line: _Line, hello: dict[str, Any]) -> None:
        """Answer one process until it leaves."""
        name = f"process {hello['rank']} of {self.count} (counted from 0; on {hello['host']}, pid {hello['pid']})"
        while (message := line.receive()) is not None:
            if "error" in message:
                return self._lose(f"{name} has failed: {message['error']}")
            if "bye" in message:
                return None
            if "result" in message:
                self._finish(message["unit"], message["result"])
            with suppress(OSError):
                line.send(**self._answer())
        return self._lose(f"{name} {self._cause(hello['rank'])}")

    def _cause(self, rank: int) -> str:
        if rank in self._started:
            with suppress(subprocess.TimeoutExpired):
                self._started[rank].wait(5)
                return _ended(self._started[rank])
        return "was killed, or its machine is gone: its connection has ended"

    def _lose(self, text: str) -> None:
        with self._changed:
            if self._leaving or self._lost:
                return
            self._lost = text
            self._changed.notify_all()
        self.say(f"{text}; the other processes finish what they have begun, then the job ends")


class _Worker(Team):
    """Another process: asks for units, and sends their results."""

    def __init__(
        self, machines: Machines, device: "torch.device", rank: int, say: Callable[[str], Any] = print
    ) -> None:
        super().__init__(machines.processes, rank, device)
        self.machines = machines
        self.say = say
        self._line: _Line

    @contextmanager
    def working(self, place: Place, joining: float) -> "Iterator[_Worker]":
        """Join the main process, and leave it at the end; signals end this process without a word."""
        started = start_others(self.machines, place, place.port) if place.starts else {}
        in_peace = False
        try:
            with _silent_signals():
                port, token = json.loads(_store(place, joining).get(_key()))
                self._line = _Line(socket.create_connection((place.address, port), timeout=joining))
                self._line.connection.settimeout(None)
                self._line.send(token=token, rank=self.rank, host=socket.gethostname(), pid=os.getpid())
                with self._telling():
                    yield self
                in_peace = True
        finally:
            end_processes(list(started.values()), LEAVING if in_peace else 0)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell the main process how this one ends."""
        try:
            yield
            with suppress(OSError):
                self._line.send(bye=True)
        except LostProcessError:
            raise
        except Exception as error:
            with suppress(OSError):
                self._line.send(error=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._line.close()

    def share(self, units: Sequence[Any], work: Work, done: Done) -> NoReturn:
        raise NotImplementedError("only the main process shares")

    def serve(self, work: Work) -> None:
        message: dict[str, Any] = {"ready": True}
        while True:
            with suppress(OSError):  # the missing answer tells that the main process is gone
                self._line.send(**message)
            answer = self._line.receive()
            if answer is None:
                self.say(f"process {self.rank} of {self.count} (counted from 0) ends: the main process is gone")
            if answer is None or "stop" in answer:
                raise LostProcessError("the main process has ended the job")
            if "over" in answer:
                return
            message = {"unit": answer["unit"], "result": work(answer["unit"])}


@contextmanager
def _silent_signals() -> Iterator[None]:
    """End the program on SIGINT and SIGTERM, with what is half written removed; the main process prints why."""

    def end(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_processes(processes: "Sequence[subprocess.Popen[bytes]]", patience: float) -> None:
    """Wait some seconds until processes have ended; those that have not are told to end, and then killed."""
    for act, seconds in ((None, patience), (subprocess.Popen.terminate, 10.0), (subprocess.Popen.kill, 10.0)):
        end = time.monotonic() + seconds
        for process in processes:
            if act is not None and process.poll() is None:
                act(process)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))


def _ended(process: "subprocess.Popen[bytes]") -> str:
    """Return how a process has ended."""
    code = process.returncode
    if code >= 0:
        return f"has ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"

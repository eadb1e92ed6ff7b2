"""Processes that share out work, here as threads: every unit is done once, and no loss goes unnoticed."""

import json
import socket
import threading
import time

import pytest

from gconv_ga.segmenter import LostProcessError, Machines, Team, together
from gconv_ga.segmenter._place import Place
from gconv_ga.segmenter._team import _Line, _Main, _store, _Worker


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Job:
    """A main process and others, each a thread with its own function of a unit; what they end with is kept."""

    def __init__(self, *works, joining=20.0):
        self.machines = Machines("cpu", devices=len(works) + 1)
        self.port = free_port()
        self.said, self.heard, self.ends = [], [], {}
        self.joining = joining
        self.workers = [threading.Thread(target=self._serve, args=pair) for pair in enumerate(works, 1)]

    def place(self, rank):
        return Place(rank, rank, "127.0.0.1", self.port, starts=False)

    def _serve(self, rank, work):
        try:
            with _Worker(self.machines, "cpu", rank, self.heard.append).working(
                self.place(rank), self.joining
            ) as worker:
                worker.serve(lambda unit: work(unit) if work.__code__.co_argcount == 1 else work(unit, worker))
            self.ends[rank] = None
        except BaseException as error:  # noqa: BLE001  compared below
            self.ends[rank] = error

    def run(self, act):
        for worker in self.workers:
            worker.start()
        try:
            main = _Main(self.machines, "cpu", self.said.append)
            with main.working(self.place(0), self.joining):
                return act(main)
        finally:
            for worker in self.workers:
                worker.join(20)
                assert not worker.is_alive()


def slowly(rank):
    def work(unit):
        time.sleep(0.002)
        return rank, unit

    return work


def collect(team, units, work=None):
    results = {}

    def done(unit, result):
        assert unit not in results
        results[unit] = result

    team.share(units, work or slowly(0), done)
    return results


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_unit_is_done_once_by_whoever_is_free(count):
    """In two rounds, with a pause in which the others wait."""

    def act(team):
        first = collect(team, range(40))
        time.sleep(0.05)
        return first, collect(team, range(40, 60)), collect(team, [])

    job = Job(*(slowly(rank) for rank in range(1, count)))
    first, second, none = act(Team()) if count == 1 else job.run(act)
    assert sorted(first) == list(range(40))
    assert sorted(second) == list(range(40, 60))
    assert none == {}
    assert all(result[1] == unit for unit, result in {**first, **second}.items())
    assert all(isinstance(result, list) for result in first.values()), "as from another process"
    assert {rank for rank, _ in first.values()} == set(range(count))
    assert set(job.ends.values()) <= {None}
    assert not job.said


def test_a_process_that_dies_is_named_and_the_others_finish_their_unit():
    entered = threading.Event()

    def dies(unit, worker):
        entered.wait(10)
        worker._line.close()  # as the system does when a process is killed
        raise SystemExit

    def lasts(unit):
        entered.set()
        time.sleep(0.2)
        return 3, unit

    def own(unit):
        entered.wait(10)
        time.sleep(0.1)
        return 0, unit

    results = {}
    job = Job(dies, lasts)
    with pytest.raises(LostProcessError, match=r"process 1 of 3 .*pid \d+\) was killed, or its machine is gone"):
        job.run(lambda team: team.share(range(50), own, results.__setitem__))
    assert [text.rpartition(";")[2] for text in job.said] == [
        " the other processes finish what they have begun, then the job ends"
    ]
    assert sorted(rank for rank, _ in results.values()) == [0, 3]
    assert isinstance(job.ends[2], LostProcessError)


def test_the_error_of_a_process_is_passed_on():
    def fails(unit):
        raise OSError(28, "No space left on device", "a.png")

    job = Job(fails)
    with pytest.raises(LostProcessError, match=r"process 1 of 2 .* has failed: OSError: .*No space left.*a\.png"):
        job.run(lambda team: collect(team, range(1000)))
    assert isinstance(job.ends[1], OSError)


def test_an_error_of_the_main_process_ends_the_others():
    def act(team):
        collect(team, range(4))
        raise KeyError("main")

    job = Job(slowly(1), slowly(2))
    with pytest.raises(KeyError, match="main"):
        job.run(act)
    assert not job.said
    assert not job.heard
    assert len(job.ends) == 2


def test_a_main_process_that_dies_is_missed():
    def act(team):
        for line in team._lines:
            line.close()  # as the system does when a process is killed
        raise KeyError("main")

    job = Job(slowly(1), slowly(2))
    with pytest.raises(KeyError, match="main"):
        job.run(act)
    assert sorted(job.heard) == [
        f"process {rank} of 3 (counted from 0) ends: the main process is gone" for rank in (1, 2)
    ]
    assert all(isinstance(end, LostProcessError) for end in job.ends.values())


def test_an_error_about_a_result_is_raised_where_it_is_shared():
    def done(unit, result):
        if unit == 5:
            raise OSError(28, "No space left on device")

    job = Job(slowly(1))
    with pytest.raises(OSError, match="No space left"):
        job.run(lambda team: team.share(range(1000), slowly(0), done))
    assert isinstance(job.ends[1], LostProcessError)


def test_who_has_not_joined_is_named():
    job = Job(slowly(1), joining=1.0)
    job.machines = Machines("cpu", devices=4)
    with pytest.raises(LostProcessError, match=r"of 4 processes, counted from 0, these have not joined.* 2, 3\."):
        job.run(lambda team: None)


def test_strangers_are_turned_away():
    job = Job(slowly(1))
    strange = []

    def intrude():
        port, token = json.loads(_store(job.place(1), 20).get("gconv_ga/team/0"))
        for hello in ({"token": "no", "rank": 1}, {"token": token, "rank": 7}, {}):
            line = _Line(socket.create_connection(("127.0.0.1", port)))
            line.send(**hello)
            strange.append(line.receive())
            line.close()
        original()

    original = job.workers[0].run
    job.workers[0].run = intrude
    assert sorted(job.run(lambda team: collect(team, range(9)))) == list(range(9))
    assert strange == [None] * 3


def test_one_process_needs_no_other():
    with together(Machines("cpu")) as team:
        assert (team.count, team.rank, team.is_main, str(team.device)) == (1, 0, True, "cpu")
        assert collect(team, "ab", str.upper) == {"a": "A", "b": "B"}

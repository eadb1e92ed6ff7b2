"""The place of a process, as Slurm, torchrun and the user's own environment variables give it."""

import os

import pytest

from gconv_ga.segmenter import Machines, _place
from gconv_ga.segmenter._place import SCHEDULERS, Place, find_place, start_others

OWN = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "123456", "SLURM_NODELIST": "node[07-08]", "SLURM_JOB_NAME": "predict",
}  # fmt: skip
TORCHRUN = {
    **OWN, "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables that are given, and no other one that says where a process is."""
    for name in (*SCHEDULERS, *SLURM, *TORCHRUN, "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)

    def give(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield give
    for name in os.environ.keys() - before.keys():  # Lightning sets some
        del os.environ[name]


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "expected"),
    [
        ({}, 1, 1, Place(0, 0, "127.0.0.1", 0, starts=False)),
        (SLURM, 1, 1, Place(0, 0, "127.0.0.1", 0, starts=False)),
        ({}, 4, 1, Place(0, 0, "127.0.0.1", 0, starts=True)),
        ({**OWN, "LOCAL_RANK": "3"}, 4, 1, Place(3, 3, "node0", 29500, starts=False)),
        ({**OWN, "NODE_RANK": "1"}, 2, 2, Place(2, 0, "node0", 29500, starts=True)),
        ({**OWN, "NODE_RANK": "1", "LOCAL_RANK": "1"}, 2, 2, Place(3, 1, "node0", 29500, starts=False)),
        (SLURM, 2, 2, Place(3, 1, "node07", 18456, starts=False)),
        ({**SLURM, **OWN}, 2, 2, Place(3, 1, "node0", 29500, starts=False)),
        (TORCHRUN, 2, 2, Place(2, 0, "node0", 29500, starts=False)),
        ({**SLURM, **TORCHRUN}, 2, 2, Place(2, 0, "node0", 29500, starts=False)),
    ],
    ids=[
        "one process", "one process of a job", "starts three", "started", "second node", "started on it", "Slurm",
        "Slurm with a port", "torchrun", "torchrun in Slurm",
    ],
)  # fmt: skip
def test_the_place_is_read_from_the_environment(variables, devices, nodes, expected, environment):
    environment(variables)
    machines = Machines("cpu", devices=devices, nodes=nodes)
    assert find_place(machines) == expected
    assert machines.rank == expected.rank


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "message"),
    [
        ({}, 1, 2, "nodes must be a number of machines that find each other.*Set MASTER_ADDR and MASTER_PORT"),
        ({"MASTER_ADDR": "a", "LOCAL_RANK": "1"}, 2, 1, "Set MASTER_PORT"),
        (SLURM, 2, 1, "devices must be such that devices \\* nodes is 4.*devices=2"),
        (TORCHRUN, 3, 1, "devices must be such that devices \\* nodes is 4.*devices=3"),
    ],
)
def test_what_does_not_fit_is_refused(variables, devices, nodes, message, environment):
    environment(variables)
    with pytest.raises(ValueError, match=message):
        find_place(Machines("cpu", devices=devices, nodes=nodes))


def test_each_node_starts_the_other_processes_of_its_machine(environment, monkeypatch):
    environment({})
    started = []
    monkeypatch.setattr(_place.subprocess, "Popen", lambda command, env: started.append((command, env)))
    monkeypatch.setattr(_place.sys, "argv", ["gconv-ga", "predict", "--nodes", "2"])
    others = start_others(Machines("cpu", devices=3, nodes=2), Place(3, 0, "node0", 0, starts=True), port=29500)
    assert list(others) == [4, 5]
    assert all(command[-3:] == ["predict", "--nodes", "2"] for command, _ in started)
    given = [[env[name] for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")] for _, env in started]
    assert given == [["node0", "29500", "1"], ["node0", "29500", "2"]]

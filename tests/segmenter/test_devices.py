"""Devices of a training, and what they refuse."""

import pytest
import torch

from gconv_ga.segmenter import PRECISIONS, Machines, as_device


def test_auto_is_the_accelerator_if_there_is_one():
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert as_device("auto").type == ("cpu" if accelerator is None else accelerator.type)


def test_what_lightning_is_told():
    machines = Machines("cpu", devices=2, nodes=3, strategy="ddp")
    assert (machines.processes, machines.share(12), machines.device) == (6, 2, torch.device("cpu"))
    options = {"accelerator": "cpu", "devices": 2, "num_nodes": 3, "strategy": "ddp", "precision": "bf16-mixed"}
    assert machines.trainer_options("bf16-mixed") == options
    assert PRECISIONS == ("32", "bf16-mixed", "16-mixed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "abacus"}, "^device must be 'auto' or a device of this machine: cpu"),
        ({"devices": 0}, "^devices must be a positive int"),
        ({"nodes": 0}, "^nodes must be a positive int"),
        ({"device": "cpu:0", "devices": 2}, "^device must be without a number where devices=2"),
        ({"strategy": "fsdp"}, "^strategy must be one of 'auto', 'ddp'"),
    ],
)
def test_wrong_machines_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Machines(**arguments)


@pytest.mark.parametrize(
    ("precision", "message"), [("8", "must be one of '32'"), ("16-mixed", "must be '32' or 'bf16-mixed' on the CPU")]
)
def test_a_precision_that_the_device_lacks_is_refused(precision, message):
    with pytest.raises(ValueError, match=f"^precision {message}"):
        Machines("cpu").trainer_options(precision)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match=r"^batch_size must be a multiple of 2, the number of processes"):
        Machines("cpu", devices=2).share(3)

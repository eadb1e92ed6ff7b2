"""benchmarks/trained_layers.py: the error of a layer is the closed-form error of its functions."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

import gconv_ga.nn as gnn
from gconv_ga.filters import steerable_basis


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("pytorch_lightning", reason="extra train")
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    yield importlib.import_module("trained_layers")
    sys.path.pop(0)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("lifting", [True, False])
@torch.no_grad()
def test_one_function_has_its_own_error(lifting, kernel_size, script):
    """The basis computes it by Bessel functions, the script by waves on a grid."""
    make = gnn.LiftingConv2d if lifting else gnn.GroupConv2d
    layer, basis = make(2, 3, kernel_size, group="C8"), steerable_basis("C8", kernel_size)
    for function, expected in enumerate(basis.error):
        layer.weight.zero_()
        layer.weight[..., function].normal_()
        K = script.kernels(layer)
        assert K.shape == (3, 8, 2, 1 if lifting else 8, kernel_size, kernel_size)
        assert script.layer_error(K) == pytest.approx(expected, rel=0.02)
        if not lifting:
            assert script.layer_error(K.roll(1, dims=3)) == pytest.approx(expected, rel=0.02)
            assert script.layer_error(torch.stack((K[:, 0], K[:, 1].roll(1, dims=2)), dim=1)) > 0.5, "planes mixed up"


def test_the_short_form_runs(script, capsys):
    (row,) = script.main(["--methods", "ours, k=3", "--quick", "--steps", "2"])
    assert 0 < row["before"] < 0.1
    assert row["after"] != row["before"]
    assert "| ours, k=3 | 0.05" in capsys.readouterr().out

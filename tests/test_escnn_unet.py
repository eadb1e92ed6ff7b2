"""The U-Net of benchmarks/escnn_unet.py is one of escnn, and the twin of ours; run where the extra ``escnn`` is."""

import importlib

import pytest
import torch
from house import ROOT

from gconv_ga.models import EquivariantUNet

pytest.importorskip("escnn", reason="the extra escnn is not installed")

pytestmark = pytest.mark.escnn


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("escnn_unet").EscnnUNet


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize(("group", "mirrors"), [("C4", False), ("D4", True)])
def test_it_turns_with_the_image(group, mirrors, reduction, peer):
    net = peer(1, 2, group, 2, 3, reduction=reduction).eval()
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        y = net(x)
        turned, mirrored = net(x.rot90(1, (-2, -1))).rot90(-1, (-2, -1)), net(x.flip(-1)).flip(-1)
    assert (turned - y).abs().max() <= 1e-5 * y.abs().max()
    assert ((mirrored - y).abs().max() <= 1e-5 * y.abs().max()) == mirrors


def sequence(net):
    """Convolutions, by the shape of their dense kernels, in the order in which they run."""
    found = []

    def note(module, _, output):
        y = output if isinstance(output, torch.Tensor) else output.tensor
        found.append(tuple(y.flatten(1, -3).shape))

    for module in net.modules():
        if type(module).__name__ in ("R2Conv", "LiftingConv2d", "GroupConv2d", "Conv2d"):
            module.register_forward_hook(note)
    with torch.no_grad():
        net.eval()(torch.randn(1, 3, 32, 32))
    return found


@pytest.mark.parametrize("group", ["C4", "C8", "D4"])
def test_its_layers_are_ours(group, peer):
    theirs, ours = peer(3, 2, group, 2, 3), EquivariantUNet(3, 2, group=group, width=2, depth=3)
    assert sequence(theirs) == sequence(ours)
    assert sequence(theirs) != sequence(peer(3, 2, group, 2, 2))

"""Folded networks exported to ONNX with every axis dynamic, run by onnxruntime."""

import pytest
import torch
from conversion_nets import Busy, image, randomised
from slow_average import relative
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.conversion import convert, fold

pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
onnxruntime = pytest.importorskip("onnxruntime", reason="the exported program needs onnxruntime to run")

LOOSE = TOLERANCES[torch.float32]


def exported(net: nn.Module, example: torch.Tensor):
    """A function of an image: the network as onnxruntime runs it."""
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    program = torch.onnx.export(net, (example,), dynamo=True, dynamic_shapes=(axes,), verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["by design", "opened"])
@torch.no_grad()
def test_onnx_runs_at_every_size(kind):
    """Strides, pools and skips, at odd and even sizes whose residues differ from the example's."""
    if kind == "by design":  # tests/cli/test_export.py has a U-Net
        net = nn.Sequential(
            gnn.LiftingConv2d(3, 2, 3, padding=1, group="C4"), gnn.BatchNorm2d(2), nn.ReLU(),
            gnn.MaxBlurPool2d("C4"), gnn.GroupConv2d(2, 2, 3, stride=2, padding=1, group="C4"),
            gnn.Upsample(scale_factor=2, group="C4"), gnn.GroupPool("C4"),
        )  # fmt: skip
        net = randomised(net, image(1, 3, 20, 22))
    else:
        net = convert(randomised(Busy(width=4), image(1, 3, 20, 22)), "C4", image(1, 3, 20, 22))
        net.open_taps(group_kernel_size=2)
        for module in net.convolutions().values():
            module.taps.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
    net = net.float().eval()
    run = exported(fold(net), image(2, 3, 20, 22).float())
    for shape in ((1, 3, 20, 22), (3, 3, 25, 19), (2, 3, 32, 32)):
        x = image(*shape, seed=7).float()
        assert relative(run(x), net(x)) <= LOOSE
        assert relative(run(x.rot90(1, (-2, -1))), run(x).rot90(1, (-2, -1))) <= LOOSE

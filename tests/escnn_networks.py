"""Layers and networks of escnn for the tests of interop; importing it skips a test file if escnn is missing."""

import math

import pytest
import torch

pytest.importorskip("escnn", reason="the extra escnn is not installed")
gspaces = pytest.importorskip("escnn.gspaces")
enn = pytest.importorskip("escnn.nn")

PLANES = {
    "C1": gspaces.trivialOnR2,
    "C2": lambda: gspaces.rot2dOnR2(2),
    "C3": lambda: gspaces.rot2dOnR2(3),
    "C4": lambda: gspaces.rot2dOnR2(4),
    "C8": lambda: gspaces.rot2dOnR2(8),
    "D1": gspaces.flip2dOnR2,
    "D2": lambda: gspaces.flipRot2dOnR2(2),
    "D3": lambda: gspaces.flipRot2dOnR2(3),
    "D4": lambda: gspaces.flipRot2dOnR2(4),
    "D6": lambda: gspaces.flipRot2dOnR2(6),
    # Its reflection exchanges the axes, so the elements come in another order than ours.
    "D4, diagonal axis": lambda: gspaces.flipRot2dOnR2(4, axis=math.pi / 4),
}
EXACT = ["C1", "C2", "C4", "D1", "D2", "D4", "D4, diagonal axis"]


def fields(space, letter, count):
    """``count`` trivial fields for "t", regular ones for "r"."""
    return enn.FieldType(space, count * [{"t": space.trivial_repr, "r": space.regular_repr}[letter]])


def convolution(into, outof, kernel_size, **options):
    """An ``R2Conv`` with a table of functions of its own: escnn's layers share theirs, and `double()` alters it."""
    conv = enn.R2Conv(into, outof, kernel_size, recompute=True, initialize=False, **options)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.normal_()
    return conv


def random(module, dtype):
    """The module in a dtype, with random norms."""
    module.to(dtype)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm3d) and part.affine:
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_()
            if isinstance(part, torch.nn.BatchNorm3d) and part.track_running_stats:
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
    return module


def places(space):
    """The index of our elements among escnn's, written out here and not taken from the code under test."""
    order = space.fibergroup.order()
    # A rotation by 90 degrees after the reflection about the diagonal is the one about the vertical.
    diagonal = order == 8 and space.fibergroup.name == "D4" and space == PLANES["D4, diagonal axis"]()
    return [0, 1, 2, 3, 5, 6, 7, 4] if diagonal else list(range(order))


def to_maps(tensor, kind):
    """A geometric tensor as a plain image or feature map on the group."""
    space = kind.gspace
    if set(kind.representations) != {space.regular_repr}:
        return tensor
    return tensor.unflatten(1, (len(kind), -1))[:, :, places(space)]


def both(theirs, ours, height, width, *, batch=2, generator=None):
    """The outputs of both networks on one random input, in our layout."""
    dtype = next((p.dtype for p in theirs.parameters() if p.is_floating_point()), torch.float64)
    x = torch.randn(batch, theirs.in_type.size, height, width, generator=generator, dtype=torch.float64).to(dtype)
    expected = to_maps(theirs(theirs.in_type(x.clone())).tensor, theirs.out_type)
    return ours(to_maps(x, theirs.in_type)), expected


def relative(got, expected):
    """The largest difference, relative to the largest number."""
    assert got.shape == expected.shape
    return float((got.detach() - expected.detach()).abs().max() / expected.detach().abs().max())


def classifier(name, dtype=torch.float64):
    """A nested network with every way between images and maps, except GroupPooling, which escnn computes in float32."""
    space = PLANES[name]()
    image, narrow, wide = fields(space, "t", 2), fields(space, "r", 3), fields(space, "r", 4)
    block = enn.SequentialModule(
        convolution(narrow, wide, 3, padding=1, bias=False),
        enn.InnerBatchNorm(wide),
        enn.ELU(wide, alpha=0.7, inplace=True),
        enn.SequentialModule(enn.R2Upsampling(wide, scale_factor=2), enn.LeakyReLU(wide, 0.2)),
    )
    net = enn.SequentialModule(
        convolution(image, image, 3, padding=1),
        enn.PointwiseNonLinearity(image, "p_tanh"),
        convolution(image, narrow, 5, padding=2),
        enn.InnerBatchNorm(narrow),
        enn.ReLU(narrow, inplace=True),
        enn.PointwiseMaxPool2D(narrow, 2),
        block,
        convolution(wide, fields(space, "t", 5), 3, padding=1),
        enn.InnerBatchNorm(fields(space, "t", 5)),
        enn.ReLU(fields(space, "t", 5)),
        convolution(fields(space, "t", 5), fields(space, "t", 2), 1),
    )
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, enn.R2Conv):
                part.weights.div_(math.sqrt(len(part.in_type) * 3))
    return random(net, dtype)


def theirs_on(theirs, x):
    """escnn's output for a plain image or feature map, as channels."""
    return theirs(theirs.in_type(x.flatten(1, 2) if x.ndim == 5 else x.clone())).tensor.detach()

"""Modules that cannot be converted are refused with path and advice; run where the extra ``escnn`` is installed."""

import math

import pytest
import torch
from escnn_networks import PLANES, convolution, enn, fields, gspaces
from torch import nn

from gconv_ga.interop import from_escnn

pytestmark = pytest.mark.escnn


def maps(name="C4", count=2):
    return fields(PLANES[name](), "r", count)


def mixed():
    space = PLANES["C4"]()
    return enn.FieldType(space, [space.regular_repr, space.trivial_repr])


def irreducible():
    space = PLANES["C4"]()
    return enn.FieldType(space, [space.irrep(1)])


def turning():
    space = gspaces.rot2dOnR2(-1, maximum_frequency=2)
    return enn.FieldType(space, [space.trivial_repr])


def tilted():
    space = gspaces.flipRot2dOnR2(4, axis=math.pi / 4 + 0.1)
    return enn.FieldType(space, [space.regular_repr])


REFUSED = {
    "field dropout": (lambda: enn.FieldDropout(maps()), "FieldDropout.*PointwiseDropout"),
    "norm of irreducible fields": (lambda: enn.IIDBatchNorm2d(maps()), "IIDBatchNorm2d.*InnerBatchNorm"),
    "transposed": (lambda: enn.R2ConvTransposed(maps(), maps(), 3), "R2ConvTransposed.*R2Upsampling"),
    "norm pool": (lambda: enn.NormPool(irreducible()), "NormPool.*join them by hand"),
    "mixed fields": (lambda: convolution(mixed(), maps(), 3), "all regular or all trivial.*irrep_0, regular"),
    "mixed fields out": (lambda: convolution(maps(), mixed(), 3), "all regular or all trivial"),
    "mixed fields in a norm": (lambda: enn.InnerBatchNorm(mixed()), "all regular or all trivial"),
    "irreducible fields": (lambda: convolution(maps(), irreducible(), 3), "all regular or all trivial.*irrep_1"),
    "an infinite group": (lambda: convolution(turning(), turning(), 3), "plane with a group C_n or D_n.*infinite"),
    "a tilted mirror": (lambda: convolution(tilted(), tilted(), 3), "mirror axis must be the vertical"),
    "a fixed size": (lambda: enn.R2Upsampling(maps(), size=7), "a whole scale_factor.*fixed size"),
    "a broken factor": (lambda: enn.R2Upsampling(maps(), scale_factor=1.5), "a whole scale_factor"),
    "corners aligned": (lambda: enn.R2Upsampling(maps(), scale_factor=2, align_corners=True), "a whole scale_factor"),
    "two strides": (lambda: convolution(maps(), maps(), 3, stride=(1, 2)), "stride must be the same for rows"),
    "two paddings": (lambda: enn.PointwiseMaxPool2D(maps(), 3, 1, (1, 0)), "such that dilation"),
    "functions of no plane": (
        lambda: convolution(maps(), maps(), 3, basis_filter=lambda function: function["irreps:in"] != (1,)),
        "as many functions for each orientation.*filters='grid'",
    ),
}


def lopsided():
    """A convolution from which a basis_filter removed functions, whatever their names."""
    state = {"left": 3}

    def keep(function):
        state["left"] -= 1
        return state["left"] < 0

    return convolution(maps(), maps(), 3, basis_filter=keep)


REFUSED["functions of no plane"] = (lopsided, "as many functions for each orientation.*filters='grid'")


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"(?is)^module\b.*{message}"):
        from_escnn(make())


@pytest.mark.parametrize("case", ["field dropout", "mixed fields in a norm", "a fixed size", "two paddings"])
def test_the_path_to_it_is_given(case):
    make, message = REFUSED[case]
    bad = make()
    kind = bad.in_type
    net = enn.SequentialModule(
        enn.IdentityModule(kind), enn.SequentialModule(enn.IdentityModule(kind), enn.SequentialModule(bad))
    )
    with pytest.raises(ValueError, match=rf"(?s)^module\.1\.1\.0\b.*{message}"):
        from_escnn(net)


class Block(enn.EquivariantModule):
    """A user's module, whose forward cannot be converted."""

    def __init__(self):
        super().__init__()
        self.in_type = self.out_type = maps()
        self.conv = convolution(maps(), maps(), 3, padding=1)

    def forward(self, input):
        return input + self.conv(input)

    def evaluate_output_shape(self, input_shape):
        return input_shape


def test_a_module_of_ones_own_is_refused():
    with pytest.raises(ValueError, match=r"^module\.0 must be one of SequentialModule, R2Conv.*'Block'.*join them by"):
        from_escnn(enn.SequentialModule(Block()))
    # Its parts are not.
    assert repr(from_escnn(Block().conv)).startswith("GroupConv2d(2, 2")


class Subclass(enn.ReLU):
    def forward(self, input):
        return input


def test_a_class_that_changes_forward_is_not_taken_for_its_parent():
    with pytest.raises(ValueError, match=r"^module must be one of.*'Subclass'"):
        from_escnn(Subclass(maps()))


@pytest.mark.parametrize("module", [nn.ReLU(), 3, None, [nn.ReLU()]], ids=["torch", "int", "None", "list"])
def test_what_is_no_module_of_escnn_is_refused(module):
    with pytest.raises(ValueError, match=r"^module must be a module of escnn.*its escnn parts one by one"):
        from_escnn(module)


def test_kernels_that_are_not_those_of_the_weights_are_refused():
    """In eval mode escnn uses earlier weights."""
    conv = convolution(maps(), maps(), 3).eval()
    from_escnn(conv)
    with torch.no_grad():
        conv.weights.mul_(2)
    with pytest.raises(
        ValueError, match=r"^module\.0 must be a convolution whose kernels are those of its weights.*train"
    ):
        from_escnn(enn.SequentialModule(conv).eval())
    from_escnn(conv.train())
    from_escnn(conv.eval())
    with torch.no_grad():
        conv.bias.add_(1)
    with pytest.raises(ValueError, match="whose kernels are those of its weights"):
        from_escnn(conv)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounding_is_no_change_of_weights(dtype):
    from_escnn(convolution(maps("C8"), maps("C8"), 5).to(dtype).eval())


def test_a_network_is_converted_after_another_has_altered_the_tables_that_they_share():
    kinds = fields(PLANES["C4"](), "t", 1), maps()
    conv = enn.R2Conv(*kinds, 3).eval()
    other = enn.R2Conv(*kinds, 3).double()
    x = torch.randn(1, 1, 6, 6)
    expected = conv(conv.in_type(x)).tensor.unflatten(1, (2, 4))
    torch.testing.assert_close(from_escnn(conv)(x), expected)
    other.float()


@pytest.mark.parametrize("name", ["C3", "C8", "D6"])
def test_the_grid_is_for_quarter_turns(name):
    net = enn.SequentialModule(convolution(maps(name), maps(name), 3))
    with pytest.raises(ValueError, match=rf"^filters must be 'escnn' for {name}"):
        from_escnn(net, filters="grid")

"""Modules that cannot be converted are refused with path and advice; run where the extra ``escnn`` is installed."""

import pytest
import torch
from escnn_networks import PLANES, convolution, enn, fields, gspaces, random, relative
from torch import nn

from gconv_ga.interop import from_escnn

pytestmark = pytest.mark.escnn


def maps(name="C4", count=2):
    return fields(PLANES[name](), "r", count)


def mixed():
    space = PLANES["C4"]()
    return enn.FieldType(space, [space.regular_repr, space.trivial_repr])


def volume():
    space = gspaces.rot2dOnR3(4)
    return enn.FieldType(space, [space.trivial_repr])


class Changed(enn.ReLU):
    """A user's layer that looks like one of escnn's."""

    def forward(self, input):
        return input


REFUSED = {
    "field dropout": (lambda: enn.FieldDropout(maps()), "'FieldDropout'. Replace it with PointwiseDropout"),
    "tensor product": (
        lambda: enn.TensorProductModule(maps(), maps()),
        "'TensorProductModule'. Train with a module that",
    ),
    "linear": (
        lambda: enn.Linear(*2 * [gspaces.no_base_space(PLANES["C4"]().fibergroup).type(maps().representations[0])]),
        "'Linear'. Use torch.nn.Linear on invariant numbers",
    ),
    "volumes": (lambda: enn.InnerBatchNorm(volume()), "space must be a plane.*Convert networks for images"),
    "a broken factor": (
        lambda: enn.R2Upsampling(maps(), scale_factor=1.5),
        "a whole scale_factor.*Use mode='bilinear'",
    ),
    "nearest to a size": (lambda: enn.R2Upsampling(maps(), size=7, mode="nearest"), "a whole scale_factor"),
    "two strides": (lambda: convolution(maps(), maps(), 3, stride=(1, 2)), "stride must be the same for rows"),
    "two paddings": (lambda: enn.PointwiseMaxPool2D(maps(), 3, 1, (1, 0)), "such that dilation"),
    "a window that is no square": (
        lambda: enn.PointwiseAvgPool2D(fields(PLANES["C4"](), "t", 2), (3, 1), 2),
        "such that dilation",
    ),
    "another forward": (
        lambda: Changed(maps()),
        "a module that keeps ReLU's forward.*'Changed'. Derive it from EquivariantModule and let it hold a ReLU",
    ),
}


def lopsided():
    """A convolution from which a basis_filter removed functions, whatever their names."""
    state = {"left": 3}

    def keep(function):
        state["left"] -= 1
        return state["left"] < 0

    return convolution(maps(), maps(), 3, basis_filter=keep)


REFUSED["functions of no plane"] = (lopsided, "as many functions for each orientation.*Use filters='grid'")


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"(?is)^module\b.*{message}"):
        from_escnn(make())


@pytest.mark.parametrize("case", ["field dropout", "two paddings", "another forward"])
def test_the_path_to_it_is_given(case):
    make, message = REFUSED[case]
    bad = make()
    kind = bad.in_type
    net = enn.SequentialModule(
        enn.IdentityModule(kind), enn.SequentialModule(enn.IdentityModule(kind), enn.SequentialModule(bad))
    )
    with pytest.raises(ValueError, match=rf"(?s)^module\.1\.1\.0\b.*{message}"):
        from_escnn(net)


class Net(nn.Module):
    """A network with parts in a list, as a user writes it."""

    def __init__(self, part):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ReLU(), nn.Sequential(part)])
        self.helpers = {"first": [part]}


def test_in_a_network_of_ones_own_too():
    with pytest.raises(ValueError, match=r"^module\.blocks\.1\.0 must be a module that from_escnn converts"):
        from_escnn(Net(enn.FieldDropout(maps())))


def test_a_message_is_short():
    """The module, what it is, and what to do: no list to search."""
    for make, _ in REFUSED.values():
        with pytest.raises(ValueError, match=r"^module") as caught:
            from_escnn(make())
        assert len(str(caught.value)) < 330


def test_a_module_that_cannot_be_copied_is_refused():
    net = Net(enn.ReLU(maps()))
    net.lines = (line for line in "ab")
    with pytest.raises(ValueError, match=r"^module must be a module that copy.deepcopy copies.*Remove the attribute"):
        from_escnn(net)


class ReNet(nn.Module):
    """A network of e2cnn, which is not installed."""


def test_networks_of_e2cnn_are_told_the_way():
    ReNet.__module__ = "e2cnn.nn.modules"
    with pytest.raises(
        ValueError, match=r"^module must be a network of escnn.*'one of e2cnn'. Build the same.*load_state"
    ):
        from_escnn(nn.Sequential(ReNet()))


def test_the_way_from_e2cnn_is_exact():
    """Its functions come in another order, and its state holds them: the state alone makes escnn's network its own."""
    kinds = fields(PLANES["C8"](), "t", 2), maps("C8", 3)
    net = random(enn.SequentialModule(convolution(*kinds, 5), enn.InnerBatchNorm(kinds[1])), torch.float64).eval()
    x = torch.randn(1, 2, 8, 9, dtype=torch.float64)
    expected = net(kinds[0](x)).tensor.unflatten(1, (3, 8))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    (table,) = (name for name in state if name.endswith("sampled_basis"))
    order = torch.randperm(len(state[table]))
    state[table] = state[table][order]
    state["0.weights"] = state["0.weights"].view(6, -1)[:, order].flatten()
    again = enn.SequentialModule(convolution(*kinds, 5), enn.InnerBatchNorm(kinds[1])).double().eval()
    again.load_state_dict(state)
    torch.testing.assert_close(from_escnn(again)(x), expected)
    # The weights alone are not enough.
    again = enn.SequentialModule(convolution(*kinds, 5), enn.InnerBatchNorm(kinds[1])).double().train()
    again.load_state_dict({name: state.get(name) for name in again.state_dict() if name != table}, strict=False)
    assert relative(from_escnn(again.eval())(x), expected) > 0.1


@pytest.mark.parametrize("module", [nn.ReLU(), 3, None, [nn.ReLU()]], ids=["torch", "int", "None", "list"])
def test_what_is_no_module_of_escnn_is_refused(module):
    with pytest.raises(ValueError, match=r"^module must be a module of escnn, or one that has such modules.*Pass a"):
        from_escnn(module)


def test_what_escnn_has_exported_is_plain_already():
    exported = enn.SequentialModule(convolution(maps(), maps(), 3)).eval().export()
    with pytest.raises(ValueError, match=r"what its export\(\) returns are plain layers of torch"):
        from_escnn(exported)


def test_mixed_fields_have_no_free_taps_and_no_grids_of_their_own():
    conv = convolution(mixed(), maps(), 3, stride=2)
    with pytest.raises(ValueError, match=r"^filters must be 'escnn' for module, whose fields are neither"):
        from_escnn(conv, filters="grid")
    for bad in (
        conv,
        enn.PointwiseMaxPool2D(mixed(), 2),
        enn.R2ConvTransposed(mixed(), maps(), 3, output_padding=1, stride=2),
    ):
        with pytest.raises(ValueError, match=r"^sampling must be 'shared' for module, which has a stride"):
            from_escnn(bad, sampling="per_orientation")


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

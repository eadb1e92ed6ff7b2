"""The facts about escnn that the conversion relies on. Run where the extra ``escnn`` is installed."""

import pytest
import torch
import torch.nn.functional as F
from escnn_networks import EXACT, PLANES, convolution, enn, fields, places, random, relative, to_maps

from gconv_ga.actions import RegularField, ScalarField
from gconv_ga.groups import as_group

pytestmark = pytest.mark.escnn

ROUNDING = 1e-6  # escnn samples its functions in float32


def kernels(name, kernel_size, into="t", outof="r"):
    """``[o, i, k, k]`` of one field to one field, in escnn's own order of the channels."""
    space = PLANES[name]()
    conv = convolution(fields(space, into, 1), fields(space, outof, 1), kernel_size)
    return space, conv.expand_parameters()[0].detach().double()


@pytest.mark.parametrize("kernel_size", [3, 4, 5])
@pytest.mark.parametrize("name", EXACT)
def test_kernels_turn_as_ours_do_once_their_elements_are_in_our_order(name, kernel_size):
    group = as_group(name[:2])
    space, kernel = kernels(name, kernel_size)
    kernel = kernel[places(space), 0]
    for g in range(group.order):
        turned = ScalarField()(kernel[0][None, None], group, g)[0, 0]
        assert relative(kernel[g], turned) <= ROUNDING


def test_the_other_direction_would_be_seen():
    _, kernel = kernels("C4", 3)
    assert relative(kernel[1, 0], torch.rot90(kernel[0, 0], 1)) <= ROUNDING
    assert relative(kernel[1, 0], torch.rot90(kernel[0, 0], -1)) > 0.1


def test_another_mirror_would_be_seen():
    _, kernel = kernels("D4", 3)
    assert relative(kernel[4, 0], kernel[0, 0].flip(-1)) <= ROUNDING
    assert relative(kernel[4, 0], kernel[0, 0].flip(-2)) > 0.1
    # Mirror first, then rotate: the other order is another element.
    assert relative(kernel[5, 0], torch.rot90(kernel[0, 0].flip(-1), 1)) <= ROUNDING
    assert relative(kernel[5, 0], torch.rot90(kernel[0, 0], 1).flip(-1)) > 0.1


def test_a_diagonal_axis_has_another_order():
    space, kernel = kernels("D4, diagonal axis", 3)
    assert relative(kernel[5, 0], kernel[0, 0].flip(-1)) <= ROUNDING
    assert relative(kernel[4, 0], torch.rot90(kernel[0, 0].flip(-1), -1)) <= ROUNDING
    order = places(space)
    assert order != list(range(8))
    # Nor is it its own inverse, so that what takes one for the other is seen.
    assert [order[i] for i in order] != list(range(8))


@pytest.mark.parametrize("name", EXACT)
def test_kernels_between_maps_rotate_and_shift(name):
    group = as_group(name[:2])
    space, kernel = kernels(name, 3, into="r")
    kernel = kernel[places(space)][:, places(space)]
    for g in range(group.order):
        moved = RegularField()(kernel[0][None, None], group, g)[0, 0]
        assert relative(kernel[g], moved) <= ROUNDING


@pytest.mark.parametrize("name", ["C4", "C8", "D4", "D6"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_functions_between_maps_are_those_from_images_for_every_plane(name, kernel_size):
    """Each plane has as many functions as a lifting layer, and they are the same up to rounding."""
    space = PLANES[name]()
    lifting, between = (
        next(convolution(fields(space, into, 1), fields(space, "r", 1), kernel_size).basisexpansion.children())
        for into in "tr"
    )
    order = space.fibergroup.order()
    one, all_planes = lifting.sampled_basis[:, 0, 0].double(), between.sampled_basis[:, 0].double()
    assert len(all_planes) == len(one) * order
    planes = all_planes.flatten(0, 1)
    rest = planes - planes @ torch.linalg.pinv(one) @ one
    assert float(rest.norm() / planes.norm()) <= ROUNDING
    fewer = one[1:]
    assert float((planes - planes @ torch.linalg.pinv(fewer) @ fewer).norm() / planes.norm()) > 0.1


def test_fields_lie_outermost_and_elements_innermost():
    space = PLANES["C4"]()
    kind = fields(space, "r", 3)
    x = torch.randn(1, 12, 5, 5)
    shifted = kind(x).transform_fibers(space.fibergroup.element(1)).tensor
    torch.testing.assert_close(shifted, x.unflatten(1, (3, 4)).roll(1, 2).flatten(1, 2))
    assert relative(shifted, x.unflatten(1, (4, 3)).roll(1, 1).flatten(1, 2)) > 0.1


@pytest.mark.parametrize("size", [(10, 10), (11, 14)])
@pytest.mark.parametrize("kernel_size", [3, 4])
def test_a_stride_samples_one_grid_for_all_orientations(kernel_size, size):
    """At even sizes too: it is torch's convolution, whatever is left over."""
    space = PLANES["C4"]()
    conv = convolution(fields(space, "t", 1), fields(space, "r", 1), kernel_size, stride=2, padding=1, bias=False)
    x = torch.randn(1, 1, *size)
    expected = F.conv2d(x, conv.expand_parameters()[0], stride=2, padding=1)
    torch.testing.assert_close(conv(conv.in_type(x)).tensor, expected)


def test_norms_share_their_statistics_over_the_elements_of_a_field():
    kind = fields(PLANES["C4"](), "r", 2)
    norm, x = random(enn.InnerBatchNorm(kind, momentum=1.0), torch.float64), torch.randn(3, 8, 5, 6).double()
    norm.train()(kind(x))
    inner = norm.get_submodule("batch_norm_[4]")
    maps = to_maps(x, kind)
    torch.testing.assert_close(inner.running_mean, maps.mean((0, 2, 3, 4)))
    torch.testing.assert_close(inner.running_var, maps.var((0, 2, 3, 4), unbiased=True))
    assert not torch.allclose(inner.running_var, maps.var((0, 3, 4), unbiased=True).mean(1))


def test_group_pooling_returns_float32_whatever_goes_in():
    """Networks with it agree to float32's digits only, so the tests of this room avoid it."""
    kind = fields(PLANES["C4"](), "r", 2)
    assert enn.GroupPooling(kind)(kind(torch.randn(1, 8, 3, 3).double())).tensor.dtype == torch.float32


def test_a_dtype_reaches_all_layers_with_the_same_functions():
    """This is why the tests, and `to_escnn`, give each layer a table of its own."""
    space = PLANES["C4"]()
    one, other = (enn.R2Conv(fields(space, "t", 1), fields(space, "r", 1), 3, initialize=False) for _ in range(2))
    one.double()
    (block,) = other.basisexpansion.children()
    assert block.sampled_basis.dtype == torch.float64
    one.float()

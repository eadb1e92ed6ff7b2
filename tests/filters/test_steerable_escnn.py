"""The rotation error of one layer against escnn's default layer; runs where the extra ``escnn`` is installed."""

import pytest
import torch
from plane_waves import errors

from gconv_ga.filters import steerable_basis

gspaces = pytest.importorskip("escnn.gspaces", reason="the extra escnn is not installed")
escnn_nn = pytest.importorskip("escnn.nn")

pytestmark = pytest.mark.escnn


def escnn_functions(n, kernel_size):
    """Return the functions of escnn's lifting layer, rotated by each rotation: ``[F, n, k, k]``, orthonormal."""
    space = gspaces.rot2dOnR2(n)
    image, maps = (escnn_nn.FieldType(space, [kind]) for kind in (space.trivial_repr, space.regular_repr))
    layer = escnn_nn.R2Conv(image, maps, kernel_size)
    found = []
    for coefficients in torch.eye(layer.weights.numel()):
        layer.weights.data.copy_(coefficients)
        found.append(layer.expand_parameters()[0][:, 0].detach().double())
    functions = torch.stack(found).flatten(2)
    # Of equal size and independent, so that random weights mean the same for both libraries.
    values, vectors = torch.linalg.eigh(torch.einsum("fgx,hgx->fh", functions, functions) / n)
    orthonormal = torch.einsum("fh,fgx->hgx", vectors / values.sqrt(), functions)
    return orthonormal.unflatten(-1, (kernel_size, kernel_size))


def as_it_begins(name, kernel_size):
    """Return our functions, each scaled by the deviation of its initial weights."""
    basis = steerable_basis(name, kernel_size)
    return basis.kernels * torch.tensor(basis.spread, dtype=torch.float64).view(-1, 1, 1, 1)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_escnn_turns_kernels_the_same_way(kernel_size):
    """A condition of the comparison: multiples of 90 degrees agree with ours, up to escnn's float32."""
    functions = escnn_functions(8, kernel_size)
    assert (functions.roll(-2, 1) - functions.rot90(1, (-2, -1))).abs().max() < 1e-5


@pytest.mark.parametrize("kernel_size", [5, 7])
@pytest.mark.parametrize("n", [8, 12, 16])
def test_one_layer_turns_better_with_at_least_as_many_functions(n, kernel_size):
    theirs, ours = escnn_functions(n, kernel_size), steerable_basis(f"C{n}", kernel_size).kernels
    assert len(ours) >= len(theirs)
    for blur, ratio in ((0.0, 0.65 if n == 8 else 1.0), (1.0, 0.65)):
        assert errors(ours, blur)[1] <= ratio * errors(theirs, blur)[1]
    # With the initial weights of our layers the difference is larger.
    assert errors(as_it_begins(f"C{n}", kernel_size))[1] <= 0.5 * errors(theirs)[1]


@pytest.mark.parametrize("n", [8, 12, 16])
def test_three_by_three_kernels_have_as_many_functions_and_turn_no_worse(n):
    theirs, ours = escnn_functions(n, 3), steerable_basis(f"C{n}", 3).kernels
    assert len(ours) == len(theirs) == 6
    for blur, ratio in ((0.0, 1.06), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0)):
        assert errors(ours, blur)[1] <= ratio * errors(theirs, blur)[1]
    assert errors(as_it_begins(f"C{n}", 3))[1] <= 0.6 * errors(theirs)[1]

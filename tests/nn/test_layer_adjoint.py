"""The transposed group convolution is the adjoint of the group convolution: <k * f, u> = <f, k *^T u>."""

import pytest
import torch
from layer_catalogue import GROUPS
from slow_average import EXACT as ORDERS
from tolerances import TOLERANCES

import gconv_ga.nn as gnn


def sides(group, window, groups=1, taps=None, size=(11, 8), sampling="per_orientation"):
    """Return both inner products, for a convolution with random weights and its transposed counterpart."""
    k, s, p, d = window
    order = ORDERS[group] * (2 if group[0] == "D" else 1)
    options = {
        "dilation": d, "groups": groups, "bias": False, "group": group, "dtype": torch.float64,
        "group_kernel_size": taps if taps is None else min(taps, order), "sampling": sampling,
    }  # fmt: skip
    forth = gnn.GroupConv2d(4, 2, k, s, p, **options)
    back = gnn.GroupConvTranspose2d(2, 4, k, s, p, **options)
    back.load_state_dict(forth.state_dict())
    f = torch.randn(2, 4, order, *size, dtype=torch.float64)
    y = forth(f)
    u = torch.randn(y.shape, dtype=torch.float64)
    return (y * u).sum(), (f * back(u, output_size=size)).sum(), (y * u).abs().sum()


@pytest.mark.parametrize("taps", [None, 2, 1])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("window", [(3, 1, 1, 1), (3, 2, 1, 1), (2, 3, 0, 1), (3, 2, 2, 2)], ids=str)
def test_both_inner_products_agree(group, window, taps):
    """Sizes at which pixels are left over: each orientation returns its samples to where they were taken."""
    left, right, scale = sides(group, window, taps=taps)
    assert abs(left - right) <= TOLERANCES[torch.float64] * scale


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(9, 9), (8, 8), (12, 7), (10, 13)], ids=str)
def test_both_inner_products_agree_with_blocks_and_at_other_sizes(size, groups):
    left, right, scale = sides("D4", (3, 2, 1, 1), groups=groups, size=size)
    assert abs(left - right) <= TOLERANCES[torch.float64] * scale


def test_another_kernel_is_no_adjoint():
    forth = gnn.GroupConv2d(1, 1, 3, bias=False, group="C4", dtype=torch.float64)
    back = gnn.GroupConvTranspose2d(1, 1, 3, bias=False, group="C4", dtype=torch.float64)
    f = torch.randn(1, 1, 4, 9, 9, dtype=torch.float64)
    u = torch.randn(1, 1, 4, 7, 7, dtype=torch.float64)
    back.weight.data.copy_(forth.weight.flip(2))
    assert abs((forth(f) * u).sum() - (f * back(u)).sum()) > 0.01 * (forth(f) * u).abs().sum()

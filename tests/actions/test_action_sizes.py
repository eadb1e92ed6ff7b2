"""Sizes that windows cover without leftover, against windows placed one by one and torch's convolution."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gconv_ga.actions import ScalarField, good_sizes_near, leftover
from gconv_ga.groups import C2

windows = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))


def unreached(size, kernel, stride, low, high, dilation):
    """Place one window after another; None if none fits."""
    reach, end, rest = dilation * (kernel - 1) + 1, size + low + high, None
    for start in range(0, end - reach + 1, stride):
        rest = end - (start + reach)
    return rest


@given(st.integers(1, 40), windows, st.integers(0, 3))
def test_the_rest_is_what_no_window_reaches(size, window, other):
    kernel, stride, both, dilation = window
    for padding, low, high in (((both, other), both, other), (both, both, both)):
        rest = unreached(size, kernel, stride, low, high, dilation)
        if rest is not None:
            assert leftover(size, kernel, stride, padding, dilation) == rest


@given(st.integers(1, 40), windows)
def test_good_sizes_are_the_nearest_without_a_rest(size, window):
    kernel, stride, padding, dilation = window
    good = [n for n in range(1, 80) if unreached(n, kernel, stride, padding, padding, dilation) == 0]
    below, above = good_sizes_near(size, kernel, stride, padding, dilation)
    assert above == min(n for n in good if n >= size)
    assert below == max((n for n in good if n <= size), default=above)


@pytest.mark.parametrize("size", range(5, 12))
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 2, 1, 1), (2, 2, 0, 1), (3, 3, 2, 2)])
def test_a_symmetric_kernel_is_exact_exactly_at_good_sizes(size, kernel, stride, padding, dilation):
    """A rotation by 180 degrees, under which the kernel is invariant."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 1, kernel, kernel, dtype=torch.float64, generator=draw)
    weight = weight + weight.flip(-2, -1)
    x = torch.randn(1, 1, size, size, dtype=torch.float64, generator=draw)

    def convolve(x):
        return torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)

    turned = ScalarField()(convolve(x), C2, 1)
    exact = torch.allclose(convolve(ScalarField()(x, C2, 1)), turned, rtol=0, atol=1e-12)
    assert exact == (leftover(size, kernel, stride, padding, dilation) == 0)
    assert exact == (size in good_sizes_near(size, kernel, stride, padding, dilation))

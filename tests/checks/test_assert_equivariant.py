"""`assert_equivariant`: the verdict, its tolerance and its message."""

import math

import pytest
import torch
from symmetric_nets import Lifting, classifier, image, symmetric_net, turn
from torch import nn

from gconv_ga.checks import assert_equivariant

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layers", [1, 15])
def test_a_deep_symmetric_net_passes_in_every_type(layers, dtype, device):
    """The default tolerances hold for deep networks of every type."""
    net = symmetric_net(layers=layers, width=16).to(device, dtype)  # a deep narrow one collapses to a constant
    assert assert_equivariant(net, "D4", image(2, 1, 8, 8, dtype=dtype).to(device)) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_net_that_is_not_symmetric_fails_in_every_type(dtype, device):
    torch.manual_seed(1)
    net = nn.Conv2d(1, 4, 3, padding=1).to(device, dtype)
    with pytest.raises(AssertionError, match=r"Conv2d is not equivariant under D4"):
        assert_equivariant(net, "D4", image(2, 1, 8, 8, dtype=dtype).to(device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_defaults_are_those_of_the_docstring(dtype):
    """An error just above fails and one just below passes: a single pixel is off by that much."""
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}[dtype]
    assert f"{tolerance:.0e}".replace("e-0", "e-") in " ".join(assert_equivariant.__doc__.split())

    def off_by(share):
        def module(x):
            y = x.clone()
            y[0, 0, 1, 2] += share * x.abs().max()
            return y

        return module

    x = image(1, 1, 6, 6, dtype=dtype)
    x[0, 0, 1, 2] = 0.0  # the pixel stays small, and exact in every type
    assert_equivariant(off_by(tolerance * 0.8), "C4", x)
    with pytest.raises(AssertionError, match=f"tolerance {tolerance:.0e}"):
        assert_equivariant(off_by(tolerance * 1.2), "C4", x)


def test_the_narrowest_type_decides():
    cast = lambda x: x.to(torch.bfloat16).double()  # noqa: E731
    noisy = lambda x: (x * (1 + 1e-3 * (torch.arange(6) == 2))).to(torch.bfloat16)  # noqa: E731
    assert_equivariant(cast, "C4", image(1, 1, 6, 6))
    assert_equivariant(noisy, "C4", image(1, 1, 6, 6))
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: noisy(x).double(), "C4", image(1, 1, 6, 6))


def test_nan_fails():
    """``err > tol`` would let it pass."""
    net = symmetric_net()
    broken = lambda x: net(x).where(torch.arange(6) != 2, math.nan)  # noqa: E731
    with pytest.raises(AssertionError, match=r"relative error nan[^\n]*4 of 4 elements"):
        assert_equivariant(broken, "C4", image(1, 1, 6, 6))


def test_nan_for_one_element_fails():
    net, x = symmetric_net(), image(1, 1, 5, 6)
    trap = turn(x, 3)
    broken = lambda x: net(x) * (math.nan if torch.equal(x, trap) else 1)  # noqa: E731
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(broken, "C4", x)
    lines = str(caught.value).splitlines()
    assert "1 of 4 elements" in lines[0]
    assert [line.split("<-")[1].strip() for line in lines if "<-" in line] == ["not finite"]
    assert lines[6].split()[:3] == ["3", "270", "deg"]


def test_the_message_is_a_table_of_elements():
    torch.manual_seed(0)
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(nn.Conv2d(1, 1, 3).double(), "D2", image(1, 1, 6, 6))
    headline, hint, head, *rows = str(caught.value).splitlines()
    assert headline.startswith("Conv2d is not equivariant under D2: relative error ")
    assert headline.endswith("tolerance 1e-10, 3 of 4 elements above it.")
    assert head.split() == ["element", "motion", "error"]
    assert [row.split("  ")[0].strip() or row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    motions = ["identity", "180 deg", "reflection", "reflection, then 180 deg"]
    assert all(motion in row for motion, row in zip(motions, rows, strict=True))
    assert ["<- above the tolerance" in row for row in rows] == [False, True, True, True]
    assert "equivariance_report" in hint


def test_a_failure_on_the_moved_input_is_told():
    with pytest.raises(RuntimeError) as caught:
        assert_equivariant(nn.LayerNorm(5).double(), "C4", image(1, 1, 4, 5))
    (note,) = caught.value.__notes__
    assert note == "The module ran on its input and failed on that moved by element 1 of C4: input (1, 1, 5, 4)."
    with pytest.raises(RuntimeError) as caught:
        assert_equivariant(nn.LayerNorm(6).double(), "C4", image(1, 1, 4, 5))
    assert not hasattr(caught.value, "__notes__")


def test_another_shape_is_told():
    uneven = nn.Conv2d(1, 2, 3, stride=(2, 1), padding=1).double()
    with pytest.raises(
        AssertionError, match=r"inf  <- returns output of shape \(1, 2, 4, 7\) instead of \(1, 2, 7, 4\)"
    ):
        assert_equivariant(uneven, "C4", image(1, 1, 7, 7))


def test_other_outputs_are_told():
    sometimes = lambda x: {"a": x, "b": x} if x.shape[-1] == 5 else {"a": x}  # noqa: E731
    with pytest.raises(AssertionError, match=r"<- returns output\['a'\], output\['b'\] instead of output\['a'\]"):
        assert_equivariant(sometimes, "C4", image(1, 1, 5, 6), out_action="scalar")


def test_actions_are_handed_on():
    assert_equivariant(classifier(), "D4", image(2, 1, 8, 8), out_action="invariant")
    assert_equivariant(Lifting().double(), "C4", image(1, 1, 6, 6), out_action="regular")
    with pytest.raises(AssertionError):
        assert_equivariant(Lifting((0, 3, 2, 1)).double(), "C4", image(1, 1, 6, 6), out_action="regular")


@pytest.mark.parametrize("tolerance", [0, -1e-3, math.nan, math.inf, True, "1e-3"])
def test_what_is_no_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"^tolerance must be a positive number, but got tolerance="):
        assert_equivariant(nn.ReLU(), "C4", image(1, 1, 6, 6), tolerance=tolerance)


def test_a_tolerance_must_be_given_off_the_grid():
    with pytest.raises(ValueError, match=r"^tolerance must be given for C8, .* got tolerance=None\. Measure it first"):
        assert_equivariant(nn.ReLU(), "C8", image(1, 1, 6, 6))
    # not where nothing is interpolated
    assert_equivariant(lambda x: 2 * x, "C8", image(1, 5, 2), in_action="points", out_action="points")


def test_a_type_without_a_default_needs_a_tolerance():
    small = lambda x: x.to(torch.float8_e4m3fn)  # noqa: E731
    with pytest.raises(ValueError, match=r"^tolerance must be given: there is no default for torch\.float8_e4m3fn"):
        assert_equivariant(small, "C4", image(1, 1, 6, 6))
    assert_equivariant(small, "C4", image(1, 1, 6, 6), tolerance=0.1)

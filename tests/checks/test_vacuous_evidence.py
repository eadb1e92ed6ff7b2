"""Comparisons that prove nothing are refused: zero or constant outputs, and inputs that the group leaves alone."""

import pytest
import torch
from symmetric_nets import classifier, image, symmetric_net, turn
from torch import nn

from gconv_ga.checks import assert_equivariant, equivariance_error, equivariance_report

ZERO = r"^module must have an output that is not zero, but output{} is zero, which proves nothing\. Use"
CONSTANT = r"^module must have an output that depends on its input, but output{} changes by .* of its size when"
UNCHANGED = r"^inputs must be changed by every element of {}, but {} them as they are, which proves nothing\. Use"


@pytest.fixture(params=["equivariance_error", "assert_equivariant", "equivariance_report"])
def check(request):
    """All three refuse alike."""
    return {
        "equivariance_error": equivariance_error,
        "assert_equivariant": assert_equivariant,
        # The report takes modules only.
        "equivariance_report": lambda module, *args, **options: equivariance_report(
            module if isinstance(module, nn.Module) else Wrapped(module), *args, **options
        ),
    }[request.param]


class Wrapped(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def test_a_zero_output_is_refused(check):
    net = symmetric_net().double()
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    with pytest.raises(ValueError, match=ZERO.format("")):
        check(net, "C4", image(1, 1, 6, 6))


def test_one_zero_output_among_others_is_refused(check):
    with pytest.raises(ValueError, match=ZERO.format(r"\['aux'\]\[0\]")):
        check(lambda x: {"out": x, "aux": [x * 0]}, "C4", image(1, 1, 6, 6), out_action="scalar")


@pytest.mark.parametrize("value", [1.0, float("inf")])
def test_a_constant_output_is_refused_or_not_finite(check, value):
    """A constant infinity cannot be measured: its error is NaN."""
    constant = lambda x: torch.full_like(x, value)  # noqa: E731
    if value == 1.0:
        with pytest.raises(ValueError, match=CONSTANT.format("")):
            check(constant, "C4", image(1, 1, 6, 6))
    else:
        assert equivariance_error(constant, "C4", image(1, 1, 6, 6)).isnan().all()


def test_an_output_that_hardly_depends_on_the_input_is_refused(check):
    """Only the bias is left. The same function passes if its dependence on the input is larger than rounding."""
    collapsed = lambda scale: lambda x: 1 + scale * x  # noqa: E731
    x = image(1, 1, 6, 6)
    with pytest.raises(ValueError, match=CONSTANT.format("")):
        check(collapsed(1e-17), "C4", x)
    check(collapsed(1e-3), "C4", x)


def test_an_error_that_would_pass_must_be_able_to_show():
    """The broken part is as small as the tolerance: no evidence at 1e-10, found at 1e-14."""
    broken = lambda x: 1 + 1e-12 * x.roll(1, -1)  # noqa: E731
    x = image(1, 1, 6, 6)
    assert float(equivariance_error(broken, "C4", x).max()) < 1e-10
    with pytest.raises(ValueError, match=CONSTANT.format("")):
        assert_equivariant(broken, "C4", x)
    with pytest.raises(AssertionError):
        assert_equivariant(broken, "C4", x, tolerance=1e-14)


def test_a_bias_larger_than_what_a_narrow_type_resolves_is_refused():
    broken = lambda x: 8 + 1e-2 * x.roll(1, -1)  # noqa: E731
    with pytest.raises(ValueError, match=r"or use float64"):
        assert_equivariant(broken, "C4", image(1, 1, 6, 6, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("group", "x", "elements"),
    [
        ("C4", torch.ones(1, 1, 6, 6), "elements 1, 2, 3 leave"),
        ("C4", torch.ones(1, 1, 5, 7), "element 2 leaves"),
        ("C4", image(1, 1, 1, 1), "elements 1, 2, 3 leave"),
        ("D4", image(1, 1, 6, 6) + turn(image(1, 1, 6, 6), 4, mirrors=True), "element 4 leaves"),
        ("C4", image(1, 1, 6, 6) + turn(image(1, 1, 6, 6), 2), "element 2 leaves"),
    ],
    ids=["constant", "constant, not square", "one pixel", "mirrored", "half turned"],
)
def test_an_input_that_an_element_leaves_alone_is_refused(check, group, x, elements):
    with pytest.raises(ValueError, match=UNCHANGED.format(group, elements)):
        check(nn.Conv2d(1, 2, 3, padding=1).to(x.dtype), group, x)


def test_an_input_that_rounding_alone_changes_is_refused(check):
    x = image(1, 1, 6, 6, dtype=torch.float32)
    x = sum(turn(x, g) for g in range(4)) * (1 + 1e-8 * image(1, 1, 6, 6, dtype=torch.float32))
    with pytest.raises(ValueError, match=UNCHANGED.format("C4", "elements 1, 2, 3 leave")):
        check(nn.Conv2d(1, 2, 3, padding=1), "C4", x)


def test_invariant_inputs_are_refused(check):
    with pytest.raises(ValueError, match=UNCHANGED.format("C4", "elements 1, 2, 3 leave")):
        check(nn.Linear(5, 3), "C4", image(2, 5, dtype=torch.float32), in_action="invariant", out_action="invariant")


def test_one_input_that_moves_is_enough(check):
    net = symmetric_net().double()
    conditioned = lambda x, scale: net(x) * scale.view(-1, 1, 1, 1)  # noqa: E731
    check(conditioned, "C4", image(2, 1, 6, 6), image(2), in_action=("scalar", "invariant"))


def test_no_tensor_out_is_refused(check):
    with pytest.raises(ValueError, match=r"^module must return at least one tensor, but got none"):
        check(lambda x: {"loss": None, "name": "a"}, "C4", image(1, 1, 6, 6))


def test_an_empty_output_is_refused(check):
    with pytest.raises(ValueError, match=ZERO.format("")):
        check(lambda x: x[:0], "C4", image(2, 1, 6, 6))


@pytest.mark.parametrize(
    ("module", "x", "in_action"),
    [
        (None, image(1, 1, 6, 6), "scalar"),
        (lambda x: x.mean((1, 2, 3)), image(1, 1, 6, 6), "scalar"),
        (lambda x: (x > 0).sum().view(1), image(1, 1, 6, 6), "scalar"),
        (lambda x: x.sum((1, 2)).view(1, 1), (image(1, 6, 6) * 9).long(), "labels"),
        (lambda x: x.log().mean().view(1), image(1, 1, 6, 6).abs(), "scalar"),
    ],
    ids=["classifier", "mean", "count", "integers", "positive numbers only"],
)
def test_invariant_outputs_are_evidence(module, x, in_action):
    """They depend on the input, although no element changes them."""
    assert_equivariant(module or classifier(), "D4", x, in_action=in_action, out_action="invariant")


def test_the_trivial_group_has_nothing_to_refuse():
    assert equivariance_error(nn.Conv2d(1, 1, 3).double(), "C1", image(1, 1, 6, 6)).tolist() == [0]


def test_masks_and_indices_are_not_drawn_anew_beside_numbers():
    """A module may rely on the values."""

    def gather(x, index):
        assert index.tolist() == [0, 1]
        return x.index_select(1, index)

    assert_equivariant(gather, "C4", image(1, 3, 6, 6), torch.tensor([0, 1]), in_action=("scalar", "invariant"))

"""Statements 8 and 9: equations that fail, against closed forms and a plain loop; and the classes of sides."""

import math

import pytest
import torch
from torch import Tensor

from gconv_ga.identities import (
    ScaledSides,
    Sides,
    TranslatedSides,
    asymmetric_kernel,
    asymmetric_signal,
    scaling_counterexample,
    translation_counterexample,
)


@pytest.mark.parametrize("scale", [2.0, 1.5, 0.5, 3, 1 / 3, (2.0, 0.75), (0.5, 3.0)], ids=str)
def test_wrong_by_the_determinant(scale: float | tuple[float, float], device: torch.device) -> None:
    sides = scaling_counterexample(scale, points=4, device=device)
    determinant = math.prod(scale) if isinstance(scale, tuple) else scale**2
    assert sides.determinant == pytest.approx(determinant, rel=1e-15)
    assert abs(sides.factor / determinant - 1) <= 1e-10
    assert sides.corrected_error <= 1e-10
    # The error of the equation without the factor is exactly that of the factor.
    assert sides.error == pytest.approx(1 - min(determinant, 1 / determinant), abs=1e-10)
    assert sides.error > 0.3


@pytest.mark.parametrize("scale", [1.0, (2.0, 0.5), (0.8, 1.25)], ids=str)
def test_holds_where_areas_are_kept(scale: float | tuple[float, float], device: torch.device) -> None:
    sides = scaling_counterexample(scale, points=4, device=device)
    assert sides.error <= 1e-10
    assert abs(sides.factor - 1) <= 1e-10


def gaussian(width: float) -> object:
    return lambda x, y: torch.exp(-(x * x + y * y) / (2 * width))


@pytest.mark.parametrize("scale", [2.0, 0.5], ids=str)
def test_closed_form_of_gaussians(scale: float, device: torch.device) -> None:
    # Gaussians of variance a and b correlate to one of variance a + b.
    a, b = 0.8, 1.7
    sides = scaling_counterexample(scale, gaussian(a), gaussian(b), device=device)
    y = torch.linspace(-2, 2, 9, dtype=torch.float64, device=device)
    square = y**2 + y[:, None] ** 2

    def closed(a: float, b: float, square: Tensor) -> Tensor:
        return 2 * math.pi * a * b / (a + b) * torch.exp(-square / (2 * (a + b)))

    assert Sides(sides.right, closed(a, b, square / scale**2)).error <= 1e-10
    assert Sides(sides.left, closed(a * scale**2, b * scale**2, square)).error <= 1e-10


def test_agrees_with_a_plain_loop(device: torch.device) -> None:
    scale, reach, samples = 1.5, 6.0, 25
    sides = scaling_counterexample(scale, reach=reach, samples=samples, points=3, device=device)
    step = 2 * reach / (samples - 1)
    line = [-reach + step * i for i in range(samples)]

    def value(function: object, x: float, y: float) -> float:
        return function(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)).item()

    x, y, left, right = 2.0, -2.0, 0.0, 0.0  # the first row, the last column
    for u in line:
        for v in line:
            left += value(asymmetric_kernel, u / scale, v / scale) * value(
                asymmetric_signal, (x + u) / scale, (y + v) / scale
            )
            right += value(asymmetric_kernel, u, v) * value(asymmetric_signal, x / scale + u, y / scale + v)
    assert sides.left[0, -1].item() == pytest.approx(left * step**2, rel=1e-10)
    assert sides.right[0, -1].item() == pytest.approx(right * step**2, rel=1e-10)


@pytest.mark.parametrize("determinant", [1.0, 2.0, 3.99, 8.0])
def test_another_determinant_is_rejected(determinant: float, device: torch.device) -> None:
    # 1: no factor; 2: the factor in one dimension; 8: that in three dimensions.
    sides = scaling_counterexample(2.0, points=4, device=device)._replace(determinant=determinant)
    assert sides.corrected_error > 1e-3


def test_a_unitary_zoom_has_a_factor_too(device: torch.device) -> None:
    # (U_s f)(y) = f(y / s) / s: each function has the factor 1 / s, so the left side has 1 / s^2.
    sides = scaling_counterexample(2.0, points=4, device=device)
    left, right = sides.left / 4, sides.right / 2
    assert Sides(left, right).error > 0.3
    assert Sides(left, 2 * right).error <= 1e-10


@pytest.mark.parametrize("shift", [(1.0, -0.5), (0, 2), (-0.75, 0.0)], ids=str)
def test_a_translation_does_not_move_the_correlation(shift: tuple[float, float], device: torch.device) -> None:
    sides = translation_counterexample(shift, points=4, device=device)
    assert sides.corrected_error <= 1e-10
    assert sides.error > 0.1


def test_translated_gaussians_have_a_closed_form(device: torch.device) -> None:
    a, b, shift = 0.8, 1.7, (1.0, -0.5)
    sides = translation_counterexample(shift, gaussian(a), gaussian(b), points=5, device=device)
    line = torch.linspace(-2, 2, 5, dtype=torch.float64, device=device)

    def closed(x: Tensor, y: Tensor) -> Tensor:
        square = x**2 + y[:, None] ** 2
        return 2 * math.pi * a * b / (a + b) * torch.exp(-square / (2 * (a + b)))

    assert Sides(sides.left, closed(line, line)).error <= 1e-10
    assert Sides(sides.unmoved, closed(line, line)).error <= 1e-10
    assert Sides(sides.right, closed(line - shift[0], line - shift[1])).error <= 1e-10


def test_statement_9_rejects_a_shift_of_the_correlation(device: torch.device) -> None:
    sides = translation_counterexample((0.5, 0.5), points=4, device=device)
    assert sides._replace(unmoved=sides.right).corrected_error > 0.05
    # The identity is the one translation for which statement 4 holds.
    assert translation_counterexample((0.0, 0.0), points=4, device=device).error <= 1e-10


@pytest.mark.parametrize("shift", [1.0, (1.0,), (1.0, 2.0, 3.0), (math.nan, 0.0), (math.inf, 0.0), (True, 0.0), "ab"])
def test_shifts_that_are_refused(shift: object) -> None:
    with pytest.raises(ValueError, match="shift must be a pair of finite numbers"):
        translation_counterexample(shift)


@pytest.mark.parametrize("options", [{"reach": 0.0}, {"samples": 1}, {"points": 1}], ids=str)
def test_options_of_a_translation_that_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        translation_counterexample(**options)


def test_translated_sides_of_different_shapes_are_refused() -> None:
    sides = TranslatedSides(torch.ones(2), torch.ones(3), torch.ones(4))
    for kind in ("error", "corrected_error"):
        with pytest.raises(ValueError, match="left must be a tensor of the shape of right"):
            getattr(sides, kind)


def test_neither_function_has_a_symmetry() -> None:
    line = torch.linspace(-3, 3, 25, dtype=torch.float64)
    for function in (asymmetric_kernel, asymmetric_signal):
        values = function(line, line[:, None])
        for moved in (values.flip(0), values.flip(1), values.T, values.rot90(1), values.rot90(2)):
            assert Sides(values, moved).error > 0.1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"scale": 0}, "scale must be a positive number or a pair"),
        ({"scale": -2.0}, "scale must be"),
        ({"scale": (1.0, 2.0, 3.0)}, "scale must be"),
        ({"scale": "2"}, "scale must be"),
        ({"scale": math.inf}, "scale must be"),
        ({"reach": 0.0}, "reach must be a positive number or None"),
        ({"reach": math.nan}, "reach must be"),
        ({"samples": 1}, "samples must be an int of at least 2"),
        ({"points": 1}, "points must be an int of at least 2"),
    ],
    ids=str,
)
def test_refusals(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        scaling_counterexample(**arguments)


def test_error_of_sides() -> None:
    one, other = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])
    assert Sides(one, other).error == Sides(other, one).error == 0.125
    assert Sides(one, one).error == 0
    assert Sides(one.bfloat16(), other.bfloat16()).error == 0.125
    assert Sides(one + 3j, other + 3j).error == pytest.approx(0.1)
    assert Sides(one, one.requires_grad_()).error == 0


@pytest.mark.parametrize("place", ["left", "right", "both", "zeros", "empty"])
def test_no_evidence_is_no_agreement(place: str) -> None:
    nan = torch.tensor([1.0, math.nan])
    left = {"right": torch.ones(2), "zeros": torch.zeros(2), "empty": torch.zeros(0)}.get(place, nan)
    right = {"left": torch.ones(2), "zeros": torch.zeros(2), "empty": torch.zeros(0)}.get(place, nan)
    error = Sides(left, right).error
    assert math.isnan(error)
    assert not error <= 1e30


def test_infinities_do_not_agree() -> None:
    assert not Sides(torch.tensor([math.inf]), torch.tensor([1.0])).error <= 1
    assert not Sides(torch.tensor([math.inf]), torch.tensor([math.inf])).error <= 1


def test_sides_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="left must be a tensor of the shape of right"):
        _ = Sides(torch.ones(2), torch.ones(2, 2)).error
    with pytest.raises(ValueError, match="left must be a tensor of the shape of right"):
        _ = ScaledSides(torch.ones(2), torch.ones(3), 1.0, 1.0).error

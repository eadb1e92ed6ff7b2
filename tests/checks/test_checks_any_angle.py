"""Angles off the grid: root mean squares in the disc that stays in view, and the error of rotation alone."""

import pytest
import torch
from symmetric_nets import image
from torch import nn

from gconv_ga.checks import assert_equivariant, equivariance_error, interpolation_error
from gconv_ga.checks._measure import disc_in_view
from gconv_ga.groups import C8, D8, as_group


def grid(size):
    line = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return line.expand(size, size), line.unsqueeze(1).expand(size, size)


def smooth_image(size=48, reach=1.0):
    """Bumps without a symmetry; they end before the border if ``reach`` is small."""
    x, y = (axis / (size / 2) / reach for axis in grid(size))
    bumps = ((0.3, 0.2, 1.0), (-0.4, 0.1, -0.7), (0.1, -0.5, 0.6))
    return sum(a * torch.exp(-((x - u) ** 2 + (y - v) ** 2) / 0.09) for u, v, a in bumps).view(1, 1, size, size)


class Blur(nn.Module):
    """Correlation with a Gaussian of standard deviation sqrt(2), isotropic up to its tails."""

    def __init__(self):
        super().__init__()
        x, y = grid(13)
        kernel = torch.exp(-(x**2 + y**2) / 4)
        self.register_buffer("kernel", (kernel / kernel.sum()).view(1, 1, 13, 13))

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernel, padding=6)


def squares(x):
    """``f_x^2 + f_y^2``: isotropic."""
    return sum(part.square() for part in torch.gradient(x, dim=(-2, -1)))


def fourth_powers(x):
    """``f_x^4 + f_y^4``: equivariant under rotations by 90 degrees, not by 45."""
    return sum(part**4 for part in torch.gradient(x, dim=(-2, -1)))


@pytest.mark.parametrize("name", ["C8", "C12", "D8"])
def test_an_isotropic_filter_is_as_good_as_interpolation(name):
    x = smooth_image(reach=0.6)
    errors, turning = equivariance_error(Blur(), name, x), interpolation_error(x, name)
    group = as_group(name)
    for g in range(group.order):
        if group.is_exact(g):
            assert errors[g] <= 1e-14
            assert turning[g] == 0
        else:
            assert 0 < errors[g] <= turning[g]
            assert turning[g] < 0.03


def test_what_turns_with_quarters_only_is_broken_in_between():
    x = smooth_image(reach=0.6)
    errors = equivariance_error(fourth_powers, "C8", x)
    assert bool((errors[0::2] <= 1e-12).all())
    assert bool((errors[1::2] > 0.3).all())
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(fourth_powers, "C8", x, tolerance=0.1)
    headline, _, head, *rows = str(caught.value).splitlines()
    assert "tolerance 1e-01, 4 of 8 elements" in headline
    assert head.split()[-2:] == ["interpolation", "alone"]
    assert [("<-" in row) for row in rows] == [False, True] * 4
    assert "45 deg" in rows[1]
    assert_equivariant(squares, "C8", x, tolerance=0.1)


def test_the_measure_is_the_root_mean_square_in_the_disc():
    """Written out, for one element."""
    from gconv_ga.actions import ScalarField

    x, net, act = smooth_image(33), fourth_powers, ScalarField()
    columns, rows = grid(33)
    disc = (columns**2 + rows**2).sqrt() <= 16
    difference = net(act(x, C8, 1)) - act(net(x), C8, 1)
    wanted = difference[..., disc].square().mean().sqrt() / net(x)[..., disc].square().mean().sqrt()
    assert float(equivariance_error(net, "C8", x)[1]) == pytest.approx(float(wanted), rel=1e-12)
    disc = (columns**2 + rows**2).sqrt() <= 8
    wanted = difference[..., disc].square().mean().sqrt() / net(x)[..., disc].square().mean().sqrt()
    assert float(equivariance_error(net, "C8", x, view=0.5)[1]) == pytest.approx(float(wanted), rel=1e-12)
    there = act(x, C8, 1)
    back = act(there, C8, 7)
    wanted = (back - x)[..., disc].square().mean().sqrt() / x[..., disc].square().mean().sqrt()
    assert float(interpolation_error(x, "C8", view=0.5)[1]) == pytest.approx(float(wanted), rel=1e-12)


def test_corners_count_less_in_a_smaller_view():
    """An image bright up to its corners, which leave the canvas: the loss reaches some pixels into the disc."""
    x = 1 + 0.2 * smooth_image(reach=3.0)
    whole, half = (float(equivariance_error(Blur(), "C8", x, view=view)[1]) for view in (1.0, 0.5))
    assert half < 1e-3 < whole
    with pytest.raises(AssertionError):
        assert_equivariant(Blur(), "C8", x, tolerance=5e-3)
    assert_equivariant(Blur(), "C8", x, tolerance=5e-3, view=0.5)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 5), (8, 8), (6, 9), (9, 1)], ids=str)
def test_the_disc_stays_in_the_image_at_every_angle(size):
    height, width = size
    inside = disc_in_view(height, width, 1.0)
    assert inside.any()
    assert torch.equal(inside, inside.flip(0))
    assert torch.equal(inside, inside.flip(1))
    rows, columns = inside.nonzero(as_tuple=True)
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    if min(size) > 2:
        assert float((x**2 + y**2).max().sqrt()) <= (min(size) - 1) / 2


def test_rougher_images_cost_more():
    smooth = interpolation_error(smooth_image(), D8)
    rough = interpolation_error(image(1, 1, 48, 48), D8)
    exact = [D8.is_exact(g) for g in range(D8.order)]
    assert bool((rough[~torch.tensor(exact)] > 10 * smooth[~torch.tensor(exact)]).all())
    assert not smooth[exact].any()
    assert not rough[exact].any()


def test_other_actions_have_their_own_cost():
    x = smooth_image().expand(1, 2, 48, 48)
    assert float(interpolation_error(x, "C8", "vector").max()) > 0
    assert float(interpolation_error(image(1, 5, 2), "C8", "points").max()) < 1e-15
    assert not interpolation_error(image(2, 5), "C8", "invariant").any()


def test_an_image_with_round_symmetry_is_no_evidence():
    x, y = grid(33)
    round_image = torch.exp(-(x**2 + y**2) / 60).view(1, 1, 33, 33)
    with pytest.raises(
        ValueError, match=r"^inputs must be changed by every element of C8, but elements 1, 2, .* leave"
    ):
        equivariance_error(Blur(), "C8", round_image)


def test_maps_on_the_group_are_compared_in_the_disc():
    """Lifting with ``r^2 cos(2 phi)``, whose eight orientations are sampled from the formula."""

    class Lift(nn.Module):
        def __init__(self, direction):
            super().__init__()
            x, y = grid(13)
            r2, angle = x**2 + y**2, torch.atan2(-y, x)  # y points down
            turns = [direction * 2 * torch.pi * g / 8 for g in range(8)]
            kernels = [r2 * torch.exp(-r2 / 4) * torch.cos(2 * (angle - turn)) for turn in turns]
            self.register_buffer("kernels", torch.stack(kernels).unsqueeze(1))

        def forward(self, x):
            return nn.functional.conv2d(x, self.kernels, padding=6).unsqueeze(1)

    x = smooth_image(reach=0.6)
    assert_equivariant(Lift(1), "C8", x, out_action="regular", tolerance=0.03)
    with pytest.raises(AssertionError, match=r"relative error [12]\.\de\+00"):
        assert_equivariant(Lift(-1), "C8", x, out_action="regular", tolerance=0.03)


def test_class_scores_are_compared_whole_at_every_angle():
    scores = lambda x: torch.stack((x.mean((1, 2, 3)), x.square().mean((1, 2, 3))), -1)  # noqa: E731
    x = smooth_image(reach=0.6)
    assert_equivariant(scores, "C8", x, out_action="invariant", tolerance=0.02)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: x[..., 20, 14], "C8", x, out_action="invariant", tolerance=0.02)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: interpolation_error(torch.zeros(1, 1, 8, 8), "C8"), r"^x must be other than zero in view"),
        (lambda: interpolation_error(image(1, 1, 8, 8), "C8", "scaler"), r"^action must be one of"),
        (lambda: interpolation_error(image(1, 1, 8, 8), 8), r"^group must be a group"),
        (lambda: interpolation_error(image(1, 1, 8, 8), "C8", view=2), r"^view must be above 0 and at most 1"),
        (lambda: interpolation_error(image(1, 1, 8, 8), "C8", "regular"), r"^x does not fit its action Regular"),
    ],
)
def test_bad_arguments_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()

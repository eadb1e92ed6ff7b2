"""Canonicalization, landmarks, and user-defined frames."""

import doctest
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from clouds import CH4, THREE
from frame_modules import OUTPUTS, Flat, equivariance_errors
from house import ROOT
from torch import Tensor, nn

from gconv_ga.frames import (
    Canonicalize,
    DegenerateFrameError,
    Frame,
    FrameAverage,
    FrameSet,
    LandmarkFrame,
    MeanFrame,
    PointFrame,
    assert_frame_equivariant,
)


def first_point(x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
    """The frame of the documentation: the first axis points from the centroid to the first point."""
    middle = x.mean(1, keepdim=True)
    first = F.normalize(x[:, :1] - middle, dim=-1)
    second = torch.stack((-first[..., 1], first[..., 0]), -1)
    return FrameSet(torch.stack((first, second), -1), middle, torch.ones(len(x), 1).to(x))


def test_a_frame_of_your_own(device: torch.device) -> None:
    x = torch.randn(3, 5, 2, dtype=torch.float64).to(device)
    assert_frame_equivariant(first_point, x, group="SE")
    with pytest.raises(AssertionError, match="weighted set"):
        assert_frame_equivariant(first_point, x, group="E")
    for wrapper in (FrameAverage, Canonicalize):
        net = wrapper(Flat(5, 2).to(x), first_point, "points", OUTPUTS)
        assert max(float(error.max()) for error in equivariance_errors(net, x, "SE").values()) <= 1e-13


def test_the_documented_frame_is_the_one_under_test(device: torch.device) -> None:
    # The example also runs as a doctest. It must stay within ten lines.
    example = next(iter(doctest.DocTestFinder().find(Frame, "Frame", globs={"torch": torch, "FrameSet": FrameSet})))
    names = dict(example.globs)
    lines = [part.source for part in example.examples]
    written = next(source for source in lines if source.startswith("def first_point"))
    assert len(written.splitlines()) <= 10
    for source in lines[: lines.index(written) + 1]:
        exec(source, names)
    x = torch.randn(3, 5, 2, dtype=torch.float64).to(device)
    found, expected = names["first_point"](x), first_point(x)
    torch.testing.assert_close(found.rotations, expected.rotations, rtol=0, atol=0)
    torch.testing.assert_close(found.translations, expected.translations, rtol=0, atol=0)
    assert any("assert_frame_equivariant(first_point" in source for source in lines)
    assert any("FrameAverage(" in source for source in lines)


def test_canonicalize_is_the_average_over_one_element(device: torch.device) -> None:
    x = torch.randn(3, 5, 3, dtype=torch.float64).to(device)
    inner = Flat(5).to(x)
    one, average = (wrapper(inner, MeanFrame(), "points", OUTPUTS) for wrapper in (Canonicalize, FrameAverage))
    for a, b in zip(one(x), average(x), strict=True):
        assert torch.equal(a, b)


def test_one_element_where_there_is_one(device: torch.device) -> None:
    x = THREE["chiral"][None].to(device)
    assert PointFrame("SE")(x).counts.tolist() == [1]
    net = Canonicalize(Flat(4).to(x), PointFrame("SE", lmax=3), "points", OUTPUTS)
    assert max(float(error.max()) for error in equivariance_errors(net, x, "SE").values()) <= 1e-13


def test_symmetric_clouds_have_no_standard_pose(device: torch.device) -> None:
    x = CH4[None].to(device)
    passes: list[int] = []
    inner = Flat(5).to(x)

    def module(x: Tensor) -> Tensor:
        passes.append(len(x))
        return inner(x).vector

    with pytest.raises(DegenerateFrameError, match="24 elements"):
        Canonicalize(module, PointFrame(), "points", "vector")(x)
    net = Canonicalize(module, PointFrame(), "points", "vector", strict=False)
    assert repr(net).endswith("strict=False\n)") or "strict=False" in repr(net)
    # The element of largest weight is used: one pass, not equivariant.
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q.to(x)
    gap = float((net(x @ turn.mT) - net(x) @ turn.mT).abs().max().detach())
    assert passes == [1, 1]
    assert gap > 1e-3


class KnowsPositions(nn.Module):
    """A segmenter with zero padding and a parameter for each pixel, and a dense classifier."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, size, size))
        self.net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
        self.classes = nn.Linear(size * size, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.net(torch.cat((x, self.place.expand(len(x), -1, -1, -1)), 1))
        return mask, self.classes(mask.flatten(1))


def smooth_brightness(x: Tensor) -> Tensor:
    """A score for bright blobs: a cyclic sum over 7 x 7 pixels, which commutes with cyclic translations."""
    wrapped = F.pad(x, (3, 3, 3, 3), mode="circular")
    return F.conv2d(wrapped, torch.ones(1, 1, 7, 7).to(x)).squeeze(1)


@pytest.fixture
def image(shared_data: Callable[[str], Path], device: torch.device) -> Tensor:
    """A photograph of nuclei, 96 pixels wide, at the centre of a black canvas of 128 pixels."""
    numpy = pytest.importorskip("numpy")
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(min((shared_data("nuclei") / "images").glob("*.png"))) as file:
        picture = torch.from_numpy(numpy.array(file.convert("L"))).double() / 255
    return F.pad(picture[80:176, 80:176], (16, 16, 16, 16))[None, None].to(device)


def test_a_landmark_makes_a_real_picture_translation_equivariant(image: Tensor, device: torch.device) -> None:
    inner = KnowsPositions(128).to(image)
    net = Canonicalize(inner, LandmarkFrame(smooth_brightness), "image", ("image", "invariant"))
    for shift in ((5, -9), (-16, 16), (1, 0)):
        moved = torch.roll(
            image, shift, (-2, -1)
        )  # the photograph stays on the canvas, so this is an ordinary translation
        mask, classes = net(moved)
        assert torch.equal(mask, torch.roll(net(image)[0], shift, (-2, -1)))
        assert torch.equal(classes, net(image)[1])
        plain = inner(moved)
        assert float((plain[0] - torch.roll(inner(image)[0], shift, (-2, -1))).abs().max().detach()) > 0.1
        assert float((plain[1] - inner(image)[1]).abs().max().detach()) > 1e-4


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("skimage", reason="scikit-image, which brings the cat, is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.syspath_prepend(ROOT / "figures")
    return importlib.import_module("preprocessing")


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (20, -55), (-25, 30), (50, 75), (-7, 149)], ids=str)
def test_the_cats_left_eye(shift: tuple[int, int], figure: ModuleType, device: torch.device) -> None:
    cat = figure.cat().to(device)
    plain, framed = figure.networks(cat)
    # The landmark is the eye.
    right, down = framed.frame(cat).translations[0, 0].tolist()
    assert (down + 50, right + 75) == figure.EYE
    assert torch.equal(framed(cat.roll(shift, (-2, -1))), framed(cat).roll(shift, (-2, -1)))
    assert figure.relative_error(framed, cat, shift) == 0
    assert figure.relative_error(plain, cat, shift) > 0.1


def test_a_score_that_sees_the_edges_is_no_landmark(figure: ModuleType, device: torch.device) -> None:
    cat = figure.cat().to(device)

    def brightest_in_the_left_half(x: Tensor) -> Tensor:
        return x.mean(1) * (torch.arange(150) < 75).to(x)

    plain, _ = figure.networks(cat)
    wrong = Canonicalize(plain, LandmarkFrame(brightest_in_the_left_half), "image", "image", strict=False)
    assert figure.relative_error(wrong, cat, (20, -55)) > 0.1


def test_landmarks_that_tie_share_the_weight(device: torch.device) -> None:
    x = torch.zeros(2, 1, 6, 8, dtype=torch.float64, device=device)
    x[0, 0, 2, 3] = x[0, 0, 4, 7] = x[1, 0, 0, 0] = 1
    x[0, 0, 1, 1] = 0.5
    frame = LandmarkFrame(lambda x: x.sum(1))
    assert frame(x).counts.tolist() == [2, 1]
    assert frame(x).weights.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    inner = nn.Sequential(nn.Flatten(1), nn.Linear(48, 48), nn.Unflatten(1, (1, 6, 8))).to(x)
    net = FrameAverage(inner, frame, "image", "image")
    torch.testing.assert_close(net(x.roll((3, 5), (-2, -1))), net(x).roll((3, 5), (-2, -1)), rtol=0, atol=1e-14)
    with pytest.raises(DegenerateFrameError, match="sample 0"):
        Canonicalize(inner, frame, "image", "image")(x)


def test_scores_that_are_no_numbers_are_refused() -> None:
    x = torch.rand(3, 1, 4, 5)
    x[1, 0, 2, 2] = float("nan")
    frame = LandmarkFrame(lambda x: x.sum(1))
    with pytest.raises(ValueError, match=r"^score\(x\) must be a number at every pixel, .* NaN in sample 1\."):
        FrameAverage(nn.Identity(), frame, "image", "image")(x)
    x[1, 0, 2, 2] = float("inf")
    assert frame(x).counts.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"^score must be a function from images to maps of scores, .*'brightest'"):
        LandmarkFrame("brightest")


def test_images_are_not_points() -> None:
    frame = LandmarkFrame(lambda x: x.sum(1))
    with pytest.raises(ValueError, match=r"^input does not fit its action PointAction.* d=2\], but got \(2, 1, 4, 5\)"):
        FrameAverage(nn.Identity(), frame, "points", "points")(torch.rand(2, 1, 4, 5))


def test_further_images_and_keypoints_move_along(device: torch.device) -> None:
    x = torch.rand(2, 1, 6, 8, dtype=torch.float64).to(device)
    depth = torch.rand(2, 6, 8, dtype=torch.float64).to(device)
    labels = torch.randint(9, (2, 6, 8)).to(device)

    def module(x: Tensor, depth: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        assert labels.dtype == torch.int64
        place = (x[:, 0] * depth).flatten(1).argmax(1)
        return depth * labels, torch.stack((place % 8, place // 8), -1).to(x)

    frame = LandmarkFrame(lambda x: x.sum(1))
    net = Canonicalize(module, frame, ("image", "image", "image"), ("image", "points"))
    field, point = net(x, depth, labels)
    assert torch.equal(field, depth * labels)
    best = (x[:, 0] * depth).flatten(1).argmax(1)
    difference = point - torch.stack((best % 8, best // 8), -1).to(point)
    # On the cyclic canvas, positions are determined up to its size.
    assert bool((difference.remainder(torch.tensor([8.0, 6.0]).to(point)) == 0).all())

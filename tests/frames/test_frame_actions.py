"""Frame actions: the composition law, the inverse, and closed forms."""

import pytest
import torch
from frame_modules import random_motion
from torch import Tensor

from gconv_ga.frames._frame_actions import (
    FrameAction,
    ImageAction,
    InvariantAction,
    MaskAction,
    PointAction,
    TensorAction,
    VectorAction,
    as_frame_actions,
)

SHAPES = {
    "invariant": [(4,), (4, 2, 3)],
    "mask": [(4, 5)],
    "vector": [(4, 3), (4, 5, 3), (4, 5, 2, 3)],
    "points": [(4, 3), (4, 5, 3), (4, 5, 2, 3)],
    "tensor": [(4, 3, 3), (4, 5, 3, 3), (4, 5, 2, 3, 3)],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def elements(device: torch.device) -> tuple[Tensor, Tensor]:
    motions = [random_motion(3, mirrored=k % 2 == 0) for k in range(4)]
    return torch.stack([m.rotation for m in motions]).to(device), torch.stack([m.translation for m in motions]).to(
        device
    )


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_laws(name: str, shape: tuple[int, ...], device: torch.device) -> None:
    act: FrameAction = as_frame_actions(name, "in_action")
    x = torch.randn(shape, dtype=torch.float64).to(device)
    (a, s), (b, t) = elements(device), elements(device)
    product = (a @ b, (a @ t[..., None]).squeeze(-1) + s)
    torch.testing.assert_close(act(act(x, b, t), a, s), act(x, *product), rtol=0, atol=1e-13)
    torch.testing.assert_close(act.inverse(act(x, a, s), a, s), x, rtol=0, atol=1e-13)
    torch.testing.assert_close(act(act.inverse(x, a, s), a, s), x, rtol=0, atol=1e-13)
    # The default inverse, which uses the call alone.
    torch.testing.assert_close(FrameAction.inverse(act, x, a, s), act.inverse(x, a, s), rtol=0, atol=1e-13)
    assert act(x, a, s).shape == x.shape


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_written_out(name: str, shape: tuple[int, ...], device: torch.device) -> None:
    act: FrameAction = as_frame_actions(name, "in_action")
    x = torch.randn(shape, dtype=torch.float64).to(device)
    a, s = elements(device)
    moved = act(x, a, s)
    for k in range(4):
        if name == "vector":
            expected = x[k] @ a[k].mT
        elif name == "points":
            expected = x[k] @ a[k].mT + s[k]
        elif name == "tensor":
            expected = torch.einsum("ij,...jk,lk->...il", a[k], x[k], a[k])
        else:
            expected = x[k]
        torch.testing.assert_close(moved[k], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 2, 5, 7), (3, 2, 4, 5, 7)], ids=str)
def test_images(shape: tuple[int, ...], device: torch.device) -> None:
    act, x = ImageAction(), torch.randn(shape).to(device)
    eye = torch.eye(2).expand(3, 2, 2).to(device)
    shifts = torch.tensor([[1.0, 0.0], [-3.0, 2.0], [9.0, -11.0]]).to(device)
    moved = act(x, eye, shifts)
    for k, (right, down) in enumerate(shifts.long().tolist()):
        assert torch.equal(moved[k], torch.roll(x[k], (down, right), (-2, -1)))
    assert torch.equal(act.inverse(moved, eye, shifts), x)


@pytest.mark.parametrize(
    ("action", "shape", "text"),
    [
        (VectorAction(), (4, 2), r"\[T, ..., d=3\]"),
        (VectorAction(), (4,), r"\[T, ..., d=3\]"),
        (PointAction(), (4, 5, 2), r"\[T, ..., d=3\]"),
        (TensorAction(), (4, 3), r"\[T, ..., d=3, d=3\]"),
        (TensorAction(), (4, 3, 2), r"\[T, ..., d=3, d=3\]"),
        (ImageAction(), (4, 8, 8), r"\[T, ..., H, W\] with a frame of the plane"),
    ],
    ids=str,
)
def test_refusals(action: FrameAction, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=f"x must be a tensor {text}"):
        action(torch.zeros(shape, dtype=torch.float64), *elements(torch.device("cpu")))


def test_names() -> None:
    names = ("invariant", "scalar", "vector", "points", "point", "tensor", "mask", "image")
    classes = (InvariantAction, InvariantAction, VectorAction, PointAction, PointAction, TensorAction, MaskAction)
    assert as_frame_actions(names, "in_action") == tuple(kind() for kind in (*classes, ImageAction))
    assert as_frame_actions({"a": ["vector"]}, "in_action") == {"a": (VectorAction(),)}

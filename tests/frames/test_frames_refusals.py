"""Error messages name the argument and the samples."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from clouds import CH4, CO2, H2O, padded
from torch import Tensor, nn

from gconv_ga.frames import (
    Canonicalize,
    DegenerateFrameError,
    FrameAction,
    FrameAverage,
    FrameSet,
    FrameSizeError,
    LandmarkFrame,
    MeanFrame,
    PCAFrame,
    PointFrame,
)

X = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
FRAMES = [MeanFrame(), PCAFrame(), PointFrame()]
NAMES = ["MeanFrame", "PCAFrame", "PointFrame"]


@pytest.mark.parametrize(
    ("frame", "option", "text"),
    [
        (PointFrame, {"group": "SE3"}, "group must be one of 'E', 'SE', 'O', 'SO'.*Did you mean 'SE'"),
        (PCAFrame, {"group": "e"}, "group must be one of"),
        (PointFrame, {"d": 0}, "d must be a positive int"),
        (PCAFrame, {"d": 2.5}, "d must be a positive int"),
        (PointFrame, {"d": 6, "lmax": 3}, "d must be at most 5 with lmax=3"),
        (PCAFrame, {"d": 13}, "d must be at most 12"),
        (PointFrame, {"delta": 0}, "delta must be a number between 0 and 1"),
        (PointFrame, {"delta": 1.0}, "delta must be a number between 0 and 1"),
        (PointFrame, {"collinear": -1}, "collinear must be a number between 0 and 1"),
        (PointFrame, {"power": 0.5}, "power must be a positive int"),
        (PointFrame, {"lmax": 2}, "lmax must be 1 or 3"),
        (PointFrame, {"max_frames": 0}, "max_frames must be a positive int"),
        (PointFrame, {"num_samples": 0}, "num_samples must be a positive int"),
        (PCAFrame, {"degenerate": "rise"}, "degenerate must be one of .*Did you mean 'raise'"),
        (PCAFrame, {"rtol": -0.1}, "rtol must be a number from 0"),
        (PCAFrame, {"rtol": "1e-3"}, "rtol must be a number from 0"),
        (PointFrame, {"delta": "small"}, "delta must be a number between 0 and 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_options(frame: Callable[..., object], option: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        frame(**option)


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
@pytest.mark.parametrize(
    ("x", "mask", "vectors", "text"),
    [
        (X[0], None, (), r"x must be a tensor \[B, N, d"),
        (X[:, :0], None, (), "x must be a tensor .* with N >= 1"),
        (X, torch.ones(2, 3, dtype=torch.bool), (), r"mask must be a tensor \[B=2, N=4\]"),
        (X, torch.ones(2, 4), (), "mask must be bool"),
        (X, torch.tensor([[True] * 4, [False] * 4]), (), "mask must be True .* No point in sample 1"),
        (X / torch.tensor([1.0, 0.0]).view(2, 1, 1), None, (), "x must be finite.*Not finite in sample 1"),
        (X, None, (X[:, :, :2],), r"vectors must be a tensor \[B=2, M, d=3\]"),
        (X, None, (X / 0,), "vectors must be finite"),
    ],
    ids=["axes", "no points", "mask shape", "mask dtype", "all masked", "infinite", "vector shape", "infinite vectors"],
)
def test_inputs(
    frame: Callable[..., FrameSet], x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        frame(x, mask, vectors)


@pytest.mark.parametrize("frame", [PCAFrame(), PointFrame()], ids=NAMES[1:])
def test_another_dimension(frame: Callable[..., FrameSet]) -> None:
    with pytest.raises(ValueError, match=r"x must be a tensor \[B, N, d=3\].*\(2, 4, 2\)"):
        frame(X[..., :2])


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
def test_integers(frame: Callable[..., FrameSet]) -> None:
    with pytest.raises(TypeError, match="x must be floating point"):
        frame(torch.ones(2, 4, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match="vectors must be floating point"):
        frame(X, None, (torch.ones(2, 1, 3, dtype=torch.int64),))


def test_pca_names_the_degenerate_samples() -> None:
    x, mask = padded([H2O, CH4, CO2, H2O])
    with pytest.raises(DegenerateFrameError, match=r"samples 1, 2\. Use PointFrame"):
        PCAFrame()(x, mask)
    with pytest.warns(UserWarning, match="samples 1, 2"):
        assert PCAFrame(degenerate="warn")(x, mask).counts.tolist() == [8] * 4
    assert PCAFrame(degenerate="ignore")(x, mask).counts.tolist() == [8] * 4
    with pytest.raises(DegenerateFrameError, match="in sample 0"):
        PCAFrame(rtol=0.9)(x[:1], mask[:1])


def test_too_many_elements_names_the_samples() -> None:
    x, mask = padded([H2O, CH4, CO2])
    with pytest.raises(FrameSizeError, match=r"max_frames=20 and 24 elements; too many in sample 1.*num_samples"):
        PointFrame(max_frames=20)(x, mask)
    assert issubclass(FrameSizeError, ValueError)
    assert issubclass(DegenerateFrameError, ValueError)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"module": nn.ReLU}, "module must be .*Make an instance"),
        ({"module": 3}, "module must be"),
        ({"frame": PointFrame}, "frame must be .*Make an instance"),
        ({"in_action": "pints"}, "in_action must be one of .*Did you mean 'points'"),
        ({"in_action": ("points", "vectr")}, r"in_action\[1\] must be one of .*Did you mean 'vector'"),
        ({"in_action": {"x": 3}}, r"in_action\['x'\] must be a frame action or its name"),
        ({"in_action": "vector"}, "in_action must be actions of which exactly one is 'points'"),
        ({"in_action": ("points", "points")}, "in_action must be actions of which exactly one is 'points'"),
        ({"out_action": None}, "out_action must be a frame action or its name"),
        ({"out_action": abs}, "out_action must be .* derive a class from FrameAction"),
        ({"in_action": FrameAction}, "in_action must be a frame action or its name, .* Call the class"),
        ({"out_action": "tensor"}, "frame must be a frame with lmax of at least 2.*lmax=3"),
        ({"chunk_size": 0}, "chunk_size must be a positive int"),
        ({"train_samples": 0}, "train_samples must be a positive int"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_averages(options: dict[str, object], text: str) -> None:
    arguments = {"module": nn.ReLU(), "frame": PointFrame(), "in_action": "points", "out_action": "points"} | options
    with pytest.raises(ValueError, match=f"^{text}"):
        FrameAverage(**arguments)


@pytest.mark.parametrize(
    ("module", "out_action", "text"),
    [
        (lambda x: x.sum(), "invariant", r"output must be a tensor \[4, ...\]"),
        (lambda x: x[:1], "points", r"output must be a tensor \[4, ...\]"),
        (lambda x: x.argmax(1), "invariant", "output must be floating point"),
        (lambda x: (x, SimpleNamespace(y=x)), "points", r"output\[1\] must be a tensor, None, a number or a string"),
        (lambda x: x[..., :2], "vector", r"output does not fit its action VectorAction.*d=3"),
        (lambda x: x, ("points", "points"), "out_action must be one action, or actions nested as output is"),
        (lambda x: {"x": x}, {"y": "points"}, "out_action must be a mapping with the keys of output"),
    ],
    ids=["no batch", "another batch", "classes", "an object", "two components", "a tensor for two", "another key"],
)
def test_outputs(module: Callable[[Tensor], object], out_action: object, text: str) -> None:
    x = torch.tensor([[[1.0, 0.2, 0.3], [0.0, 0.0, 0.1], [0.0, 3.0, 0.5], [1.0, 1.0, 9.0]]])
    frames = FrameAverage(module, PCAFrame("SE"), "points", out_action)
    with pytest.raises(ValueError, match=text):
        frames(x)


@pytest.mark.parametrize(
    ("actions", "inputs", "error", "text"),
    [
        (("points", "vector"), (X, X[:1]), ValueError, r"inputs\[1\] must be a tensor \[B=2, ...\] like inputs\[0\]"),
        (("points", "vector"), (X, X[:, 0, 0]), ValueError, r"inputs\[1\] must be a tensor \[B, ..., d\]"),
        (("points", "tensor"), (X, X), ValueError, r"inputs\[1\] does not fit its action TensorAction"),
        (("points", "tensor"), (X, torch.ones(2, 3, 3, dtype=torch.long)), TypeError, r"inputs\[1\] must be floating"),
        (("points", "invariant"), (None, X), ValueError, r"inputs\[0\] must be a tensor"),
        ("points", (X, X), ValueError, "in_action must be actions of which exactly one is 'points'"),
        (("points", "mask", "mask"), (X, X[..., 0] > 0, X[..., 0] > 0), ValueError, "at most one is 'mask'"),
    ],
    ids=["batch", "vector without axes", "tensor", "integer tensor", "no points", "two clouds", "two masks"],
)
def test_inputs_of_averages(actions: object, inputs: tuple[object, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        FrameAverage(lambda *x: x[0], PointFrame(), actions, "points")(*inputs)


def test_detached_positions_warn() -> None:
    net = FrameAverage(lambda x: x.sum((1, 2)), PointFrame(), "points", "invariant", detach=True)
    with pytest.warns(UserWarning, match="Do not use it for forces"):
        net(X.clone().requires_grad_())
    net(X)
    with torch.no_grad():
        net(X.clone().requires_grad_())


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((torch.ones(2, 3, 3), torch.ones(2, 1, 3), torch.ones(2, 1)), r"rotations must be a tensor \[B, K, d, d\]"),
        ((torch.ones(2, 1, 3, 3), torch.ones(2, 3), torch.ones(2, 1)), r"translations must be a tensor \[B=2, K=1"),
        ((torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3), torch.ones(2)), r"weights must be a tensor \[B=2, K=1\]"),
        (
            (torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3), torch.ones(2, 1), torch.ones(1)),
            r"completed must be a tensor \[B=2\]",
        ),
    ],
    ids=["rotations", "translations", "weights", "completed"],
)
def test_frame_sets(parts: tuple[Tensor, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FrameSet(*parts)
    with pytest.raises(ValueError, match="count must be a positive int"):
        FrameSet(torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3), torch.ones(2, 1)).sample(0)


def test_canonicalize_names_the_samples() -> None:
    x, mask = padded([torch.cat((H2O, H2O[:1] + torch.tensor([1.5, 0, 0]))), CH4])
    net = Canonicalize(lambda x, mask: x, PointFrame("SE"), ("points", "mask"), "points")
    with pytest.raises(
        DegenerateFrameError, match=r"frame must have one element for each sample.*12 elements.*sample.* 1"
    ):
        net(x.double(), mask)


def test_landmarks() -> None:
    with pytest.raises(ValueError, match=r"x must be a tensor \[B, C, H, W\]"):
        LandmarkFrame(lambda x: x[:, 0])(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"score\(x\) must be a tensor \[B=1, H=4, W=5\]"):
        LandmarkFrame(lambda x: x)(torch.zeros(1, 3, 4, 5))


def reweighted(change: Callable[[Tensor], Tensor]) -> Callable[..., FrameSet]:
    def frame(x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        found = MeanFrame()(x, mask, vectors)
        weights = change(found.weights)
        rotations, translations = (part.repeat_interleave(weights.shape[1], 1) for part in (found.rotations, x[:, :1]))
        return FrameSet(rotations, translations, weights)

    return frame


@pytest.mark.parametrize("train_samples", [None, 2])
@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (lambda x, mask, vectors: (torch.eye(3), x.mean(1)), "a function that returns a FrameSet.* of type tuple"),
        (reweighted(lambda w: w * torch.tensor([[1.0], [0.0]])), "one whose weights .* sum to 1.* in sample 1"),
        (reweighted(lambda w: w * float("nan")), "one whose weights .* sum to 1.* in samples 0, 1"),
        (reweighted(lambda w: torch.cat((w, 2 * w), 1)), "one whose weights .* sum to 1.* in samples 0, 1"),
        (reweighted(lambda w: torch.cat((-w, 2 * w), 1)), "one whose weights are not negative.* in samples 0, 1"),
    ],
    ids=["no set", "no weight", "not a number", "not normalized", "negative"],
)
def test_what_a_frame_returns(frame: Callable[..., object], text: str, train_samples: int | None) -> None:
    net = FrameAverage(nn.ReLU(), frame, "points", "points", train_samples=train_samples)
    with pytest.raises(ValueError, match=f"^frame must be {text}"):
        net(X)

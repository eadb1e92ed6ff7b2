"""GroupAverage on several inputs, and on inputs and outputs in dicts, tuples, named tuples and lists."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from slow_average import Crooked, elements, relative, slow_average, turn, turn_back
from tolerances import TOLERANCES
from torch import Tensor, nn

from gconv_ga.actions import Boxes, Keypoints, VectorField
from gconv_ga.averaging import GroupAverage

TIGHT = TOLERANCES[torch.float64]
HEIGHT, WIDTH = 8, 11


@pytest.fixture
def x(device: torch.device) -> Tensor:
    return torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64).to(device)


@pytest.fixture
def net(device: torch.device) -> nn.Module:
    return Crooked().double().to(device)


class Heads(NamedTuple):
    mask: Tensor
    score: Tensor


def scores(y: Tensor) -> Tensor:
    """A function that depends on the orientation of the image."""
    return y[..., 0, 0]


def slow_scores(net: nn.Module, x: Tensor) -> Tensor:
    return sum(scores(net(turn_back(x, g))) for g in elements("D4")) / 8


def test_dict(x: Tensor, net: nn.Module) -> None:
    actions = {"mask": "scalar", "score": "invariant", "aux": "scalar"}  # "aux" might be returned in training only
    average = GroupAverage(lambda x: {"mask": net(x), "score": scores(net(x))}, "D4", out_action=actions)
    y = average(x)
    assert list(y) == ["mask", "score"]
    assert relative(y["mask"], slow_average(net, "D4", x)) <= TIGHT
    assert relative(y["score"], slow_scores(net, x)) <= TIGHT


def test_class_scores_need_no_declaration(x: Tensor, net: nn.Module) -> None:
    y = GroupAverage(lambda x: {"mask": net(x), "score": scores(net(x)), "norm": scores(net(x))[:, 0]}, "D4")(x)
    assert relative(y["mask"], slow_average(net, "D4", x)) <= TIGHT
    assert relative(y["score"], slow_scores(net, x)) <= TIGHT
    assert relative(y["norm"], slow_scores(net, x)[:, 0]) <= TIGHT


@pytest.mark.parametrize("kind", [tuple, list, lambda parts: Heads(*parts)], ids=["tuple", "list", "namedtuple"])
def test_sequences(kind: Any, x: Tensor, net: nn.Module) -> None:
    average = GroupAverage(lambda x: kind([net(x), scores(net(x))]), "D4", out_action=("scalar", "invariant"))
    y = average(x)
    assert type(y) is type(kind([1, 2]))
    assert relative(y[0], slow_average(net, "D4", x)) <= TIGHT
    assert relative(y[1], slow_scores(net, x)) <= TIGHT


def test_one_action_for_everything_below(x: Tensor, net: nn.Module) -> None:
    output = OrderedDict(levels=[1, 2], score=3)

    def module(x: Tensor) -> Any:
        return OrderedDict(levels=[net(x), 2 * net(x)], score=scores(net(x)))

    y = GroupAverage(module, "D4", out_action={"levels": "scalar", "score": "invariant"})(x)
    assert type(y) is OrderedDict
    assert list(y) == list(output)
    assert relative(y["levels"][1], 2 * slow_average(net, "D4", x)) <= TIGHT


def test_plain_values_in_the_output_pass(x: Tensor) -> None:
    y = GroupAverage(lambda x: {"y": x, "aux": None, "name": "net", "scale": 0.5}, "D4", chunk_size=3)(x)
    assert relative(y.pop("y"), x) <= TIGHT
    assert y == {"aux": None, "name": "net", "scale": 0.5}


class TwoInputs(nn.Module):
    """Takes an image, a number for each sample, and values without a batch axis."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, weight: Tensor, temperature: Tensor | float = 1.0, mode: str | None = None) -> Tensor:
        return self.net(x) * weight.view(-1, 1, 1, 1) / temperature


@pytest.mark.parametrize("extra", [(), (2.0,), (torch.tensor(2.0), None), (torch.tensor(2.0), "mean")], ids=str)
def test_several_inputs(extra: tuple[Any, ...], x: Tensor, net: nn.Module) -> None:
    weight = torch.tensor([2.0, -3.0], dtype=x.dtype, device=x.device)
    extra = tuple(value.to(x.device) if isinstance(value, Tensor) else value for value in extra)
    average = GroupAverage(TwoInputs(net), "D4", ("scalar", *["invariant"] * (1 + len(extra))))
    expected = slow_average(lambda x: TwoInputs(net)(x, torch.ones(2, dtype=x.dtype, device=x.device)), "D4", x)
    expected = expected * weight.view(-1, 1, 1, 1) / (2.0 if extra else 1.0)
    assert relative(average(x, weight, *extra), expected) <= TIGHT


@pytest.mark.parametrize("form", ["dict", "list", "pair"])
def test_nested_inputs(form: str, x: Tensor, net: nn.Module) -> None:
    flow = torch.randn(2, 2, HEIGHT, WIDTH, dtype=torch.float64).to(x.device)

    def joint(x: Tensor, flow: Tensor) -> Tensor:
        return net(x) + net(torch.cat((flow, flow[:, :1]), dim=1))

    def slow(g: tuple[int, bool]) -> Tensor:
        """Apply g^-1, with the components (x, y), y down, rotated by hand."""
        right, down = turn_back(flow, g).unbind(1)
        for _ in range(g[0]):  # a clockwise rotation by 90 degrees maps right to down and down to left
            right, down = -down, right
        return turn(joint(turn_back(x, g), torch.stack((-right if g[1] else right, down), 1)), g)

    expected = sum(slow(g) for g in elements("D4")) / 8
    if form == "dict":
        average = GroupAverage(lambda d: joint(d["x"], d["flow"]), "D4", {"x": "scalar", "flow": "vector"})
        y = average({"x": x, "flow": flow})
    elif form == "list":
        average = GroupAverage(lambda pair: joint(*pair), "D4", ["scalar", VectorField()])
        y = average([x, flow])
    else:
        y = GroupAverage(joint, "D4", ["scalar", VectorField()])(x, flow)
    assert relative(y, expected) <= TIGHT


def test_a_sequence_of_one_action_stands_for_one_input(x: Tensor, net: nn.Module) -> None:
    assert relative(GroupAverage(net, "D4", ["scalar"])(x), slow_average(net, "D4", x)) <= TIGHT


def test_the_callers_containers_are_never_written(x: Tensor) -> None:
    inputs = {"x": x, "parts": [x]}
    GroupAverage(lambda d: d.pop("x") + d["parts"].pop(), "D4")(inputs)
    assert list(inputs) == ["x", "parts"]
    assert inputs["parts"] == [x]


@pytest.mark.parametrize("size", [(6, 6), (6, 9)], ids=str)
@pytest.mark.parametrize("group", ["C4", "D4", "D2"])
def test_keypoints_and_boxes_are_given_for_the_upright_image(
    group: str, size: tuple[int, int], device: torch.device
) -> None:
    def brightest(x: Tensor) -> dict[str, Tensor]:
        """The centre of the brightest pixel, and the box around it."""
        rows, columns = x.flatten(1).argmax(1) // x.shape[-1], x.flatten(1).argmax(1) % x.shape[-1]
        point = torch.stack((columns, rows), -1).double()
        return {"points": point, "boxes": torch.cat((point, point + 1), -1)}

    x = torch.zeros(2, 1, *size, dtype=torch.float64, device=device)
    x[0, 0, 1, 4] = 1
    x[1, 0, 5, 0] = 1
    average = GroupAverage(brightest, group, out_action={"points": Keypoints(size), "boxes": Boxes(size)})
    y = average(x)
    assert y["points"].tolist() == [[4.0, 1.0], [0.0, 5.0]]
    assert y["boxes"].tolist() == [[4.0, 1.0, 5.0, 2.0], [0.0, 5.0, 1.0, 6.0]]


@pytest.mark.parametrize("size", [(6, 6), (6, 9)], ids=str)
def test_keypoints_as_inputs(size: tuple[int, int], device: torch.device) -> None:
    x = torch.randn(2, 1, *size, dtype=torch.float64).to(device)
    points = torch.tensor([[4, 1], [0, 5]], device=device)

    def read(x: Tensor, points: Tensor) -> Tensor:
        return x[torch.arange(len(x), device=x.device), 0, points[:, 1], points[:, 0]]

    y = GroupAverage(read, "D4", ("scalar", Keypoints(size)), "invariant")(x, points)
    assert relative(y, read(x, points)) <= TIGHT


def test_maps_on_the_group_and_points(device: torch.device) -> None:
    maps = torch.randn(2, 3, 8, 5, 7, dtype=torch.float64).to(device)
    points = torch.randn(2, 10, 3, dtype=torch.float64).to(device)
    average = GroupAverage(lambda f, p: (f, p), "D4", ("regular", "points"), ("regular", "points"))
    f, p = average(maps, points)
    assert relative(f, maps) <= TIGHT
    assert relative(p, points) <= TIGHT

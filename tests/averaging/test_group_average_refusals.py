"""Inputs that GroupAverage refuses; the messages name the argument or the leaf."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gconv_ga.actions import LabelMask
from gconv_ga.averaging import GroupAverage

IMAGE = torch.ones(2, 3, 6, 8)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"module": nn.Identity}, r"module must be .* Make an instance of the class first"),
        ({"module": 3}, r"module must be a module or another callable"),
        ({"group": "S3"}, r"group must be a group or its name"),
        ({"group": 4}, r"group must be .* 'C4'"),
        ({"in_action": "scaler"}, r"in_action must be one of .* Did you mean 'scalar'\?"),
        ({"in_action": ["scalar", "flow"]}, r"in_action\[1\] must be one of"),
        ({"out_action": {"mask": 3}}, r"out_action\['mask'\] must be an action or its name"),
        ({"out_action": "labels"}, r"out_action must be .* class indices cannot.* argmax"),
        ({"out_action": LabelMask(fill=255)}, r"out_action must be .* class indices cannot"),
        ({"out_action": {"a": "scalar", "b": ["labels"]}}, r"out_action\['b'\]\[0\] must be .* class indices"),
        ({"chunk_size": 0}, r"chunk_size must be a positive int"),
        ({"chunk_size": 2.0}, r"chunk_size must be a positive int"),
        ({"num_samples": 0}, r"num_samples must be a positive int"),
        ({"num_samples": 9}, r"num_samples must be an int from 1 to \|G\|=8"),
        ({"num_samples": True}, r"num_samples must be a positive int"),
        ({"generator": 0}, r"generator must be a torch.Generator or None"),
    ],
    ids=str,
)
def test_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GroupAverage(**{"module": nn.Identity(), "group": "D4"} | arguments)


@pytest.mark.parametrize(
    ("attribute", "value", "match"),
    [("chunk_size", 0, "chunk_size must be"), ("num_samples", 9, "num_samples must be")],
)
def test_attributes_are_checked_when_they_are_used(attribute: str, value: int, match: str) -> None:
    average = GroupAverage(nn.Identity(), "D4")
    setattr(average, attribute, value)
    with pytest.raises(ValueError, match=match):
        average(IMAGE)


@dataclass
class Result:
    mask: Tensor


@pytest.mark.parametrize(
    ("module", "out_action", "match"),
    [
        (lambda x: x.mean(), "invariant", r"output must be a tensor \[4 elements \* B=2 = 8, ...\], but got \(\)"),
        (lambda x: {"loss": x.mean((0, 1))}, "scalar", r"output\['loss'\] must be a tensor \[4 elements \* B=2"),
        (lambda x: [x, x[:1]], "scalar", r"output\[1\] must be .* keep the batch axis"),
        (lambda x: x.argmax(1), "scalar", r"output must be floating point.* take the argmax"),
        (lambda x: (x, x > 0), "scalar", r"output\[1\] must be floating point.* threshold"),
        (lambda x: {"result": Result(x)}, "scalar", r"output\['result'\] must be a tensor, None, a number"),
        (lambda x: x, "regular", r"output does not fit its action RegularField.*\|G\|=8"),
        (lambda x: {"flow": x}, "vector", r"output\['flow'\] does not fit its action VectorField"),
        (
            lambda x: x,
            "invariant",
            r"output must be a tensor of shape \(2, 3, 6, 8\) for every element.*\(2, 3, 8, 6\)",
        ),
        (lambda x: nn.functional.pad(x, (1, 0)), "scalar", r"output must be .* sizes rows and columns differently"),
        (lambda x: (x, x), ["scalar"], r"out_action must be one action, or actions nested as output is, a tuple of 2"),
        (lambda x: x, {"mask": "scalar"}, r"out_action must be one action, or actions nested as output is, a Tensor"),
        (lambda x: {"mask": x, "aux": x}, {"mask": "scalar"}, r"out_action must be a mapping with the keys.*'aux'"),
        (lambda x: {"a": [x, x]}, {"a": ["scalar"]}, r"out_action\['a'\] must be .* output\['a'\] is, a list of 2"),
        (lambda x: (x, x.shape[-1]), "scalar", r"module must be .* same leaves for every element"),
        (lambda x: [x] * x.shape[-1], "scalar", r"module must be .* same leaves for every element"),
        (lambda x: x if x.shape[-1] == 8 else None, "scalar", r"module must be .* same leaves for every element"),
    ],
)
def test_outputs(module: Any, out_action: Any, match: str, device: torch.device) -> None:
    with pytest.raises(ValueError, match=match):
        GroupAverage(module, "D4", out_action=out_action)(IMAGE.to(device))


@pytest.mark.parametrize(
    ("inputs", "in_action", "match"),
    [
        ((), "scalar", r"inputs must be tensors with a batch axis"),
        (({"x": None},), "scalar", r"inputs must be tensors with a batch axis"),
        ((torch.tensor(1.0),), "invariant", r"inputs must be tensors with a batch axis"),
        ((IMAGE, IMAGE[:1]), "scalar", r"inputs\[1\] must be a tensor \[B=2, ...\] like inputs\[0\], but got \(1, 3"),
        (({"x": IMAGE, "y": [IMAGE[:1]]},), "scalar", r"input\['y'\]\[0\] must be a tensor \[B=2"),
        ((IMAGE, IMAGE), ["scalar"], r"in_action must be .* nested as inputs is, a tuple of 2"),
        ((IMAGE,), ["scalar", "scalar"], r"in_action must be .* nested as inputs is, a tuple of 1"),
        (({"x": IMAGE},), {"y": "scalar"}, r"in_action must be a mapping with the keys of input.*'x'"),
        ((IMAGE, torch.ones(2)), ["scalar", "points"], r"inputs\[1\] does not fit its action Points.*N, d"),
        ((IMAGE,), "vector", r"inputs?(\[0\])? does not fit its action VectorField"),
        ((IMAGE[0, 0],), "scalar", r"input must be a tensor \[B, C, H, W\], but got \(6, 8\).*\[None, None\]"),
        ((IMAGE[0, 0, 0], 3), ["scalar", "scalar"], r"inputs\[0\] must be a tensor \[B, C, H, W\], but got \(8,\)"),
    ],
)
def test_inputs(inputs: tuple[Any, ...], in_action: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GroupAverage(lambda *inputs: inputs[0], "D4", in_action)(*inputs)


def test_what_the_module_raises_is_left_as_it_is(device: torch.device) -> None:
    with pytest.raises(RuntimeError, match="expected input") as caught:
        GroupAverage(nn.Conv2d(5, 1, 3), "D4").to(device)(IMAGE.to(device))
    (note,) = caught.value.__notes__
    assert "input of shape (8, 3, 6, 8) from (2, 3, 6, 8): 4 of 8 elements of D4 at once." in note


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_an_image_without_a_batch_axis_is_told_so(chunk_size: int | None) -> None:
    with pytest.raises((RuntimeError, ValueError)) as caught:
        GroupAverage(nn.Conv2d(3, 5, 3), "C4", chunk_size=chunk_size)(IMAGE[0])
    assert caught.value.__notes__[0].endswith("For one image [C, H, W] pass input.unsqueeze(0).")


def test_stacks_without_channels_are_averaged() -> None:
    blurred = GroupAverage(lambda x: x.roll(1, -1), "C4")(IMAGE[0])
    expected = sum(torch.rot90(torch.rot90(IMAGE[0], -g, (-2, -1)).roll(1, -1), g, (-2, -1)) for g in range(4)) / 4
    torch.testing.assert_close(blurred, expected)


def test_numbers_declared_invariant_become_a_symmetric_image() -> None:
    numbers, paint = torch.arange(4.0).view(2, 2), torch.arange(50.0).view(2, 5, 5)
    image = GroupAverage(lambda z: torch.einsum("bz,zij->bij", z, paint), "C4", "invariant")(numbers)
    torch.testing.assert_close(image, image.rot90(1, (-2, -1)))

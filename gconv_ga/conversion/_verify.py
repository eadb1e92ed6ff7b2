"""Whether a converted network is the group average, in float64, and which module is at fault."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..actions import nest_leaves, rebuild_nest
from ..averaging import GroupAverage
from ..groups import Group
from ._convolutions import OrbitConv2d
from ._network import ConvertedNetwork
from ._orbit import conjugate


def double(nest: Any) -> Any:
    """The same nest with floating-point tensors in float64."""
    values = (
        x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for _, x in nest_leaves(nest, "example")
    )
    return rebuild_nest(nest, values)


def defect(actual: Any, expected: Any) -> float:
    """The largest difference of any leaf, relative to that leaf's largest number; NaN if there is one."""
    worst = torch.zeros((), dtype=torch.float64)
    for (_, a), (_, b) in zip(nest_leaves(actual, ""), nest_leaves(expected, ""), strict=True):
        if isinstance(a, Tensor) and a.numel():
            if a.shape != b.shape:
                return float("inf")
            scale = b.abs().max()
            error = (a - b).abs().max() / torch.where(scale > 0, scale, torch.ones_like(scale))
            worst = torch.maximum(worst, error.detach().double().cpu())
    return worst.item()


@torch.no_grad()
def verify(net: ConvertedNetwork, plain: nn.Module, example: tuple[Any, ...]) -> float:
    """The defect of ``net`` against `GroupAverage` of ``plain`` on the example, both in eval mode and float64."""
    converted, original = deepcopy(net).double().eval(), deepcopy(plain).double().eval()
    converted.reduce = "mean"
    average = GroupAverage(original, net.group, "scalar", net.out_action)
    inputs = double(example)
    return defect(converted(*inputs), average(*double(example)))


@torch.no_grad()
def mark_lifting(net: ConvertedNetwork, example: tuple[Any, ...]) -> None:
    """Mark the convolutions that see the same image in every orientation."""
    probe = deepcopy(net).double().eval()
    same: dict[str, bool] = {}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            maps = inputs[0].unflatten(0, (-1, net.group.order))
            same[path] = same.get(path, True) and bool((maps == maps[:, :1]).all())

        return hook

    for path, module in probe.model.named_modules():
        if isinstance(module, OrbitConv2d):
            module.register_forward_pre_hook(watch(path))
    probe(*double(example))
    for path, module in net.model.named_modules():
        if isinstance(module, OrbitConv2d):
            module.lifts = same.get(path, False)


@torch.no_grad()
def suspects(net: ConvertedNetwork, plain: nn.Module, example: tuple[Any, ...], tolerance: float) -> list[str]:
    """The smallest modules from images to images that are not what the group makes of the plain ones, with defects."""
    converted, original = deepcopy(net).double().eval(), deepcopy(plain).double().eval()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    length = net.group.order * next(x.shape[0] for _, x in nest_leaves(example, "") if isinstance(x, Tensor) and x.ndim)

    def watch(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            images = [t for t in (*inputs, output) if isinstance(t, Tensor) and t.ndim == 4 and t.shape[0] == length]
            if len(images) == 2 == len(inputs) + 1:
                seen[path] = (images[0].clone(), images[1].clone())

        return hook

    for path, module in converted.model.named_modules():
        module.register_forward_hook(watch(path))
    converted(*double(example))
    found: dict[str, float] = {}
    for path, (x, y) in seen.items():
        found[path] = defect(y, _conjugated(original.get_submodule(path), x, net.group))
    guilty = [path for path, error in found.items() if not error <= tolerance]
    smallest = [path for path in guilty if not any(other != path and _inside(other, path) for other in guilty)]
    return [
        f"{path or '(model)'} ({type(original.get_submodule(path)).__name__}, {found[path]:.0e})" for path in smallest
    ]


def _conjugated(module: nn.Module, x: Tensor, group: Group) -> Tensor:
    return conjugate(lambda upright, _: module(upright), x, group)


def _inside(path: str, container: str) -> bool:
    return container == "" or path.startswith(container + ".")

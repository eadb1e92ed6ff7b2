"""Which modules of a converted network are not what the group makes of the plain ones."""

from typing import Any

import torch
from torch import Tensor, nn

from ..actions import nest_leaves, rebuild_nest
from ..groups import Group
from ._network import ConvertedNetwork
from ._orbit import conjugate


def defect(actual: Any, expected: Any, spread: list[float] | None = None) -> float:
    """The largest difference of any tensor, relative to its largest number; NaN if there is one.

    Args:
        actual: A nest.
        expected: A nest of the same structure.
        spread: For each tensor what to measure it by in place of its largest number, if that is less and not zero.
    """
    worst = torch.zeros((), dtype=torch.float64)
    pairs = zip(nest_leaves(actual, ""), nest_leaves(expected, ""), strict=True)
    tensors = [(a, b) for (_, a), (_, b) in pairs if isinstance(a, Tensor) and a.numel()]
    for i, (a, b) in enumerate(tensors):
        if a.shape != b.shape:
            return float("inf")
        scale = float(b.abs().max())
        if spread is not None and 0 < spread[i] < scale:
            scale = spread[i]
        worst = torch.maximum(worst, ((a - b).abs().max() / (scale or 1.0)).detach().double().cpu())
    return worst.item()


@torch.no_grad()
def find_suspects(
    net: ConvertedNetwork, plain: nn.Module, example: tuple[Any, ...], tolerance: float
) -> tuple[dict[str, float], list[str]]:
    """The smallest modules at fault with their defects, and what makes images into something else within them.

    Args:
        net: The converted network.
        plain: The plain one.
        example: The arguments of both.
        tolerance: The largest defect of a module without fault.
    """
    calls = _record(net, example)
    upright = [row.path for row in net.report.rows if row.action == "conjugate"]
    harmless = {row.path for row in net.report.rows if row.action == "keep" and row.why != "asked for"}
    found: dict[str, float] = {}
    ends: list[str] = []
    for path, (inputs, output) in calls.items():
        # What is inside of a conjugated module sees upright images, and is right.
        if path in harmless or any(_inside(path, block) for block in upright):
            continue
        leaves = [x for _, x in nest_leaves(output, "") if isinstance(x, Tensor)]
        if any(x.ndim == 3 for x in leaves):
            ends.append(path)
            continue
        module = plain.get_submodule(path)
        found[path] = _defect_of(module, inputs, output, net.group, last=False)
        if _may_have_channels_last(module, inputs):
            found[path] = min(found[path], _defect_of(module, inputs, output, net.group, last=True))
    guilty = {path: error for path, error in found.items() if not error <= tolerance}
    smallest = {p: e for p, e in guilty.items() if not any(other != p and _inside(other, p) for other in guilty)}
    # What makes tokens of images is no fault by itself, so it is named only where nothing smaller is.
    named = [p for p in ends if not any(other != p and _inside(other, p) for other in ends)]
    named = [p for p in named if any(_inside(p, block) for block in smallest)]
    return smallest, [f"{p or '(model)'} ({type(plain.get_submodule(p)).__name__})" for p in named]


def _defect_of(module: nn.Module, inputs: Any, output: Any, group: Group, last: bool) -> float:
    """How far an output is from what the group makes of the plain module; ``last`` says that channels come last."""
    order = (0, 3, 1, 2) if last else (0, 1, 2, 3)
    back = (0, 2, 3, 1) if last else order

    def upright(nest: Any) -> Any:
        args, kwargs = _permuted(nest, back)
        return _permuted(module(*args, **kwargs), order)

    try:
        return defect(_permuted(output, order), conjugate(upright, _permuted(inputs, order), group))
    except Exception:  # noqa: BLE001  whatever a module says to images that are none of its own
        return float("inf")


def _may_have_channels_last(module: nn.Module, inputs: Any) -> bool:
    """Whether the last axis of an image fits a weight, as in the blocks of transformers."""
    lengths = {x.shape[-1] for _, x in nest_leaves(inputs, "") if isinstance(x, Tensor) and x.ndim == 4}
    return any(lengths & set(parameter.shape) for parameter in module.parameters())


def _permuted(nest: Any, order: tuple[int, ...]) -> Any:
    """The same with the axes of its images in another order."""
    values = (x.permute(order) if isinstance(x, Tensor) and x.ndim == 4 else x for _, x in nest_leaves(nest, ""))
    return rebuild_nest(nest, values)


def _record(net: ConvertedNetwork, example: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
    """The inputs and the output of every module that is given images, at its last call."""
    calls: dict[str, tuple[Any, Any]] = {}
    entered: list[Any] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(_copied((args, kwargs)))

    def leave(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            inputs = entered.pop()
            if any(isinstance(x, Tensor) and x.ndim == 4 for _, x in nest_leaves(inputs, "")):
                calls[path] = inputs, _copied(output)

        return hook

    for path, module in net.model.named_modules():
        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave(path), with_kwargs=True)
    net(*example)
    return calls


def _copied(nest: Any) -> Any:
    """The same with tensors of its own: a module may write into what it is given."""
    return rebuild_nest(nest, (x.clone() if isinstance(x, Tensor) else x for _, x in nest_leaves(nest, "")))


def _inside(path: str, container: str) -> bool:
    return container == "" or path.startswith(container + ".")

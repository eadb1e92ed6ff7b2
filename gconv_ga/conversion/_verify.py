"""Weights that hide nothing: a structure is compared on them in place of a model's own."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._validate import invalid
from ..actions import nest_leaves, pair_leaves, rebuild_nest
from ..averaging import GroupAverage
from ..groups import Group
from ._network import ConvertedNetwork, NotConvertible, Row
from ._orbit import conjugate
from ._orbit_layers import OrbitConv2d


@torch.no_grad()
def enliven(model: nn.Module, example: Any) -> None:
    """Give every branch of a model in eval mode a say in its output, in place.

    Trainable parameters that are constant become random: a branch that is multiplied by zero, or a table of positions
    that starts at zero, would pass every comparison. Batch norms get the statistics of the example, so that signals
    neither die out nor grow from layer to layer.

    Args:
        model: A copy that nobody else needs.
        example: Its arguments.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad and _is_blank(parameter):
            parameter.copy_(_numbers_like(parameter, generator))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_calibrate) for norm in norms]
    model(*example)
    for hook in hooks:
        hook.remove()


def _is_blank(parameter: Tensor) -> bool:
    """Whether a parameter says nothing of its own: a constant; a single number only if it is zero."""
    if parameter.numel() < 2:
        return bool((parameter == 0).all())
    return bool((parameter == parameter.flatten()[0]).all())


def _numbers_like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    numbers = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
    if parameter.ndim < 2:
        # Scales, mostly: near one.
        return 0.5 + numbers
    return (2 * numbers - 1) * (parameter.numel() // parameter.shape[0]) ** -0.5


def _calibrate(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
    variance, mean = torch.var_mean(inputs[0], axes, correction=0)
    # A channel that does not vary on the example has nothing to be scaled to.
    varied = variance > 1e-12
    norm.running_mean.copy_(torch.where(varied, mean, norm.running_mean))
    norm.running_var.copy_(torch.where(varied, variance, norm.running_var))


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


# How many suspects a message lists; the report has them all.
MOST_NAMED = 5


class Trial:
    """A plain network and its conversion side by side, both copies in float64 and eval mode.

    Args:
        model: The plain network.
        example: Its arguments.
        rewired: Converts a plain network, in place.
    """

    def __init__(
        self, model: nn.Module, example: tuple[Any, ...], rewired: Callable[[nn.Module], ConvertedNetwork]
    ) -> None:
        self.name = type(model).__name__
        self.example = example
        self.plain = deepcopy(model).double().eval()
        # Errors that the plain network makes alone are not ours to explain.
        enliven(self.plain, self._inputs())
        self.net = rewired(deepcopy(self.plain)).eval()
        self.net.reduce = "mean"

    @torch.no_grad()
    def run(self, verify: bool, tolerance: float) -> set[str]:
        """Compare, and return the paths of the convolutions that see the same image in every orientation.

        Raises:
            NotConvertible: The converted network differs from the group average, or there is no such average.
            ValueError: ``out_action`` does not fit, or the model's answer does not depend on the image.
        """
        devices = {x.device for _, x in nest_leaves(self.example, "") if isinstance(x, Tensor)}
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
            if verify:
                spread = self._spread()
                expected = self._average()
            lifting, actual = self._converted()
            if verify:
                self._compare(actual, expected, spread, tolerance)
        return lifting

    def _inputs(self, other: bool = False) -> Any:
        """The arguments in float64, in memory of their own; ``other`` images have their pixels shuffled and dimmed."""
        values = []
        for _, x in nest_leaves(self.example, "example"):
            if isinstance(x, Tensor):
                x = (x.double() if x.is_floating_point() else x).clone()
                if other and x.ndim == 4 and x.is_floating_point():
                    pixels = torch.randperm(x.shape[2] * x.shape[3], generator=torch.Generator().manual_seed(0))
                    x = 0.9 * x.flatten(2)[:, :, pixels.to(x.device)].unflatten(2, x.shape[2:])
            values.append(x)
        return rebuild_nest(self.example, iter(values))

    def _spread(self) -> list[float]:
        """How far each tensor of the plain output moves when the image is another one.

        Differences are measured by it: to a network that hardly looks at the image every difference is small.
        """
        output, moved = self.plain(*self._inputs()), self.plain(*self._inputs(other=True))
        leaves = pair_leaves(output, self.net.out_action, "output", "out_action")
        pairs = zip(leaves, nest_leaves(moved, ""), strict=True)
        spread = [float((a.value - b).abs().max()) for a, (_, b) in pairs if isinstance(b, Tensor) and b.numel()]
        if all(distance == 0 for distance in spread):
            takes = "one that the model's answer depends on"
            raise invalid("example", takes, self.example[0], "with its pixels shuffled the answer is the same")
        return spread

    def _average(self) -> Any:
        group = self.net.group
        try:
            return GroupAverage(self.plain, group, self.net.in_action, self.net.out_action)(*self._inputs())
        except Exception as error:
            text = f"{self.name} has no average under {group.name} on this example: {error}"
            raise NotConvertible(text, self.net.report) from error

    def _converted(self) -> tuple[set[str], Any]:
        """The convolutions that see the same in every orientation, and the output."""
        here: list[str] = []
        same: dict[str, bool] = {}
        paths = {module: path for path, module in self.net.model.named_modules()}

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            here.append(paths[module])
            if isinstance(module, OrbitConv2d):
                maps = inputs[0].unflatten(0, (-1, self.net.group.order))
                same[here[-1]] = same.get(here[-1], True) and bool((maps == maps[:, :1]).all())

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            here.pop()

        hooks = [module.register_forward_pre_hook(enter) for module in paths]
        hooks += [module.register_forward_hook(leave) for module in paths]
        try:
            output = self.net(*self._inputs())
        except Exception as error:
            if not here:
                raise
            kind = type(self.plain.get_submodule(here[-1])).__name__
            text = f"the converted {self.name} fails at {here[-1] or '(model)'} ({kind}): {error}"
            advice = "Name it, or the block around it, in conjugate=[...], or use GroupAverage(model, group)."
            raise NotConvertible(f"{text.rstrip('.')}. {advice}", self.net.report) from error
        finally:
            for hook in hooks:
                hook.remove()
        return {path for path, is_same in same.items() if is_same}, output

    def _compare(self, actual: Any, expected: Any, spread: list[float], tolerance: float) -> None:
        report = self.net.report
        report.defect = defect(actual, expected, spread)
        if report.defect <= tolerance:
            return
        suspects, ends = find_suspects(self.net, self.plain, self._inputs(), tolerance)
        report.rows = [row for row in report.rows if row.path not in suspects]
        named = []
        for path, error in suspects.items():
            kind = type(self.plain.get_submodule(path)).__name__
            report.rows.append(Row(path, kind, "refuse", f"differs by {error:.0e}"))
            named.append(f"{path or '(model)'} ({kind}, {error:.0e})")
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        where = f"Suspects: {', '.join(named[:MOST_NAMED])}{more}." if named else "No single module is at fault."
        if ends:
            where += f" Images become something else at {', '.join(ends)}."
        raise NotConvertible(
            f"{self.name} differs from its group average by {report.defect:.0e} (tolerance {tolerance:.0e}). {where} "
            "Name the block around the fault in conjugate=[...], or use GroupAverage(model, group).",
            report,
        )

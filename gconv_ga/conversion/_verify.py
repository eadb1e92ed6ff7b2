"""Verification: a converted network against the group average in float64, and the modules at fault if they differ."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._validate import invalid
from ..actions import GridMove, nest_leaves, pair_leaves, rebuild_nest
from ..averaging import GroupAverage
from ._layers import OrbitConv2d, conjugate, grid_moves, is_image
from ._network import REQUESTED, ConvertedNetwork, NotConvertible, Row

# How many suspects a message lists; the report has them all.
MOST_SUSPECTS_NAMED = 5


class Verification:
    """A plain network and its conversion side by side, both copies in float64 and eval mode.

    Args:
        model: The plain network.
        example: Its arguments.
        convert_in_place: A function that converts a plain network in place.
    """

    def __init__(
        self, model: nn.Module, example: tuple[Any, ...], convert_in_place: Callable[[nn.Module], ConvertedNetwork]
    ) -> None:
        self.name = type(model).__name__
        self.example = example
        self.plain = deepcopy(model).double().eval()
        randomize_constant_parameters(self.plain)
        # An error that the plain network raises by itself needs no words of ours.
        calibrate_batch_norms(self.plain, self._inputs())
        self.net = convert_in_place(deepcopy(self.plain)).eval()
        self.net.reduce = "mean"

    @torch.no_grad()
    def run(self, verify: bool, tolerance: float) -> set[str]:
        """Compare, and return the paths of the convolutions whose input is the same for every orientation.

        Raises:
            NotConvertible: The converted network differs from the group average, or there is no such average.
            ValueError: ``out_action`` does not fit, or the model's output does not depend on the image.
        """
        devices = {x.device for _, x in nest_leaves(self.example, "") if isinstance(x, Tensor)}
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
            if verify:
                sensitivity = self._sensitivity()
                expected = self._average()
            lifting, actual = self._run_converted()
            if verify:
                self._compare(actual, expected, sensitivity, tolerance)
        return lifting

    def _inputs(self, shuffled: bool = False) -> Any:
        """Return copies of the arguments in float64, images with their pixels shuffled and dimmed if ``shuffled``."""
        values = []
        for _, x in nest_leaves(self.example, "example"):
            if isinstance(x, Tensor):
                x = (x.double() if x.is_floating_point() else x).clone()
                if shuffled and x.ndim == 4 and x.is_floating_point():
                    pixels = torch.randperm(x.shape[2] * x.shape[3], generator=torch.Generator().manual_seed(0))
                    x = 0.9 * x.flatten(2)[:, :, pixels.to(x.device)].unflatten(2, x.shape[2:])
            values.append(x)
        return rebuild_nest(self.example, iter(values))

    def _sensitivity(self) -> list[float]:
        """Return how far each tensor of the plain output moves when the images are replaced by others.

        Differences are measured by it: if the image hardly changes the output, every difference is small.
        """
        output, moved = self.plain(*self._inputs()), self.plain(*self._inputs(shuffled=True))
        leaves = pair_leaves(output, self.net.out_action, "output", "out_action")
        pairs = zip(leaves, nest_leaves(moved, ""), strict=True)
        distances = [float((a.value - b).abs().max()) for a, (_, b) in pairs if isinstance(b, Tensor) and b.numel()]
        if all(distance == 0 for distance in distances):
            takes = "one that the model's output depends on"
            advice = "the output does not change when its pixels are shuffled; use another example"
            raise invalid("example", takes, self.example[0], advice)
        return distances

    def _average(self) -> Any:
        group = self.net.group
        try:
            return GroupAverage(self.plain, group, self.net.in_action, self.net.out_action)(*self._inputs())
        except Exception as error:
            text = f"{self.name} has no average under {group.name} on this example: {error}"
            raise NotConvertible(text, self.net.report) from error

    def _run_converted(self) -> tuple[set[str], Any]:
        """Return the convolutions whose input is the same for every orientation, and the output."""
        running: list[str] = []
        same: dict[str, bool] = {}
        paths = {module: path for path, module in self.net.model.named_modules()}

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            running.append(paths[module])
            if isinstance(module, OrbitConv2d):
                maps = inputs[0].unflatten(0, (-1, self.net.group.order))
                same[running[-1]] = same.get(running[-1], True) and bool((maps == maps[:, :1]).all())

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            running.pop()

        hooks = [module.register_forward_pre_hook(enter) for module in paths]
        hooks += [module.register_forward_hook(leave) for module in paths]
        try:
            output = self.net(*self._inputs())
        except Exception as error:
            if not running:
                raise
            kind = type(self.plain.get_submodule(running[-1])).__name__
            text = f"the converted {self.name} fails at {running[-1] or '(model)'} ({kind}): {error}"
            advice = "Name it, or the block around it, in conjugate=[...], or use GroupAverage(model, group)."
            raise NotConvertible(f"{text.rstrip('.')}. {advice}", self.net.report) from error
        finally:
            for hook in hooks:
                hook.remove()
        return {path for path, is_same in same.items() if is_same}, output

    def _compare(self, actual: Any, expected: Any, sensitivity: list[float], tolerance: float) -> None:
        report = self.net.report
        report.defect = relative_difference(actual, expected, sensitivity)
        if report.defect <= tolerance:
            return
        suspects, ends = find_suspects(self.net, self.plain, self._inputs(), tolerance)
        report.rows = [row for row in report.rows if row.path not in suspects]
        named = []
        for path, error in suspects.items():
            kind = type(self.plain.get_submodule(path)).__name__
            report.rows.append(Row(path, kind, "refuse", f"differs by {error:.0e}"))
            named.append(f"{path or '(model)'} ({kind}, {error:.0e})")
        more = f" and {len(named) - MOST_SUSPECTS_NAMED} more" if len(named) > MOST_SUSPECTS_NAMED else ""
        where = (
            f"Suspects: {', '.join(named[:MOST_SUSPECTS_NAMED])}{more}." if named else "No single module is at fault."
        )
        if ends:
            where += f" Images become something else at {', '.join(ends)}."
        raise NotConvertible(
            f"{self.name} differs from its group average by {report.defect:.0e} (tolerance {tolerance:.0e}). {where} "
            "Name the block around the fault in conjugate=[...], or use GroupAverage(model, group).",
            report,
        )


@torch.no_grad()
def randomize_constant_parameters(model: nn.Module) -> None:
    """Replace the trainable parameters that are constant by random numbers, in place.

    A branch that is multiplied by zero, or a table of positions that starts at zero, would pass every comparison.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad and _is_constant(parameter):
            parameter.copy_(_random_like(parameter, generator))


def _is_constant(parameter: Tensor) -> bool:
    """Return whether all numbers are equal; a single number counts only if it is zero."""
    if parameter.numel() < 2:
        return bool((parameter == 0).all())
    return bool((parameter == parameter.flatten()[0]).all())


def _random_like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    numbers = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
    if parameter.ndim < 2:
        # Most of these are scales: near one.
        return 0.5 + numbers
    return (2 * numbers - 1) * (parameter.numel() // parameter.shape[0]) ** -0.5


@torch.no_grad()
def calibrate_batch_norms(model: nn.Module, example: Any) -> None:
    """Replace the statistics of batch norms by those of the example, in place.

    With them, signals neither vanish nor grow from layer to layer, so every branch contributes to the output.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_copy_statistics) for norm in norms]
    model(*example)
    for hook in hooks:
        hook.remove()


def _copy_statistics(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
    variance, mean = torch.var_mean(inputs[0], axes, correction=0)
    # A channel that does not vary on the example gives nothing to scale by.
    varies = variance > 1e-12
    norm.running_mean.copy_(torch.where(varies, mean, norm.running_mean))
    norm.running_var.copy_(torch.where(varies, variance, norm.running_var))


def relative_difference(actual: Any, expected: Any, scales: list[float] | None = None) -> float:
    """Return the largest difference of any tensor, relative to its largest number; NaN if there is one.

    Args:
        actual: A nest.
        expected: A nest of the same structure.
        scales: For each tensor, the number to divide by in place of its largest number, if that is less and not zero.
    """
    worst = torch.zeros((), dtype=torch.float64)
    pairs = zip(nest_leaves(actual, ""), nest_leaves(expected, ""), strict=True)
    tensors = [(a, b) for (_, a), (_, b) in pairs if isinstance(a, Tensor) and a.numel()]
    for i, (a, b) in enumerate(tensors):
        if a.shape != b.shape:
            return float("inf")
        scale = float(b.abs().max())
        if scales is not None and 0 < scales[i] < scale:
            scale = scales[i]
        worst = torch.maximum(worst, ((a - b).abs().max() / (scale or 1.0)).detach().double().cpu())
    return worst.item()


@torch.no_grad()
def find_suspects(
    net: ConvertedNetwork, plain: nn.Module, example: tuple[Any, ...], tolerance: float
) -> tuple[dict[str, float], list[str]]:
    """Return the smallest modules at fault with their errors, and those within them that images do not leave as images.

    Args:
        net: The converted network.
        plain: The plain network.
        example: The arguments of both.
        tolerance: Largest error of a module without fault.
    """
    calls = _record_calls(net, example)
    moves = grid_moves(net.group)
    conjugated = [row.path for row in net.report.rows if row.action == "conjugate"]
    harmless = {row.path for row in net.report.rows if row.action == "keep" and row.why != REQUESTED}
    errors: dict[str, float] = {}
    ends: list[str] = []
    for path, (inputs, output) in calls.items():
        # A module inside of a conjugated one has upright images, and is right.
        if path in harmless or any(_is_inside(path, block) for block in conjugated):
            continue
        leaves = [x for _, x in nest_leaves(output, "") if isinstance(x, Tensor)]
        if any(x.ndim == 3 for x in leaves):
            ends.append(path)
            continue
        module = plain.get_submodule(path)
        errors[path] = _error_of(module, inputs, output, moves, channels_last=False)
        if _may_have_channels_last(module, inputs):
            errors[path] = min(errors[path], _error_of(module, inputs, output, moves, channels_last=True))
    guilty = {path: error for path, error in errors.items() if not error <= tolerance}
    smallest = {p: e for p, e in guilty.items() if not any(q != p and _is_inside(q, p) for q in guilty)}
    # Making tokens of images is not a fault by itself, so such a module is named only where nothing smaller is.
    named = [p for p in ends if not any(q != p and _is_inside(q, p) for q in ends)]
    named = [p for p in named if any(_is_inside(p, block) for block in smallest)]
    return smallest, [f"{p or '(model)'} ({type(plain.get_submodule(p)).__name__})" for p in named]


def _error_of(module: nn.Module, inputs: Any, output: Any, moves: tuple[GridMove, ...], channels_last: bool) -> float:
    """Return how far an output is from that of the plain module, conjugated."""
    to_nchw = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)
    from_nchw = (0, 2, 3, 1) if channels_last else to_nchw

    def upright(nest: Any) -> Any:
        args, kwargs = _permute_images(nest, from_nchw)
        return _permute_images(module(*args, **kwargs), to_nchw)

    try:
        expected = conjugate(upright, _permute_images(inputs, to_nchw), moves)
        return relative_difference(_permute_images(output, to_nchw), expected)
    except Exception:  # noqa: BLE001  whatever a module raises on images of another layout than its own
        return float("inf")


def _may_have_channels_last(module: nn.Module, inputs: Any) -> bool:
    """Return whether the last axis of an image fits a weight, as in the blocks of transformers."""
    lengths = {x.shape[-1] for _, x in nest_leaves(inputs, "") if is_image(x)}
    return any(lengths & set(parameter.shape) for parameter in module.parameters())


def _permute_images(nest: Any, order: tuple[int, ...]) -> Any:
    return rebuild_nest(nest, (x.permute(order) if is_image(x) else x for _, x in nest_leaves(nest, "")))


def _record_calls(net: ConvertedNetwork, example: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
    """Return the inputs and the output of the last call of every module that takes images."""
    calls: dict[str, tuple[Any, Any]] = {}
    entered: list[Any] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(_copy_tensors((args, kwargs)))

    def leave(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            inputs = entered.pop()
            if any(is_image(x) for _, x in nest_leaves(inputs, "")):
                calls[path] = inputs, _copy_tensors(output)

        return hook

    for path, module in net.model.named_modules():
        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave(path), with_kwargs=True)
    net(*example)
    return calls


def _copy_tensors(nest: Any) -> Any:
    """Return a nest with copies of its tensors, since a module may write into its input."""
    return rebuild_nest(nest, (x.clone() if isinstance(x, Tensor) else x for _, x in nest_leaves(nest, "")))


def _is_inside(path: str, container: str) -> bool:
    return container == "" or path.startswith(container + ".")

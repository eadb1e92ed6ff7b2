"""Verification: a converted network against the group average in float64, and the modules at fault if they differ."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._validate import invalid
from ..actions import GridMove, nest_leaves, pair_inputs, pair_leaves, rebuild_nest
from ..averaging import GroupAverage
from ._copying import copy_network, unreadable_class
from ._layers import OrbitConv2d, conjugate, is_image
from ._network import REQUESTED, ConversionReport, ConvertedNetwork, NotConvertible, Row
from ._parting import Parting, Place, failing_line, find_parting, place_of
from ._precision import StaysDouble

# How many suspects a message lists; the report has them all.
MOST_SUSPECTS_NAMED = 5
# Added to height and width for the second size: both change their parity, and few strides divide them.
ODD_STEPS = ((3, 5), (5, 5), (1, 3))
# For networks that take multiples only.
EVEN_STEPS = (2, 4, 8, 16, 32)
NOBODY_AT_FAULT = "Each module is exact by itself: the fault is between them, or rounding errors grow on the way."
# Larger differences between two calls with one input are no rounding.
RANDOM = 1e-10
# Smaller differences may be those of a network that computes parts in float32.
SINGLE_PRECISION = 1e-5
# Relative change of parameters: far above rounding, and too little for signals to vanish or grow.
NOISE = 1e-2


class Verification:
    """A plain network and its conversion side by side, both copies in float64 and eval mode.

    Args:
        model: The plain network.
        example: Its arguments.
        convert_in_place: A function that converts a plain network in place.
        upright: The place of a function that is to run on upright images, to try what that would mend.
    """

    def __init__(
        self,
        model: nn.Module,
        example: tuple[Any, ...],
        convert_in_place: Callable[[nn.Module], ConvertedNetwork],
        upright: Place | None = None,
    ) -> None:
        self.name = type(model).__name__
        self.example = as_doubles(example)
        self.plain = copy_network(model).double().eval()
        randomize_parameters(self.plain)
        # An error that the plain network raises by itself needs no words of ours.
        try:
            calibrate_batch_norms(self.plain, self.example)
        except RuntimeError as error:
            with torch.no_grad():
                copy_network(model).eval()(*_copy_tensors(example))
            text = f"{self.name} does not run in float64, in which convert compares: {error}"
            raise NotConvertible(text) from error
        self.net = convert_in_place(copy_network(self.plain)).eval()
        self.net.reduce = "none"
        if upright is not None:
            self.net.is_upright = lambda func: place_of(func) == upright

    @torch.no_grad()
    def run(self, verify: bool, tolerance: float) -> set[str]:
        """Compare, and return the paths of the convolutions whose input is the same for every orientation.

        Raises:
            NotConvertible: The converted network differs from the group average, or there is no such average.
            ValueError: ``out_action`` does not fit, or the model's output is not finite or does not depend on the
                image.
        """
        devices = {x.device for _, x in nest_leaves(self.example, "") if isinstance(x, Tensor)}
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]), StaysDouble():
            if not verify:
                return self._run_converted(self.example)[0]
            sensitivity = self._sensitivity()
            try:
                expected = self._orientations(self.example)
            except Exception as error:
                text = f"{self.name} has no average under {self.net.group.name} on this example: {error}"
                raise NotConvertible(text, self.net.report) from error
            if not _are_finite(expected):
                takes = f"one that {self.name} returns finite numbers for, in all orientations"
                raise invalid("example", takes, self.example[0], self._blame_for_nan())
            lifting, actual = self._run_converted(self.example)
            self._compare(self.example, actual, expected, sensitivity, tolerance)
            for inputs in other_examples(self.example):
                try:
                    self._calibrate(inputs)
                    expected = self._orientations(inputs)
                except Exception:  # noqa: BLE001  the plain network does not take this size
                    continue
                if not _are_finite(expected):
                    continue
                self._compare(inputs, self._run_converted(inputs)[1], expected, sensitivity, tolerance)
                break
        return lifting

    def _calibrate(self, inputs: Any) -> None:
        """Give both networks the statistics of other inputs: with those of the example, rounding errors may grow."""
        calibrate_batch_norms(self.plain, inputs)
        ours = {path: module for path, module in self.net.model.named_modules() if isinstance(module, _BatchNorm)}
        for path, module in ours.items():
            module.load_state_dict(self.plain.get_submodule(path).state_dict())

    def _sensitivity(self) -> list[float]:
        """Return how far each tensor of the plain output moves when the images are replaced by others.

        Differences are measured by it: if the image hardly changes the output, every difference is small.
        """
        output = self.plain(*_copy_tensors(self.example))
        moved, again = self.plain(*_shuffle_pixels(self.example)), self.plain(*_copy_tensors(self.example))
        kind = unreadable_class(output)
        if kind is not None:
            text = (
                f"{self.name} returns a {kind}, whose tensors convert cannot reach; "
                "wrap it in a module that returns a tensor, or a dict or tuple of tensors"
            )
            raise NotConvertible(text, self.net.report)
        leaves = pair_leaves(output, self.net.out_action, "output", "out_action")
        pairs = list(zip(leaves, nest_leaves(moved, ""), nest_leaves(again, ""), strict=True))
        for leaf, _, (_, y) in pairs:
            if isinstance(y, Tensor) and relative_difference(y, leaf.value) > RANDOM:
                text = (
                    f"{self.name} is random in eval mode: two calls with the same input differ at {leaf.name}, so that "
                    "it has no group average that could be compared; make it deterministic, for example by returning "
                    "the mean in place of a sample"
                )
                raise NotConvertible(text, self.net.report)
        # Detections differ in number.
        distances = [
            float((a.value - b).abs().max()) if a.value.shape == b.shape else float("inf")
            for a, (_, b), _ in pairs
            if isinstance(b, Tensor) and b.numel()
        ]
        if all(distance == 0 for distance in distances):
            takes = "one that the model's output depends on"
            advice = "the output does not change when its pixels are shuffled; use another example"
            raise invalid("example", takes, self.example[0], advice)
        return distances

    def _orientations(self, inputs: Any) -> list[Any]:
        """Return the leaves of the plain network's output for all orientations, in the image's frame.

        Shape:
            - output: a list of tensors ``[B, C, |G|, H, W]`` or ``[B, K, |G|]``
        """
        net, outputs = self.net, []

        def recorded(*moved: Any) -> Any:
            outputs.append(self.plain(*moved))
            return outputs[-1]

        # One pass for each element, in order. The average itself is not needed, but its checks are.
        GroupAverage(recorded, net.group, net.in_action, net.out_action, chunk_size=1)(*_copy_tensors(inputs))
        columns = []
        for g, output in enumerate(outputs):
            leaves = pair_leaves(output, net.out_action, "output", "out_action")
            start = net.group.inverse(g)
            columns.append(
                [leaf._replace(action=leaf.action.after(net.group, start)).moved(net.group, g) for leaf in leaves]
            )
        stacked = []
        for orbit in zip(*columns, strict=True):
            value = orbit[0]
            stacked.append(torch.stack(orbit, min(2, value.ndim)) if isinstance(value, Tensor) else value)
        return stacked

    def _blame_for_nan(self) -> str:
        """Return what to do about NaN or infinity in the plain network's output."""
        found: list[str] = []

        def watch(path: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if not found and not _are_finite([x for _, x in nest_leaves(output, "")]):
                    found.append(f"{path or '(model)'} ({type(module).__name__})")

            return hook

        hooks = [module.register_forward_hook(watch(path)) for path, module in self.plain.named_modules()]
        try:
            self._orientations(self.example)
        finally:
            for handle in hooks:
                handle.remove()
        where = f"first at {found[0]}, " if found else ""
        return (
            f"the plain network returns NaN or infinity, {where}before any conversion (in float64, with random numbers "
            "for constant parameters); mend it, or use another example"
        )

    def _run_converted(self, inputs: Any) -> tuple[set[str], list[Any]]:
        """Return the convolutions whose input is the same for every orientation, and the leaves of the output."""
        running: list[str] = []
        given: list[Any] = []
        same: dict[str, bool] = {}
        paths = {module: path for path, module in self.net.model.named_modules()}

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            running.append(paths[module])
            given.append(inputs)
            if isinstance(module, OrbitConv2d) and _is_orbit_of(inputs, self.net.group.order):
                maps = inputs[0].unflatten(0, (-1, self.net.group.order))
                same[running[-1]] = same.get(running[-1], True) and bool((maps == maps[:, :1]).all())

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            running.pop()
            given.pop()

        hooks = [module.register_forward_pre_hook(enter) for module in paths]
        hooks += [module.register_forward_hook(leave) for module in paths]
        try:
            output = self.net(*_copy_tensors(inputs))
        except Exception as error:
            if not running:
                raise
            kind = type(self.plain.get_submodule(running[-1])).__name__
            where = f"{running[-1] or '(model)'} ({kind})"
            line = failing_line(error)
            text = f"the converted {self.name} fails{self._at(inputs)} at {where}" + (f", {line}" if line else "")
            parting = self._parting(inputs)
            if given and not _is_orbit_of(given[-1], self.net.group.order * inputs[0].shape[0]):
                text += (
                    f": it is given maps {_shapes(given[-1])} that are not computed from the image, but from its size "
                    "alone, such as a position embedding; they have no orientations."
                )
            else:
                text += f": {str(error).rstrip('.')}."
            text += f" The maps part at {parting.text}." if parting else ""
            raise Unequal(text, self.net.report, [running[-1]], self.net.report.rows, parting) from error
        finally:
            for hook in hooks:
                hook.remove()
        return {path for path, is_same in same.items() if is_same}, [y for _, y in nest_leaves(output, "")]

    def _at(self, inputs: Any) -> str:
        if inputs is self.example:
            return ""
        batch, _, height, width = inputs[0].shape
        return f" at another size, {height} x {width} with a batch of {batch},"

    def _parting(self, inputs: Any) -> Parting | None:
        leaves = pair_inputs(inputs, self.net.in_action)
        group = self.net.group
        moved = []
        for g in range(group.order):
            values = (leaf.moved(group, group.inverse(g)) if has_rows(leaf.value) else leaf.value for leaf in leaves)
            moved.append(rebuild_nest(inputs, values))
        return find_parting(self.net, self.plain, moved, _copy_tensors(inputs))

    def _compare(
        self, inputs: Any, actual: list[Any], expected: list[Any], sensitivity: list[float], tolerance: float
    ) -> None:
        report = self.net.report
        defect = relative_difference(actual, expected, sensitivity)
        report.defect = defect if report.defect is None or not defect <= report.defect else report.defect
        report.sizes.append((inputs[0].shape[-2], inputs[0].shape[-1]))
        if defect <= tolerance:
            return
        parting = self._parting(inputs)
        suspects, ends = find_suspects(self.net, self.plain, _copy_tensors(inputs), tolerance)
        rows = report.rows
        report.rows = [row for row in rows if row.path not in suspects]
        named = []
        for path, error in suspects.items():
            kind = type(self.plain.get_submodule(path)).__name__
            report.rows.append(Row(path, kind, "refuse", f"differs by {error:.0e}"))
            named.append(f"{path or '(model)'} ({kind}, {error:.0e})")
        more = f" and {len(named) - MOST_SUSPECTS_NAMED} more" if len(named) > MOST_SUSPECTS_NAMED else ""
        where = f"Suspects: {', '.join(named[:MOST_SUSPECTS_NAMED])}{more}." if named else NOBODY_AT_FAULT
        if parting:
            where += f" The maps part at {parting.text}."
        if ends:
            where += f" Images become something else at {', '.join(ends)}."
        if defect <= SINGLE_PRECISION:
            where += (
                f" This much is rounding in float32: if the network computes parts in float32 whatever its dtype, "
                f"tolerance={SINGLE_PRECISION:.0e} accepts it."
            )
        for path, module in self.plain.named_modules():
            if isinstance(module, _BatchNorm) and module.running_mean is None:
                where += (
                    f" {path or '(model)'} ({type(module).__name__}, track_running_stats=False) takes its statistics "
                    "from the batch in eval mode too, and the batch of all orientations has others than each alone."
                )
                break
        raise Unequal(
            f"{self.name} differs from its group average{self._at(inputs)} by {defect:.0e} "
            f"(tolerance {tolerance:.0e}). {where}",
            report,
            list(suspects),
            rows,
            parting,
        )


class Unequal(NotConvertible):
    """Raised by `Verification` for a network that is not equal to its average.

    Args:
        message: The message.
        report: The report.
        suspects: Paths of the modules at fault.
        rows: The report's rows before any was refused.
        parting: The first call at which the two networks differ.
    """

    def __init__(
        self, message: str, report: ConversionReport, suspects: list[str], rows: list[Row], parting: Parting | None
    ) -> None:
        super().__init__(message, report)
        self.suspects = suspects
        self.rows = rows
        self.parting = parting


def _is_orbit_of(inputs: Any, length: int) -> bool:
    """Return whether all images among a module's inputs have a multiple of so many rows."""
    return all(x.shape[0] % length == 0 for _, x in nest_leaves(inputs, "") if is_image(x))


def _shapes(inputs: Any) -> str:
    return ", ".join(str(list(x.shape)) for _, x in nest_leaves(inputs, "") if is_image(x))


def as_doubles(nest: Any) -> Any:
    """Return a nest with its floating-point tensors in float64."""
    values = (x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for _, x in nest_leaves(nest, ""))
    return rebuild_nest(nest, values)


def has_rows(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0


def _are_finite(leaves: list[Any]) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in leaves if isinstance(x, Tensor))


def _shuffle_pixels(nest: Any) -> Any:
    """Return a nest with the pixels of its images shuffled and dimmed."""
    values = []
    for _, x in nest_leaves(nest, "example"):
        if is_image(x) and x.is_floating_point():
            pixels = torch.randperm(x.shape[2] * x.shape[3], generator=torch.Generator().manual_seed(0))
            x = 0.9 * x.flatten(2)[:, :, pixels.to(x.device)].unflatten(2, x.shape[2:])
        values.append(x.clone() if isinstance(x, Tensor) else x)
    return rebuild_nest(nest, iter(values))


def other_examples(example: tuple[Any, ...]) -> Iterator[Any]:
    """Yield examples of other sizes and of another batch, the most telling first.

    Images are continued periodically, so that their values stay in range.
    """
    batch, _, height, width = example[0].shape
    steps = [*ODD_STEPS, *((step, step) for step in EVEN_STEPS)]
    for size in [*((height + rows, width + columns) for rows, columns in steps), (height, width)]:
        yield _resized(example, size, 1 if batch > 1 else 2)
    yield _resized(example, (height + 3, width + 5), batch)


def _resized(example: tuple[Any, ...], size: tuple[int, int], batch: int) -> Any:
    first = example[0]
    values = []
    for _, x in nest_leaves(example, ""):
        if has_rows(x) and x.shape[0] == first.shape[0]:
            if is_image(x) and x.shape[-2:] == first.shape[-2:]:
                rows, columns = (torch.arange(n, device=x.device) % m for n, m in zip(size, x.shape[-2:], strict=True))
                x = x[:, :, rows][..., columns]
            if x.shape[0] < batch:
                # Another image: the same one would hide what mixes them.
                x = torch.cat((x, x.flip(-1) if is_image(x) else x))
            x = x[:batch].clone()
        values.append(x)
    return rebuild_nest(example, iter(values))


@torch.no_grad()
def randomize_parameters(model: nn.Module) -> None:
    """Take their symmetries from the parameters, in place: constant ones become random, the others get a little noise.

    A branch that is multiplied by zero, or a table of positions that is symmetric for now, would pass every comparison.
    Frozen parameters are treated alike, since they may be trained later.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not (parameter.is_floating_point() or parameter.is_complex()) or not parameter.numel():
            continue
        if _is_constant(parameter):
            parameter.data = _random_like(parameter, generator).to(parameter)
        elif parameter.numel() > 1:
            noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            # Numbers keep their sign, and zeros, which scaling would leave alone, become positive.
            size = parameter.abs().square().mean().sqrt().to(parameter)
            parameter.data = parameter + NOISE * noise * torch.where(parameter == 0, size, parameter)


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
    try:
        model(*_copy_tensors(example))
    finally:
        for hook in hooks:
            hook.remove()


def _copy_statistics(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
    variance, mean = torch.var_mean(inputs[0], axes, correction=0)
    # A channel that hardly varies, as one of a single pixel, gives nothing to scale by: rounding errors would grow.
    scale = inputs[0].square().mean()
    varies = variance > 1e-2 * scale
    norm.running_mean.copy_(torch.where(varies, mean, 0.0))
    norm.running_var.copy_(torch.where(varies, variance, scale if scale > 0 else 1.0))


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
    moves = net.orientation_moves
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

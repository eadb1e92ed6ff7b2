"""Whether a converted network is the group average, in float64, on a twin whose weights hide nothing."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import invalid
from ..actions import nest_leaves, pair_leaves, rebuild_nest
from ..averaging import GroupAverage
from ._conv2d import OrbitConv2d
from ._enliven import enliven
from ._errors import NotConvertible
from ._network import ConvertedNetwork
from ._report import Row
from ._suspects import defect, find_suspects

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

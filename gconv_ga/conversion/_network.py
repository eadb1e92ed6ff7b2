"""What `convert` did to each module, as a table."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .._validate import invalid, one_of, wrong_shape
from ..actions import Leaf, pair_inputs, pair_leaves, rebuild_nest
from ..groups import Group
from ._mode import OrbitMode
from ._orbit import in_the_image_frame, orbit_of
from ._orbit_layers import OrbitConvolution


@dataclass(frozen=True)
class Row:
    """One module: its path, its class, what became of it and why."""

    path: str
    kind: str
    action: str
    why: str


@dataclass
class ConversionReport:
    """The table of a conversion; ``print(net.report)`` shows it.

    Args:
        group: The group's name.
        rows: One for each module that was decided on, in the model's order.
        defect: The largest difference from the group average on the example, relative to the average's largest
            number, or to how far the output moves when the image is another one, if that is less; None if it was not
            verified.

    Example:
        >>> from gconv_ga.conversion import ConversionReport
        >>> from gconv_ga.conversion._network import Row
        >>> print(ConversionReport("C4", [Row("head", "Linear", "keep", "commutes")], 2e-16))
        module  class   action  why
        ------  ------  ------  --------
        head    Linear  keep    commutes
        C4: 1 keep, 0 swap, 0 conjugate; differs from the group average by 2.0e-16
    """

    group: str
    rows: list[Row] = field(default_factory=list)
    defect: float | None = None

    def count(self, action: str) -> int:
        """How many modules were kept, swapped, conjugated or refused: "keep", "swap", "conjugate", "refuse"."""
        return sum(row.action == action for row in self.rows)

    def __str__(self) -> str:
        titles = ("module", "class", "action", "why")
        lines = [titles, *((row.path or "(model)", row.kind, row.action, row.why) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        table = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        table.insert(1, "  ".join("-" * width for width in widths))
        actions = ["keep", "swap", "conjugate", *(["refuse"] if self.count("refuse") else [])]
        counts = ", ".join(f"{self.count(action)} {action}" for action in actions)
        verdict = "not verified" if self.defect is None else f"differs from the group average by {self.defect:.1e}"
        return "\n".join([*table, f"{self.group}: {counts}; {verdict}"])


class NotConvertible(TypeError):  # noqa: N818  the name says it; its users read "except NotConvertible"
    """A network that `convert` cannot turn into one equal to its group average; the message says where and why.

    Args:
        message: Where, why, and what to do.
        report: What was decided on each module, those refused among them; None if it did not come to that.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import NotConvertible
        >>> from gconv_ga.conversion import convert
        >>> try:
        ...     convert(torch.nn.Conv2d(1, 1, 3, stride=(2, 1)), "C4", torch.randn(1, 1, 8, 8))
        ... except NotConvertible as error:
        ...     print(error.report)
        module   class   action  why
        -------  ------  ------  ...
        (model)  Conv2d  refuse  stride must be the same for rows and columns under C4, ...
        C4: 0 keep, 0 swap, 0 conjugate, 1 refuse; not verified
    """

    def __init__(self, message: str, report: ConversionReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class ConvertedNetwork(nn.Module):
    """What `convert` returns: the plain network, run on all orientations at once and averaged.

    ``state_dict`` keys are the plain network's, so weights load before or after converting. It trains as any other
    network: batch norm sees all orientations in one batch.

    Args:
        model: The network with its modules changed.
        group: The group.
        in_action: The resolved actions of the inputs.
        out_action: The resolved actions of the output.
        reduce: "mean" for the average, "none" for the maps on the group, with the element axis third for images,
            ``[B, C, |G|, H, W]``, and last for vectors, ``[B, K, |G|]``. The attribute may be changed at any time.
        tied: Whether dropout draws once for all orientations.
        report: What was done to each module.

    Shape:
        - inputs: as the plain network's, with a batch axis
        - output: as the plain network's, or with the element axis where ``reduce="none"``

    Raises:
        ValueError: Inputs differ in their batch or do not fit ``in_action``, or the output does not fit ``out_action``.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import convert
        >>> net = convert(torch.nn.Conv2d(1, 3, 3, stride=2), "D4", torch.randn(1, 1, 12, 9))
        >>> x = torch.randn(2, 1, 8, 10)
        >>> net(x).shape
        torch.Size([2, 3, 3, 4])
        >>> net.reduce = "none"
        >>> net(x).shape
        torch.Size([2, 3, 8, 3, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        in_action: Any,
        out_action: Any,
        reduce: str,
        tied: bool,
        report: ConversionReport,
    ) -> None:
        super().__init__()
        self.model = model
        self.group = group
        self.in_action = in_action
        self.out_action = out_action
        self.reduce = reduce
        self.tied = tied
        self.report = report
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    @property
    def reduce(self) -> str:
        """What becomes of the element axis: "mean" or "none".

        Raises:
            ValueError: It is set to something else.
        """
        return self._reduce

    @reduce.setter
    def reduce(self, reduce: str) -> None:
        self._reduce = one_of("reduce", reduce, ("mean", "none"))

    def forward(self, input: Any, *more: Any) -> Any:
        inputs = (input, *more)
        leaves = pair_inputs(inputs, self.in_action)
        batch = _common_batch(leaves)
        orbit = (orbit_of(leaf, self.group) for leaf in leaves)
        with OrbitMode(self.group, batch * self.group.order, self.tied):
            output = self.model(*rebuild_nest(inputs, orbit))
        return rebuild_nest(output, self._reduced(pair_leaves(output, self.out_action, "output", "out_action")))

    def _reduced(self, leaves: list[Leaf]) -> Iterator[Any]:
        for leaf in leaves:
            if not isinstance(leaf.value, Tensor):
                yield leaf.value
                continue
            if leaf.value.ndim == 0 or leaf.value.shape[0] % self.group.order:
                axes = f"[B |G|, ...] with |G|={self.group.order}"
                raise wrong_shape(leaf.name, axes, leaf.value, "the model must keep the batch axis, first")
            maps = in_the_image_frame(leaf, self.group)
            yield maps.mean(1) if self.reduce == "mean" else maps.movedim(1, min(2, maps.ndim - 1))

    def convolutions(self) -> dict[str, OrbitConvolution]:
        """The convolutions that can be opened, by path; the first layer is not among them."""
        return {
            path: module
            for path, module in self.model.named_modules()
            if isinstance(module, OrbitConvolution) and not module.lifts
        }

    def open_taps(
        self,
        layers: str | Iterable[str] | Callable[[str, nn.Module], bool] | None = None,
        group_kernel_size: int | None = None,
    ) -> None:
        """Let convolutions mix orientations: add kernels for more elements, which start at zero.

        The output stays what it was, and equivariant whatever the new kernels become in training. The first layer is
        left alone: all orientations show it the same image, so that further kernels there would say nothing new. Make
        the optimiser afterwards, and open a network before loading the weights of an opened one.

        Args:
            layers: Paths of convolutions, as in `convolutions`, or a function of path and module that says which; None
                for all.
            group_kernel_size: How many elements, nearest the identity first, as in `GroupConv2d`; None for all.

        Raises:
            ValueError: A path is none of those that can be opened, or the number is out of range.

        Example:
            >>> import torch
            >>> from gconv_ga.conversion import convert
            >>> plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
            >>> net = convert(plain, "C4", torch.randn(1, 1, 16, 12))
            >>> net.open_taps(group_kernel_size=3)
            >>> sorted(net.state_dict())
            ['0.bias', '0.weight', '2.bias', '2.taps', '2.weight']
        """
        able = self.convolutions()
        if layers is None:
            chosen = list(able)
        elif callable(layers):
            chosen = [path for path, module in able.items() if layers(path, module)]
        else:
            chosen = [layers] if isinstance(layers, str) else list(layers)
        for path in chosen:
            if path not in able:
                raise invalid("layers", f"paths among those of .convolutions(), {list(able)}", path)
        for path in chosen:
            able[path].open(self.group.order if group_kernel_size is None else group_kernel_size)

    def param_groups(self, lr: float, tap_scale: float | None = None) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser: taps learn slower, since ``|G|`` times as many numbers move together.

        Args:
            lr: The learning rate of the plain network's parameters.
            tap_scale: The taps' learning rate over ``lr``; None for ``1 / |G|``.

        Returns:
            One group, or two if there are taps.

        Raises:
            ValueError: A number is not positive.
        """
        scale = 1 / self.group.order if tap_scale is None else tap_scale
        for name, number in (("lr", lr), ("tap_scale", scale)):
            if not number > 0:
                raise invalid(name, "a positive number", number)
        taps = [m.taps for m in self.modules() if isinstance(m, OrbitConvolution) and m.taps is not None]
        apart = {id(parameter) for parameter in taps}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": lr}]
        return [*groups, {"params": taps, "lr": lr * scale}] if taps else groups

    def extra_repr(self) -> str:
        return f"group={self.group.name!r}, reduce={self.reduce!r}"


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, prefix + "model.", prefix)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    _rename(state, prefix, prefix + "model.")


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key[len(old) :]] = state.pop(key)


def _common_batch(leaves: list[Leaf]) -> int:
    """The size of the batch axis that all tensors share."""
    tensors = [leaf for leaf in leaves if isinstance(leaf.value, Tensor) and leaf.value.ndim]
    if not tensors:
        values = [leaf.value for leaf in leaves]
        raise invalid("inputs", "tensors with a batch axis, or nests with at least one", values)
    batch: int = tensors[0].value.shape[0]
    for leaf in tensors[1:]:
        if leaf.value.shape[0] != batch:
            raise wrong_shape(leaf.name, f"[B={batch}, ...] like {tensors[0].name}", leaf.value, "batches come first")
    return batch

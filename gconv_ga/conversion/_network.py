"""The converted network: it runs the plain network's ``forward`` on all orientations at once and averages."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import invalid, one_of, wrong_shape
from ..actions import (
    Action,
    Invariant,
    LabelMask,
    Leaf,
    ScalarField,
    nest_leaves,
    pair_inputs,
    pair_leaves,
    rebuild_nest,
)
from ..groups import Group
from ._checkpoints import keep_mode_in_checkpoints
from ._functions import OrbitMode
from ._layers import Layout, OrbitConvolution, grid_moves, join_planes, mark, mark_constants

keep_mode_in_checkpoints()

REQUESTED = "requested"  # why a module was kept or conjugated that the user named


@dataclass(frozen=True)
class Row:
    """One module in a `ConversionReport`: its path, its class, what became of it and why."""

    path: str
    kind: str
    action: str
    why: str


@dataclass
class ConversionReport:
    """Table of what `convert` did to each module, shown by ``print(net.report)``.

    Args:
        group: The group's name.
        rows: One row for each module that was decided on, in the model's order.
        defect: Largest difference from the group average in any orientation. It is relative to the largest number of
            the output, or to how far the output moves when the image is replaced by another, if that is less. If None,
            the network was not verified.
        sizes: Heights and widths at which it was verified: the example's and another one. Only the first, if the plain
            network takes no other.

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
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def count(self, action: str) -> int:
        """Return the number of modules with an action: "keep", "swap", "conjugate" or "refuse"."""
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


class NotConvertible(TypeError):  # noqa: N818  users read "except NotConvertible"
    """Raised for a network that `convert` cannot make equal to its group average; the message says where and why.

    Args:
        message: Where, why, and what to do.
        report: What was decided on each module, with those refused. If None, nothing was decided yet.

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
    """The result of `convert`: the plain network, run on all orientations at once and averaged.

    ``state_dict`` keys are the plain network's, so weights can be loaded before or after converting. It trains like any
    other network, and batch norm sees all orientations in one batch.

    Args:
        model: The network with its modules replaced.
        group: The group.
        in_action: The resolved actions of the inputs.
        out_action: The resolved actions of the output.
        reduce: "mean" for the average, "none" for the feature maps on the group, with the element axis third for
            images, ``[B, C, |G|, H, W]``, and last for vectors, ``[B, K, |G|]``. The attribute may be changed at any
            time.
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

    # A function that is told every function that runs, its arguments and what it has returned; for `convert` itself.
    observe: Callable[[Any, Any, Any], None] | None = None
    # A function that is asked of every function whether to run it on upright images; for `convert` itself.
    is_upright: Callable[[Any], bool] | None = None

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
        self.orientation_moves = grid_moves(group)
        self.register_state_dict_post_hook(_remove_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)
        self.register_load_state_dict_post_hook(_restore_versions)

    @property
    def reduce(self) -> str:
        """Reduction of the element axis: "mean" or "none".

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
        mark_constants(self.model)
        orbit = (_mark_input(_input_orbit(leaf, self.group)) for leaf in leaves)
        with OrbitMode(self.orientation_moves, batch * self.group.order, self.tied, self.observe, self.is_upright):
            output = self.model(*rebuild_nest(inputs, orbit))
        leaves = pair_leaves(output, self.out_action, "output", "out_action")
        return rebuild_nest(output, self._reduced(leaves, batch))

    def _reduced(self, leaves: list[Leaf], batch: int) -> Iterator[Any]:
        for leaf in leaves:
            if not isinstance(leaf.value, Tensor):
                yield leaf.value
                continue
            rows = leaf.value.shape[0] if leaf.value.ndim else None
            misfit = isinstance(rows, int) and rows != batch * self.group.order
            if rows is None or misfit or rows % self.group.order:
                axes = f"[B |G|, ...] with |G|={self.group.order}"
                raise wrong_shape(leaf.name, axes, leaf.value, "the model must keep the batch axis, first")
            maps = _outputs_in_image_frame(leaf, self.group)
            yield maps.mean(1) if self.reduce == "mean" else maps.movedim(1, min(2, maps.ndim - 1))

    def convolutions(self) -> dict[str, OrbitConvolution]:
        """Return the convolutions that can be opened, by path; the first layer is not among them."""
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

        The output does not change, and it stays equivariant whatever the new kernels become in training. The first
        layer is left alone: its input is the same image for all orientations, so further kernels would add nothing.
        Create the optimizer afterwards, and open a network before loading the weights of an opened one.

        Strided layers cost the most when opened, four times the multiplications; to leave them as they are, choose
        ``layers=lambda path, layer: layer.stride == (1, 1)``.

        Args:
            layers: Paths of convolutions, as in `convolutions`, or a function that takes path and module and returns
                whether to open it. If None, all are opened.
            group_kernel_size: Number of elements, nearest the identity first, as in `GroupConv2d`. If None, all.

        Raises:
            ValueError: A path is not one of those that can be opened, or the number is out of range.

        Warns:
            UserWarning: There is nothing to open.

        Example:
            >>> import torch
            >>> from gconv_ga.conversion import convert
            >>> plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
            >>> net = convert(plain, "C4", torch.randn(1, 1, 16, 12))
            >>> net.open_taps(group_kernel_size=3)
            >>> sorted(net.state_dict())
            ['0.bias', '0.weight', '2.bias', '2.taps', '2.weight']
        """
        available = self.convolutions()
        if layers is None:
            chosen = list(available)
        elif callable(layers):
            chosen = [path for path, module in available.items() if layers(path, module)]
        else:
            chosen = [layers] if isinstance(layers, str) else list(layers)
        for path in chosen:
            if path not in available:
                raise invalid("layers", f"paths among those of .convolutions(), {list(available)}", path)
        if not chosen:
            text = "open_taps() has opened nothing: " + (
                "the network has no convolution behind the first that is swapped; see net.report"
                if not available
                else "layers chose none of net.convolutions()"
            )
            warnings.warn(text, stacklevel=2)
        for path in chosen:
            available[path].open(self.group.order if group_kernel_size is None else group_kernel_size)

    def param_groups(self, lr: float, tap_scale: float | None = None) -> list[dict[str, Any]]:
        """Return parameter groups for an optimizer, in which taps have a lower learning rate.

        Opened layers have ``|G|`` times as many parameters that move together.

        Args:
            lr: Learning rate of the plain network's parameters.
            tap_scale: Learning rate of the taps over ``lr``. If None, ``1 / |G|``.

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
        tap_ids = {id(parameter) for parameter in taps}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in tap_ids]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": lr}]
        return [*groups, {"params": taps, "lr": lr * scale}] if taps else groups

    def extra_repr(self) -> str:
        return f"group={self.group.name!r}, reduce={self.reduce!r}"


def _remove_prefix(module: nn.Module, state: dict[str, Any], prefix: str, local: Any) -> None:
    _rename_keys(state, prefix + "model.", prefix)
    versions = getattr(state, "_metadata", {})
    # Under both paths: torch looks for those of the parts, and a plain network for its own.
    for path in [path for path in versions if f"{path}.".startswith(prefix + "model.")]:
        versions[(prefix + path[len(prefix + "model.") :]).rstrip(".")] = versions[path]


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    _rename_keys(state, prefix, prefix + "model.")
    versions = getattr(state, "_metadata", None) or _versions_being_loaded()
    if versions is not None:
        # The dict is the caller's: it is as before when the parts have read their versions.
        original = dict(versions)
        module.__dict__["_versions_before"] = versions, original
        for path, version in original.items():
            if f"{path}.".startswith(prefix):
                versions[f"{prefix}model.{path[len(prefix) :]}".rstrip(".")] = version


def _versions_being_loaded() -> dict[str, Any] | None:
    """Return the versions that torch's `load_state_dict` is looking up, which it hands to no module but the outermost.

    Inside of another module, a network that finds none would read the state of a plain one as that of no version.
    """
    frame = sys._getframe(2)  # noqa: SLF001  torch passes the dict to nobody
    while frame is not None:
        if frame.f_code.co_filename == nn.Module.load_state_dict.__code__.co_filename and "metadata" in frame.f_locals:
            versions: dict[str, Any] | None = frame.f_locals["metadata"]
            return versions
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _restore_versions(module: nn.Module, incompatible_keys: Any) -> None:
    versions, original = module.__dict__.pop("_versions_before", ({}, {}))
    versions.clear()
    versions.update(original)


def _rename_keys(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key[len(old) :]] = state.pop(key)


def _common_batch(leaves: list[Leaf]) -> int:
    """Return the size of the batch axis that all tensors share."""
    tensors = [leaf for leaf in leaves if isinstance(leaf.value, Tensor) and leaf.value.ndim]
    if not tensors:
        values = [leaf.value for leaf in leaves]
        raise invalid("inputs", "tensors with a batch axis, or nests with at least one", values)
    batch: int = tensors[0].value.shape[0]
    for leaf in tensors[1:]:
        if leaf.value.shape[0] != batch:
            raise wrong_shape(leaf.name, f"[B={batch}, ...] like {tensors[0].name}", leaf.value, "batches come first")
    return batch


def check_in_action(actions: Any) -> None:
    """Refuse actions on inputs that move something other than pixels and components.

    Raises:
        ValueError: There is one.
    """
    for name, action in nest_leaves(actions, "in_action"):
        if not isinstance(action, ScalarField | LabelMask | Invariant):
            advice = "coordinates of a rotated frame do not fit an image that is not rotated; use GroupAverage"
            raise invalid(name, "an action on images, or 'invariant'", action, advice)


def _input_orbit(leaf: Leaf, group: Group) -> Any:
    """Return an input for all orientations, ``[B |G|, ...]``; anything but a tensor is returned as it is."""
    x, action = leaf.value, leaf.action
    if not isinstance(x, Tensor) or x.ndim == 0:
        return x
    if not isinstance(action, ScalarField) or type(action) is ScalarField:
        # In memory of its own: a module may write into its input.
        repeated = x.unsqueeze(1).expand(-1, group.order, *x.shape[1:])
        return repeated.clone(memory_format=torch.contiguous_format).flatten(0, 1)
    return join_planes([_rotate_components(action, x, group, group.inverse(g)) for g in range(group.order)])


def _mark_input(x: Any) -> Any:
    return mark(x, Layout((2, 3) if x.ndim == 4 else ())) if isinstance(x, Tensor) and x.ndim else x


def _outputs_in_image_frame(leaf: Leaf, group: Group) -> Tensor:
    """Return the output of each orientation, with its components in the image's frame.

    Shape:
        - leaf: ``[B |G|, ...]``
        - output: ``[B, |G|, ...]``
    """
    maps: Tensor = leaf.value.unflatten(0, (-1, group.order))
    action = leaf.action
    if isinstance(action, Invariant) or type(action) is ScalarField:
        return maps
    rotated = []
    for g, y in enumerate(maps.unbind(1)):
        if isinstance(action, ScalarField):
            rotated.append(_rotate_components(action, y, group, g))
        else:
            # The model saw an image rotated back by g: an action that knows the image's size starts from there.
            rotated.append(action.after(group, group.inverse(g))(y, group, g))
    return torch.stack(rotated, dim=1)


def _rotate_components(action: Action, x: Tensor, group: Group, element: int) -> Tensor:
    """Apply ``L_g`` to the components of every pixel, each as an image of one pixel."""
    pixels = x.movedim((-2, -1), (1, 2))
    return action(pixels[..., None, None], group, element)[..., 0, 0].movedim((1, 2), (-2, -1))

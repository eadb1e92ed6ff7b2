"""From a plain network to the G-CNN that is its group average."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from .._validate import invalid, one_of
from ..actions import LabelMask, as_actions, nest_leaves
from ..groups import Group, as_group
from ._conjugated import ConjugatedForward, TiedForward
from ._errors import NotConvertible
from ._network import ConvertedNetwork
from ._report import ConversionReport, Row
from ._rules import Decision, decide
from ._verify import mark_lifting, suspects
from ._verify import verify as measure_defect

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

Modules = Iterable[str | type[nn.Module]]


def convert(
    model: nn.Module,
    group: Group | str,
    example: Tensor | Sequence[Any],
    *,
    conjugate: Modules = (),
    keep: Modules = (),
    out_action: Any = "scalar",
    reduce: str = "mean",
    dropout: str = "independent",
    verify: bool = True,
    tolerance: float = 1e-8,
) -> ConvertedNetwork:
    r"""The G-CNN that equals ``GroupAverage(model, group)`` on every input, and can be trained beyond it.

    ``L_g (f_n o ... o f_1) L_g^-1 = prod_i (L_g f_i L_g^-1)``: each operation is conjugated by itself. Convolutions get
    turned kernels, each orientation on its own grid; pointwise layers and norms stay as they are; everything else from
    image to image runs in each orientation's own frame. No image is turned on the way in or out, images need not be
    square, and batch norm sees all orientations in one batch. Afterwards `ConvertedNetwork.open_taps` lets orientations
    mix, starting from zero.

    The result is compared with the group average in float64 on ``example``, and refused if it differs.

    Args:
        model: A network from images to anything; it is copied, and its parameters with it.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        example: An image batch for the model, or a tuple of its arguments; varied, and best not square. The
            verification holds for what the model does at this size.
        conjugate: Paths, class names or classes of modules to run whole in each orientation's frame: the way out for a
            block that mixes positions and channels. Such a block cannot be opened.
        keep: Paths, class names or classes of modules to leave alone.
        out_action: As in `GroupAverage`; one that knows the image's size is given that of the example.
        reduce: "mean" for the group average, "none" for the maps on the group.
        dropout: "independent" draws a mask for each orientation, "tied" one for all of them, so that training too is
            equivariant.
        verify: Whether to compare with the group average.
        tolerance: The largest difference allowed, relative to the average's largest number.

    Returns:
        The network; see `ConvertedNetwork`. ``print(net.report)`` lists what became of each module.

    Raises:
        NotConvertible: The result is not the group average, or a module cannot have one of the same size. The message
            names the modules and what to do.
        ValueError: An argument is out of its range.

    Example:
        >>> import torch
        >>> plain = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)
        ... )
        >>> net = convert(plain, "C4", torch.randn(1, 3, 24, 32))
        >>> print(net.report)
        module  class   action  why
        ------  ------  ------  ------------
        0       Conv2d  swap    kernels turn
        1       ReLU    keep    commutes
        2       Conv2d  swap    kernels turn
        C4: 1 keep, 2 swap, 0 conjugate; differs from the group average by ...

    References:
        Basu et al., "Equi-tuning: group equivariant fine-tuning of pretrained models", AAAI 2023 (the group average of
        a trained network is the nearest equivariant one).
    """
    symmetry = as_group(group)
    if not symmetry.is_exact():
        advice = "average with GroupAverage at other angles"
        raise invalid("group", "one of C1, C2, C4, D1, D2, D4", symmetry.name, advice)
    if not isinstance(model, nn.Module):
        raise invalid("model", "a torch.nn.Module", model)
    one_of("dropout", dropout, ("independent", "tied"))
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        raise invalid("example", "a batch of images [B, C, H, W], or a tuple that starts with one", example)
    if bool((inputs[0] == inputs[0].flatten()[0]).all()):
        raise invalid("example", "an image with some contrast", inputs[0], "a constant one proves nothing")
    action = as_actions(out_action, "out_action")
    for name, each in nest_leaves(action, "out_action"):
        if isinstance(each, LabelMask):
            raise invalid(name, "an action on something that has a mean; class indices have none", each)
    report = ConversionReport(symmetry.name)
    copied = _Rewiring(deepcopy(model), symmetry, tuple(conjugate), tuple(keep), dropout == "tied", report).result()
    net = ConvertedNetwork(copied, symmetry, action, reduce, report)
    net.train(model.training)
    if verify:
        report.defect = measure_defect(net, model, inputs)
        if not report.defect <= tolerance:
            guilty = suspects(net, model, inputs, tolerance)
            raise NotConvertible(
                f"{type(model).__name__} differs from its group average by {report.defect:.0e} (tolerance "
                f"{tolerance:.0e}); suspects: {', '.join(guilty) or 'none from image to image'}. Name the block around "
                "them in conjugate=[...], or use GroupAverage(model, group)."
            )
    mark_lifting(net, inputs)
    return net


class _Rewiring:
    """One walk through a copied model, changing it."""

    def __init__(
        self, model: nn.Module, group: Group, conjugate: tuple[Any, ...], keep: tuple[Any, ...], tied: bool,
        report: ConversionReport,
    ) -> None:  # fmt: skip
        self.group = group
        self.named = {"conjugate": conjugate, "keep": keep}
        self.used: set[Any] = set()
        self.tied = tied
        self.report = report
        self.done: dict[nn.Module, nn.Module] = {}
        self.model = self._visit("", model)

    def result(self) -> nn.Module:
        """The changed model.

        Raises:
            ValueError: A module that the user named is not there.
        """
        for argument, wanted in self.named.items():
            for one in wanted:
                if one not in self.used:
                    raise invalid(argument, "paths, class names or classes of modules of the model", one)
        return self.model

    def _visit(self, path: str, module: nn.Module) -> nn.Module:
        if module in self.done:
            return self.done[module]
        decision = self._asked(path, module) or decide(module)
        if decision is None:
            self.done[module] = module
            for name, child in list(module.named_children()):
                new = self._visit(f"{path}.{name}" if path else name, child)
                if new is not child:
                    setattr(module, name, new)
            return module
        self.report.rows.append(Row(path, type(module).__name__, decision.action, decision.why))
        self.done[module] = self._changed(path, module, decision)
        return self.done[module]

    def _asked(self, path: str, module: nn.Module) -> Decision | None:
        for argument, wanted in self.named.items():
            for one in wanted:
                if one in (path, type(module).__name__, type(module)):
                    self.used.add(one)
                    return Decision(argument, "asked for")  # type: ignore[arg-type]
        return None

    def _changed(self, path: str, module: nn.Module, decision: Decision) -> nn.Module:
        if decision.make is not None:
            try:
                return decision.make(module, self.group)
            except ValueError as error:
                raise NotConvertible(f"{path or 'the model'} ({type(module).__name__}): {error}") from error
        if decision.action == "conjugate":
            module.forward = ConjugatedForward(module, self.group)
        elif self.tied and _draws(module):
            module.forward = TiedForward(module, self.group)
        return module


def _draws(module: nn.Module) -> bool:
    return isinstance(module, _DROPOUTS) or type(module).__name__ in ("StochasticDepth", "DropPath")

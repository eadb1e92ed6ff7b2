"""`convert` and its rules: which module of a plain network becomes what."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._validate import invalid, one_of
from ..actions import LabelMask, as_actions, nest_leaves
from ..groups import Group, as_group
from ..nn import LiftingConv2d
from ._computed import OwnConv2d, OwnConvTranspose2d
from ._copying import copy_network
from ._layers import (
    ConjugatedForward,
    OrbitConv2d,
    OrbitConvTranspose2d,
    TiedForward,
    grid_moves,
)
from ._network import REQUESTED, ConversionReport, ConvertedNetwork, NotConvertible, Row, check_in_action
from ._parting import Place
from ._verify import MOST_SUSPECTS_NAMED, Unequal, Verification

Action = Literal["keep", "swap", "conjugate", "refuse"]
Modules = str | type[nn.Module] | Iterable[str | type[nn.Module]]
Rule = str | Callable[[nn.Module, Group], nn.Module]

# How many ways out a refusal tries; each is a conversion with its verification.
MOST_ADVICE_TRIED = 3


def convert(
    model: nn.Module,
    group: Group | str,
    example: Tensor | Sequence[Any],
    *,
    conjugate: Modules = (),
    keep: Modules = (),
    in_action: Any = "scalar",
    out_action: Any = "scalar",
    reduce: str = "mean",
    dropout: str = "independent",
    verify: bool = True,
    tolerance: float = 1e-8,
) -> ConvertedNetwork:
    r"""Convert a CNN to the G-CNN that equals ``GroupAverage(model, group)`` on every input.

    ``L_g (f_n o ... o f_1) L_g^-1 = prod_i (L_g f_i L_g^-1)``: each operation is conjugated by itself. The kernels of
    convolutions are rotated, and each orientation has its own sampling grid. Pointwise layers and norms stay as they
    are. Every other module from images to images runs in each orientation's own frame. No image is rotated on the way
    in or out, images need not be square, and batch norm sees all orientations in one batch. Afterwards
    `ConvertedNetwork.open_taps` lets orientations mix, starting from zero, so that the network can be trained beyond
    the average.

    The result is compared with the plain network in float64, orientation by orientation, and refused if it differs: on
    ``example``, and on images of another size (odd steps larger; multiples, if the plain network takes nothing else) in
    another batch. This takes about ``4 |G| + 8`` passes of the plain network over one example; a refusal takes several
    times as many, since it tries the advice that it gives. The comparison is of structures, not of weights. For it,
    parameters that are constant, such as those of a branch that starts at zero, are replaced by random numbers, the
    others, such as a table of positions that is symmetric, get 1 % of noise, and the statistics of batch norms are
    replaced by those of the example. Otherwise they could hide a difference that shows only after training. Frozen
    parameters count as well; a table that is never trained belongs in a buffer. Both networks are in eval mode, so that
    a branch that runs in training alone is not compared.

    A network that was never trained on rotated images may do badly on them, and so may its average. Then train the
    average.

    Args:
        model: A network from images to anything. It is copied with its parameters.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        example: A batch of images for the model, or a tuple of its arguments. The images should be varied, small to
            save time, and preferably not square.
        conjugate: Paths, class names or classes of modules to run whole in each orientation's frame: the way out for a
            block that mixes positions and channels. Such a block cannot be opened.
        keep: Paths, class names or classes of modules to leave alone.
        in_action: As in `GroupAverage`: "scalar" for images, "vector", "regular", "labels" or "invariant".
        out_action: As in `GroupAverage`. An action that knows the image's size takes that of the example.
        reduce: "mean" for the group average, "none" for the feature maps on the group; see `ConvertedNetwork`.
        dropout: "independent" draws a mask for each orientation. "tied" draws one that rotates with them, so that the
            network is equivariant in training too; tokens, whose places are unknown, have one for each channel. This
            concerns torch's dropouts and modules named StochasticDepth or DropPath.
        verify: Whether to compare with the group average.
        tolerance: Largest difference allowed; see `ConversionReport`.

    Returns:
        The network; see `ConvertedNetwork`. ``print(net.report)`` lists what became of each module.

    Raises:
        NotConvertible: The result is not the group average, or a module cannot have one of the same size. The message
            names the modules and what to do.
        ValueError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import convert
        >>> plain = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)
        ... )
        >>> net = convert(plain, "C4", torch.randn(1, 3, 24, 32))
        >>> print(net.report)  # doctest: +ELLIPSIS
        module  class   action  why
        ------  ------  ------  --------------
        0       Conv2d  swap    kernels rotate
        1       ReLU    keep    commutes
        2       Conv2d  swap    kernels rotate
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
    if isinstance(model, ConvertedNetwork) and model.group.name == symmetry.name:
        text = f"model is converted already, to {symmetry.name}: it is equivariant, and needs no conversion."
        raise NotConvertible(text, model.report)
    one_of("dropout", dropout, ("independent", "tied"))
    inputs = _as_arguments(example)
    actions = as_actions(in_action, "in_action"), as_actions(out_action, "out_action")
    check_in_action(actions[0])
    _check_out_action(actions[1])
    requests = _as_tuple("conjugate", conjugate), _as_tuple("keep", keep)
    name = type(model).__name__
    try:
        model = copy_network(model)
    except NotImplementedError as error:
        raise NotConvertible(f"{name} cannot be converted: {error}.") from error

    def attempt(
        more: tuple[str, ...] = (),
        swap_computed: bool = True,
        compare: bool = verify,
        upright: Place | None = None,
    ) -> ConvertedNetwork:
        conjugated = (*requests[0], *more)
        converter = ModuleConverter(symmetry, conjugated, requests[1], dropout == "tied", swap_computed)

        def convert_in_place(plain: nn.Module) -> ConvertedNetwork:
            net = ConvertedNetwork(converter.run(plain), symmetry, *actions, reduce, converter.tied, converter.report)
            # Not net.train(): the parts keep their own modes.
            net.training = plain.training
            return net

        lifting = Verification(model, inputs, convert_in_place, upright).run(compare, tolerance)
        net = convert_in_place(copy_network(model))
        for path, module in net.convolutions().items():
            module.lifts = path in lifting
        return net

    try:
        return attempt()
    except Unequal as error:
        first = error
    except NotConvertible as error:
        raise _with_advice(error, lambda more, upright: attempt(more, compare=True)) from error
    if any(row.why == COMPUTED for row in first.rows):
        # A layer's own forward may do more than compute a weight.
        try:
            return attempt(swap_computed=False)
        except Unequal as error:
            first = error
    advice = _tried_advice(first, lambda more, upright: attempt(more, False, True, upright))
    raise NotConvertible(f"{first} {advice}", first.report) from first


def _with_advice(error: NotConvertible, attempt: Callable[[tuple[str, ...], Place | None], Any]) -> NotConvertible:
    """Return the error about modules without an average, with the block to conjugate if there is one."""
    rows = error.report.rows if error.report else []
    found, _ = _try_blocks([row.path for row in rows if row.action == "refuse" and row.path], attempt)
    told = f" conjugate={list(found)} makes it exact: it was tried." if found else ""
    return NotConvertible(f"{error}{told}", error.report)


def _tried_advice(error: Unequal, attempt: Callable[[tuple[str, ...], Place | None], Any]) -> str:
    """Return what to do about a difference, after trying it.

    Args:
        error: The difference.
        attempt: A function that converts with further modules conjugated, and the function called at one place run on
            upright images, or raises.
    """
    average = "GroupAverage(model, group) is exact for any network."
    named = [path for path in error.suspects if path]
    place = error.parting.place if error.parting else None
    if not named and place is not None:
        try:
            attempt((), place)
        except (TypeError, ValueError, RuntimeError):
            return f"No block contains the fault, so that there is none to conjugate. {average}"
        return (
            f"{place[0]}() on that line, moved to a module of its own that is named in conjugate, makes it exact: it "
            f"was tried. Or: {average}"
        )
    if not named:
        return average
    found, candidates = _try_blocks(named, attempt)
    if found:
        return f"conjugate={list(found)} makes it exact: it was tried. Or: {average}"
    tried = " or ".join(str(list(candidate)) for candidate in candidates)
    told = f"conjugate={tried} was tried and does not help. " if tried else ""
    return f"{told}{average}"


def _try_blocks(
    named: list[str], attempt: Callable[[tuple[str, ...], Place | None], Any]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the modules whose conjugation makes a network exact, () if none was found, and all that was tried.

    Args:
        named: Paths of modules at fault; tried are these, and the blocks that contain them.
        attempt: As in `_tried_advice`.
    """
    if not named:
        return (), []
    candidates = [tuple(named)] if len(named) <= MOST_SUSPECTS_NAMED else []
    blocks = named
    while len(candidates) < MOST_ADVICE_TRIED and all("." in path for path in blocks):
        blocks = list(dict.fromkeys(path.rpartition(".")[0] for path in blocks))
        # No block of another: the outer one is enough.
        blocks = [path for path in blocks if not any(path.startswith(f"{outer}.") for outer in blocks)]
        if len(blocks) <= MOST_SUSPECTS_NAMED:
            candidates.append(tuple(blocks))
    for candidate in candidates:
        try:
            attempt(candidate, None)
        except (TypeError, ValueError, RuntimeError):
            continue
        return candidate, candidates
    return (), candidates


def _check_out_action(actions: Any) -> None:
    """Refuse actions on outputs that have no mean.

    Raises:
        ValueError: There is one.
    """
    for name, action in nest_leaves(actions, "out_action"):
        if isinstance(action, LabelMask):
            raise invalid(name, "an action on something that has a mean; class indices have none", action)


def _as_arguments(example: Tensor | Sequence[Any]) -> tuple[Any, ...]:
    """Return the arguments of the model.

    Raises:
        ValueError: They do not start with a batch of images that can show a difference.
    """
    if not isinstance(example, Tensor | list | tuple):
        raise invalid("example", "a batch of images [B, C, H, W], or a tuple that starts with one", example)
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4 or not inputs[0].numel():
        raise invalid("example", "a batch of images [B, C, H, W], or a tuple that starts with one", example)
    if bool((inputs[0] == inputs[0].flatten()[0]).all()) or not bool(torch.isfinite(inputs[0]).all()):
        raise invalid("example", "finite images with some contrast", inputs[0], "a constant one proves nothing")
    return inputs


def _as_tuple(argument: str, modules: Modules) -> tuple[str | type[nn.Module], ...]:
    """Return paths, names and classes as a tuple; a single one need not be in a list.

    Raises:
        ValueError: An entry is none of these.
    """
    entries = (modules,) if isinstance(modules, str | type) else tuple(modules)
    for entry in entries:
        if not isinstance(entry, str) and not (isinstance(entry, type) and issubclass(entry, nn.Module)):
            raise invalid(argument, "paths, class names or classes of modules", entry)
    return entries


_registered: dict[type[nn.Module], Rule] = {}


def register(module_class: type[nn.Module], rule: Rule) -> None:
    """Register what `convert` does with a class of modules.

    Args:
        module_class: The class. Subclasses have their own rules, or none.
        rule: "keep" if the module commutes with the group when images lie in the batch; "conjugate" to run it in each
            orientation's frame, which is right for any module from images to images; or a function of the module and
            the group that returns its replacement: a module for orbits ``[B |G|, C, H, W]``, or a `torch.nn.Conv2d` or
            `torch.nn.ConvTranspose2d`, which is then swapped like any other and can be opened.

    Raises:
        ValueError: ``module_class`` is not a class of modules, or ``rule`` is none of the above.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import register
        >>> class Roll(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.roll(1, -1)
        >>> register(Roll, "conjugate")
    """
    if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
        raise invalid("module_class", "a class of torch.nn.Module", module_class)
    if not callable(rule):
        one_of("rule", rule, ("keep", "conjugate"))
    _registered[module_class] = rule


@dataclass(frozen=True)
class Decision:
    """The decision about a module, and its reason; ``make`` returns the replacement."""

    action: Action
    why: str
    make: Callable[[Any, Group], nn.Module] | None = None


COMPUTED = "kernels rotate after the layer has computed them"

# They act on each channel or each sample alone.
_COMMUTING: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm,
    nn.LocalResponseNorm, nn.Linear, nn.Bilinear, nn.Identity, nn.Unflatten, nn.Embedding, nn.Dropout, nn.Dropout1d,
    nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.ChannelShuffle, nn.Softmax, nn.Softmax2d, nn.LogSoftmax,
    nn.Softmin, nn.MultiheadAttention,
)  # fmt: skip
# OrbitMode handles the functions that these call, where they do not commute.
_WINDOWED = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.Upsample)
_REORDERING = (nn.PixelShuffle, nn.PixelUnshuffle, nn.Flatten)
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Modules of torch's activations, and of the activations of timm.
_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")
_COMMUTING_NAMES = (
    "Permute", "StochasticDepth", "DropPath", "FastAdaptiveAvgPool", "FastAdaptiveMaxPool", "FastAdaptiveAvgMaxPool",
    "FastAdaptiveCatAvgMaxPool",
)  # fmt: skip
# Sub-pixel shuffles by reshaping, around a convolution (MONAI).
_SHUFFLING_NAMES = ("SubpixelUpsample",)
# With tied dropout, these have one mask for all orientations; the others add something to it and cannot be tied.
_TIED_NAMES = ("StochasticDepth", "DropPath")
_UNTIEABLE = (nn.AlphaDropout, nn.FeatureAlphaDropout)


def decide(module: nn.Module, group: Group) -> Decision | None:
    """Return the rule for a module; None for a container whose children are decided one by one."""
    kind = type(module)
    if kind in _registered:
        rule = _registered[kind]
        if callable(rule):
            return Decision("swap", "registered", rule)
        return Decision("keep" if rule == "keep" else "conjugate", "registered")
    decision = _decide_convolution(module) or _decide_by_window(module, group)
    if decision is not None:
        return decision
    if isinstance(module, LiftingConv2d):
        why = "a layer of gconv_ga.nn; a network of these is equivariant by design, and needs no conversion"
        return Decision("refuse", why)
    if isinstance(module, nn.LayerNorm):
        if len(module.normalized_shape) == 1:
            return Decision("keep", "normalizes channels")
        return Decision("conjugate", "weights depend on the position")
    if isinstance(module, _COMMUTING) or kind.__module__ in _ACTIVATIONS or kind.__name__ in _COMMUTING_NAMES:
        return Decision("keep", "commutes")
    if kind.__name__ in _SHUFFLING_NAMES:
        return Decision("conjugate", "channels become pixels")
    if kind.__module__.startswith("einops."):
        # Tokens keep the order of the pixels; what makes pixels of channels must see an upright image.
        if _mixes_axes(str(getattr(module, "pattern", ""))):
            return Decision("conjugate", "channels become pixels")
        return Decision("keep", "reorders axes")
    if any(True for _ in module.children()) or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return None
    return Decision("conjugate", "unknown class")


def _mixes_axes(pattern: str) -> bool:
    """Return whether an einops pattern makes images of images, with axes split or merged on the way."""
    sides = [re.sub(r"\([^)]*\)", "x", side).split() for side in pattern.split("->")]
    return "(" in pattern and [len(side) for side in sides] == [4, 4]


def _decide_convolution(module: nn.Module) -> Decision | None:
    kinds: tuple[tuple[Any, Any, Any], ...] = (
        (nn.Conv2d, OrbitConv2d, OwnConv2d),
        (nn.ConvTranspose2d, OrbitConvTranspose2d, OwnConvTranspose2d),
    )
    for plain, orbit, own in kinds:
        if not isinstance(module, plain):
            continue
        # Weights that are computed before or at each call (weight norm, pruning) are not parameters.
        has_weight = isinstance(module._parameters.get("weight"), nn.Parameter)  # noqa: SLF001  torch has no public name
        inherits = type(module).forward is plain.forward and (
            plain is nn.ConvTranspose2d or type(module)._conv_forward is nn.Conv2d._conv_forward  # noqa: SLF001
        )
        if has_weight and inherits:
            return Decision("swap", "kernels rotate", orbit.of)
        return Decision("swap", COMPUTED, own.of)
    return None


def _decide_by_window(module: nn.Module, group: Group) -> Decision | None:
    transposes = any(move.transpose for move in grid_moves(group))
    if isinstance(module, _WINDOWED):
        return Decision("keep", "each orientation starts at its own edge")
    if isinstance(module, _REORDERING):
        return Decision("keep", "each orientation is rotated upright first")
    if isinstance(module, _ADAPTIVE_POOLS):
        size = module.output_size
        rows, columns = size if isinstance(size, tuple | list) else (size, size)
        if transposes and rows != columns:
            why = f"a rotation by 90 degrees would change output_size={(rows, columns)}; C2, D1 and D2 have none"
            return Decision("refuse", why)
        return Decision("keep", "commutes")
    if isinstance(module, _PADS):
        left, right, top, bottom = module.padding
        if left == right and top == bottom and (left == top or not transposes):
            return Decision("keep", "commutes")
        return Decision("conjugate", "each orientation pads its own side")
    return None


class ModuleConverter:
    """Replaces the modules of a model in place by layers on orbits.

    Args:
        group: The group.
        conjugate: The modules that the user wants conjugated.
        keep: The modules that the user wants left alone.
        tied: Whether random drops are drawn once for all orientations.
        swap_computed: Whether convolutions that compute their weight or padding are swapped rather than conjugated.
    """

    def __init__(
        self, group: Group, conjugate: tuple[Any, ...], keep: tuple[Any, ...], tied: bool, swap_computed: bool = True
    ) -> None:
        self.group = group
        self.requests: dict[Action, tuple[Any, ...]] = {"conjugate": conjugate, "keep": keep}
        self.tied = tied
        self.swap_computed = swap_computed
        self.report = ConversionReport(group.name)
        self._found: set[Any] = set()
        self._replacements: dict[nn.Module, nn.Module] = {}

    def run(self, model: nn.Module) -> nn.Module:
        """Return the converted model, which is ``model`` itself unless that is a single layer.

        Raises:
            ValueError: The model has no module that the user named.
            NotConvertible: A module cannot have a group average.
        """
        self._found.clear()
        self._replacements.clear()
        self.report.rows.clear()
        converted = self._visit("", model)
        for argument, entries in self.requests.items():
            for entry in entries:
                if entry not in self._found:
                    raise invalid(argument, "paths, class names or classes of modules of the model", entry)
        refused = [row for row in self.report.rows if row.action == "refuse"]
        if refused:
            named = "; ".join(f"{row.path or '(model)'} ({row.kind}): {row.why}" for row in refused)
            raise NotConvertible(f"the model has modules without a group average: {named}.", self.report)
        return converted

    def _visit(self, path: str, module: nn.Module) -> nn.Module:
        if module in self._replacements:
            return self._replacements[module]
        decision = self._requested(path, module) or decide(module, self.group)
        if decision is None:
            self._replacements[module] = module
            # Not named_children(): that leaves out the second name of a module that has two.
            for name, child in list(module._modules.items()):  # noqa: SLF001
                if child is not None:
                    setattr(module, name, self._visit(f"{path}.{name}" if path else name, child))
            return module
        if decision.why == COMPUTED and not self.swap_computed:
            decision = Decision("conjugate", "a convolution that computes its weight or padding")
        kind = type(module).__name__  # a swapped module changes its class in place
        replacement, decision = self._apply(decision, module)
        self.report.rows.append(Row(path, kind, decision.action, decision.why))
        self._replacements[module] = self._replacements[replacement] = replacement
        return replacement

    def _requested(self, path: str, module: nn.Module) -> Decision | None:
        for action, entries in self.requests.items():
            for entry in entries:
                if entry in (path, type(module).__name__, type(module)):
                    self._found.add(entry)
                    return Decision(action, REQUESTED)
        return None

    def _apply(self, decision: Decision, module: nn.Module) -> tuple[nn.Module, Decision]:
        if self.tied and isinstance(module, _UNTIEABLE):
            return module, Decision("refuse", "dropout='tied' is for masks that only multiply; use 'independent'")
        if decision.make is not None:
            try:
                return self._swap_plain(decision.make(module, self.group)), decision
            except ValueError as error:
                return module, Decision("refuse", str(error).rstrip("."))
        if decision.action == "conjugate":
            module.forward = ConjugatedForward(module, self.group)
        elif self.tied and type(module).__name__ in _TIED_NAMES:
            module.forward = TiedForward(module, self.group)
        return module, decision

    def _swap_plain(self, module: nn.Module) -> nn.Module:
        """Swap a plain convolution that a registered rule has returned like any other."""
        if type(module) is nn.Conv2d:
            return OrbitConv2d.of(module, self.group)
        return OrbitConvTranspose2d.of(module, self.group) if type(module) is nn.ConvTranspose2d else module

"""What becomes of each module of a plain network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from .._validate import invalid, one_of
from ..groups import Group
from ._network import ConversionReport, NotConvertible, Row
from ._orbit import ConjugatedForward, TiedForward, moves_of
from ._orbit_layers import OrbitConv2d, OrbitConvTranspose2d

Action = Literal["keep", "swap", "conjugate", "refuse"]
Rule = str | Callable[[nn.Module, Group], nn.Module]

# They act on each channel or each sample alone.
_COMMUTING: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm,
    nn.LocalResponseNorm, nn.Linear, nn.Bilinear, nn.Identity, nn.Unflatten, nn.Embedding, nn.Dropout, nn.Dropout1d,
    nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.ChannelShuffle, nn.Softmax, nn.Softmax2d, nn.LogSoftmax,
    nn.Softmin, nn.MultiheadAttention,
)  # fmt: skip
# Their functions are caught by OrbitMode where they do not commute.
_CAUGHT = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.Flatten)
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Torch's activations, and those of a package that has its own.
_POINTWISE = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")
_BY_NAME = ("Permute", "StochasticDepth", "DropPath")

_registered: dict[type[nn.Module], Rule] = {}


def register(module_class: type[nn.Module], rule: Rule) -> None:
    """Teach `convert` what to do with a class of modules.

    Args:
        module_class: The class; subclasses have their own rules, or none.
        rule: "keep" if the module commutes with the group when images lie in the batch; "conjugate" to run it in each
            orientation's frame, which is right for any module from images to images; or a function of the module and
            the group that returns what takes its place: a module for orbits ``[B |G|, C, H, W]``, or a
            `torch.nn.Conv2d` or `torch.nn.ConvTranspose2d`, which is then swapped as any other and can be opened.

    Raises:
        ValueError: ``module_class`` is no class of modules, or ``rule`` is none of those.

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
    """What becomes of a module, and why; ``make`` returns what takes its place."""

    action: Action
    why: str
    make: Callable[[Any, Group], nn.Module] | None = None


def decide(module: nn.Module, group: Group) -> Decision | None:
    """The rule for a module; None for a container whose children are decided one by one."""
    kind = type(module)
    if kind in _registered:
        rule = _registered[kind]
        if callable(rule):
            return Decision("swap", "registered", rule)
        return Decision("keep" if rule == "keep" else "conjugate", "registered")
    decision = _convolution(module) or _windowed(module, group)
    if decision is not None:
        return decision
    if isinstance(module, nn.LayerNorm):
        one_axis = len(module.normalized_shape) == 1
        return Decision("keep", "channels only") if one_axis else Decision("conjugate", "weights have positions")
    if isinstance(module, _COMMUTING) or kind.__module__ in _POINTWISE or kind.__name__ in _BY_NAME:
        return Decision("keep", "commutes")
    if any(True for _ in module.children()) or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return None
    return Decision("conjugate", "unknown")


def _convolution(module: nn.Module) -> Decision | None:
    # Weights that are made anew before each call (old-style weight norm, pruning) are no parameters.
    own = isinstance(module._parameters.get("weight"), nn.Parameter)  # noqa: SLF001  torch has no public name
    if type(module) is nn.Conv2d and own:
        return Decision("swap", "kernels turn", OrbitConv2d.of)
    if type(module) is nn.ConvTranspose2d and own:
        return Decision("swap", "kernels turn", OrbitConvTranspose2d.of)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return Decision("conjugate", "a convolution whose weight or padding is its own")
    return None


def _windowed(module: nn.Module, group: Group) -> Decision | None:
    transposes = any(move.transpose for move in moves_of(group))
    if isinstance(module, _CAUGHT):
        return Decision("keep", "each orientation from its own edge")
    if isinstance(module, _ADAPTIVE):
        size = module.output_size
        rows, columns = size if isinstance(size, tuple | list) else (size, size)
        if transposes and rows != columns:
            why = f"a quarter turn would change output_size={(rows, columns)}; C2, D1 and D2 have none"
            return Decision("refuse", why)
        return Decision("keep", "commutes")
    if isinstance(module, _PADS):
        left, right, top, bottom = module.padding
        if left == right and top == bottom and (left == top or not transposes):
            return Decision("keep", "commutes")
        return Decision("conjugate", "pads sides differently")
    return None


Modules = str | type[nn.Module] | Iterable[str | type[nn.Module]]

_TIED = ("StochasticDepth", "DropPath")
_UNTIED = (nn.AlphaDropout, nn.FeatureAlphaDropout)


def as_wanted(argument: str, modules: Modules) -> tuple[str | type[nn.Module], ...]:
    """Paths, names and classes as a tuple; one alone need not be in a list.

    Raises:
        ValueError: One of them is neither.
    """
    wanted = (modules,) if isinstance(modules, str | type) else tuple(modules)
    for one in wanted:
        if not isinstance(one, str) and not (isinstance(one, type) and issubclass(one, nn.Module)):
            raise invalid(argument, "paths, class names or classes of modules", one)
    return wanted


class Rewiring:
    """Changes a model in place.

    Args:
        group: The group.
        conjugate: The modules that the user wants conjugated.
        keep: The modules that the user wants left alone.
        tied: Whether random drops are drawn once for all orientations.
    """

    def __init__(self, group: Group, conjugate: tuple[Any, ...], keep: tuple[Any, ...], tied: bool) -> None:
        self.group = group
        self.wanted = {"conjugate": conjugate, "keep": keep}
        self.tied = tied
        self.report = ConversionReport(group.name)
        self._used: set[Any] = set()
        self._done: dict[nn.Module, nn.Module] = {}

    def run(self, model: nn.Module) -> nn.Module:
        """The changed model; it may be another module than ``model`` only if it is a single layer.

        Raises:
            ValueError: A module that the user named is not there.
            NotConvertible: A module cannot have a group average.
        """
        self._used.clear()
        self._done.clear()
        self.report.rows.clear()
        changed = self._visit("", model)
        for argument, wanted in self.wanted.items():
            for one in wanted:
                if one not in self._used:
                    raise invalid(argument, "paths, class names or classes of modules of the model", one)
        refused = [row for row in self.report.rows if row.action == "refuse"]
        if refused:
            named = "; ".join(f"{row.path or '(model)'} ({row.kind}): {row.why}" for row in refused)
            raise NotConvertible(f"the model has modules without a group average: {named}.", self.report)
        return changed

    def _visit(self, path: str, module: nn.Module) -> nn.Module:
        if module in self._done:
            return self._done[module]
        decision = self._asked(path, module) or decide(module, self.group)
        if decision is None:
            self._done[module] = module
            # Not named_children(): that leaves out the second name of a module that has two.
            for name, child in list(module._modules.items()):  # noqa: SLF001
                if child is not None:
                    setattr(module, name, self._visit(f"{path}.{name}" if path else name, child))
            return module
        kind = type(module).__name__  # a swapped module changes its class in place
        changed, decision = self._changed(module, decision)
        self.report.rows.append(Row(path, kind, decision.action, decision.why))
        self._done[module] = self._done[changed] = changed
        return changed

    def _asked(self, path: str, module: nn.Module) -> Decision | None:
        for action, wanted in self.wanted.items():
            for one in wanted:
                if one in (path, type(module).__name__, type(module)):
                    self._used.add(one)
                    return Decision("conjugate" if action == "conjugate" else "keep", "asked for")
        return None

    def _changed(self, module: nn.Module, decision: Decision) -> tuple[nn.Module, Decision]:
        if self.tied and isinstance(module, _UNTIED):
            return module, Decision("refuse", "dropout='tied' is for masks that only multiply; use 'independent'")
        if decision.make is not None:
            try:
                return self._made(decision.make(module, self.group)), decision
            except ValueError as error:
                return module, Decision("refuse", str(error).rstrip("."))
        if decision.action == "conjugate":
            module.forward = ConjugatedForward(module, self.group)
        elif self.tied and type(module).__name__ in _TIED:
            module.forward = TiedForward(module, self.group)
        return module, decision

    def _made(self, module: nn.Module) -> nn.Module:
        """What a registered rule has returned; a plain convolution is swapped as any other."""
        if type(module) is nn.Conv2d:
            return OrbitConv2d.of(module, self.group)
        return OrbitConvTranspose2d.of(module, self.group) if type(module) is nn.ConvTranspose2d else module

"""One walk through a copied model, changing each module by its rule."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from .._validate import invalid
from ..groups import Group
from ._conjugated import ConjugatedForward, TiedForward
from ._conv2d import OrbitConv2d
from ._conv_transpose2d import OrbitConvTranspose2d
from ._errors import NotConvertible
from ._report import ConversionReport, Row
from ._rules import Decision, decide

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

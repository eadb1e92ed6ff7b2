"""Which part of a module breaks equivariance, and why."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .._validate import invalid, one_of
from ..actions import Leaf, as_actions, pair_inputs, pair_leaves
from ..groups import Group, as_group
from ._error import check_view
from ._field_types import FixedSizeError, UnknownFieldError
from ._recording import Part, copied, record
from ._table import Report
from ._tolerance import checked_tolerance, default_tolerance
from ._trial import Trial, try_part
from ._undisturbed import undisturbed
from ._verdicts import make_report


def equivariance_report(
    module: nn.Module,
    group: Group | str,
    *inputs: Any,
    in_action: Any = "scalar",
    out_action: Any = None,
    tolerance: float | None = None,
    view: float = 1.0,
    parts: str = "all",
    progress: Callable[[int, int], Any] | None = None,
) -> Report:
    """Each part of a module tested alone: which one breaks equivariance, and why.

    The module runs once, and the inputs of all its parts are noted. Then each part ``m`` is called by itself:
    ``m(L_g z)`` against ``L_g m(z)`` for its own input ``z``, so that a part is not blamed for those before it. How
    ``L_g`` acts inside is told by the shape: ``[B, C, H, W]`` scalar, ``[B, C, |G|, H, W]`` regular, up to two axes
    invariant; `torch.nn.Linear` and `torch.nn.LayerNorm` take ``[B, H, W, C]``. Parts with other shapes are listed as
    not tested.

    A part inside another one that is equivariant as a whole does no harm. A part whose own parts are fine and which is
    not has the fault in its forward: a slice, a reshape, a padding, a parameter with places.

    The module is left as it was, as by `equivariance_error`.

    Args:
        module: The module.
        group: The group or its name.
        inputs: What it is called with.
        in_action: How the group acts on the inputs, as for `equivariance_error`.
        out_action: The same for the output; None tells it by its shape.
        tolerance: The largest relative error that passes, as for `assert_equivariant`.
        view: As for `equivariance_error`.
        parts: "all"; or "suspect": not those inside a part that is equivariant as a whole, which do no harm. The
            verdict and the culprits are the same. With "all" a network whose parts lie n deep takes n times as long.
        progress: Called after each part with the number of parts done and their total.

    Returns:
        A table: ``str(report)``, ``report.rows``, ``report.ok``, ``report.worst``.

    Raises:
        ValueError: As for `assert_equivariant`; ``module`` is no module, ``parts`` is neither, or nothing tells how the
            group acts on its output.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gconv_ga.checks import equivariance_report
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
        >>> report = equivariance_report(net, "C4", torch.randn(1, 3, 8, 7, dtype=torch.float64))
        >>> report.ok, report.worst.path
        (False, '0')
        >>> print(report.worst.why[:72])
        kernel 2, stride 2, padding 0 leaves 1 of 7 columns over at the far end;
    """
    if not isinstance(module, nn.Module):
        raise invalid("module", "a torch.nn.Module", module, "a function has no parts: use equivariance_error")
    group = as_group(group)
    check_view(view)
    one_of("parts", parts, ("all", "suspect"))
    leaves = pair_inputs(inputs, as_actions(in_action, "in_action"))
    tensors = [leaf.value for leaf in leaves if isinstance(leaf.value, Tensor)]
    if not tensors:
        raise invalid("inputs", "tensors, or nests with at least one", list(inputs))
    given = checked_tolerance(tolerance, group, [leaf.action for leaf in leaves])
    with undisturbed(module, tensors):
        known = [*leaves, *_known_outputs(module, inputs, out_action)]
        recorded = record(module, inputs)
        trials: list[Trial] = []
        for done, part in enumerate(recorded, start=1):
            if parts == "all" or not _inside_fine(part, trials):
                trials.append(try_part(part, group, known, view, given or default_tolerance))
            if progress is not None:
                progress(done, len(recorded))
    _refuse(trials[0])
    return make_report(trials, group, type(module).__name__)


def _inside_fine(part: Part, trials: list[Trial]) -> bool:
    """Whether a part lies inside one that has been tested, and is equivariant as a whole."""
    outer = {trial.part.path for trial in trials if trial.status == "ok"}
    names = part.path.split(".")
    return any(".".join(names[:count]) in outer for count in range(len(names)))


def _known_outputs(module: nn.Module, inputs: tuple[Any, ...], out_action: Any) -> list[Leaf]:
    if out_action is None:
        return []
    return pair_leaves(copied(module(*copied(inputs))), as_actions(out_action, "out_action"), "output", "out_action")


def _refuse(whole: Trial) -> None:
    """Refuse a report whose verdict on the whole would mean nothing.

    Raises:
        ValueError: It could not be measured, or the measurement proves nothing.
    """
    if isinstance(whole.failure, FixedSizeError):
        raise ValueError(f"inputs must turn with the image, but {whole.failure}.")
    if isinstance(whole.failure, UnknownFieldError):
        raise invalid("out_action", "given for this module", None, str(whole.failure))
    if whole.measurement is not None and whole.measurement.flaw:
        raise ValueError(f"{whole.measurement.flaw.text}.")

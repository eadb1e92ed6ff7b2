"""The verdict: equivariant to a tolerance, or a table of the elements that are not."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..actions import as_actions, nest_leaves, pair_inputs
from ..groups import Group, as_group
from ._error import measured, turning_error
from ._measure import Measurement
from ._tolerance import checked_tolerance, default_tolerance


def assert_equivariant(
    module: Callable[..., Any],
    group: Group | str,
    *inputs: Any,
    in_action: Any = "scalar",
    out_action: Any = "scalar",
    tolerance: float | None = None,
    view: float = 1.0,
) -> None:
    """Raise unless ``Phi(L_g x) = L_g Phi(x)`` up to rounding for every element of the group.

    The error is that of `equivariance_error`. Convolutions on CUDA may run in TF32, whose errors are of the order of
    1e-3: check in float64.

    Args:
        module: As for `equivariance_error`.
        group: The group or its name.
        inputs: As for `equivariance_error`.
        in_action: As for `equivariance_error`.
        out_action: As for `equivariance_error`.
        tolerance: The largest relative error that passes. None takes 1e-10 in float64, 1e-4 in float32, 1e-2 in
            float16 and 5e-2 in bfloat16, by the narrowest type among inputs and outputs. It must be given where images
            turn by angles off the grid: no default is right for every image.
        view: As for `equivariance_error`.

    Raises:
        AssertionError: An error is above the tolerance, or NaN; the message lists the elements.
        ValueError: As for `equivariance_error`; ``tolerance`` is no positive number, or missing off the grid. An
            output that changes with the input by no more than the tolerance is refused too.

    Example:
        >>> import torch
        >>> from gconv_ga.checks import assert_equivariant
        >>> x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
        >>> assert_equivariant(torch.nn.AvgPool2d(3, stride=1), "D4", x)
        >>> try:
        ...     assert_equivariant(lambda x: x.roll(1, -1), "C2", x)
        ... except AssertionError as error:
        ...     print(str(error).splitlines()[0][:36])
        <lambda> is not equivariant under C2
    """
    group = as_group(group)
    leaves = pair_inputs(inputs, as_actions(in_action, "in_action"))
    out_actions = nest_leaves(as_actions(out_action, "out_action"), "out_action")
    actions = [leaf.action for leaf in leaves] + [action for _, action in out_actions]
    given = checked_tolerance(tolerance, group, actions)
    measurement = measured(module, group, inputs, in_action, out_action, view, given or default_tolerance)
    if bool((measurement.errors <= measurement.limit).all()):
        return
    turning = torch.zeros(group.order, dtype=torch.float64)
    for leaf in leaves:
        if isinstance(leaf.value, Tensor):
            turning = torch.maximum(turning, turning_error(leaf, group, view))
    raise AssertionError(_failure(module, measurement, group, turning))


def _failure(module: Callable[..., Any], measurement: Measurement, group: Group, turning: Tensor) -> str:
    name = getattr(module, "__name__", type(module).__name__)
    errors, limit = measurement.errors.tolist(), measurement.limit
    bad = [g for g, error in enumerate(errors) if not error <= limit]
    interpolated = bool(turning.any())
    numbers = f"relative error {measurement.errors.max():.1e}, tolerance {limit:.0e}"
    lines = [
        f"{name} is not equivariant under {group.name}: {numbers}, {len(bad)} of {group.order} elements above it.",
        "element  motion                        error" + ("  turning alone" if interpolated else ""),
    ]
    for g, error in enumerate(errors):
        line = f"{g:7d}  {motion(group, g):<24}  {error:9.1e}"
        if interpolated:
            line += f"  {turning[g]:13.1e}"
        if g in bad:
            line += "  <- " + measurement.notes.get(g, "not finite" if math.isnan(error) else "above the tolerance")
        lines.append(line)
    lines.append("gconv_ga.checks.equivariance_report(module, group, ...) tells which part breaks it.")
    return "\n".join(lines)


def motion(group: Group, element: int) -> str:
    """What an element does, in words.

    Example:
        >>> from gconv_ga.groups import D4
        >>> motion(D4, 0), motion(D4, 3), motion(D4, 4), motion(D4, 5)
        ('identity', '270 deg', 'mirror', 'mirror, then 90 deg')
    """
    mirrored = element >= group.n
    angle = 360 * (element % group.n) / group.n
    parts = (["mirror"] if mirrored else []) + ([f"{angle:g} deg"] if angle else [])
    return ", then ".join(parts) or "identity"

"""The equivariance error of a module, the error of interpolation alone, and the verdict by a tolerance."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .._validate import invalid
from ..actions import (
    LabelMask,
    Leaf,
    ScalarField,
    as_action,
    as_actions,
    nest_leaves,
    pair_inputs,
    pair_leaves,
    rebuild_nest,
    require_plain,
)
from ..groups import Group, as_group
from ._measure import Measurement, Metric, ModuleCall, Tolerance, forth_and_back, measure, restoring_state, widened

# Relative errors explained by rounding, for multiples of 90 degrees and reflections. Measured under D4 on networks of
# up to 50 layers with symmetrized 3 x 3 kernels of He's variance, random BatchNorm and ReLU, with and without
# residuals, three seeds each, on a CPU: 8e-15 in float64, 3e-6 in float32, 4e-2 in bfloat16; up to 25 layers 1.5e-3 in
# float16.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


def equivariance_error(
    module: Callable[..., Any],
    group: Group | str,
    *inputs: Any,
    in_action: Any = "scalar",
    out_action: Any = "scalar",
    view: float = 1.0,
) -> Tensor:
    """Return ``max |Phi(L_g x) - L_g Phi(x)| / max |Phi(x)|`` for every element: the distance from equivariance.

    Multiples of 90 degrees and reflections are compared pixel by pixel. At angles off the grid both sides are
    interpolated, so root mean squares take the place of the maxima, over the disc that stays in view at every angle.
    `interpolation_error` returns the share of interpolation in such an error. The corners of the image contribute too,
    unless the image is dark near its border or ``view`` is smaller.

    With several output tensors each has its own relative error, and the largest counts. NaN anywhere makes the error
    NaN. An output of another shape than ``L_g Phi(x)``, or other outputs, make it infinite. Element 0 moves nothing:
    its error is above 0 only if the module is random or keeps state.

    The module runs in eval mode without gradients, on copies of the inputs. Training flags, saved buffers and torch's
    random numbers are restored afterwards.

    Args:
        module: A module. Another callable runs as it is: put the modules it uses in eval mode yourself.
        group: The group or its name.
        inputs: Inputs of the module: tensors, or dicts, tuples and lists of them. Anything else is passed on unchanged.
        in_action: Action of the group on the inputs: an action, its name, or a mapping or sequence of them nested as
            the inputs are (with several inputs, one entry per input).
        out_action: The same for the output.
        view: Share of the disc's radius that is compared at angles off the grid.

    Shape:
        - output: ``[|G|]``, float64, on the CPU

    Raises:
        ValueError: The comparison would prove nothing: the output is zero or does not depend on the input, or an
            element leaves all inputs unchanged. Or an argument is out of its range, or does not fit its action, or the
            output holds something other than tensors, None, numbers and strings, such as a dataclass.

    Example:
        >>> import torch
        >>> from gconv_ga.checks import equivariance_error
        >>> x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
        >>> equivariance_error(torch.nn.MaxPool2d(2), "C4", x)
        tensor([0., 0., 0., 0.], dtype=torch.float64)
        >>> bool(equivariance_error(torch.nn.MaxPool2d(2), "C4", x[..., :7, :7])[1] > 0.1)  # a row is left over
        True
    """
    return _measured(module, group, inputs, in_action, out_action, view, tolerance=0.0).errors


def interpolation_error(x: Tensor, group: Group | str, action: Any = "scalar", *, view: float = 1.0) -> Tensor:
    """Return the error of rotation alone: ``rms(L_g^-1 L_g x - x) / rms(x)`` for every element, in the disc in view.

    It is zero for multiples of 90 degrees and reflections. At other angles do not expect an `equivariance_error` much
    below it, since both contain two interpolations.

    Args:
        x: The tensor, such as an input or output of the module.
        group: The group or its name.
        action: Action of the group on the tensor.
        view: Share of the disc's radius that is compared.

    Shape:
        - x: any shape that the action takes
        - output: ``[|G|]``, float64, on the CPU

    Raises:
        ValueError: ``x`` is zero in view or does not fit the action, or another argument is out of its range.

    Example:
        >>> import torch
        >>> from gconv_ga.checks import interpolation_error
        >>> line = torch.linspace(-2, 2, 33, dtype=torch.float64)
        >>> bump = torch.exp(-(line**2 + line.unsqueeze(1) ** 2))
        >>> (interpolation_error(bump, "C8") > 0).tolist()
        [False, True, False, True, False, True, False, True]
        >>> bool(interpolation_error(bump, "C8").max() < 0.01)
        True
    """
    group = as_group(group)
    require_view(view)
    leaf = Leaf("x", x, as_action(action))
    if any(Metric(leaf.action, group, g, view).norm(widened(x)) == 0 for g in range(group.order)):
        raise invalid("x", "other than zero in view", x)
    return _interpolation_error(leaf, group, view)


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

    The error is that of `equivariance_error`. Convolutions on CUDA may run in TF32, with errors around 1e-3: check in
    float64.

    Args:
        module: As for `equivariance_error`.
        group: The group or its name.
        inputs: As for `equivariance_error`.
        in_action: As for `equivariance_error`.
        out_action: As for `equivariance_error`.
        tolerance: The largest relative error that passes. If None, it is 1e-10 in float64, 1e-4 in float32, 1e-2 in
            float16 and 5e-2 in bfloat16, by the narrowest type among inputs and outputs. It must be given if images
            rotate by angles off the grid: no default is right for every image.
        view: As for `equivariance_error`.

    Raises:
        AssertionError: An error is above the tolerance, or NaN; the message lists the elements.
        ValueError: As for `equivariance_error`, or ``tolerance`` is not a positive number, or it is missing off the
            grid. An output that changes with the input by no more than the tolerance is refused too.

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
    given = as_tolerance(tolerance, group, actions)
    measurement = _measured(module, group, inputs, in_action, out_action, view, given or default_tolerance)
    if bool((measurement.errors <= measurement.tolerance).all()):
        return
    interpolation = torch.zeros(group.order, dtype=torch.float64)
    for leaf in leaves:
        if isinstance(leaf.value, Tensor):
            interpolation = torch.maximum(interpolation, _interpolation_error(leaf, group, view))
    raise AssertionError(_failure_text(module, measurement, group, interpolation))


def default_tolerance(dtypes: Iterable[torch.dtype]) -> float:
    """Return the tolerance for tensors of these types, that of the narrowest.

    Args:
        dtypes: Types of the inputs and outputs. Integers and bool do not count.

    Raises:
        ValueError: A type has no default.

    Example:
        >>> import torch
        >>> from gconv_ga.checks import default_tolerance
        >>> default_tolerance([torch.float64, torch.float32])
        0.0001
    """
    found = [1e-10]
    for dtype in dtypes:
        if dtype.is_floating_point or dtype.is_complex:
            real = dtype.to_real()
            if real not in TOLERANCES:
                raise invalid("tolerance", f"given: there is no default for {dtype}", None)
            found.append(TOLERANCES[real])
    return max(found)


def as_tolerance(tolerance: Any, group: Group, actions: Iterable[Any]) -> float | None:
    """Return a valid ``tolerance`` as a float, or None if the default for the types applies.

    Raises:
        ValueError: It is not a positive finite number, or it is None although images rotate by angles off the grid.
    """
    if tolerance is None:
        on_pixels = any(isinstance(action, ScalarField | LabelMask) for action in actions)
        if on_pixels and not group.is_exact():
            advice = "measure it first: equivariance_error, and interpolation_error for the error of rotation alone"
            takes = f"given for {group.name}, whose angles off the grid are interpolated"
            raise invalid("tolerance", takes, tolerance, advice)
        return None
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance < math.inf:
        raise invalid("tolerance", "a positive number", tolerance)
    return float(tolerance)


def require_view(view: float) -> None:
    """Refuse a ``view`` that is not a share of the disc's radius.

    Raises:
        ValueError: It is not above 0 and at most 1.
    """
    if isinstance(view, bool) or not isinstance(view, int | float) or not 0 < view <= 1:
        raise invalid("view", "above 0 and at most 1, a share of the disc's radius", view)


def _measured(
    module: Callable[..., Any],
    group: Group | str,
    inputs: tuple[Any, ...],
    in_action: Any,
    out_action: Any,
    view: float,
    tolerance: Tolerance,
) -> Measurement:
    """Return the measurement of a module by the arguments of `equivariance_error`.

    Raises:
        ValueError: As for `equivariance_error`.
    """
    if not callable(module):
        raise invalid("module", "a module or another callable", module)
    group = as_group(group)
    require_view(view)
    leaves = pair_inputs(inputs, as_actions(in_action, "in_action"))
    out_actions = as_actions(out_action, "out_action")
    tensors = [leaf.value for leaf in leaves if isinstance(leaf.value, Tensor)]
    if not tensors:
        raise invalid("inputs", "tensors, or nests with at least one", list(inputs))

    def read(output: Any) -> list[Leaf]:
        found = pair_leaves(output, out_actions, "output", "out_action")
        for leaf in found:
            require_plain(leaf.name, leaf.value)
        return found

    call = ModuleCall(call=lambda values: module(*rebuild_nest(inputs, values)), inputs=leaves, read=read)
    with restoring_state(module, tensors):
        measurement = measure(call, group, view, tolerance)
    if measurement.no_evidence:
        raise ValueError(f"{measurement.no_evidence.text}.")
    return measurement


def _interpolation_error(leaf: Leaf, group: Group, view: float) -> Tensor:
    """Return the `interpolation_error` of a leaf; 0 where nothing is lost, even if the leaf is zero."""
    leaf, errors = leaf._replace(value=widened(leaf.value)), []
    for g in range(group.order):
        metric = Metric(leaf.action, group, g, view)
        error = metric.distance(forth_and_back(leaf, group, g), leaf.value)
        errors.append(error if error == 0 else error / metric.norm(leaf.value))
    return torch.stack(errors)


def _failure_text(module: Callable[..., Any], measurement: Measurement, group: Group, interpolation: Tensor) -> str:
    """Return the message of `assert_equivariant`: a headline, what to do next, and a table of the elements."""
    name = getattr(module, "__name__", type(module).__name__)
    errors, tolerance = measurement.errors.tolist(), measurement.tolerance
    bad = [g for g, error in enumerate(errors) if not error <= tolerance]
    interpolated = bool(interpolation.any())
    numbers = f"relative error {measurement.errors.max():.1e}, tolerance {tolerance:.0e}"
    lines = [
        f"{name} is not equivariant under {group.name}: {numbers}, {len(bad)} of {group.order} elements above it.",
        "To find the part that breaks it, call gconv_ga.checks.equivariance_report with the same arguments.",
        "element  motion                        error" + ("  interpolation alone" if interpolated else ""),
    ]
    for g, error in enumerate(errors):
        line = f"{g:7d}  {_motion(group, g):<24}  {error:9.1e}"
        if interpolated:
            line += f"  {interpolation[g]:19.1e}"
        if g in bad:
            line += "  <- " + measurement.notes.get(g, "not finite" if math.isnan(error) else "above the tolerance")
        lines.append(line)
    return "\n".join(lines)


def _motion(group: Group, element: int) -> str:
    """Return an element in words: "identity", "270 deg", "reflection", "reflection, then 90 deg"."""
    angle = 360 * (element % group.n) / group.n
    parts = (["reflection"] if element >= group.n else []) + ([f"{angle:g} deg"] if angle else [])
    return ", then ".join(parts) or "identity"

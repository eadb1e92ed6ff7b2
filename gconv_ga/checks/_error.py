"""Which relative error counts as rounding."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ..actions import (
    LabelMask,
    Leaf,
    ScalarField,
    as_action,
    as_actions,
    good_sizes_near,
    nest_leaves,
    pair_inputs,
    pair_leaves,
    rebuild_nest,
)
from ..groups import Group, as_group
from ._measure import Limit, Measurement, Ruler, Subject, measure, there_and_back, undisturbed, wide

# Relative errors that rounding explains, for quarter turns and mirrors. Measured under D4 on networks of up to 50
# layers with symmetrised 3 x 3 kernels of He's variance, random BatchNorm and ReLU, with and without residuals, three
# seeds each, on a CPU: 8e-15 in float64, 3e-6 in float32, 4e-2 in bfloat16; up to 25 layers 1.5e-3 in float16.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


def default_tolerance(dtypes: Iterable[torch.dtype]) -> float:
    """The tolerance for tensors of these types: that of the narrowest.

    Raises:
        ValueError: There is none for one of them.
    """
    found = [1e-10]
    for dtype in dtypes:
        if dtype.is_floating_point or dtype.is_complex:
            real = dtype.to_real()
            if real not in TOLERANCES:
                raise invalid("tolerance", f"given: there is no default for {dtype}", None)
            found.append(TOLERANCES[real])
    return max(found)


def checked_tolerance(tolerance: Any, group: Group, actions: Iterable[Any]) -> float | None:
    """``tolerance`` if it can be one; None if the default for the types will do.

    Raises:
        ValueError: It is no positive finite number, or it is None although images turn by angles off the grid.
    """
    if tolerance is None:
        on_pixels = any(isinstance(action, ScalarField | LabelMask) for action in actions)
        if on_pixels and not group.is_exact():
            advice = "measure it first: equivariance_error, and interpolation_error for what turning costs by itself"
            takes = f"given for {group.name}, whose angles off the grid are interpolated"
            raise invalid("tolerance", takes, tolerance, advice)
        return None
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance < math.inf:
        raise invalid("tolerance", "a positive number", tolerance)
    return float(tolerance)


def equivariance_error(
    module: Callable[..., Any],
    group: Group | str,
    *inputs: Any,
    in_action: Any = "scalar",
    out_action: Any = "scalar",
    view: float = 1.0,
) -> Tensor:
    """How far a module is from equivariant: ``max |Phi(L_g x) - L_g Phi(x)| / max |Phi(x)|`` for every element.

    Quarter turns and mirrors are compared pixel by pixel. At angles off the grid both sides are interpolated, so root
    mean squares take the place of maxima, over the disc that stays in view at every angle. How much of such an error
    is the interpolation's own, `interpolation_error` tells; what enters from the corners counts too unless the image
    is dark near its border or ``view`` is smaller.

    With several output tensors each has its own relative error, and the worst counts. A NaN anywhere makes the error
    NaN; an output of another shape than ``L_g Phi(x)``, or other outputs, make it infinite. Element 0 moves nothing:
    its error is above 0 if the module is random or keeps state.

    The module runs in eval mode without gradients, on copies of the inputs. Afterwards training flags, saved buffers
    and the random numbers of torch are as before.

    Args:
        module: A module. Another callable runs as it is: put the modules it uses in eval mode yourself.
        group: The group or its name.
        inputs: What the module is called with: tensors, or dicts, tuples and lists of them. Anything else is handed
            on as it is.
        in_action: How the group acts on the inputs: an action, its name, or a mapping or sequence of them nested as
            the inputs are (with several inputs one entry for each).
        out_action: The same for the output.
        view: At angles off the grid, which share of the disc's radius is compared.

    Shape:
        - output: ``[|G|]``, float64, on the CPU

    Raises:
        ValueError: The comparison would prove nothing: the output is zero, or does not depend on the input, or an
            element leaves all inputs as they are. Or an argument is out of its range, or does not fit its action.

    Example:
        >>> import torch
        >>> from gconv_ga.checks import equivariance_error
        >>> x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
        >>> equivariance_error(torch.nn.MaxPool2d(2), "C4", x)
        tensor([0., 0., 0., 0.], dtype=torch.float64)
        >>> bool(equivariance_error(torch.nn.MaxPool2d(2), "C4", x[..., :7, :7])[1] > 0.1)  # a row is left over
        True
    """
    return measured(module, group, inputs, in_action, out_action, view, limit=0.0).errors


def measured(
    module: Callable[..., Any],
    group: Group | str,
    inputs: tuple[Any, ...],
    in_action: Any,
    out_action: Any,
    view: float,
    limit: Limit,
) -> Measurement:
    """The measurement behind `equivariance_error`.

    Raises:
        ValueError: As there.
    """
    if not callable(module):
        raise invalid("module", "a module or another callable", module)
    group = as_group(group)
    check_view(view)
    leaves = pair_inputs(inputs, as_actions(in_action, "in_action"))
    out_actions = as_actions(out_action, "out_action")
    tensors = [leaf.value for leaf in leaves if isinstance(leaf.value, Tensor)]
    if not tensors:
        raise invalid("inputs", "tensors, or nests with at least one", list(inputs))
    subject = Subject(
        call=lambda values: module(*rebuild_nest(inputs, values)),
        inputs=leaves,
        read=lambda output: pair_leaves(output, out_actions, "output", "out_action"),
    )
    with undisturbed(module, tensors):
        measurement = measure(subject, group, view, limit)
    if measurement.flaw:
        raise ValueError(f"{measurement.flaw.text}.")
    return measurement


def interpolation_error(x: Tensor, group: Group | str, action: Any = "scalar", *, view: float = 1.0) -> Tensor:
    """What turning costs by itself: ``rms(L_g^-1 L_g x - x) / rms(x)`` for every element, inside the disc in view.

    Zero for quarter turns and mirrors. At other angles `equivariance_error` cannot be expected below about this
    number: two interpolations are in both.

    Args:
        x: The tensor, such as an input or output of the module.
        group: The group or its name.
        action: How the group acts on it.
        view: Which share of the disc's radius is compared.

    Shape:
        - x: what the action takes
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
    check_view(view)
    leaf = Leaf("x", x, as_action(action))
    if any(Ruler(leaf.action, group, g, view).size(wide(x)) == 0 for g in range(group.order)):
        raise invalid("x", "other than zero in view", x)
    return turning_error(leaf, group, view)


def turning_error(leaf: Leaf, group: Group, view: float) -> Tensor:
    """`interpolation_error` of a leaf; 0 where the leaf is."""
    leaf, errors = leaf._replace(value=wide(leaf.value)), []
    for g in range(group.order):
        ruler = Ruler(leaf.action, group, g, view)
        error = ruler.distance(there_and_back(leaf, group, g), leaf.value)
        errors.append(error if error == 0 else error / ruler.size(leaf.value))
    return torch.stack(errors)


def check_view(view: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: It is not above 0 and at most 1.
    """
    if isinstance(view, bool) or not isinstance(view, int | float) or not 0 < view <= 1:
        raise invalid("view", "above 0 and at most 1, a share of the disc's radius", view)


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
        >>> from gconv_ga.checks._error import motion
        >>> from gconv_ga.groups import D4
        >>> motion(D4, 0), motion(D4, 3), motion(D4, 4), motion(D4, 5)
        ('identity', '270 deg', 'mirror', 'mirror, then 90 deg')
    """
    mirrored = element >= group.n
    angle = 360 * (element % group.n) / group.n
    parts = (["mirror"] if mirrored else []) + ([f"{angle:g} deg"] if angle else [])
    return ", then ".join(parts) or "identity"


def good_sizes(near: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> tuple[int, int]:
    """The sizes next to ``near`` at which a strided convolution or pool of torch is exact.

    Under quarter turns and mirrors those are the sizes with
    ``(size + 2 padding - dilation (kernel_size - 1) - 1) mod stride = 0``: nothing is left over at the far end, so a
    flip finds the same windows. The layers of `gconv_ga.nn` are exact at every size.

    Args:
        near: The size you have, in pixels along one axis.
        kernel_size: As for `torch.nn.Conv2d` or `torch.nn.MaxPool2d`, along this axis.
        stride: As there.
        padding: As there.
        dilation: As there.

    Returns:
        The nearest at or below ``near``, and the nearest at or above; twice ``near`` if it is exact itself, twice the
        one above if none below is large enough for the window.

    Raises:
        ValueError: An argument is no int, or too small.

    Example:
        >>> from gconv_ga.checks import good_sizes
        >>> good_sizes(32, kernel_size=3, stride=2, padding=1)
        (31, 33)
        >>> good_sizes(32, kernel_size=2, stride=2)
        (32, 32)
    """
    near = as_int("near", near, minimum=1)
    kernel_size, stride = as_int("kernel_size", kernel_size, minimum=1), as_int("stride", stride, minimum=1)
    padding, dilation = as_int("padding", padding, minimum=0), as_int("dilation", dilation, minimum=1)
    return good_sizes_near(near, kernel_size, stride, padding, dilation)

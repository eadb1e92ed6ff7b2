"""The equivariance error of a module, as a number for each element."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._validate import invalid
from ..actions import Leaf, as_action, as_actions, pair_inputs, pair_leaves, rebuild_nest
from ..groups import Group, as_group
from ._difference import Ruler, wide
from ._measure import Limit, Measurement, Subject, measure, there_and_back
from ._undisturbed import undisturbed


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

"""Which relative error counts as rounding."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from .._validate import invalid
from ..actions import LabelMask, ScalarField
from ..groups import Group

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

"""A steerable basis as a table: number of functions and errors by angular frequency."""

from dataclasses import dataclass

from ..groups import Group
from ._steerable_basis import SteerableBasis, steerable_basis


def describe(
    group: Group | str,
    kernel_size: int,
    *,
    max_error: float | None = None,
    functions: int | None = None,
    smoothing: float = 0.25,
) -> "Description":
    """Return a table of the functions and errors of a steerable basis.

    Errors are relative to the output: the change of the output when kernel and image are rotated together, root mean
    square over the rotations by angles that are not multiples of 90 degrees. They hold for images with the power
    spectrum of photographs, and for the same images blurred by a Gaussian of one pixel. The second line helps to choose
    ``max_error``: a gap there separates functions that rotate well from those that do not. ``max_error`` is measured on
    a mixture of sharp and blurred images, so it is below the errors on photographs in the table.

    Args:
        group: The group or its name.
        kernel_size: Number of rows and columns.
        max_error: As in `steerable_basis`.
        functions: As in `steerable_basis`.
        smoothing: As in `steerable_basis`.

    Raises:
        ValueError: `steerable_basis` refuses an argument.

    Example:
        >>> from gconv_ga.filters import describe
        >>> describe("C8", 3)
        C8, 3 x 3: 6 functions in 9 taps, expected error 0.0541
        max_error 0.18 admits them, the next needs 1.20
        frequency  functions  error  blurred
                0          2  0.016    0.012
                1          2  0.081    0.017
                2          2  0.462    0.110
    """
    basis = steerable_basis(group, kernel_size, max_error=max_error, functions=functions, smoothing=smoothing)
    rows = []
    for frequency in sorted(set(basis.frequency)):
        members = [f for f, m in enumerate(basis.frequency) if m == frequency]
        error, blurred = (max(errors[f] for f in members) for errors in (basis.error, basis.blurred_error))
        rows.append(FrequencyRow(frequency, len(members), error, blurred))
    return Description(basis, tuple(rows))


@dataclass(frozen=True)
class FrequencyRow:
    """One line of a `Description`: the number of functions of one angular frequency, and their largest errors."""

    frequency: int
    functions: int
    error: float
    blurred_error: float


@dataclass(frozen=True, repr=False)
class Description:
    """Result of `describe`; its text is a table."""

    basis: SteerableBasis
    rows: tuple[FrequencyRow, ...]

    def __repr__(self) -> str:
        size, count = self.basis.kernel_size, len(self.basis)
        chosen = max(error for functions, error in self.basis.curve if functions <= count)
        beyond = [f"{error:.2f}" for functions, error in self.basis.curve if functions > count]
        name = f"{self.basis.group.name}, {size} x {size}"
        lines = [
            f"{name}: {count} functions in {size**2} taps, expected error {self.basis.expected_error:.4f}",
            f"max_error {chosen:.2f} admits them, the next needs {beyond[0] if beyond else 'more taps'}",
            "frequency  functions  error  blurred",
            *(f"{r.frequency:9}  {r.functions:9}  {r.error:5.3f}  {r.blurred_error:7.3f}" for r in self.rows),
        ]
        return "\n".join(lines)

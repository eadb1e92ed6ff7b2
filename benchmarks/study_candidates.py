"""Networks compared by study.py: plain, with smooth kernels, with invariant kernels, and with symmetry by design."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from gconv_ga.filters import Filters, SteerableBasis, SteerableFilters, steerable_basis
from gconv_ga.groups import Group, as_group
from gconv_ga.models import EquivariantUNet, UNet

DEPTH = 3
CHANNELS = 16  # of the plain network, at the finest level
WORKS = (1, 2, 4)  # multiply-adds relative to the plain network of 16 channels


@dataclass(frozen=True)
class BorrowedFilters(SteerableFilters):
    """Kernels for a group, made of the steerable functions of a larger group: the same kernels with less symmetry.

    For C1, `SteerableFilters` itself makes no selection by smoothness, since every function is steerable by nothing.

    Args:
        group: The group, C_n.
        kernel_size: Rows and columns, which must be equal.
        source: Name of the group C_m that the functions are taken from; n divides m.
        invariant: Whether to take only the functions that rotations do not change.
    """

    source: str = "C8"
    invariant: bool = False

    @property
    def basis(self) -> SteerableBasis:
        """The functions, computed once for all filters with these arguments."""
        return borrowed_basis(self.group, self.kernel_size[0], self.source, self.invariant)


@lru_cache
def borrowed_basis(group: Group, kernel_size: int, source: str, invariant: bool) -> SteerableBasis:
    """Return the functions of `BorrowedFilters`. Their energies, which set the initial weights, are approximate."""
    whole = steerable_basis(source, kernel_size)
    chosen = [i for i, frequency in enumerate(whole.frequency) if frequency == 0 or not invariant]
    kernels = whole.kernels[chosen][:, :: whole.group.n // group.n]
    spread, gain = (torch.tensor(values, dtype=torch.float64) for values in (whole.spread, whole.gain))
    share = float((spread**2 * gain)[chosen].sum() / (spread**2 * gain).sum())
    spread = spread[chosen] / spread[chosen].square().mean().sqrt()
    # Independent weights: each function counts by its square, scaled like its spread.
    energy = whole.energy * share * float(spread[0] / whole.spread[chosen[0]]) ** 2
    # Of a rectified image, 1 / pi of the second moment is its mean, and a kernel sees that by the sum of its taps.
    mean = float(spread.square() @ kernels[:, 0].sum((-2, -1)).square())
    return replace(
        whole,
        group=group,
        **{
            name: tuple(getattr(whole, name)[i] for i in chosen)
            for name in ("frequency", "parity", "gain", "error", "blurred_error")
        },
        spread=tuple(spread.tolist()),
        energy=energy,
        rectified_energy=(1 - 1 / math.pi) * energy + mean / math.pi,
        _kernels=tuple(kernels.flatten().tolist()),
    )


@dataclass(frozen=True)
class Candidate:
    """Network of the study.

    Args:
        group: Name of the group; of a network without symmetry, C1.
        kernel_size: Rows and columns of the kernels.
        filters: Makes the filters from the group and the kernel size. If None, those that the group has by default.
    """

    group: str = "C1"
    kernel_size: int = 3
    filters: Callable[[Group, tuple[int, int]], Filters] | None = None

    def width(self, work: int) -> int:
        """Return the width whose multiply-adds are nearest to ``work`` times those of the plain network."""
        exact = CHANNELS * math.sqrt(work) * 3 / self.kernel_size / as_group(self.group).order
        return max(1, round(exact))

    def works(self) -> list[int]:
        """Return the amounts of work that have a width of their own."""
        return [work for i, work in enumerate(WORKS) if self.width(work) not in map(self.width, WORKS[:i])]

    def build(self, channels: int, classes: int, work: int) -> nn.Module:
        """Return a newly initialized network."""
        group, width, size = as_group(self.group), self.width(work), self.kernel_size
        if group.order == 1 and self.filters is None:
            return UNet(channels, classes, width=width, depth=DEPTH, kernel_size=size)
        filters = "auto" if self.filters is None else self.filters(group, (size, size))
        return EquivariantUNet(
            channels, classes, group=group, width=width, depth=DEPTH, kernel_size=size, filters=filters
        )


CANDIDATES = {
    "plain": Candidate(),
    "plain smooth": Candidate(filters=BorrowedFilters),
    "plain, 7 functions": Candidate(filters=lambda group, size: SteerableFilters(group, size, functions=7)),
    "rings": Candidate(kernel_size=5, filters=lambda group, size: BorrowedFilters(group, size, invariant=True)),
    "C4 free": Candidate("C4"),
    "C4 smooth": Candidate("C4", filters=BorrowedFilters),
    "C8": Candidate("C8"),
    "D8": Candidate("D8"),
}
# D4 is not a symmetry of these by design, so that averaging over it at test can help.
AVERAGED = ("plain", "plain smooth", "plain, 7 functions")

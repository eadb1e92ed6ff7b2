"""Hypothesis strategies that the test folders share: groups, elements, sizes."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from gconv_ga.groups import CyclicGroup, DihedralGroup, Group

MAX_ROTATIONS = 16


def groups(max_rotations: int = MAX_ROTATIONS) -> st.SearchStrategy[Group]:
    """``C_n`` and ``D_n`` for every n, not only the ready-made groups."""
    return st.builds(
        lambda kind, n: kind(n), st.sampled_from([CyclicGroup, DihedralGroup]), st.integers(1, max_rotations)
    )


def exact_groups() -> st.SearchStrategy[Group]:
    """The groups whose elements all map the pixel grid to itself."""
    return st.builds(lambda kind, n: kind(n), st.sampled_from([CyclicGroup, DihedralGroup]), st.sampled_from([1, 2, 4]))


def elements(group: Group) -> st.SearchStrategy[int]:
    """The elements of one group."""
    return st.integers(0, group.order - 1)


@st.composite
def groups_and_elements(
    draw: st.DrawFn, count: int, of: st.SearchStrategy[Group] | None = None
) -> tuple[Group, tuple[int, ...]]:
    """A group with ``count`` of its elements, ``(group, (g, h, ...))``."""
    group = draw(groups() if of is None else of)
    return group, tuple(draw(elements(group)) for _ in range(count))


@st.composite
def subgroups(draw: st.DrawFn) -> tuple[Group, Group]:
    """A group and one of its subgroups, ``(group, subgroup)``: a divisor of n, with or without reflections."""
    group = draw(groups())
    n = draw(st.sampled_from([d for d in range(1, group.n + 1) if group.n % d == 0]))
    kinds = [CyclicGroup] if isinstance(group, CyclicGroup) else [CyclicGroup, DihedralGroup]
    return group, draw(st.sampled_from(kinds))(n)


def sizes(smallest: int = 1, largest: int = 7) -> st.SearchStrategy[tuple[int, int]]:
    """Heights and widths, equal and different."""
    return st.tuples(st.integers(smallest, largest), st.integers(smallest, largest))


def shuffled(shape: tuple[int, ...], seed: int) -> Tensor:
    """A float64 tensor of distinct whole numbers in random order, which no element but the identity preserves."""
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(seed))
    return order.to(torch.float64).view(shape) + 1

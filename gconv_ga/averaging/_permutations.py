"""The average of any module over all permutations of a set."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, one_of, wrong_shape
from ..actions import Leaf, nest_leaves, pair_inputs, pair_leaves, rebuild_nest, require_plain
from ._group_average import check_batch_axis, check_module, has_batch

_MAX_LISTED_SIZE = 8
"""Size of the largest set whose permutations are listed: 8! = 40320."""


class PermutationAverage(nn.Module):
    r"""Make any module permutation equivariant by averaging: ``1/n! sum_p rho_2(p) Phi(rho_1(p)^-1 x)``.

    The sum is over all permutations ``p`` in S_n, which act on the axis after the batch. Up to n = 8 all n! of them can
    be used, and the average is exact. For larger sets, or to save time, ``num_samples`` permutations are drawn for each
    sample, anew at each call. That gives an unbiased estimate, and ``return_stderr=True`` its standard error. Up to
    n = 8 the draws are without replacement, so ``num_samples >= n!`` gives the exact average with standard error 0.

    The standard error is that of each number of the output: ``sqrt((1 - k/n!) s^2 / k)`` with the sample variance
    ``s^2`` of ``k`` draws. Its mean square is unbiased. Intervals of plus or minus 1.96 standard errors covered the
    average of a random MLP in 91 % of the cases for k = 8, 94 % for 32 and 95 % for 100; the nominal value is 95 %. Use
    Student's t for few draws.

    Args:
        module: The module to average, or any other callable. Its tensors have the batch as their first axis.
        in_action: Action of a permutation on the inputs: "set" (permutes the axis after the batch), "pairs" (permutes
            the two axes after the batch together, as for an adjacency matrix), "invariant", or a mapping or sequence of
            them nested as the inputs are.
        out_action: Action of a permutation on the output, given in the same way.
        num_samples: Number of permutations to draw for each sample, in training and in evaluation. If None, all
            permutations are used.
        chunk_size: Number of permutations of each sample that go through the module at a time. If None, all of them.
        generator: Random number generator for the draws. If None, torch's global generator.

    Shape:
        - inputs: sets ``[B, n, ...]``, pairs ``[B, n, n, ...]``, invariants ``[B, ...]``; alone, several, or in dicts,
          tuples and lists. Tensors without axes and all other objects are passed on unchanged.
        - output: as the module's; with ``return_stderr=True`` a pair of them, the average and its standard error

    Raises:
        ValueError: An argument is out of its range, a set has more than 8 members and ``num_samples`` is None, sizes
            differ, the output has no batch axis or has an integer dtype, or a standard error of one draw is requested.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gconv_ga.averaging import PermutationAverage
        >>> net = PermutationAverage(nn.Sequential(nn.Flatten(), nn.Linear(10, 4), nn.Tanh()), "set", "invariant")
        >>> x = torch.randn(3, 5, 2)
        >>> torch.allclose(net(x[:, [4, 2, 0, 1, 3]]), net(x), atol=1e-6)
        True
        >>> net.num_samples = 50
        >>> mean, error = net(x, return_stderr=True)
        >>> mean.shape, error.shape
        (torch.Size([3, 4]), torch.Size([3, 4]))

    References:
        Murphy, Srinivasan, Rao, Ribeiro, "Janossy pooling", ICLR 2019.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        in_action: Any = "set",
        out_action: Any = "invariant",
        *,
        num_samples: int | None = None,
        chunk_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_module(module)
        self.module = module
        self.in_action = _as_permutation_actions(in_action, "in_action")
        self.out_action = _as_permutation_actions(out_action, "out_action")
        if not any(action.axes for _, action in nest_leaves(self.in_action, "in_action")):
            raise invalid("in_action", "actions of which at least one is 'set' or 'pairs'", in_action)
        self.num_samples = num_samples
        self.chunk_size = chunk_size
        self.generator = generator
        self._check_counts()

    def _check_counts(self) -> None:
        """Check ``num_samples`` and ``chunk_size``, which can be changed after construction."""
        for name in ("num_samples", "chunk_size"):
            if getattr(self, name) is not None:
                as_int(name, getattr(self, name), minimum=1)

    def forward(self, *inputs: Any, return_stderr: bool = False) -> Any:
        self._check_counts()
        leaves = pair_inputs(inputs, self.in_action)
        batch, n = _common_sizes(leaves)
        perms, undrawn_fraction = self._permutations(batch, n, leaves)
        count = perms.shape[1]
        if return_stderr and count == 1 and undrawn_fraction > 0:
            raise invalid("num_samples", "at least 2 for a standard error", self.num_samples)
        step = self.chunk_size or count
        sums: list[_RunningSums] = []
        for start in range(0, count, step):
            part = perms[:, start : start + step]
            values = [_inversely_permuted(leaf, part) for leaf in leaves]
            output = self.module(*rebuild_nest(inputs, iter(values)))
            out_leaves = pair_leaves(output, self.out_action, "output", "out_action")
            sums = sums or [_RunningSums(return_stderr) for _ in out_leaves]
            for total, leaf in zip(sums, out_leaves, strict=True):
                total.add(leaf, part, n)
        mean = rebuild_nest(output, iter([total.mean(count) for total in sums]))
        if not return_stderr:
            return mean
        return mean, rebuild_nest(output, iter([total.stderr(count, undrawn_fraction) for total in sums]))

    def _permutations(self, batch: int, n: int, leaves: list[Leaf]) -> tuple[Tensor, float]:
        """Return the permutations ``[B, k, n]`` of this call, and the fraction of all that is not among them."""
        target = next(leaf.value.device for leaf in leaves if has_batch(leaf))
        if n <= _MAX_LISTED_SIZE:
            listed = torch.tensor(list(permutations(range(n))))
            if self.num_samples is None or self.num_samples >= len(listed):
                return listed.expand(batch, -1, -1).to(target), 0.0
            chosen = self._random_permutations(batch, len(listed))[:, : self.num_samples]
            return listed.to(chosen.device)[chosen].to(target), 1 - self.num_samples / len(listed)
        if self.num_samples is None:
            takes = f"an int for sets of more than {_MAX_LISTED_SIZE}"
            raise invalid("num_samples", takes, None, f"this set has n={n} members, so {n}! permutations")
        drawn = self._random_permutations(batch * self.num_samples, n).unflatten(0, (batch, self.num_samples))
        return drawn.to(target), 1 - self.num_samples / math.factorial(n)

    def _random_permutations(self, rows: int, n: int) -> Tensor:
        """Return a random permutation of ``0 .. n - 1`` in each row."""
        device = "cpu" if self.generator is None else self.generator.device
        return torch.rand(rows, n, generator=self.generator, device=device, dtype=torch.float64).argsort(1)

    def extra_repr(self) -> str:
        text = "" if isinstance(self.module, nn.Module) else f"{getattr(self.module, '__name__', self.module)}, "
        text += f"in_action={self.in_action!r}, out_action={self.out_action!r}"
        for name in ("num_samples", "chunk_size"):
            if getattr(self, name) is not None:
                text += f", {name}={getattr(self, name)}"
        return text


_ACTION_NAMES = ("invariant", "set", "pairs")
"""Names of the actions, by the number of axes that they permute."""


@dataclass(frozen=True)
class _PermutationAction:
    """Permutes the first ``axes`` axes after the batch, all by the same permutation."""

    axes: int

    def __repr__(self) -> str:
        return repr(_ACTION_NAMES[self.axes])

    def inverse(self, x: Tensor, perms: Tensor) -> Tensor:
        """Return ``rho(p)^-1 x``, that is ``x[t, perms[t]]`` for each ``t``.

        Shape:
            - x: ``[T, n, ...]``
            - perms: ``[T, n]``
        """
        rows = torch.arange(len(x), device=x.device)
        if self.axes == 1:
            return x[rows[:, None], perms]
        return x[rows[:, None, None], perms[:, :, None], perms[:, None, :]] if self.axes else x

    def __call__(self, x: Tensor, perms: Tensor) -> Tensor:
        """Return ``rho(p) x``; shapes as for `inverse`."""
        return self.inverse(x, perms.argsort(1))


def _as_permutation_actions(actions: Any, argument: str) -> Any:
    """Return ``actions`` with every name replaced by its action."""
    if isinstance(actions, dict):
        return {key: _as_permutation_actions(part, f"{argument}[{key!r}]") for key, part in actions.items()}
    if isinstance(actions, tuple | list):
        return tuple(_as_permutation_actions(part, f"{argument}[{index}]") for index, part in enumerate(actions))
    return _PermutationAction(_ACTION_NAMES.index(one_of(argument, actions, _ACTION_NAMES)))


def _action_of(leaf: Leaf) -> _PermutationAction:
    return cast(_PermutationAction, leaf.action)


def _common_sizes(leaves: list[Leaf]) -> tuple[int, int]:
    """Return the size of the batch and of the set, which all inputs must share."""
    sets = [leaf for leaf in leaves if has_batch(leaf) and _action_of(leaf).axes]
    if not sets:
        raise invalid("inputs", "tensors of which at least one is 'set' or 'pairs'", [leaf.value for leaf in leaves])
    shape = sets[0].value.shape
    if len(shape) < 2 or shape[1] == 0:
        raise wrong_shape(sets[0].name, "[B, n, ...] with n >= 1", sets[0].value)
    for leaf in leaves:
        if has_batch(leaf):
            _check_sizes(leaf, shape[0], shape[1], f" like {sets[0].name}")
    return shape[0], shape[1]


def _check_sizes(leaf: Leaf, batch: int, n: int, like: str) -> None:
    expected = (batch, *(n,) * _action_of(leaf).axes)
    if leaf.value.shape[: len(expected)] != expected:
        axes = ", ".join((f"B={batch}", *(f"n={n}",) * _action_of(leaf).axes))
        advice = "the batch is the first axis of every tensor"
        raise wrong_shape(leaf.name, f"[{axes}, ...]{like}", leaf.value, advice)


def _inversely_permuted(leaf: Leaf, perms: Tensor) -> Any:
    """Return ``rho_1(p)^-1 x`` for all permutations of all samples, those of one sample adjacent in the batch."""
    if not has_batch(leaf):
        return leaf.value
    return _action_of(leaf).inverse(leaf.value.repeat_interleave(perms.shape[1], 0), perms.flatten(0, 1))


class _RunningSums:
    """Sums of ``rho_2(p) y_p`` and of its squares, for one leaf of the output. Anything but a tensor is kept as it is.

    Sums are taken of differences from the first term, so that squares of a large mean do not swallow the variance.
    """

    def __init__(self, with_squares: bool) -> None:
        self.with_squares = with_squares
        self.plain_value: Any = None
        self.dtype: torch.dtype | None = None
        self.first: Tensor | None = None

    def add(self, leaf: Leaf, perms: Tensor, n: int) -> None:
        require_plain(leaf.name, leaf.value)
        if not isinstance(leaf.value, Tensor):
            self.plain_value = leaf.value
            return
        batch, count = perms.shape[:2]
        check_batch_axis(leaf, count, batch, "permutations")
        if not (leaf.value.is_floating_point() or leaf.value.is_complex()):
            raise invalid(leaf.name, "floating point, since integers have no mean", leaf.value)
        _check_sizes(leaf, batch * count, n, "")
        self.dtype = leaf.value.dtype
        value = leaf.value.to(torch.promote_types(self.dtype, torch.float32))
        terms = _action_of(leaf)(value, perms.flatten(0, 1)).unflatten(0, (batch, count))
        if self.first is None:
            self.first = terms[:, :1].detach()
            self.total = torch.zeros_like(self.first[:, 0])
            self.total_squares = torch.zeros_like(self.total.abs())
        differences = terms - self.first
        self.total = self.total + differences.sum(1)
        if self.with_squares:
            self.total_squares = self.total_squares + differences.abs().square().sum(1)

    def mean(self, count: int) -> Any:
        return self.plain_value if self.first is None else (self.first[:, 0] + self.total / count).to(self.dtype)

    def stderr(self, count: int, undrawn_fraction: float) -> Any:
        if self.first is None:
            return self.plain_value
        if undrawn_fraction == 0:
            return torch.zeros_like(self.total, dtype=self.dtype)
        variance = (self.total_squares - self.total.abs().square() / count).clamp_min(0) / (count - 1)
        return (undrawn_fraction * variance / count).sqrt().detach().to(self.dtype)

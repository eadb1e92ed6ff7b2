"""The average of any module over all orders of a set."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, one_of, wrong_shape
from ..actions import Leaf, nest_leaves, pair_inputs, pair_leaves, rebuild_nest

_LISTED = 8
"""The largest set whose orders are listed: 8! = 40320."""


class PermutationAverage(nn.Module):
    r"""Any module made equivariant to the order of a set: ``1/n! sum_p rho_2(p) phi(rho_1(p)^-1 x)``, all orders ``p``.

    The group is S_n, acting on the axis after the batch. Up to n = 8 all n! orders can be taken, and the average is
    exact. For larger sets, or in less time, ``num_samples`` orders are drawn for each sample, anew at each call: an
    unbiased estimate whose standard error comes with ``return_stderr=True``. Up to n = 8 they are drawn without
    replacement, so that ``num_samples >= n!`` is the exact average and has standard error 0.

    The standard error is that of each number of the output: ``sqrt((1 - k/n!) s^2 / k)`` with the sample variance
    ``s^2`` of ``k`` draws. Its mean square is right; plus or minus 1.96 of it covered the average of a random MLP in
    91 % of the cases for k = 8, 94 % for 32 and 95 % for 100, where 95 % is meant: with few draws take Student's t.

    Args:
        module: What to average: a module, or any callable. Its tensors have their batch axis first.
        in_action: How an order moves the inputs: "set" (the axis after the batch), "pairs" (the two axes after the
            batch together, as those of an adjacency matrix), "invariant", or a mapping or sequence of them nested as
            the inputs are.
        out_action: The same for the output.
        num_samples: How many orders to draw for each sample, in training and in evaluation; None for all.
        chunk_size: How many orders of each sample go through the module at a time; None for all.
        generator: What the orders are drawn from; None for torch's global generator.

    Shape:
        - inputs: sets ``[B, n, ...]``, pairs ``[B, n, n, ...]``, invariants ``[B, ...]``; alone, several, or in dicts,
          tuples and lists. Tensors without axes and everything else pass unchanged.
        - output: as the module's; with ``return_stderr=True`` a pair of such, the average and its standard error

    Raises:
        ValueError: An argument is out of its range, a set has more than 8 members and ``num_samples`` is None, sizes
            differ, a standard error is asked of one draw, or the output has lost its batch axis or is of integers.

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
        if not callable(module) or isinstance(module, type):
            advice = "make an instance of the class first" if isinstance(module, type) else ""
            raise invalid("module", "a module or another callable", module, advice)
        self.module = module
        self.in_action = _as_orders(in_action, "in_action")
        self.out_action = _as_orders(out_action, "out_action")
        if not any(action.axes for _, action in nest_leaves(self.in_action, "in_action")):
            raise invalid("in_action", "actions of which at least one is 'set' or 'pairs'", in_action)
        self.num_samples = num_samples
        self.chunk_size = chunk_size
        self.generator = generator
        self._check_counts()

    def _check_counts(self) -> None:
        """Both may be changed after construction."""
        for name in ("num_samples", "chunk_size"):
            if getattr(self, name) is not None:
                as_int(name, getattr(self, name), minimum=1)

    def forward(self, *inputs: Any, return_stderr: bool = False) -> Any:
        self._check_counts()
        leaves = pair_inputs(inputs, self.in_action)
        batch, n = _common_sizes(leaves)
        orders, part_left = self._orders(batch, n, leaves)
        count = orders.shape[1]
        if return_stderr and count == 1 and part_left > 0:
            raise invalid("num_samples", "at least 2 for a standard error", self.num_samples)
        step = self.chunk_size or count
        sums: list[_Sums] = []
        for start in range(0, count, step):
            part = orders[:, start : start + step]
            seen = [_seen(leaf, part) for leaf in leaves]
            output = self.module(*rebuild_nest(inputs, iter(seen)))
            found = pair_leaves(output, self.out_action, "output", "out_action")
            sums = sums or [_Sums(return_stderr) for _ in found]
            for total, leaf in zip(sums, found, strict=True):
                total.add(leaf, part, n)
        mean = rebuild_nest(output, iter([total.mean(count) for total in sums]))
        if not return_stderr:
            return mean
        return mean, rebuild_nest(output, iter([total.stderr(count, part_left) for total in sums]))

    def _orders(self, batch: int, n: int, leaves: list[Leaf]) -> tuple[Tensor, float]:
        """The orders ``[B, k, n]`` of this call, and the share of all that they leave out."""
        target = next(leaf.value.device for leaf in leaves if _moves(leaf))
        if n <= _LISTED:
            listed = torch.tensor(list(permutations(range(n))))
            if self.num_samples is None or self.num_samples >= len(listed):
                return listed.expand(batch, -1, -1).to(target), 0.0
            chosen = self._shuffled(batch, len(listed))[:, : self.num_samples]
            return listed.to(chosen.device)[chosen].to(target), 1 - self.num_samples / len(listed)
        if self.num_samples is None:
            raise invalid(
                "num_samples", f"an int for sets of more than {_LISTED}", None, f"this one has n={n}, so {n}! orders"
            )
        drawn = self._shuffled(batch * self.num_samples, n).unflatten(0, (batch, self.num_samples))
        return drawn.to(target), 1 - self.num_samples / math.factorial(n)

    def _shuffled(self, rows: int, n: int) -> Tensor:
        """A random order of ``0..n-1`` in each row."""
        device = "cpu" if self.generator is None else self.generator.device
        return torch.rand(rows, n, generator=self.generator, device=device, dtype=torch.float64).argsort(1)

    def extra_repr(self) -> str:
        text = "" if isinstance(self.module, nn.Module) else f"{getattr(self.module, '__name__', self.module)}, "
        text += f"in_action={self.in_action!r}, out_action={self.out_action!r}"
        for name in ("num_samples", "chunk_size"):
            if getattr(self, name) is not None:
                text += f", {name}={getattr(self, name)}"
        return text


@dataclass(frozen=True)
class _Orders:
    """How an order moves a tensor: it reorders so many axes after the batch."""

    axes: int

    def __repr__(self) -> str:
        return repr(_NAMES[self.axes])

    def __call__(self, x: Tensor, orders: Tensor) -> Tensor:
        """``x[t, orders[t]]`` for each ``t``; x is ``[T, n, ...]``, orders are ``[T, n]``."""
        rows = torch.arange(len(x), device=x.device)
        if self.axes == 1:
            return x[rows[:, None], orders]
        return x[rows[:, None, None], orders[:, :, None], orders[:, None, :]] if self.axes else x


_NAMES = ("invariant", "set", "pairs")


def _as_orders(actions: Any, argument: str) -> Any:
    """``actions`` with every name replaced by its action."""
    if isinstance(actions, dict):
        return {key: _as_orders(part, f"{argument}[{key!r}]") for key, part in actions.items()}
    if isinstance(actions, tuple | list):
        return tuple(_as_orders(part, f"{argument}[{index}]") for index, part in enumerate(actions))
    return _Orders(_NAMES.index(one_of(argument, actions, _NAMES)))


def _orders_of(leaf: Leaf) -> "_Orders":
    return cast(_Orders, leaf.action)


def _moves(leaf: Leaf) -> bool:
    return isinstance(leaf.value, Tensor) and leaf.value.ndim > 0


def _common_sizes(leaves: list[Leaf]) -> tuple[int, int]:
    """The size of the batch and that of the set."""
    sets = [leaf for leaf in leaves if _moves(leaf) and _orders_of(leaf).axes]
    if not sets:
        raise invalid("inputs", "tensors of which at least one is 'set' or 'pairs'", [leaf.value for leaf in leaves])
    shape = sets[0].value.shape
    if len(shape) < 2 or shape[1] == 0:
        raise wrong_shape(sets[0].name, "[B, n, ...] with n >= 1", sets[0].value)
    for leaf in leaves:
        if _moves(leaf):
            _check_sizes(leaf, shape[0], shape[1], f" like {sets[0].name}")
    return shape[0], shape[1]


def _check_sizes(leaf: Leaf, batch: int, n: int, like: str) -> None:
    wanted = (batch, *(n,) * _orders_of(leaf).axes)
    if leaf.value.shape[: len(wanted)] != wanted:
        axes = ", ".join((f"B={batch}", *(f"n={n}",) * _orders_of(leaf).axes))
        raise wrong_shape(leaf.name, f"[{axes}, ...]{like}", leaf.value, "batches come first")


def _seen(leaf: Leaf, orders: Tensor) -> Any:
    """``rho_1(p)^-1 x`` for all orders of all samples, those of one sample side by side along the batch."""
    if not _moves(leaf):
        return leaf.value
    return _orders_of(leaf)(leaf.value.repeat_interleave(orders.shape[1], 0), orders.flatten(0, 1))


class _Sums:
    """Sums of ``rho_2(p) y_p`` and of its squares; what is no tensor stays."""

    def __init__(self, squares: bool) -> None:
        self.squares = squares
        self.plain: Any = None
        self.dtype: torch.dtype | None = None
        self.first: Tensor | None = None

    def add(self, leaf: Leaf, orders: Tensor, n: int) -> None:
        if not isinstance(leaf.value, Tensor):
            self.plain = leaf.value
            return
        batch, count = orders.shape[:2]
        if leaf.value.ndim == 0 or len(leaf.value) != batch * count:
            advice = "the module must keep the batch axis, first; reduce over it outside of the average"
            raise wrong_shape(leaf.name, f"[{count} orders * B={batch} = {batch * count}, ...]", leaf.value, advice)
        if not leaf.value.is_floating_point():
            raise invalid(leaf.name, "floating point, since integers have no mean", leaf.value)
        _check_sizes(leaf, batch * count, n, "")
        self.dtype = leaf.value.dtype
        value = leaf.value.to(torch.promote_types(self.dtype, torch.float32))
        turned = _orders_of(leaf)(value, orders.flatten(0, 1).argsort(1)).unflatten(0, (batch, count))
        if self.first is None:
            # Differences from one draw, so that squares of large means do not swallow the variance.
            self.first = turned[:, :1].detach()
            self.total = torch.zeros_like(self.first[:, 0])
            self.total_squares = torch.zeros_like(self.total)
        rest = turned - self.first
        self.total = self.total + rest.sum(1)
        if self.squares:
            self.total_squares = self.total_squares + rest.square().sum(1)

    def mean(self, count: int) -> Any:
        return self.plain if self.first is None else (self.first[:, 0] + self.total / count).to(self.dtype)

    def stderr(self, count: int, part_left: float) -> Any:
        if self.first is None or part_left == 0:
            return self.plain if self.first is None else torch.zeros_like(self.total, dtype=self.dtype)
        variance = (self.total_squares - self.total.square() / count).clamp_min(0) / (count - 1)
        return (part_left * variance / count).sqrt().detach().to(self.dtype)

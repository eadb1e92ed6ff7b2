"""Message passing on points: equivariant messages, and updates that may look at coordinates."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

_SHELLS, _REACH = 24, 6.0


class PointState(NamedTuple):
    """What the layers pass on.

    Shape:
        - start: ``[B, N, d]``, the positions at the input
        - shift: ``[B, N, d]``, how far each point has moved since
        - given: ``[B, N, V_in, d]``, the vectors at the input
        - vectors: ``[B, N, V, d]``
        - features: ``[B, N, width]``, invariants
    """

    start: Tensor
    shift: Tensor
    given: Tensor
    vectors: Tensor
    features: Tensor


class MessagePassing(nn.Module):
    """Embedding, layers, and read-out.

    Args:
        in_features: Invariants of each point at the input.
        out_invariants: Invariants of each point at the output.
        in_vectors: Vectors of each point at the input.
        out_vectors: Vectors of each point at the output.
        d: The dimension.
        width: Invariants of each point between layers.
        channels: Vectors of each point between layers.
        depth: Layers.
        see_directions: Whether messages see the coordinates of differences, or their lengths only.
        wrap: What to put around the update of each layer.
    """

    def __init__(
        self,
        in_features: int,
        out_invariants: int,
        in_vectors: int,
        out_vectors: int,
        *,
        d: int,
        width: int,
        channels: int,
        depth: int,
        see_directions: bool,
        wrap: Callable[[nn.Module], nn.Module],
    ) -> None:
        super().__init__()
        self.channels = channels
        self.embed = nn.Linear(in_features, width)
        self.embed_vectors = nn.Linear(in_vectors, channels, bias=False) if in_vectors else None
        self.layers = nn.ModuleList(
            Layer(d, width, channels, see_directions, wrap(Update(d, width, in_vectors, channels)))
            for _ in range(depth)
        )
        self.invariants = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out_invariants))
        self.vectors = nn.Linear(channels, out_vectors, bias=False) if out_vectors else None

    def forward(
        self, x: Tensor, features: Tensor, vectors: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, n, d = x.shape
        valid = torch.ones(b, n, dtype=torch.bool, device=x.device) if mask is None else mask
        pairs = valid[:, :, None] & valid[:, None] & ~torch.eye(n, dtype=torch.bool, device=x.device)
        padding = ~valid[..., None]
        # Overwritten, not multiplied: NaN times 0 is NaN.
        x, given = x.masked_fill(padding, 0), vectors.masked_fill(padding[..., None], 0)
        hidden = x.new_zeros(b, n, self.channels, d)
        if self.embed_vectors is not None:
            hidden = self.embed_vectors(given.mT).mT
        invariants = self.embed(features.masked_fill(padding, 0))
        state = PointState(x, torch.zeros_like(x), given, hidden, invariants)
        for layer in self.layers:
            state = layer(state, mask, pairs)
        out = x.new_zeros(b, n, 0, d) if self.vectors is None else self.vectors(state.vectors.mT).mT
        return state.start + state.shift, out, self.invariants(state.features)


class Layer(nn.Module):
    """Messages between all pairs of points, and the update of each point.

    ``m_ij`` is an MLP of both points' invariants and of their distance (and, if it may see directions, of
    ``x_j - x_i``); each point collects ``sum_j m_ij``, ``sum_j a(m_ij) (x_j - x_i)`` and ``sum_j b(m_ij) v_j``.
    """

    def __init__(self, d: int, width: int, channels: int, see_directions: bool, update: nn.Module) -> None:
        super().__init__()
        self.see_directions = see_directions
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.between = nn.Linear(_SHELLS + 1 + d * see_directions, width, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gates = nn.Linear(width, 2)
        # Gaussians about distances, as wide as they are apart: broad ones about 0 learn no bond lengths.
        self.shells = nn.Parameter(torch.linspace(0, _REACH, _SHELLS))
        self.log_rates = nn.Parameter(torch.full((_SHELLS,), -2 * math.log(_REACH / (_SHELLS - 1)) - math.log(2)))
        self.update = update

    def forward(self, state: PointState, mask: Tensor | None, pairs: Tensor) -> PointState:
        x = state.start + state.shift
        difference = x[:, None] - x[:, :, None]
        square = difference.square().sum(-1, keepdim=True)
        distance = (square + 0.01).sqrt()  # smooth where points coincide
        seen = [torch.exp(-(distance - self.shells).square() * self.log_rates.exp()), torch.log1p(square)]
        between = self.between(torch.cat([*seen, difference] if self.see_directions else seen, -1))
        messages = self.message(
            self.receiver(state.features)[:, :, None] + self.sender(state.features)[:, None] + between
        )
        messages = messages * pairs[..., None]
        push, pull = (self.gates(messages) * pairs[..., None]).unbind(-1)
        moves = torch.stack((state.shift, torch.einsum("bij,bijd->bid", push, difference)), 2)
        collected = torch.einsum("bij,bjcd->bicd", pull, state.vectors)
        vectors = torch.cat((state.given, moves, state.vectors, collected), 2)
        step, turn, news = self.update(state.start, vectors, state.features, messages.sum(2), mask)
        if mask is not None:
            step = step.masked_fill(~mask[..., None], 0)
        return state._replace(shift=state.shift + step, vectors=state.vectors + turn, features=state.features + news)


class Update(nn.Module):
    """An MLP of all that a point has and has collected, coordinates included: nothing about it is equivariant."""

    def __init__(self, d: int, width: int, in_vectors: int, channels: int) -> None:
        super().__init__()
        self.parts = (d, channels * d, width)
        sizes = d * (1 + in_vectors + 2 + 2 * channels) + 2 * width
        self.net = nn.Sequential(nn.Linear(sizes, width), nn.SiLU(), nn.Linear(width, sum(self.parts)))

    def forward(
        self, x: Tensor, vectors: Tensor, features: Tensor, messages: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = self.net(torch.cat((x, vectors.flatten(2), features, messages), -1))
        step, turn, news = y.split(self.parts, -1)
        return step, turn.unflatten(-1, (-1, x.shape[-1])), news

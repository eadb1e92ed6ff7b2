"""Message passing on points: equivariant messages, and updates that may look at coordinates."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, one_of, wrong_shape
from ._frame import Frame, FrameSet
from ._frame_average import FrameAverage
from ._point_frame import PointFrame

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


class PointOutputs(NamedTuple):
    """What `FrameAveragedGNN` returns for each point; padding is 0.

    Args:
        points: Positions: those of the input, moved.
        vectors: Vectors, such as forces.
        invariants: Invariants, such as the parts of an energy.

    Shape:
        - points: ``[B, N, d]``
        - vectors: ``[B, N, out_vectors, d]``
        - invariants: ``[B, N, out_invariants]``

    Example:
        >>> import torch
        >>> from gconv_ga.frames import FrameAveragedGNN
        >>> FrameAveragedGNN(4, out_vectors=2)(torch.randn(1, 5, 3), torch.randn(1, 5, 4)).vectors.shape
        torch.Size([1, 5, 2, 3])
    """

    points: Tensor
    vectors: Tensor
    invariants: Tensor


class FrameAveragedGNN(nn.Module):
    r"""Message passing that sees plain coordinates, exactly equivariant to motions by averaging over a frame.

    All points exchange messages; each point's update is an MLP of coordinates, vectors and invariants, with no
    symmetry. What is averaged over the frame of the input (its positions and vectors) is

    - ``average="whole"``: the network, ``sum_g w_g g phi(g^-1 x)``; messages see coordinates too. One pass of the
      network for each element.
    - ``average="updates"``: the update of each layer. Messages are equivariant by themselves and see distances; they
      are computed once, and only the MLPs on points see every element.

    Invariant outputs of the points do not depend on the order of the points, and the others go with it. Energies are
    sums over points, and forces their gradients; these are exact. With ``frame=MeanFrame()`` it is a plain network,
    equivariant to translations only. Distances are seen through Gaussians about 0 to 6: take units in which neighbours
    are about 1 apart, such as angstrom. ASE (the extra ``molecules``) reads molecules from XYZ and extended XYZ:
    ``torch.from_numpy(ase.io.read(file).positions)``.

    Args:
        in_features: Invariants of each point at the input (a one-hot species, charges).
        out_invariants: Invariants of each point at the output.
        in_vectors: Vectors of each point at the input (velocities). They enter the frame.
        out_vectors: Vectors of each point at the output.
        d: The dimension.
        width: Invariants of each point between layers.
        vector_channels: Vectors of each point between layers.
        depth: Layers.
        average: What is averaged, "whole" or "updates".
        frame: The frame; None for ``PointFrame("E", d)``.
        chunk_size: As in `FrameAverage`.
        train_samples: As in `FrameAverage`. With "updates" each layer draws anew, and since layers follow one another
            the output is not unbiased then.
        generator: As in `FrameAverage`.

    Shape:
        - x: ``[B, N, d]``
        - features: ``[B, N, in_features]``
        - vectors: ``[B, N, in_vectors, d]``, or ``[B, N, d]`` if there is one; left out if there is none
        - mask: ``[B, N]``, bool, True where there is a point; padding may hold anything
        - output: `PointOutputs`

    Raises:
        ValueError: An argument is out of its range, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import FrameAveragedGNN
        >>> net = FrameAveragedGNN(2, width=16).double()
        >>> methane = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
        >>> species = torch.eye(2)[[0, 1, 1, 1, 1]].double()[None]
        >>> turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        >>> first, second = net(methane[None], species), net(methane[None] @ turn.mT + 1, species)
        >>> torch.allclose(second.points, first.points @ turn.mT + 1, rtol=0, atol=1e-12)
        True
        >>> energy = first.invariants.sum((1, 2))
        >>> energy.shape
        torch.Size([1])

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022, section 3. Messages:
        Satorras, Hoogeboom, Welling, "E(n) equivariant graph neural networks", ICML 2021, equations 3 to 6.
    """

    def __init__(
        self,
        in_features: int,
        out_invariants: int = 1,
        *,
        in_vectors: int = 0,
        out_vectors: int = 1,
        d: int = 3,
        width: int = 64,
        vector_channels: int = 4,
        depth: int = 3,
        average: str = "whole",
        frame: Frame | None = None,
        chunk_size: int | None = None,
        train_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        positive = {"in_features": in_features, "out_invariants": out_invariants, "d": d, "width": width}
        for name, value in (positive | {"vector_channels": vector_channels, "depth": depth}).items():
            as_int(name, value, minimum=1)
        for name, value in (("in_vectors", in_vectors), ("out_vectors", out_vectors)):
            as_int(name, value, minimum=0)
        self.in_features, self.in_vectors, self.d = in_features, in_vectors, d
        self.average = one_of("average", average, ("whole", "updates"))
        over = PointFrame("E", d) if frame is None else frame

        def averaged(module: nn.Module, frame: Frame, ins: tuple[str, ...], outs: tuple[str, ...]) -> FrameAverage:
            return FrameAverage(
                module, frame, ins, outs, chunk_size=chunk_size, train_samples=train_samples, generator=generator
            )

        def around_update(update: nn.Module) -> nn.Module:
            ins = ("points", "vector", "invariant", "invariant", "mask")
            return averaged(update, _InputFrame(over, in_vectors), ins, ("vector", "vector", "invariant"))

        whole = average == "whole"
        net = MessagePassing(
            in_features, out_invariants, in_vectors, out_vectors, d=d, width=width, channels=vector_channels,
            depth=depth, see_directions=whole, wrap=_as_it_is if whole else around_update,
        )  # fmt: skip
        outs = ("points", "vector", "invariant")
        self.net = averaged(net, over, ("points", "invariant", "vector", "mask"), outs) if whole else net

    def forward(
        self, x: Tensor, features: Tensor, vectors: Tensor | None = None, mask: Tensor | None = None
    ) -> PointOutputs:
        if x.ndim != 3 or x.shape[-1] != self.d or x.shape[1] == 0:
            raise wrong_shape("x", f"[B, N, d={self.d}] with N >= 1", x)
        b, n = x.shape[:2]
        if features.shape != (b, n, self.in_features):
            raise wrong_shape("features", f"[B={b}, N={n}, in_features={self.in_features}]", features)
        if mask is not None and mask.shape != (b, n):
            raise wrong_shape("mask", f"[B={b}, N={n}]", mask)
        outputs = PointOutputs(*self.net(x, features, self._given(x, vectors), mask))
        if mask is None:
            return outputs
        padding = ~mask[..., None]
        points, found, invariants = outputs
        return PointOutputs(
            points.masked_fill(padding, 0), found.masked_fill(padding[..., None], 0), invariants.masked_fill(padding, 0)
        )

    def _given(self, x: Tensor, vectors: Tensor | None) -> Tensor:
        """The vectors of the input, ``[B, N, in_vectors, d]``."""
        b, n, d = x.shape
        if vectors is None:
            if self.in_vectors:
                raise invalid("vectors", f"given, since in_vectors={self.in_vectors}", None)
            return x.new_zeros(b, n, 0, d)
        given = vectors.unsqueeze(2) if vectors.ndim == 3 and self.in_vectors == 1 else vectors
        if given.shape != (b, n, self.in_vectors, d):
            raise wrong_shape("vectors", f"[B={b}, N={n}, in_vectors={self.in_vectors}, d={d}]", vectors)
        return given

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, in_vectors={self.in_vectors}, d={self.d}, average={self.average!r}"


def _as_it_is(module: nn.Module) -> nn.Module:
    return module


class _InputFrame(nn.Module):
    """The frame of the network's inputs. What layers make of them follows them, and would only enlarge the frame."""

    def __init__(self, frame: Frame, in_vectors: int) -> None:
        super().__init__()
        self.frame = frame
        self.in_vectors = in_vectors

    def forward(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        return self.frame(x, mask, vectors[: self.in_vectors])

    def extra_repr(self) -> str:
        return "" if isinstance(self.frame, nn.Module) else repr(self.frame)

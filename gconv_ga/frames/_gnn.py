"""Message passing on point clouds, made equivariant by averaging over a frame."""

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
"""Number of Gaussian basis functions of the distance, and the largest of their initial centres."""


class PointOutputs(NamedTuple):
    """The outputs of `FrameAveragedGNN` for each point, 0 in the padding.

    Args:
        points: Positions: those of the input plus a displacement.
        vectors: Vectors, such as forces.
        invariants: Invariants, such as contributions to an energy.

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
    r"""A message-passing network on plain coordinates, exactly equivariant to motions by averaging over a frame.

    All pairs of points exchange messages, and the update of each point is an MLP of coordinates, vectors and
    invariants, which has no symmetry. The frame is that of the input, of its positions and vectors, and the average
    over it is taken of one of these:

    - ``average="whole"``: the whole network, ``sum_g w_g g Phi(g^-1 x)``. Messages depend on directions too. The
      network runs once for each element.
    - ``average="updates"``: the update of each layer. Messages depend on distances only, and are equivariant by
      design. They are computed once, and only the MLPs of the updates run for each element.

    Outputs of a point do not depend on the order of the points. Sum invariants over the points for an energy, and take
    its gradient for forces; both are exactly equivariant. With ``frame=MeanFrame()`` it is a plain network, equivariant
    to translations only.

    Distances enter through Gaussians with centres from 0 to 6: use units in which neighbours are about 1 apart, such as
    angstrom. ASE (the extra ``molecules``) reads molecules from XYZ and extended XYZ files:
    ``torch.from_numpy(ase.io.read(file).positions)``.

    Args:
        in_features: Number of invariants of each point at the input (one-hot species, charges).
        out_invariants: Number of invariants of each point at the output.
        in_vectors: Number of vectors of each point at the input (velocities). The frame takes them into account.
        out_vectors: Number of vectors of each point at the output.
        d: Dimension.
        width: Number of invariants of each point between layers.
        vector_channels: Number of vectors of each point between layers.
        depth: Number of layers.
        average: The part to average, "whole" or "updates".
        frame: The frame. If None, ``PointFrame("E", d)``.
        chunk_size: As for `FrameAverage`.
        train_samples: As for `FrameAverage`. With "updates" each layer draws anew, and the output is not unbiased,
            since it is not linear in the output of each layer.
        generator: As for `FrameAverage`.

    Shape:
        - x: ``[B, N, d]``
        - features: ``[B, N, in_features]``
        - vectors: ``[B, N, in_vectors, d]``, or ``[B, N, d]`` for one vector; omitted if there are none
        - mask: ``[B, N]``, bool, True for points; padding may hold anything
        - output: `PointOutputs`

    Raises:
        ValueError: An argument is out of its range, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import FrameAveragedGNN
        >>> net = FrameAveragedGNN(2, width=16).double()
        >>> methane = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
        >>> species = torch.eye(2)[[0, 1, 1, 1, 1]].double()[None]
        >>> rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        >>> first, second = net(methane[None], species), net(methane[None] @ rotation.mT + 1, species)
        >>> torch.allclose(second.points, first.points @ rotation.mT + 1, rtol=0, atol=1e-12)
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
        base_frame = PointFrame("E", d) if frame is None else frame

        def averaged(module: nn.Module, frame: Frame, ins: tuple[str, ...], outs: tuple[str, ...]) -> FrameAverage:
            return FrameAverage(
                module, frame, ins, outs, chunk_size=chunk_size, train_samples=train_samples, generator=generator
            )

        def averaged_update(update: nn.Module) -> nn.Module:
            ins = ("points", "vector", "invariant", "invariant", "mask")
            return averaged(update, _FrameOfInputs(base_frame, in_vectors), ins, ("vector", "vector", "invariant"))

        whole = average == "whole"
        net = _MessagePassing(
            in_features,
            out_invariants,
            in_vectors,
            out_vectors,
            d=d,
            width=width,
            channels=vector_channels,
            depth=depth,
            use_directions=whole,
            wrap_update=None if whole else averaged_update,
        )
        outs = ("points", "vector", "invariant")
        self.net = averaged(net, base_frame, ("points", "invariant", "vector", "mask"), outs) if whole else net

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
        outputs = PointOutputs(*self.net(x, features, self._checked_vectors(x, vectors), mask))
        if mask is None:
            return outputs
        padding = ~mask[..., None]
        return PointOutputs(
            outputs.points.masked_fill(padding, 0),
            outputs.vectors.masked_fill(padding[..., None], 0),
            outputs.invariants.masked_fill(padding, 0),
        )

    def _checked_vectors(self, x: Tensor, vectors: Tensor | None) -> Tensor:
        """Return the vectors of the input as ``[B, N, in_vectors, d]``."""
        b, n, d = x.shape
        if vectors is None:
            if self.in_vectors:
                raise invalid("vectors", f"given, since in_vectors={self.in_vectors}", None)
            return x.new_zeros(b, n, 0, d)
        expanded = vectors.unsqueeze(2) if vectors.ndim == 3 and self.in_vectors == 1 else vectors
        if expanded.shape != (b, n, self.in_vectors, d):
            raise wrong_shape("vectors", f"[B={b}, N={n}, in_vectors={self.in_vectors}, d={d}]", vectors)
        return expanded

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, in_vectors={self.in_vectors}, d={self.d}, average={self.average!r}"


class _FrameOfInputs(nn.Module):
    """The frame of the points and the first ``in_vectors`` vectors, those of the network's input.

    The vectors that the layers compute are determined by the inputs: including them would only enlarge the frame.
    """

    def __init__(self, frame: Frame, in_vectors: int) -> None:
        super().__init__()
        self.frame = frame
        self.in_vectors = in_vectors

    def forward(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        return self.frame(x, mask, vectors[: self.in_vectors])

    def extra_repr(self) -> str:
        return "" if isinstance(self.frame, nn.Module) else repr(self.frame)


class _PointState(NamedTuple):
    """The state of the points between layers.

    Shape:
        - start: ``[B, N, d]``, positions at the input
        - shift: ``[B, N, d]``, displacements from there
        - in_vectors: ``[B, N, V_in, d]``, vectors at the input
        - vectors: ``[B, N, V, d]``
        - features: ``[B, N, width]``, invariants
    """

    start: Tensor
    shift: Tensor
    in_vectors: Tensor
    vectors: Tensor
    features: Tensor


class _MessagePassing(nn.Module):
    """Embedding, layers and read-out.

    Args:
        in_features: As for `FrameAveragedGNN`.
        out_invariants: As for `FrameAveragedGNN`.
        in_vectors: As for `FrameAveragedGNN`.
        out_vectors: As for `FrameAveragedGNN`.
        d: As for `FrameAveragedGNN`.
        width: As for `FrameAveragedGNN`.
        channels: Number of vectors of each point between layers.
        depth: As for `FrameAveragedGNN`.
        use_directions: If True, messages depend on the differences between points, otherwise on their lengths only.
        wrap_update: Wrapper of the update of each layer. If None, the update is used as it is.
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
        use_directions: bool,
        wrap_update: Callable[[nn.Module], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.embed = nn.Linear(in_features, width)
        self.embed_vectors = nn.Linear(in_vectors, channels, bias=False) if in_vectors else None
        # The update is built before its layer: the order of construction decides which weights a seed gives.
        self.layers = nn.ModuleList()
        for _ in range(depth):
            update: nn.Module = _Update(d, width, in_vectors, channels)
            update = update if wrap_update is None else wrap_update(update)
            self.layers.append(_Layer(d, width, channels, use_directions, update))
        self.invariants = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out_invariants))
        self.vectors = nn.Linear(channels, out_vectors, bias=False) if out_vectors else None

    def forward(
        self, x: Tensor, features: Tensor, vectors: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, n, d = x.shape
        valid = torch.ones(b, n, dtype=torch.bool, device=x.device) if mask is None else mask
        pairs = valid[:, :, None] & valid[:, None] & ~torch.eye(n, dtype=torch.bool, device=x.device)
        padding = ~valid[..., None]
        # Padding is overwritten, not multiplied by 0: NaN times 0 is NaN.
        x, in_vectors = x.masked_fill(padding, 0), vectors.masked_fill(padding[..., None], 0)
        hidden = x.new_zeros(b, n, self.channels, d)
        if self.embed_vectors is not None:
            hidden = self.embed_vectors(in_vectors.mT).mT
        invariants = self.embed(features.masked_fill(padding, 0))
        state = _PointState(x, torch.zeros_like(x), in_vectors, hidden, invariants)
        for layer in self.layers:
            state = layer(state, mask, pairs)
        out = x.new_zeros(b, n, 0, d) if self.vectors is None else self.vectors(state.vectors.mT).mT
        return state.start + state.shift, out, self.invariants(state.features)


class _Layer(nn.Module):
    """Messages between all pairs of points, and the update of each point.

    The message ``m_ij`` is an MLP of the invariants of both points and of their distance (and of ``x_j - x_i``, with
    ``use_directions``). Each point sums up ``sum_j m_ij``, ``sum_j a(m_ij) (x_j - x_i)`` and ``sum_j b(m_ij) v_j``.
    """

    def __init__(self, d: int, width: int, channels: int, use_directions: bool, update: nn.Module) -> None:
        super().__init__()
        self.use_directions = use_directions
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.between = nn.Linear(_SHELLS + 1 + d * use_directions, width, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gates = nn.Linear(width, 2)
        # Gaussians of the distance, as wide as their spacing: broad ones, all centred at 0, learn no bond lengths.
        self.shells = nn.Parameter(torch.linspace(0, _REACH, _SHELLS))
        self.log_rates = nn.Parameter(torch.full((_SHELLS,), -2 * math.log(_REACH / (_SHELLS - 1)) - math.log(2)))
        self.update = update

    def forward(self, state: _PointState, mask: Tensor | None, pairs: Tensor) -> _PointState:
        x = state.start + state.shift
        difference = x[:, None] - x[:, :, None]
        square = difference.square().sum(-1, keepdim=True)
        distance = (square + 0.01).sqrt()  # smooth where points coincide
        features = [torch.exp(-(distance - self.shells).square() * self.log_rates.exp()), torch.log1p(square)]
        between = self.between(torch.cat([*features, difference] if self.use_directions else features, -1))
        messages = self.message(
            self.receiver(state.features)[:, :, None] + self.sender(state.features)[:, None] + between
        )
        messages = messages * pairs[..., None]
        for_differences, for_vectors = (self.gates(messages) * pairs[..., None]).unbind(-1)
        displacements = torch.stack((state.shift, torch.einsum("bij,bijd->bid", for_differences, difference)), 2)
        neighbours = torch.einsum("bij,bjcd->bicd", for_vectors, state.vectors)
        vectors = torch.cat((state.in_vectors, displacements, state.vectors, neighbours), 2)
        changes = self.update(state.start, vectors, state.features, messages.sum(2), mask)
        shift, vector_change, feature_change = changes
        if mask is not None:
            shift = shift.masked_fill(~mask[..., None], 0)
        return state._replace(
            shift=state.shift + shift,
            vectors=state.vectors + vector_change,
            features=state.features + feature_change,
        )


class _Update(nn.Module):
    """An MLP of the state of a point and its summed messages. It uses plain coordinates and is not equivariant."""

    def __init__(self, d: int, width: int, in_vectors: int, channels: int) -> None:
        super().__init__()
        self.parts = (d, channels * d, width)
        sizes = d * (1 + in_vectors + 2 + 2 * channels) + 2 * width
        self.net = nn.Sequential(nn.Linear(sizes, width), nn.SiLU(), nn.Linear(width, sum(self.parts)))

    def forward(
        self, x: Tensor, vectors: Tensor, features: Tensor, messages: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        changes = self.net(torch.cat((x, vectors.flatten(2), features, messages), -1))
        shift, vector_change, feature_change = changes.split(self.parts, -1)
        return shift, vector_change.unflatten(-1, (-1, x.shape[-1])), feature_change

"""A geometric network on point clouds, made equivariant by averaging over frames."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, one_of, wrong_shape
from ..averaging import Frame, FrameAverage, FrameSet, PointFrame
from ._gnn_layers import MessagePassing


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
        >>> from gconv_ga.models import FrameAveragedGNN
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
        >>> from gconv_ga.models import FrameAveragedGNN
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

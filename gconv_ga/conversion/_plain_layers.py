"""Plain torch layers side by side, each for the orientations that count their windows from the same edges."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._validate import invalid


class Job(NamedTuple):
    """A plain layer, the channels that it reads, the channels that it writes, and the axes to flip around it."""

    layer: nn.Module
    reads: list[int]
    writes: list[int]
    flips: list[int]


class PlainLayers(nn.Module):
    """``out[writes] = flip(layer(flip(x[reads])))`` for every job.

    What a strided layer of an equivariant network is made of once its kernels are turned: flipping an image is how a
    plain layer gets to count its windows from the other edge, and it does so at every size.

    Args:
        jobs: The layers; together they write every channel once.
        dim: The axis of the channels.

    Shape:
        - x: ``[B, C, H, W]``, or ``[B, C, |G|, H, W]`` with ``dim=2``
        - output: the same with other channels, height and width
    """

    def __init__(self, jobs: Sequence[Job], dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(job.layer for job in jobs)
        self.flips = [job.flips for job in jobs]
        for i, job in enumerate(jobs):
            self.register_buffer(f"reads{i}", torch.tensor(job.reads), persistent=False)
        written = [channel for job in jobs for channel in job.writes]
        places = sorted(range(len(written)), key=written.__getitem__)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    places: Tensor

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for i, (layer, axes) in enumerate(zip(self.layers, self.flips, strict=True)):
            y = x.index_select(self.dim, getattr(self, f"reads{i}"))
            parts.append(layer(y.flip(axes)).flip(axes) if axes else layer(y))
        return torch.cat(parts, dim=self.dim).index_select(self.dim, self.places)

    def extra_repr(self) -> str:
        return f"flips={self.flips}"


class OneSize(nn.Sequential):
    """A folded transposed convolution: its output padding is part of its kernels."""

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        y: Tensor = super().forward(input)
        if output_size is not None and tuple(output_size)[-2:] != tuple(y.shape[-2:]):
            takes = f"{tuple(y.shape[-2:])}, what the output_padding of the layer gives"
            raise invalid("output_size", takes, tuple(output_size), "a folded layer has no other")
        return y


def side_by_side(jobs: Sequence[Job], channels: int, dim: int = 1) -> nn.Module:
    """The jobs as one module; a single layer that reads and writes all channels in their order is left as it is.

    Args:
        jobs: The layers.
        channels: How many channels the input has.
        dim: The axis of the channels.
    """
    first = jobs[0]
    in_order = first.reads == list(range(channels)) and first.writes == list(range(len(first.writes)))
    return first.layer if len(jobs) == 1 and in_order and not first.flips else PlainLayers(jobs, dim)

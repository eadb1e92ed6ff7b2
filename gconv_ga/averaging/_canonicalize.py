"""One pass instead of an average: the input is moved to its standard pose."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ._cloud import named
from ._frame import DegenerateFrameError, Frame, FrameSet
from ._frame_average import FrameAverage


class Canonicalize(FrameAverage):
    r"""Any module after its input is moved to a standard pose: ``Phi(x) = rho_2(g) phi(rho_1(g)^-1 x)``, one ``g``.

    The average over a frame with one element, at the price of one pass. It is exact where the frame has one element:
    `MeanFrame` always, `LandmarkFrame` on images with one landmark, a frame of yours that learns a pose. No frame has
    one element on symmetric inputs (it holds at least one for each symmetry), and no choice among several is
    equivariant or continuous. So samples with several are refused; ``strict=False`` takes the heaviest and is **not**
    exact there.

    Args:
        module: As for `FrameAverage`.
        frame: As for `FrameAverage`.
        in_action: As for `FrameAverage`.
        out_action: As for `FrameAverage`.
        strict: Refuse samples whose frame has more than one element.
        chunk_size: As for `FrameAverage`.
        detach: As for `FrameAverage`.

    Shape:
        - as for `FrameAverage`

    Raises:
        DegenerateFrameError: With ``strict``, a sample has several elements; the message names it.
        ValueError: As for `FrameAverage`.

    Example:
        A network that knows positions, made translation equivariant by pre-processing:

        >>> import torch
        >>> from gconv_ga.averaging import Canonicalize, MeanFrame
        >>> net = Canonicalize(lambda x: x.square(), MeanFrame(), "points", "vector")
        >>> x = torch.rand(2, 5, 3)
        >>> torch.allclose(net(x + 100), net(x), atol=1e-4)
        True

    References:
        Kaba et al., "Equivariance with learned canonicalization functions", ICML 2023. Why one element is not enough:
        Dym et al., "Equivariant frames and the impossibility of continuous canonicalization", ICML 2024.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        frame: Frame,
        in_action: Any,
        out_action: Any,
        *,
        strict: bool = True,
        chunk_size: int | None = None,
        detach: bool = False,
    ) -> None:
        super().__init__(module, frame, in_action, out_action, chunk_size=chunk_size, detach=detach)
        self.strict = strict

    def _chosen(self, frames: FrameSet) -> FrameSet:
        several = frames.counts > 1
        if self.strict and several.any():
            raise DegenerateFrameError(
                f"frame must be one with one element for each sample, but got {int(frames.counts.max())} elements; "
                f"several in {named(several)}. Use FrameAverage; strict=False takes the heaviest, which is not exact."
            )
        best = frames.weights.detach().argmax(-1, keepdim=True)
        rows = torch.arange(len(best), device=best.device).unsqueeze(-1)
        weights = torch.ones_like(frames.weights[:, :1])
        turns, shifts = frames.rotations[rows, best], frames.translations[rows, best]
        return replace(frames, rotations=turns, translations=shifts, weights=weights)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.strict else f"{text}, strict=False"

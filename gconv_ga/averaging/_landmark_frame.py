"""The frame of an image under translations: where its landmark is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import wrong_shape
from ._frame import FrameSet


@dataclass(frozen=True)
class LandmarkFrame:
    """The frame of images under whole-pixel translations: the place where a score is largest, "the cat's eye".

    ``F(x) = argmax_y score(x)(y) - c`` with the middle pixel ``c = (W // 2, H // 2)``; pixels that tie share the
    weight. With `Canonicalize` the module sees the image with the landmark in its middle, which makes a network that
    knows positions (dense layers, position embeddings, zero padding) exactly equivariant to translations.

    Translations are cyclic: what leaves the image comes in on the other side. For an object on an empty background
    that is the same as an ordinary translation, as long as the object stays inside.

    Args:
        score: From an image to a map of the landmark's likeliness. It must commute with cyclic translations: pointwise
            operations and convolutions with ``padding_mode="circular"`` do.

    Shape:
        - x: ``[B, C, H, W]``
        - score(x): ``[B, H, W]``
        - rotations: ``[B, K, 2, 2]``, the identity
        - translations: ``[B, K, 2]``, whole pixels, ``(columns to the right, rows down)``
        - weights: ``[B, K]``

    Raises:
        ValueError: ``x`` is no image, or the score has another shape.

    Example:
        >>> brightest = LandmarkFrame(lambda x: x.sum(1))
        >>> image = torch.zeros(1, 3, 5, 7)
        >>> image[..., 4, 6] = 1
        >>> brightest(image).translations  # from the middle three columns to the right and two rows down
        tensor([[[3., 2.]]])
    """

    score: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        if x.ndim != 4:
            raise wrong_shape("x", "[B, C, H, W]", x)
        batch, _, height, width = x.shape
        score = self.score(x)
        if score.shape != (batch, height, width):
            raise wrong_shape("score(x)", f"[B={batch}, H={height}, W={width}]", score)
        flat = score.detach().flatten(1)
        best = flat == flat.amax(1, keepdim=True)
        count = int(best.sum(1).max()) if batch else 0
        weights, place = best.to(torch.float32).topk(count, dim=1)
        offset = torch.stack((place % width - width // 2, place // width - height // 2), -1).to(torch.float32)
        identity = torch.eye(2, device=x.device).expand(batch, count, 2, 2)
        return FrameSet(identity, offset, weights / weights.sum(1, keepdim=True))

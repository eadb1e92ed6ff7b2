"""Averages over all rotations: frames whose elements do not depend on the input."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._validate import as_int, invalid, one_of
from ._cloud import as_cloud, check_group_and_dimension, full_precision, has_reflections, has_translations
from ._frame import FrameSet
from ._rotations import equal_angles, euler_product, icosahedral, octahedral, random_rotations

_NAMED_RULES = ("icosahedral", "octahedral")


@dataclass(frozen=True)
class QuadratureFrame:
    r"""All rotations of the plane or of space, by quadrature: the group average ``int rho_2(g) Phi(rho_1(g)^-1 x) dg``.

    The elements do not depend on the cloud (except for its mean, the origin of "SE" and "E"), so the average has no
    degenerate inputs, no jumps, and no gradients through axes.

    Where it fails: it is equivariant only as far as the rule is exact: to all digits if the module is a polynomial of
    low degree, nearly so if it is smooth, and poorly if it has kinks. For 5 points and a random two-layer MLP of width
    32 the equivariance error relative to the output was

    - d=2, 8 | 16 | 32 angles: 3e-5 | 2e-9 | 2e-16 for SiLU, 2e-3 | 2e-6 | 3e-11 for tanh, 2e-2 | 4e-3 | 8e-4 for ReLU
    - d=3, octahedral 24 | icosahedral 60 | degree 6 (196) | degree 10 (726): 6e-3 | 4e-4 | 4e-5 | 2e-7 for SiLU,
      2e-2 | 3e-3 | 4e-4 | 1e-5 for tanh, 3e-2 | 1e-2 | 7e-3 | 1e-3 for ReLU

    Random draws are far worse (4e-2 for all three with 2000 draws in space): one more digit takes 100 times as many.
    `PointFrame` is exact with fewer elements.

    Args:
        group: "SO" (rotations about the origin), "O" (and reflections, twice as many elements), "SE" or "E" (the same
            about the mean of the points, which makes translations exact).
        d: Dimension, 2 or 3.
        rule: For d=2, the number of equally spaced angles. For d=3, "icosahedral" (60 elements, exact for degrees up to
            5), "octahedral" (24, up to 3), or an int: exact for degrees up to it, with
            ``(rule + 1)^2 ceil((rule + 1) / 2)`` elements. If None, 32 and "icosahedral".

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, K, d, d]``, the same for all samples
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``

    Raises:
        TypeError: Coordinates have an integer dtype.
        ValueError: An option is out of its range, or ``x`` is not a point cloud.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import FrameAverage, QuadratureFrame
        >>> module = lambda x: x.square().flatten(1).cumsum(1).sum(1)  # of degree 2: the rule is exact
        >>> net = FrameAverage(module, QuadratureFrame("SO"), "points", "invariant")
        >>> x = torch.randn(2, 5, 3, dtype=torch.float64)
        >>> rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        >>> torch.allclose(net(x @ rotation.mT), net(x), rtol=0, atol=1e-12)
        True

    References:
        Graef and Potts, "Sampling sets and quadrature formulae on the rotation group", Numer. Funct. Anal. Optim. 30
        (2009).
    """

    group: str = "SE"
    d: int = 3
    rule: int | str | None = None

    def __post_init__(self) -> None:
        check_group_and_dimension(self.group, self.d)
        if self.d not in (2, 3):
            raise invalid("d", "2 or 3", self.d, "use HaarFrame for other dimensions")
        if self.d == 2 and isinstance(self.rule, str):
            raise invalid("rule", "the number of angles for d=2", self.rule)
        if isinstance(self.rule, str):
            one_of("rule", self.rule, _NAMED_RULES)
        elif self.rule is not None:
            as_int("rule", self.rule, minimum=1)

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        rotations, weights = self._nodes_and_weights()
        if has_reflections(self.group):
            reflection = torch.ones(self.d, dtype=torch.float64)
            reflection[-1] = -1
            rotations, weights = torch.cat((rotations, rotations * reflection)), torch.cat((weights, weights)) / 2
        return _same_for_all_clouds(x, mask, vectors, rotations.unsqueeze(0), weights, self.group)

    def _nodes_and_weights(self) -> tuple[Tensor, Tensor]:
        """Return rotations ``[K, d, d]`` and weights ``[K]``."""
        if self.d == 2:
            return equal_angles(32 if self.rule is None else int(self.rule))
        if isinstance(self.rule, int):
            return euler_product(self.rule)
        return octahedral() if self.rule == "octahedral" else icosahedral()


@dataclass(frozen=True)
class HaarFrame:
    r"""Random rotations, uniform on the group (Haar measure), drawn anew at each call and for each sample.

    The average over them is an unbiased estimate of the group average, and so are its gradients. With one element, a
    training step is rotation augmentation with the outputs rotated back. The error falls as ``1 / sqrt(num_samples)``,
    and `FrameAverage` returns its standard error with ``return_stderr=True``.

    Where it fails: an estimate is not equivariant. For an equivariant average use `PointFrame` or `QuadratureFrame`.

    Args:
        group: "SO" (rotations about the origin), "O" (and reflections), "SE" or "E" (the same about the mean of the
            points).
        d: Dimension.
        num_samples: Number of elements to draw for each sample.
        generator: Random number generator for the draws. If None, torch's global generator.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``, all ``1 / K``

    Raises:
        TypeError: Coordinates have an integer dtype.
        ValueError: An option is out of its range, or ``x`` is not a point cloud.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import FrameAverage, HaarFrame
        >>> HaarFrame("SO", num_samples=8)(torch.randn(2, 5, 3)).rotations.shape
        torch.Size([2, 8, 3, 3])
        >>> net = FrameAverage(lambda x: x.exp().mean((1, 2)), HaarFrame(num_samples=100), "points", "invariant")
        >>> mean, error = net(torch.randn(2, 5, 3), return_stderr=True)
        >>> mean.shape, error.shape
        (torch.Size([2]), torch.Size([2]))

    References:
        Mezzadri, "How to generate random matrices from the classical compact groups", Notices AMS 54 (2007).
    """

    group: str = "SE"
    d: int = 3
    num_samples: int = 1
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_group_and_dimension(self.group, self.d)
        as_int("num_samples", self.num_samples, minimum=1)

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        return self.sample(x, mask, vectors, count=self.num_samples, generator=self.generator)

    def sample(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        vectors: tuple[Tensor, ...] = (),
        *,
        count: int,
        generator: torch.Generator | None = None,
    ) -> FrameSet:
        """Draw ``count`` elements anew, whatever ``num_samples`` is.

        Args:
            x: As for a call.
            mask: As for a call.
            vectors: As for a call.
            count: Number of draws.
            generator: Random number generator. If None, that of the frame.

        Raises:
            ValueError: As for a call, or ``count`` is not a positive int.
        """
        count = as_int("count", count, minimum=1)
        like = torch.empty(0, dtype=torch.float64, device=x.device)
        source = self.generator if generator is None else generator
        rotations = random_rotations((len(x), count), self.d, like, source)
        if has_reflections(self.group):
            device = x.device if source is None else source.device
            coins = torch.rand(len(x), count, 1, 1, generator=source, device=device).to(rotations)
            rotations = torch.cat((rotations[..., :-1], rotations[..., -1:] * torch.where(coins < 0.5, -1.0, 1.0)), -1)
        weights = rotations.new_full((count,), 1 / count)
        return replace(_same_for_all_clouds(x, mask, vectors, rotations, weights, self.group), drawn=True)


def _same_for_all_clouds(
    x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...], rotations: Tensor, weights: Tensor, group: str
) -> FrameSet:
    """Return the given rotations about the mean of the points or, for "SO" and "O", about the origin.

    Shape:
        - rotations: ``[1, K, d, d]`` or ``[B, K, d, d]``
        - weights: ``[K]``
    """
    with full_precision(x):
        cloud = as_cloud(x, mask, vectors, d=rotations.shape[-1], centered=has_translations(group))
        batch, count = len(x), len(weights)
        return FrameSet(
            rotations.to(cloud.points).expand(batch, -1, -1, -1),
            cloud.origin.expand(-1, count, -1),
            weights.to(cloud.points).expand(batch, count),
        )

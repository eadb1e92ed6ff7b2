"""Statements 12 and 13: properties of the average of any module over a frame."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._validate import invalid, wrong_shape
from ..frames import Frame, FrameAction, FrameAverage
from ._sides import Sides


def frame_average_is_equivariant(
    module: Callable[[Tensor], Tensor],
    frame: Frame,
    x: Tensor,
    rotation: Tensor,
    translation: Tensor,
    in_action: FrameAction | str = "points",
    out_action: FrameAction | str = "points",
) -> Sides:
    r"""Statement 12: the average of any module over a frame is equivariant.

    ``<Phi>_F(rho_1(g) x) = rho_2(g) <Phi>_F(x)``, where ``<Phi>_F(x) = sum_(h in F(x)) w_h rho_2(h) Phi(rho_1(h)^-1
    x)`` and ``F`` is a frame, ``F(rho_1(g) x) = g F(x)`` as weighted sets.

    Why it holds, for any function ``Phi``::

        <Phi>_F(rho_1(g) x) = sum_(h in F(g x))  w_h  rho_2(h) Phi(rho_1(h)^-1 rho_1(g) x)    the definition, at g x
                            = sum_(h in F(g x))  w_h  rho_2(h) Phi(rho_1(g^-1 h)^-1 x)        rho_1 is a representation
                            = sum_(h' in F(x))   w_h' rho_2(g h') Phi(rho_1(h')^-1 x)         h = g h', F(g x) = g F(x)
                            = rho_2(g) <Phi>_F(x)                                             rho_2 is linear

    The proof is that of statement 1, with ``F(g x) = g F(x)`` in place of ``g G = G``. Since the weights sum to 1,
    ``rho_2(g)`` may also be affine, as for points.

    Where it fails: for an ``F`` that is not equivariant (`gconv_ga.frames.assert_frame_equivariant` checks it), such as
    principal axes where two eigenvalues are equal; for elements ``g`` that the frame does not cover, such as rotations
    with `gconv_ga.frames.MeanFrame`; and for frames that draw their elements at random.

    The left side is `gconv_ga.frames.FrameAverage` of the moved input. The right side is the sum written out for the
    original input, with one call of the module for each element of each sample, and then moved.

    Args:
        module: ``Phi``, from one tensor to one tensor. Put it in eval mode if it depends on the rest of the batch.
        frame: ``F``.
        x: The input: a cloud of points or, for frames of images, an image.
        rotation: The orthogonal matrix ``R`` of ``g = (R, t)``; the identity for images.
        translation: The translation ``t`` of ``g``.
        in_action: ``rho_1``, "points" or "image".
        out_action: ``rho_2``: "points", "vector", "invariant", "image", or another action that `FrameAverage` takes.

    Shape:
        - x: ``[B, N, d]``, or ``[B, C, H, W]`` with d = 2
        - rotation: ``[d, d]``
        - translation: ``[d]``
        - both sides: as the module's output

    Raises:
        ValueError: ``rotation`` is not an orthogonal matrix, ``translation`` does not fit, or an action is not a single
            one.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import PointFrame
        >>> from gconv_ga.identities import frame_average_is_equivariant
        >>> x = torch.arange(30, dtype=torch.float64).view(2, 5, 3).square().cos()
        >>> rotation = torch.tensor([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]], dtype=torch.float64)
        >>> module = lambda x: x.sin().cumsum(1)
        >>> frame_average_is_equivariant(module, PointFrame("E"), x, rotation, torch.ones(3)).error < 1e-10
        True
        >>> from gconv_ga.frames import MeanFrame
        >>> sides = frame_average_is_equivariant(module, MeanFrame(), x, rotation, torch.ones(3))  # translations only
        >>> sides.error > 0.1
        True

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022, theorem 1. Weights: Dym,
        Lawrence, Siegel, "Equivariant frames and the impossibility of continuous canonicalization", ICML 2024.
    """
    average = FrameAverage(module, frame, in_action, out_action)
    rho_1, rho_2 = _single("in_action", average.in_action), _single("out_action", average.out_action)
    by_definition = _frame_average_by_definition(module, frame, x, rho_1, rho_2)
    element = _checked_motion(rotation, translation, x, d=frame(x).rotations.shape[-1])
    return Sides(average(_moved(rho_1, x, *element)), _moved(rho_2, by_definition, *element))


def frame_average_keeps_equivariant(
    module: Callable[[Tensor], Tensor],
    frame: Frame,
    x: Tensor,
    in_action: FrameAction | str = "points",
    out_action: FrameAction | str = "points",
) -> Sides:
    r"""Statement 13: averaging over a frame does not change a module that is already equivariant.

    ``<Phi>_F = Phi`` if ``Phi(rho_1(h) x) = rho_2(h) Phi(x)`` for every ``h``.

    Why it holds: every term of the average is the same, and the weights sum to 1::

        w_h rho_2(h) Phi(rho_1(h)^-1 x) = w_h rho_2(h) rho_2(h)^-1 Phi(x) = w_h Phi(x)

    So a frame average is as expressive as its backbone if the backbone is equivariant. It holds for any weighted set
    ``F(x)``, a frame or not.

    Where it fails: for a module that is not equivariant under all of the group. Then the left side is equivariant by
    statement 12, and the right side is not.

    The left side is `gconv_ga.frames.FrameAverage`, the right side the module alone.

    Args:
        module: ``Phi``, from one tensor to one tensor.
        frame: ``F``.
        x: The input: a cloud of points or, for frames of images, an image.
        in_action: ``rho_1``, "points" or "image".
        out_action: ``rho_2``, as for `frame_average_is_equivariant`.

    Shape:
        - x: ``[B, N, d]`` or ``[B, C, H, W]``
        - both sides: as the module's output

    Raises:
        ValueError: An action is not one that `FrameAverage` takes.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import PointFrame
        >>> from gconv_ga.identities import frame_average_keeps_equivariant
        >>> x = torch.arange(30, dtype=torch.float64).view(2, 5, 3).square().cos()
        >>> pull = lambda x: x + 0.1 * (x.mean(1, keepdim=True) - x)  # towards the mean: equivariant
        >>> frame_average_keeps_equivariant(pull, PointFrame("E"), x).error < 1e-10
        True
        >>> frame_average_keeps_equivariant(torch.sin, PointFrame("E"), x).error > 0.1  # not equivariant
        True

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022.
    """
    return Sides(FrameAverage(module, frame, in_action, out_action)(x), module(x.clone()))


def _moved(action: FrameAction, x: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Return ``g x`` with the same ``g`` for all samples."""
    return action(x, rotation.expand(len(x), -1, -1), translation.expand(len(x), -1))


def _frame_average_by_definition(
    module: Callable[[Tensor], Tensor], frame: Frame, x: Tensor, rho_1: FrameAction, rho_2: FrameAction
) -> Tensor:
    """Return ``sum_h w_h rho_2(h) Phi(rho_1(h)^-1 x)`` sample by sample and term by term."""
    found = frame(x)
    samples = []
    for b in range(len(x)):
        one, terms = slice(b, b + 1), []
        for rotation, translation, weight in zip(
            found.rotations[b].split(1), found.translations[b].split(1), found.weights[b], strict=True
        ):
            if weight > 0:  # padding may hold anything
                y = module(rho_1.inverse(x[one].clone(), rotation, translation))
                terms.append(weight * rho_2(y, rotation, translation))
        samples.append(torch.stack(terms).sum(0))
    return torch.cat(samples)


def _checked_motion(rotation: Tensor, translation: Tensor, x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Return ``R`` and ``t`` with the dtype and device of ``x``."""
    if rotation.shape != (d, d):
        raise wrong_shape("rotation", f"[d={d}, d={d}]", rotation)
    if not ((rotation @ rotation.mT - torch.eye(d).to(rotation)).abs() < 1e-5).all():
        raise invalid("rotation", "an orthogonal matrix", rotation.tolist())
    if translation.shape != (d,):
        raise wrong_shape("translation", f"[d={d}]", translation)
    return rotation.to(x), translation.to(x)


def _single(argument: str, action: FrameAction | dict[str, object] | tuple[object, ...]) -> FrameAction:
    """Return the action, if it is one and not a nest of them."""
    if not isinstance(action, FrameAction):
        raise invalid(argument, "one action, for a module from one tensor to one tensor", action)
    return action

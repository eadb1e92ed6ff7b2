"""The average of any module over a frame, and its special case of one element."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, message, wrong_shape
from ..actions import Leaf, nest_leaves, pair_inputs, pair_leaves, rebuild_nest, require_plain
from ._cloud import full_precision, sample_numbers
from ._frame import DegenerateFrameError, Frame, FrameElements, FrameSet
from ._frame_actions import (
    FrameAction,
    ImageAction,
    MaskAction,
    PointAction,
    VectorAction,
    as_frame_actions,
)


class FrameAverage(nn.Module):
    r"""Make any module equivariant by averaging over a frame: ``<Phi>_F(x) = sum_g w_g rho_2(g) Phi(rho_1(g)^-1 x)``.

    The sum is over the few elements ``g`` of ``F(x)``, with their weights ``w_g``. The frame ``F`` moves with the
    input, ``F(h x) = h F(x)``, and that makes the average exactly equivariant to infinite groups (rotations and
    translations of space, for example), whatever the module.

    Why it holds: ``h g'`` has in ``F(h x)`` the weight of ``g'`` in ``F(x)``, so, with ``g = h g'``::

        <Phi>_F(rho_1(h) x) = sum_{g in F(h x)}  w_g  rho_2(g) Phi(rho_1(h^-1 g)^-1 x)
                            = sum_{g' in F(x)}   w_g' rho_2(h g') Phi(rho_1(g')^-1 x)
                            = rho_2(h) <Phi>_F(x)

    A module that is already equivariant does not change, since every term is ``Phi(x)`` and the weights sum to 1.

    Where it fails: for an ``F`` that breaks the law (`assert_frame_equivariant` checks it), and for inputs that move
    without the frame taking them into account. The frame is given the points and all vectors, but not tensors.

    All elements of all samples go through the module in one batch, and nothing else does: samples with small frames
    cost little. Frames and rotations are computed in float32 or wider, outside autocast; the module runs under the
    caller's autocast. `torch.compile` compiles the module and the rotations around it, but not the frame.

    Elements drawn at random (by `HaarFrame`, ``num_samples`` of `PointFrame`, or ``train_samples``) give an unbiased
    estimate. ``return_stderr=True`` also returns the standard error of each number of the output, ``sqrt(s^2 / k)``
    with the sample variance ``s^2`` of ``k`` draws. It is 0 for frames that list their elements; the error of a
    quadrature rule is not included. Intervals of plus or minus 1.96 standard errors covered the average over rotations
    of a random MLP in 90 % of the cases for k = 8, 94 % for 32 and 95 % for 100; the nominal value is 95 %.

    Gradients flow through the frame, so forces computed from energies are true gradients. With ``detach=True`` they do
    not: gradients with respect to weights remain correct, and those with respect to positions are wrong (by 30 % to
    170 % for a random MLP and `PointFrame` on the molecules of G2). Such forces exert a net torque and do net work
    around closed loops.

    Args:
        module: The module to average, or any other callable. Its tensors have the batch as their first axis.
        frame: A `Frame`: `PointFrame`, `MeanFrame`, `PCAFrame`, `LandmarkFrame`, or your own callable.
        in_action: Action of an element on the inputs: "points", "vector", "tensor" (rank 2), "invariant" (or "scalar"),
            "mask", "image", a `FrameAction`, or a mapping or sequence of them nested as the inputs are. Exactly one is
            "points" (or, for frames of images, the first "image"): the frame is built from it and from all that are
            "vector". "mask" is True for points; the module sees zeros in the padding of points and of all vectors and
            tensors ``[B, N, ...]``, with as many entries.
        out_action: Action of an element on the output, given in the same way. The translation is added to "points", not
            to "vector".
        chunk_size: Number of transformed samples that go through the module at a time. If None, all of them.
        train_samples: Number of elements of each frame to draw in training mode, instead of using all. The output and
            its gradients are unbiased, and one is often enough. In evaluation mode all elements are used.
        generator: Random number generator for the draws. If None, torch's global generator.
        detach: If True, detach the frame from the autograd graph. Warns if positions require a gradient.

    Shape:
        - inputs: points ``[B, N, d]``, vectors ``[B, ..., d]``, tensors ``[B, ..., d, d]``, mask ``[B, N]``, images
          ``[B, C, H, W]``, invariants ``[B, ...]``; alone, several, or in dicts, tuples and lists. Tensors without axes
          and all other objects are passed on unchanged.
        - output: as the module's; with ``return_stderr=True`` a pair of them, the average and its standard error

    Raises:
        TypeError: An input to be rotated has an integer dtype.
        DegenerateFrameError: The frame cannot be built, or there is a tensor input, or one with an action of your own
            of rank 1 or more, and the cloud does not determine all axes.
        ValueError: An argument is out of its range, ``in_action`` has nothing to build the frame from, the frame's
            ``lmax`` is lower than the rank of the output, the frame returns no `FrameSet` or one whose weights do not
            sum to 1, shapes do not fit, the output has an integer dtype, or a standard error of one draw is requested.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gconv_ga.frames import FrameAverage, PointFrame
        >>> energy = nn.Sequential(nn.Flatten(), nn.Linear(15, 32), nn.SiLU(), nn.Linear(32, 1)).double()
        >>> net = FrameAverage(energy, PointFrame("E"), "points", "invariant")
        >>> x = torch.randn(2, 5, 3, dtype=torch.float64)
        >>> rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        >>> torch.allclose(net(x @ rotation.mT + 7), net(x), rtol=0, atol=1e-12)
        True

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022, equations 3 and 4.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        frame: Frame,
        in_action: Any,
        out_action: Any,
        *,
        chunk_size: int | None = None,
        train_samples: int | None = None,
        generator: torch.Generator | None = None,
        detach: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("module", module), ("frame", frame)):
            if not callable(value) or isinstance(value, type):
                advice = "make an instance of the class first" if isinstance(value, type) else ""
                raise invalid(name, f"a {name} or another callable", value, advice)
        for name, number in (("chunk_size", chunk_size), ("train_samples", train_samples)):
            if number is not None:
                as_int(name, number, minimum=1)
        self.module = module
        self.frame = frame
        self.in_action = as_frame_actions(in_action, "in_action")
        self.out_action = as_frame_actions(out_action, "out_action")
        self.chunk_size = chunk_size
        self.train_samples = train_samples
        self.generator = generator
        self.detach = detach
        in_actions = [action for _, action in nest_leaves(self.in_action, "in_action")]
        if sum(isinstance(action, PointAction) for action in in_actions) > 1 or not _frame_sources(in_actions):
            advice = "concatenate several clouds along their points, and split them in the module"
            raise invalid("in_action", "actions of which exactly one is 'points', or one is 'image'", in_action, advice)
        rank = max((action.rank for _, action in nest_leaves(self.out_action, "out_action")), default=0)
        if rank > getattr(frame, "lmax", rank):
            advice = f"outputs of rank {rank} are wrong for collinear points with it; use lmax=3"
            raise invalid("frame", f"a frame with lmax of at least {rank}", frame, advice)

    def forward(self, *inputs: Any, return_stderr: bool = False) -> Any:
        pairs = pair_inputs(inputs, self.in_action)
        leaves = [_InputLeaf(leaf.name, leaf.value, cast(FrameAction, leaf.action)) for leaf in pairs]
        domain = _frame_arguments(leaves)
        # The number of elements depends on the data: a compiler would trace, break the graph and trace again.
        compiling = torch.compiler.is_compiling()
        elements_of = torch.compiler.disable(self._elements) if compiling else self._elements
        elements, drawn = elements_of(leaves, domain)
        total = len(elements.sample)
        step = self.chunk_size or max(1, total)
        output, passes = None, []
        for start in range(0, max(1, total), step):
            part = FrameElements(*(value[start : start + step] for value in elements))
            with full_precision(domain.x):
                values = [leaf.inversely_moved(part, domain.mask) for leaf in leaves]
            output = self.module(*rebuild_nest(inputs, iter(values)))
            passes.append(pair_leaves(output, self.out_action, "output", "out_action"))
            _check_outputs(passes[-1], len(part.sample))
        with full_precision(domain.x):
            terms = [_OutputTerms.from_passes(leaf_passes, elements) for leaf_passes in zip(*passes, strict=True)]
            mean = rebuild_nest(output, iter([leaf.mean(elements, domain.x) for leaf in terms]))
            if not return_stderr:
                return mean
            counts = torch.bincount(elements.sample, minlength=len(domain.x))
            if drawn and (counts < 2).any():
                raise invalid("frame", "one that draws at least 2 elements, for a standard error", self.frame)
            errors = [leaf.stderr(elements, domain.x, counts, drawn) for leaf in terms]
            return mean, rebuild_nest(output, iter(errors))

    def _elements(self, leaves: "list[_InputLeaf]", domain: "_FrameArguments") -> tuple[FrameElements, bool]:
        """Return the elements to average over, and True if they are random draws."""
        with full_precision(domain.x):
            frames = self._selected(self._frames(domain))
            _check_tensor_inputs(leaves, frames)
            return frames.elements(), frames.drawn

    def _frames(self, domain: "_FrameArguments") -> FrameSet:
        """Return the frame of the input or, in training mode with ``train_samples``, draws from it."""
        if self.detach and torch.is_grad_enabled() and any(v.requires_grad for v in (domain.x, *domain.vectors)):
            text = (
                "detach=True leaves the frame out of the gradient with respect to positions. Do not use it for forces."
            )
            warnings.warn(text, stacklevel=4)
        count = self.train_samples if self.training else None
        # Some frames can draw elements without listing all of them.
        sample = None if count is None else getattr(self.frame, "sample", None)
        if sample is not None:
            frames = self._checked(sample(*domain, count=count, generator=self.generator))
        else:
            frames = self._checked(self.frame(*domain))
            frames = frames if count is None else frames.sample(count, self.generator)
        return frames.detach() if self.detach else frames

    def _checked(self, frames: Any) -> FrameSet:
        """Check what the frame returned, as far as an average over it would be wrong by itself.

        Raises:
            ValueError: It is not a `FrameSet`, or the weights of a sample are negative, NaN or do not sum to 1.
        """
        if not isinstance(frames, FrameSet):
            advice = f"it returned an object of type {type(frames).__name__}"
            raise invalid("frame", "a function that returns a FrameSet", self.frame, advice)
        weights = frames.weights.detach()
        sums_to_one = (weights.float().sum(-1) - 1).abs() <= 0.01  # a slip, not rounding
        wrong = ~(sums_to_one & (weights >= 0).all(-1))
        if wrong.any():
            advice = f"other weights in {sample_numbers(wrong)}"
            raise invalid("frame", "one whose weights are not negative and sum to 1", self.frame, advice)
        return frames

    def _selected(self, frames: FrameSet) -> FrameSet:
        """Return the elements to average over; `Canonicalize` selects one."""
        return frames

    def extra_repr(self) -> str:
        text = "" if isinstance(self.module, nn.Module) else f"{getattr(self.module, '__name__', self.module)}, "
        text += "" if isinstance(self.frame, nn.Module) else f"frame={getattr(self.frame, '__name__', self.frame)}, "
        text += f"in_action={self.in_action!r}, out_action={self.out_action!r}"
        for name, value, default in (
            ("chunk_size", self.chunk_size, None),
            ("train_samples", self.train_samples, None),
            ("detach", self.detach, False),
        ):
            if value != default:
                text += f", {name}={value!r}"
        return text


class Canonicalize(FrameAverage):
    r"""Apply any module in a canonical pose of its input: ``<Phi>_F(x) = rho_2(g) Phi(rho_1(g)^-1 x)``, with one ``g``.

    This is the average over a frame with one element, at the price of one pass. It is exact where the frame has one
    element: `MeanFrame` always does, `LandmarkFrame` does for images with one landmark, and so can your own frame, one
    that learns the pose, for example.

    Where it fails: no frame has one element on a symmetric input (it has at least one for each symmetry), and no choice
    among several elements is equivariant or continuous. Samples with several are therefore refused. ``strict=False``
    uses the element of largest weight and is **not** exact for them.

    Args:
        module: As for `FrameAverage`.
        frame: As for `FrameAverage`.
        in_action: As for `FrameAverage`.
        out_action: As for `FrameAverage`.
        strict: If True, refuse samples whose frame has more than one element.
        chunk_size: As for `FrameAverage`.
        detach: As for `FrameAverage`.

    Shape:
        - as for `FrameAverage`

    Raises:
        DegenerateFrameError: ``strict`` is True and a sample has several elements; the message names it.
        ValueError: As for `FrameAverage`.

    Example:
        A network that depends on positions, made translation equivariant by pre-processing:

        >>> import torch
        >>> from gconv_ga.frames import Canonicalize, MeanFrame
        >>> net = Canonicalize(lambda x: x.square(), MeanFrame(), "points", "vector")
        >>> x = torch.rand(2, 5, 3)
        >>> torch.allclose(net(x + 100), net(x), atol=1e-4)
        True

    References:
        Kaba et al., "Equivariance with learned canonicalization functions", ICML 2023. On why one element is not
        enough: Dym et al., "Equivariant frames and the impossibility of continuous canonicalization", ICML 2024.
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

    def _selected(self, frames: FrameSet) -> FrameSet:
        several = frames.counts > 1
        if self.strict and several.any():
            raise DegenerateFrameError(
                f"frame must have one element for each sample, but got {int(frames.counts.max())} elements; more than "
                f"one in {sample_numbers(several)}. Use FrameAverage; strict=False uses the element of largest weight, "
                "which is not exact."
            )
        best = frames.weights.detach().argmax(-1, keepdim=True)
        rows = torch.arange(len(best), device=best.device).unsqueeze(-1)
        weights = torch.ones_like(frames.weights[:, :1])
        rotations, translations = frames.rotations[rows, best], frames.translations[rows, best]
        return replace(frames, rotations=rotations, translations=translations, weights=weights)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.strict else f"{text}, strict=False"


class _InputLeaf(NamedTuple):
    """One leaf of the inputs: the expression that reaches it, its value, and its frame action."""

    name: str
    value: Any
    action: FrameAction

    @property
    def has_batch(self) -> bool:
        """True if elements act on the leaf: it is a tensor with at least one axis."""
        return isinstance(self.value, Tensor) and self.value.ndim > 0

    def inversely_moved(self, elements: FrameElements, mask: Tensor | None) -> Any:
        """Return ``rho_1(g)^-1 x`` for each element, in the dtype of ``x``, with zeros in the padding.

        Raises:
            TypeError: The leaf has components to rotate, and an integer dtype.
            ValueError: The action does not take this tensor.
        """
        if not self.has_batch:
            return self.value
        value = self.value[elements.sample]
        rotates = self.action.rank > 0
        if rotates and not value.is_floating_point():
            advice = "integers are not closed under rotation"
            raise TypeError(message(self.name, "floating point", self.value, advice))
        padding = None
        # A tensor of each sample, such as a vector [B, d], has no axis of points, although d may equal their number.
        has_points = value.ndim - self.action.rank > 1
        if rotates and mask is not None and has_points and value.shape[1] == mask.shape[1]:
            padding = ~mask[elements.sample].view(-1, mask.shape[1], *(1,) * (value.ndim - 2))
            # Filled before the rotation, whose gradient would multiply NaN in the padding by zero.
            value = value.masked_fill(padding, 0)
        rotations, translations = elements.rotations, elements.translations
        if value.is_floating_point():
            dtype = torch.promote_types(value.dtype, rotations.dtype)
            value, rotations, translations = value.to(dtype), rotations.to(dtype), translations.to(dtype)
        try:
            moved = self.action.inverse(value, rotations, translations).to(self.value.dtype)
        except ValueError as error:
            raise ValueError(f"{self.name} does not fit its action {self.action}: {error}") from error
        if padding is not None:
            # Filled again after the rotation and translation, which move the zeros.
            moved = moved.masked_fill(padding, 0)
        return moved


class _FrameArguments(NamedTuple):
    """The arguments of a frame."""

    x: Tensor
    mask: Tensor | None
    vectors: tuple[Tensor, ...]


def _frame_sources(actions: Sequence[FrameAction]) -> list[int]:
    """Return the indices of the inputs that a frame can be built from: all points or, without any, all images."""
    points = [i for i, action in enumerate(actions) if isinstance(action, PointAction)]
    return points or [i for i, action in enumerate(actions) if isinstance(action, ImageAction)]


def _frame_arguments(inputs: Sequence[_InputLeaf]) -> _FrameArguments:
    """Return the points or the first image, the mask, and all vectors.

    Raises:
        ValueError: There is no tensor to build a frame from, or more than one cloud or mask; or batch sizes differ.
    """
    sources = [inputs[i] for i in _frame_sources([leaf.action for leaf in inputs])]
    source = sources[0]
    if not source.has_batch:
        raise invalid(source.name, "a tensor: the frame is built from it", source.value)
    if isinstance(source.action, PointAction) and len(sources) > 1:
        advice = "concatenate them along the points, and split them in the module"
        raise invalid("in_action", "actions of which exactly one is 'points'", [leaf.name for leaf in sources], advice)
    for leaf in inputs:
        if leaf.has_batch and len(leaf.value) != len(source.value):
            axes = f"[B={len(source.value)}, ...] like {source.name}"
            raise wrong_shape(leaf.name, axes, leaf.value, "the batch is the first axis of every tensor")
    masks = [leaf for leaf in inputs if isinstance(leaf.action, MaskAction) and leaf.value is not None]
    if len(masks) > 1:
        raise invalid("in_action", "actions of which at most one is 'mask'", [leaf.name for leaf in masks])
    vectors: list[Tensor] = []
    for leaf in inputs:
        if isinstance(leaf.action, VectorAction) and leaf.has_batch:
            if leaf.value.ndim < 2:
                raise wrong_shape(leaf.name, "[B, ..., d]", leaf.value)
            # Several vectors of each point are passed one after another, so that each of them shares the points' mask.
            rows = leaf.value.unsqueeze(1) if leaf.value.ndim == 2 else leaf.value
            vectors += rows.flatten(2, -2).unbind(2) if rows.ndim > 3 else [rows]
    return _FrameArguments(source.value, masks[0].value if masks else None, tuple(vectors))


def _check_tensor_inputs(inputs: list[_InputLeaf], frames: FrameSet) -> None:
    """Refuse tensors where the frame chose axes freely: it is not given the tensors and cannot follow them."""
    moving = [leaf for leaf in inputs if leaf.has_batch and leaf.action.rank > 0]
    others = [leaf.name for leaf in moving if not isinstance(leaf.action, PointAction | VectorAction)]
    if others and frames.completed is not None and frames.completed.any():
        raise DegenerateFrameError(
            f"{others[0]} must come with points and vectors that determine all axes, but got points on one line or in "
            f"one place in {sample_numbers(frames.completed)}. The frame uses points and vectors alone; add vectors "
            "that determine the other axes."
        )


def _check_outputs(leaves: list[Leaf], length: int) -> None:
    for name, value, _ in leaves:
        require_plain(name, value)
        if not isinstance(value, Tensor):
            continue
        if value.ndim == 0 or len(value) != length:
            advice = "the module must keep the batch axis first; reduce over it outside the average"
            raise wrong_shape(name, f"[{length}, ...], one entry for each input of the module", value, advice)
        if not (value.is_floating_point() or value.is_complex()):
            raise invalid(name, "floating point, since integers have no mean", value, "return scores, not classes")


class _OutputTerms(NamedTuple):
    """The terms ``rho_2(g) y_g`` ``[T, ...]`` of one output leaf, and the dtype of the module's tensor.

    For a leaf that is not a tensor, ``value`` is the leaf and ``dtype`` is None.
    """

    value: Any
    dtype: torch.dtype | None

    @classmethod
    def from_passes(cls, passes: Sequence[Leaf], elements: FrameElements) -> Self:
        """Concatenate a leaf of all passes and apply the elements to it.

        Raises:
            ValueError: The action does not take this tensor.
        """
        name, value, action = passes[0]
        if not isinstance(value, Tensor):
            return cls(value, None)
        value = torch.cat([leaf.value for leaf in passes])
        wide = torch.promote_types(value.dtype, elements.rotations.dtype)
        act = cast(FrameAction, action)
        try:
            moved = act(value.to(wide), elements.rotations.to(wide), elements.translations.to(wide))
        except ValueError as error:
            raise ValueError(f"{name} does not fit its action {action}: {error}") from error
        return cls(moved, value.dtype)

    def mean(self, elements: FrameElements, source: Tensor) -> Any:
        """Return ``sum_g w_g rho_2(g) y_g`` of each sample."""
        return self.value if self.dtype is None else self._cast(_weighted_sums(self.value, elements, source), source)

    def stderr(self, elements: FrameElements, source: Tensor, counts: Tensor, drawn: bool) -> Any:
        """Return the standard error of the mean of independent draws of equal weight, or 0 if nothing was drawn."""
        if self.dtype is None:
            return self.value
        value = self.value.detach()
        mean = _weighted_sums(value, elements, source).detach()
        if not drawn:
            return self._cast(torch.zeros_like(mean), source)
        variance = _weighted_sums((value - mean[elements.sample]).abs().square(), elements, source).detach()
        return self._cast((variance / (counts - 1).view(-1, *(1,) * (mean.ndim - 1))).sqrt(), source)

    def _cast(self, value: Tensor, source: Tensor) -> Tensor:
        # A bfloat16 module returns bfloat16; bfloat16 autocast with float32 positions returns float32.
        return value.to(torch.promote_types(cast(torch.dtype, self.dtype), source.dtype))


def _weighted_sums(terms: Tensor, elements: FrameElements, source: Tensor) -> Tensor:
    """Return ``sum_g w_g terms_g`` of each sample of ``source``."""
    weighted = terms * elements.weights.view(-1, *(1,) * (terms.ndim - 1))
    return weighted.new_zeros(len(source), *weighted.shape[1:]).index_add(0, elements.sample, weighted)

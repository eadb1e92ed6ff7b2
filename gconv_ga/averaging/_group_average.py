"""The average of any module over a finite group of rotations and reflections."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, wrong_shape
from ..actions import (
    Invariant,
    LabelMask,
    Leaf,
    ScalarField,
    as_actions,
    nest_leaves,
    pair_inputs,
    pair_leaves,
    rebuild_nest,
    require_plain,
)
from ..groups import Group, as_group


class GroupAverage(nn.Module):
    r"""Make any module equivariant by averaging: ``<Phi>_G(x) = 1/|G| sum_g rho_2(g) Phi(rho_1(g)^-1 x)``.

    Wrap a trained network for test-time averaging, or train through the average: gradients flow. The whole orbit of the
    input goes through the module in one batch (in two, for images that are not square and rotations by 90 degrees), so
    BatchNorm makes one update with statistics of the whole orbit.

    For C1, C2, C4, D1, D2 and D4 the average is exactly equivariant at every image size, whatever the module, its
    strides and its padding, unless the module draws random numbers. For other groups images are interpolated, and the
    average is as equivariant as the interpolation: with C8, on smooth images of 65 pixels and inside a disc that no
    rotation cuts, the error was 0.5 % (root mean square), and 100 % for the module alone. Points and vectors as such
    are not interpolated.

    The module's output is averaged as it is. A mean of logits and a mean of probabilities are different predictions,
    and you choose between them: apply the sigmoid or softmax after the average, or inside the module (second example).
    Class indices have no mean and are refused.

    `torch.compile` and `torch.export` capture it in one graph, unless elements are drawn at random. A program exported
    from an example with H != W works for all such sizes; square images need a program of their own.

    A network that was never trained on rotated images can do badly on them, and its average with it: train with
    rotation augmentation, or through the average.

    Args:
        module: The module to average, or any other callable.
        group: The group or its name. For groups that are too large to list, use `PermutationAverage` (permutations of a
            set) or `FrameAverage` with `QuadratureFrame`, `HaarFrame` or, for an exact result, `PointFrame` (rotations
            of points).
        in_action: Action of the group on the inputs: an action, its name, or a mapping or sequence of them nested as
            the inputs are. With several inputs, a sequence has one entry for each. One action holds for everything
            below it. Use "invariant" for inputs that do not rotate with the image; tensors ``[B]`` and ``[B, K]``,
            which have no pixels, are invariant under "scalar" too.
        out_action: Action of the group on the output, given in the same way. Actions that hold the size of the image,
            such as `Keypoints`, are given that of the original image.
        chunk_size: Number of elements that go through the module at a time. If None, all of them. Smaller chunks use
            less memory and more passes; the result is the same, except for modules that look across the batch, such as
            BatchNorm in training mode.
        num_samples: Number of elements to draw at each call, uniformly and without replacement, in training and in
            evaluation. If None, all elements are used. The result is an unbiased estimate of the average, which is not
            itself equivariant; with ``|G|`` elements it is the average. With ``return_stderr=True`` the call also
            returns the standard error of each number of the output, ``sqrt((1 - k/|G|) s^2 / k)`` with the sample
            variance ``s^2`` of ``k`` draws. The attribute can be changed at any time, for example to None for
            evaluation.
        generator: Random number generator for the draws. If None, torch's global generator.

    Shape:
        - inputs: tensors ``[B, ...]`` with the axes that their actions take, alone, several, or in dicts, tuples,
          named tuples and lists. Tensors without axes and all other objects are passed on unchanged.
        - output: as the module's, with the same dtypes; with ``return_stderr=True`` a pair of them, the average and its
          standard error. Sums are computed in float32 or wider.

    Raises:
        ValueError: An argument is out of its range; the inputs have different batch sizes; none of them moves and not
            all are declared invariant, as for an image ``[H, W]``; the output has no batch axis, has an integer dtype,
            or does not fit ``out_action`` (the message names the leaf); or a standard error of one draw is requested.
            What the module raises is passed on with a note on the shapes that it was called with.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gconv_ga.averaging import GroupAverage
        >>> net = GroupAverage(nn.Conv2d(3, 2, 3, stride=2, padding=1), "D4")
        >>> net
        GroupAverage(
          group='D4'
          (module): Conv2d(3, 2, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
        )
        >>> x = torch.randn(1, 3, 30, 45)
        >>> net(x).shape, torch.allclose(net(x.rot90(1, (-2, -1))), net(x).rot90(1, (-2, -1)), atol=1e-5)
        (torch.Size([1, 2, 15, 23]), True)

        The mean of probabilities is not the probability of the mean:

        >>> x = torch.tensor([[0.0, -4, 0], [1, 0, 1], [0, 1, 0]]).view(1, 1, 3, 3)
        >>> logits = lambda x: x.roll(1, -2)  # reads the pixel above
        >>> of_logits = GroupAverage(logits, "C4")(x).sigmoid()[0, 0, 1, 1]
        >>> of_probabilities = GroupAverage(lambda x: logits(x).sigmoid(), "C4")(x)[0, 0, 1, 1]
        >>> print(f"{of_logits:.2f} {of_probabilities:.2f}")
        0.44 0.55

    References:
        Murphy, Srinivasan, Rao, Ribeiro, "Janossy pooling", ICLR 2019; Puny et al., "Frame averaging for invariant and
        equivariant network design", ICLR 2022; Basu et al., "Equi-tuning", AAAI 2023.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        group: Group | str,
        in_action: Any = "scalar",
        out_action: Any = "scalar",
        *,
        chunk_size: int | None = None,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_module(module)
        self.module = module
        self.group = as_group(group)
        self.in_action = as_actions(in_action, "in_action")
        self.out_action = as_actions(out_action, "out_action")
        for name, action in nest_leaves(self.out_action, "out_action"):
            if isinstance(action, LabelMask):
                advice = "average logits or probabilities with 'scalar' and take the argmax of the average"
                raise invalid(name, "an action on something that can be averaged; class indices cannot", action, advice)
        self.chunk_size = chunk_size
        self.num_samples = num_samples
        self.generator = generator
        self._check_counts()
        if generator is not None and not isinstance(generator, torch.Generator):
            raise invalid("generator", "a torch.Generator or None", generator)

    def _check_counts(self) -> None:
        """Check ``chunk_size`` and ``num_samples``, which can be changed after construction."""
        if self.chunk_size is not None:
            as_int("chunk_size", self.chunk_size, minimum=1)
        if self.num_samples is not None and as_int("num_samples", self.num_samples, minimum=1) > self.group.order:
            takes = f"an int from 1 to |G|={self.group.order}, or None for all"
            raise invalid("num_samples", takes, self.num_samples)

    def forward(self, *inputs: Any, return_stderr: bool = False) -> Any:
        self._check_counts()
        if return_stderr and self.num_samples == 1 < self.group.order:
            raise invalid("num_samples", "at least 2 for a standard error", self.num_samples)
        leaves = pair_inputs(inputs, self.in_action)
        mean = _RunningMean(self.group, self.out_action, _common_batch_size(leaves), return_stderr)
        _check_some_input_moves(leaves, self.in_action)
        for elements, values in _passes(leaves, self.group, self._elements(), self.chunk_size):
            try:
                mean.add(elements, self.module(*rebuild_nest(inputs, iter(values))))
            except Exception as error:
                error.add_note(_note_on_shapes(leaves, values, self.group, len(elements)))
                raise
        return (mean.result(), mean.stderr()) if return_stderr else mean.result()

    def _elements(self) -> list[int]:
        """Return the elements to average over at this call."""
        if self.num_samples is None:
            return list(range(self.group.order))
        device = "cpu" if self.generator is None else self.generator.device
        drawn = torch.randperm(self.group.order, generator=self.generator, device=device)[: self.num_samples]
        elements: list[int] = drawn.tolist()
        return elements

    def extra_repr(self) -> str:
        text = f"group={self.group.name!r}"
        if not isinstance(self.module, nn.Module):
            text = f"{getattr(self.module, '__name__', self.module)}, {text}"
        for name, value, default in (
            ("in_action", self.in_action, ScalarField()),
            ("out_action", self.out_action, ScalarField()),
            ("chunk_size", self.chunk_size, None),
            ("num_samples", self.num_samples, None),
        ):
            if value != default:
                text += f", {name}={value!r}"
        return text


def check_module(module: Any) -> None:
    """Refuse anything but a module or another callable; a class is refused too.

    Raises:
        ValueError: ``module`` is neither.
    """
    if not callable(module) or isinstance(module, type):
        advice = "make an instance of the class first" if isinstance(module, type) else ""
        raise invalid("module", "a module or another callable", module, advice)


def has_batch(leaf: Leaf) -> bool:
    """Return True if the group acts on the leaf: it is a tensor with at least one axis."""
    return isinstance(leaf.value, Tensor) and leaf.value.ndim > 0


def check_batch_axis(leaf: Leaf, count: int, batch: int, what: str) -> None:
    """Check that the first axis of an output tensor has one entry for each of ``count * batch`` inputs.

    Raises:
        ValueError: It does not.
    """
    if leaf.value.ndim == 0 or leaf.value.shape[0] != count * batch:
        axes = f"[{count} {what} * B={batch} = {count * batch}, ...]"
        advice = "the module must keep the batch axis first; reduce over it outside the average"
        raise wrong_shape(leaf.name, axes, leaf.value, advice)


def _common_batch_size(inputs: Sequence[Leaf]) -> int:
    """Return the size of the batch axis, which all tensors must share.

    Raises:
        ValueError: There is no tensor, or two of them differ.
    """
    tensors = [leaf for leaf in inputs if has_batch(leaf)]
    if not tensors:
        values = [leaf.value for leaf in inputs]
        raise invalid("inputs", "tensors with a batch axis, or nests with at least one", values)
    batch: int = tensors[0].value.shape[0]  # not int(...): a traced batch size can be a symbol
    for leaf in tensors[1:]:
        if leaf.value.shape[0] != batch:
            advice = "the batch is the first axis of every tensor"
            raise wrong_shape(leaf.name, f"[B={batch}, ...] like {tensors[0].name}", leaf.value, advice)
    return batch


def _check_some_input_moves(inputs: Sequence[Leaf], declared: Any) -> None:
    """Check that an input moves, unless all are declared invariant; under "scalar" a tensor ``[H, W]`` does not.

    Raises:
        ValueError: None does.
    """
    all_stay = all(isinstance(leaf.action, Invariant) for leaf in inputs if has_batch(leaf))
    if all_stay and not all(isinstance(action, Invariant) for _, action in nest_leaves(declared, "in_action")):
        first = next(leaf for leaf in inputs if has_batch(leaf))
        advice = f"for one image pass {first.name}[None, None]; for numbers that do not rotate, in_action='invariant'"
        raise wrong_shape(first.name, "[B, C, H, W]", first.value, advice)


def _note_on_shapes(inputs: Sequence[Leaf], values: Sequence[Any], group: Group, count: int) -> str:
    """Return what a user has to know of a pass in which the module failed: what it was given, and from what."""
    moved = [pair for pair in zip(inputs, values, strict=True) if has_batch(pair[0])]
    shapes = ", ".join(f"{leaf.name} of shape {tuple(x.shape)} from {tuple(leaf.value.shape)}" for leaf, x in moved)
    note = f"GroupAverage called the module with {shapes}: {count} of {group.order} elements of {group.name} at once."
    single = [leaf.name for leaf, _ in moved if isinstance(leaf.action, ScalarField) and leaf.value.ndim == 3]
    return f"{note} For one image [C, H, W] pass {single[0]}.unsqueeze(0)." if single else note


class _Pass(NamedTuple):
    """The elements of one call of the module, and its input leaves, concatenated along the batch in that order."""

    elements: list[int]
    values: list[Any]


class _PendingPass(NamedTuple):
    """Elements whose transformed inputs have the same shapes and wait for their pass."""

    shapes: list[torch.Size]
    elements: list[int]
    tensors: list[list[Tensor]]

    def flush(self, inputs: Sequence[Leaf]) -> _Pass:
        """Return the pass and empty this one, so that its tensors are held only once."""
        # Every tensor here is a copy: a module may write to its input, and the caller's tensor must not change.
        concatenated = iter([torch.cat(column) for column in zip(*self.tensors, strict=True)])
        values = [
            next(concatenated)
            if has_batch(leaf)
            else (leaf.value.clone() if isinstance(leaf.value, Tensor) else leaf.value)
            for leaf in inputs
        ]
        elements = list(self.elements)
        self.elements.clear()
        self.tensors.clear()
        return _Pass(elements, values)


def _passes(inputs: Sequence[Leaf], group: Group, elements: Sequence[int], chunk_size: int | None) -> Iterator[_Pass]:
    """Yield ``rho_1(g)^-1 x`` for all elements, those of the same shape concatenated along the batch axis.

    A rotation by 90 degrees maps ``H x W`` to ``W x H``, so an image that is not square takes two passes. Inputs are
    transformed when they are needed, so ``chunk_size`` bounds their memory too.

    Args:
        inputs: Leaves of the inputs.
        group: The group.
        elements: The elements ``g``.
        chunk_size: Largest number of elements in a pass. If None, there is no limit.
    """
    pending: list[_PendingPass] = []
    for element in elements:
        moved = [leaf.moved(group, group.inverse(element)) for leaf in inputs if has_batch(leaf)]
        shapes = [x.shape[1:] for x in moved]
        match = next((candidate for candidate in pending if candidate.shapes == shapes), None)
        if match is None:
            match = _PendingPass(shapes, [], [])
            pending.append(match)
        match.elements.append(element)
        match.tensors.append(moved)
        if len(match.elements) == chunk_size:
            yield match.flush(inputs)
    for rest in pending:
        if rest.elements:
            yield rest.flush(inputs)


class _RunningMean:
    """``1/|G| sum_g rho_2(g) y_g``, accumulated pass by pass.

    Sums are kept in float32 or wider, whatever the module's dtype: eight terms added in bfloat16 would lose two of its
    eight bits.

    Args:
        group: The group.
        actions: Actions on the output, as returned by `as_actions`.
        batch: Size of the batch axis.
        with_stderr: If True, accumulate the variance of the terms too.
    """

    def __init__(self, group: Group, actions: Any, batch: int, with_stderr: bool = False) -> None:
        self.group = group
        self.actions = actions
        self.batch = batch
        self.count = 0
        self.output: Any = None
        self.sums: list[Any] = []
        self.variances: list[_RunningVariance] | None = [] if with_stderr else None

    def add(self, elements: Sequence[int], output: Any) -> None:
        """Add the output of one pass.

        Args:
            elements: The elements ``g`` of the pass, in their order along the batch axis.
            output: Output of the module.

        Raises:
            ValueError: A leaf is neither a floating-point tensor with its batch axis nor a plain value, or it does not
                match the earlier passes.
        """
        leaves = pair_leaves(output, self.actions, "output", "out_action")
        if self.count == 0:
            self.output, self.sums = output, [None] * len(leaves)
            self.variances = None if self.variances is None else [_RunningVariance() for _ in leaves]
        signatures = [_signature(leaf.name, leaf.value) for leaf in leaves]
        if self.count and signatures != [_signature(*leaf) for leaf in nest_leaves(self.output, "output")]:
            takes = "a module that returns the same leaves for every element and shape of input"
            raise invalid("module", takes, output, f"before it returned {self.output}")
        for index, leaf in enumerate(leaves):
            if isinstance(leaf.value, Tensor):
                check_batch_axis(leaf, len(elements), self.batch, "elements")
                if not (leaf.value.is_floating_point() or leaf.value.is_complex()):
                    takes = "floating point, since class indices and masks have no mean"
                    advice = "return logits or probabilities and take the argmax or the threshold of their average"
                    raise invalid(leaf.name, takes, leaf.value, advice)
                self._add_leaf(index, leaf, elements)
        self.count += len(elements)

    def _add_leaf(self, index: int, leaf: Leaf, elements: Sequence[int]) -> None:
        dtype = torch.promote_types(leaf.value.dtype, torch.float32)
        for element, part in zip(elements, leaf.value.unflatten(0, (len(elements), self.batch)), strict=True):
            # The module saw the input moved by g^-1: an action that holds the size of the image starts from that size.
            action = leaf.action.after(self.group, self.group.inverse(element))
            term = Leaf(leaf.name, part.to(dtype), action).moved(self.group, element)
            total = self.sums[index]
            if total is not None and total.shape != term.shape:
                takes = f"of shape {tuple(total.shape)} for every element, after the element has acted on it"
                advice = f"either it has another action than {action}, or the module sizes rows and columns differently"
                raise wrong_shape(leaf.name, takes, term, advice)
            # Not in place: the first term may be a tensor that the module keeps.
            self.sums[index] = term if total is None else total + term
            if self.variances is not None:
                self.variances[index].add(term.detach())

    def result(self) -> Any:
        """Return the mean, nested as the output and with its dtypes."""
        means: Iterator[Any] = (
            (total / self.count).to(value.dtype) if isinstance(value, Tensor) else value
            for total, (_, value) in zip(self.sums, nest_leaves(self.output, "output"), strict=True)
        )
        return rebuild_nest(self.output, means)

    def stderr(self) -> Any:
        """Return the standard error of the mean of elements drawn without replacement, nested as the output."""
        undrawn_fraction = 1 - self.count / self.group.order
        errors: Iterator[Any] = (
            variance.stderr(self.count, undrawn_fraction).to(value.dtype) if isinstance(value, Tensor) else value
            for variance, (_, value) in zip(self.variances or (), nest_leaves(self.output, "output"), strict=True)
        )
        return rebuild_nest(self.output, errors)


class _RunningVariance:
    """The sum of squared deviations from the mean, updated term by term (Welford).

    The squares are taken of deviations, so that they do not drown in the rounding error of a large mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0
        self.squares: Any = 0

    def add(self, term: Tensor) -> None:
        self.count += 1
        deviation = term - self.mean
        self.mean = self.mean + deviation / self.count
        self.squares = self.squares + (deviation * (term - self.mean).conj()).real

    def stderr(self, count: int, undrawn_fraction: float) -> Tensor:
        error: Tensor = (undrawn_fraction * self.squares / max(1, count - 1) / count).clamp_min(0).sqrt()
        return error


def _signature(name: str, value: Any) -> tuple[str, str]:
    """Return what must be equal in all passes: the fact that a leaf is a tensor, or its value if it is not one.

    Raises:
        ValueError: The leaf can neither be averaged nor passed on.
    """
    require_plain(name, value)
    return name, "tensor" if isinstance(value, Tensor) else repr(value)

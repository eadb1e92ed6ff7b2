"""The orbit of the input, laid along the batch axis, in as few passes as its shapes allow."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, wrong_shape
from ..actions import LabelMask, Leaf, ScalarField, as_actions, nest_leaves, pair_inputs, pair_leaves, rebuild_nest
from ..groups import Group, as_group


class Pass(NamedTuple):
    """Elements that go through the module together, and the inputs' leaves turned back by each, one after another."""

    elements: list[int]
    values: list[Any]


def has_batch(leaf: Leaf) -> bool:
    """Whether the leaf is moved and joins the orbit: a tensor with at least one axis."""
    return isinstance(leaf.value, Tensor) and leaf.value.ndim > 0


def common_batch(inputs: Sequence[Leaf]) -> int:
    """The size of the batch axis that all tensors share.

    Raises:
        ValueError: There is no tensor, or two of them differ.
    """
    tensors = [leaf for leaf in inputs if has_batch(leaf)]
    if not tensors:
        values = [leaf.value for leaf in inputs]
        raise invalid("inputs", "tensors with a batch axis, or nests with at least one", values)
    batch: int = tensors[0].value.shape[0]  # not int(...): a traced batch may be a symbol
    for leaf in tensors[1:]:
        if leaf.value.shape[0] != batch:
            raise wrong_shape(leaf.name, f"[B={batch}, ...] like {tensors[0].name}", leaf.value, "batches come first")
    return batch


def passes(inputs: Sequence[Leaf], group: Group, elements: Sequence[int], chunk_size: int | None) -> Iterator[Pass]:
    """``rho_1(g)^-1 x`` for all elements, those of the same shape side by side along the batch axis.

    A quarter turn of ``H x W`` is ``W x H``, so an image that is not square takes two passes. Inputs are turned when
    they are needed, so ``chunk_size`` bounds their memory too.

    Args:
        inputs: The leaves.
        group: The group.
        elements: The elements ``g``.
        chunk_size: How many elements a pass has at most; None for no bound.
    """
    waiting: list[_Queue] = []
    for element in elements:
        moved = [leaf.moved(group, group.inverse(element)) for leaf in inputs if has_batch(leaf)]
        shapes = [x.shape[1:] for x in moved]
        queue = next((queue for queue in waiting if queue.shapes == shapes), None)
        if queue is None:
            queue = _Queue(shapes, [], [])
            waiting.append(queue)
        queue.elements.append(element)
        queue.orbit.append(moved)
        if len(queue.elements) == chunk_size:
            yield _fold(inputs, queue)
    for queue in waiting:
        if queue.elements:
            yield _fold(inputs, queue)


class _Queue(NamedTuple):
    """Elements that wait for their pass, with the inputs' tensors turned back by each."""

    shapes: list[torch.Size]
    elements: list[int]
    orbit: list[list[Tensor]]


def _fold(inputs: Sequence[Leaf], queue: _Queue) -> Pass:
    """The queue as one pass; the queue is empty afterwards, so that its tensors are kept once only."""
    # Every tensor here is a copy: a module may write into its input, and the caller's tensor must not change.
    folded = iter([torch.cat(column) for column in zip(*queue.orbit, strict=True)])
    values = [
        next(folded) if has_batch(leaf) else leaf.value.clone() if isinstance(leaf.value, Tensor) else leaf.value
        for leaf in inputs
    ]
    elements = list(queue.elements)
    queue.elements.clear()
    queue.orbit.clear()
    return Pass(elements, values)


_PLAIN = bool | int | float | complex | str | bytes | None


class Mean:
    """``1/|G| sum_g rho_2(g) y_g``, added up pass by pass.

    Sums are kept in float32 at least, whatever the module's dtype: eight terms added in bfloat16 would lose two of its
    eight bits.

    Args:
        group: The group.
        actions: The resolved actions of the output.
        batch: The size of the batch axis.
        spread: Whether to keep track of how far the terms are from each other.
    """

    def __init__(self, group: Group, actions: Any, batch: int, spread: bool = False) -> None:
        self.group = group
        self.actions = actions
        self.batch = batch
        self.count = 0
        self.output: Any = None
        self.sums: list[Any] = []
        self.spreads: list[_Spread] | None = [] if spread else None

    def add(self, elements: Sequence[int], output: Any) -> None:
        """Add what the module returned for these elements.

        Args:
            elements: The elements ``g`` of the pass, in the order in which they lie along the batch axis.
            output: The module's output.

        Raises:
            ValueError: A leaf is neither a floating-point tensor with its batch axis nor a plain value, or it does not
                fit what came before.
        """
        found = pair_leaves(output, self.actions, "output", "out_action")
        if self.count == 0:
            self.output, self.sums = output, [None] * len(found)
            self.spreads = None if self.spreads is None else [_Spread() for _ in found]
        kinds = [_kind(leaf.name, leaf.value) for leaf in found]
        if self.count and kinds != [_kind(*leaf) for leaf in nest_leaves(self.output, "output")]:
            takes = "a module that returns the same leaves for every element and shape of input"
            raise invalid("module", takes, output, f"before it returned {self.output}")
        for index, leaf in enumerate(found):
            if isinstance(leaf.value, Tensor):
                self._check(leaf, elements)
                self._add(index, leaf, elements)
        self.count += len(elements)

    def _check(self, leaf: Leaf, elements: Sequence[int]) -> None:
        length = len(elements) * self.batch
        if leaf.value.ndim == 0 or leaf.value.shape[0] != length:
            axes = f"[{len(elements)} elements * B={self.batch} = {length}, ...]"
            advice = "the module must keep the batch axis, first; reduce over it outside of the average"
            raise wrong_shape(leaf.name, axes, leaf.value, advice)
        if not (leaf.value.is_floating_point() or leaf.value.is_complex()):
            advice = "return logits or probabilities and take the argmax or the threshold of their average"
            raise invalid(leaf.name, "floating point, since class indices and masks have no mean", leaf.value, advice)

    def _add(self, index: int, leaf: Leaf, elements: Sequence[int]) -> None:
        dtype = torch.promote_types(leaf.value.dtype, torch.float32)
        for element, part in zip(elements, leaf.value.unflatten(0, (len(elements), self.batch)), strict=True):
            # What the module saw was turned back by g: an action that knows the image's size starts from there.
            action = leaf.action.after(self.group, self.group.inverse(element))
            upright = Leaf(leaf.name, part.to(dtype), action).moved(self.group, element)
            total = self.sums[index]
            if total is not None and total.shape != upright.shape:
                takes = f"of shape {tuple(total.shape)} for every element, once it is upright"
                advice = f"either it has another action than {action}, or the module sizes rows and columns differently"
                raise wrong_shape(leaf.name, takes, upright, advice)
            # Not in place: the first term may be a tensor that the module keeps.
            self.sums[index] = upright if total is None else total + upright
            if self.spreads is not None:
                self.spreads[index].add(upright.detach())

    def result(self) -> Any:
        """The mean, nested as the output and of its dtypes."""
        means: Iterator[Any] = (
            (total / self.count).to(value.dtype) if isinstance(value, Tensor) else value
            for total, (_, value) in zip(self.sums, nest_leaves(self.output, "output"), strict=True)
        )
        return rebuild_nest(self.output, means)

    def stderr(self) -> Any:
        """The standard error of the mean of elements that were drawn without replacement, nested as the output."""
        part_left = 1 - self.count / self.group.order
        errors: Iterator[Any] = (
            spread.stderr(self.count, part_left).to(value.dtype) if isinstance(value, Tensor) else value
            for spread, (_, value) in zip(self.spreads or (), nest_leaves(self.output, "output"), strict=True)
        )
        return rebuild_nest(self.output, errors)


class _Spread:
    """The sum of squared distances from the mean, updated term by term (Welford): large means do not swallow it."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0
        self.squares: Any = 0

    def add(self, term: Tensor) -> None:
        self.count += 1
        step = term - self.mean
        self.mean = self.mean + step / self.count
        self.squares = self.squares + (step * (term - self.mean).conj()).real

    def stderr(self, count: int, part_left: float) -> Tensor:
        error: Tensor = (part_left * self.squares / max(1, count - 1) / count).clamp_min(0).sqrt()
        return error


def _kind(name: str, value: Any) -> tuple[str, str]:
    """What must be the same in every pass: for a tensor that it is one, for anything else its value.

    Raises:
        ValueError: The leaf can neither be averaged nor passed on.
    """
    if isinstance(value, Tensor):
        return name, "tensor"
    if not isinstance(value, _PLAIN):
        raise invalid(name, "a tensor, None, a number or a string", value, "return tensors in dicts, tuples and lists")
    return name, repr(value)


class GroupAverage(nn.Module):
    r"""Any module made equivariant by averaging: ``<Phi>_G(x) = 1/|G| sum_g rho_2(g) Phi(rho_1(g)^-1 x)``.

    Wrap a trained network for test-time averaging, or train through it: gradients flow. The whole orbit goes through
    the module in one batch (in two for images that are not square, under quarter turns), so that BatchNorm counts one
    update and shares its statistics. For C1, C2, C4, D1, D2 and D4 the average is exactly equivariant at every size,
    whatever the module, its strides and its padding, unless it draws random numbers. For other groups images are
    interpolated and the average is as good as that: under C8, on smooth images of 65 pixels and in a disc that no turn
    cuts, 0.5 % (root mean square) where the module alone was off by 100 %. Points and vectors as such are not
    interpolated.

    The average is taken of what the module returns. A mean of logits and a mean of probabilities are two different
    predictions, and the choice is yours: put the sigmoid or softmax after the average, or into the module (second
    example). Class indices have no mean and are refused.

    `torch.compile` and `torch.export` take it in one graph, unless elements are drawn. A program exported from an
    example with H != W may serve all such sizes; square images are a program of their own.

    A network that never saw turned images can do badly on them, and its average with it: train with turned images, or
    through the average.

    Args:
        module: What to average: a module, or any callable.
        group: The group or its name. For groups too large to list there are `PermutationAverage` (the order of a set)
            and `FrameAverage` with `QuadratureFrame`, `HaarFrame` or, exactly, `PointFrame` (rotations of points).
        in_action: How the group acts on the inputs: an action, its name, or a mapping or sequence of them nested as
            the inputs are. With several inputs a sequence has one entry for each. One action stands for everything
            below it. Inputs which do not turn with the image are "invariant"; tensors ``[B]`` and ``[B, K]``, which
            have no pixels, are so under "scalar" too.
        out_action: The same for the output. Actions that know the image's size, such as `Keypoints`, are given that
            of the upright image.
        chunk_size: How many elements go through the module at a time; None for all. Less memory for more passes, the
            same result, except for modules that look across the batch, such as BatchNorm in training.
        num_samples: How many elements to draw at each call, uniformly and without replacement, in training and in
            evaluation; None for all. The result is an unbiased estimate of the average, not equivariant itself. With
            ``|G|`` it is the average. ``return_stderr=True`` returns the standard error too, that of each number of the
            output: ``sqrt((1 - k/|G|) s^2 / k)`` with the sample variance ``s^2`` of ``k`` draws. The attribute may be
            changed at any time, for example to None for evaluation.
        generator: What the elements are drawn from; None for torch's global generator.

    Shape:
        - inputs: tensors ``[B, ...]`` with the axes that their actions take, alone, several, or in dicts, tuples,
          named tuples and lists. Tensors without axes and everything else pass unchanged.
        - output: as the module's, of the same dtypes; with ``return_stderr=True`` a pair of such, the average and its
          standard error. Sums are taken in float32 at least.

    Raises:
        ValueError: An argument is out of its range; inputs differ in their batch; the output has lost its batch axis,
            is of integers, or does not fit ``out_action`` (the message names the leaf); or a standard error is asked
            of one draw.

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
        >>> logits = lambda x: x.roll(1, -2)  # looks at the pixel above
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
        if not callable(module) or isinstance(module, type):
            advice = "make an instance of the class first" if isinstance(module, type) else ""
            raise invalid("module", "a module or another callable", module, advice)
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
        """Both may be changed after construction."""
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
        mean = Mean(self.group, self.out_action, common_batch(leaves), return_stderr)
        for elements, values in passes(leaves, self.group, self._elements(), self.chunk_size):
            mean.add(elements, self.module(*rebuild_nest(inputs, iter(values))))
        return (mean.result(), mean.stderr()) if return_stderr else mean.result()

    def _elements(self) -> list[int]:
        """The elements of this call."""
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

"""The group average of any module."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .._validate import as_int, invalid
from ..actions import LabelMask, ScalarField, as_actions, nest_leaves, pair_inputs, rebuild_nest
from ..groups import Group, as_group
from ._mean import Mean
from ._orbit import common_batch, passes


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

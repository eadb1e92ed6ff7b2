"""From a plain network to the G-CNN that is its group average."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import invalid, one_of
from ..actions import LabelMask, as_actions, nest_leaves
from ..groups import Group, as_group
from ._network import ConvertedNetwork
from ._orbit import check_in_action
from ._rules import Modules, Rewiring, as_wanted
from ._verify import Trial


def convert(
    model: nn.Module,
    group: Group | str,
    example: Tensor | Sequence[Any],
    *,
    conjugate: Modules = (),
    keep: Modules = (),
    in_action: Any = "scalar",
    out_action: Any = "scalar",
    reduce: str = "mean",
    dropout: str = "independent",
    verify: bool = True,
    tolerance: float = 1e-8,
) -> ConvertedNetwork:
    r"""The G-CNN that equals ``GroupAverage(model, group)`` on every input, and can be trained beyond it.

    ``L_g (f_n o ... o f_1) L_g^-1 = prod_i (L_g f_i L_g^-1)``: each operation is conjugated by itself. Convolutions get
    turned kernels, each orientation on its own grid; pointwise layers and norms stay as they are; everything else from
    image to image runs in each orientation's own frame. No image is turned on the way in or out, images need not be
    square, and batch norm sees all orientations in one batch. Afterwards `ConvertedNetwork.open_taps` lets orientations
    mix, starting from zero.

    The result is compared with the group average in float64 on ``example``, and refused if it differs. The comparison
    is of structures, not of weights: trainable parameters that are constant (a branch that starts at zero, say) are
    replaced by random numbers for it, and the statistics of batch norms by those of the example, since what such
    numbers hide would come out in training.

    A network that never saw turned images can do badly on them, and its average with it: then train the average.

    Args:
        model: A network from images to anything; it is copied, and its parameters with it.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        example: An image batch for the model, or a tuple of its arguments; varied, and best not square. The
            verification holds for what the model does at this size.
        conjugate: Paths, class names or classes of modules to run whole in each orientation's frame: the way out for a
            block that mixes positions and channels. Such a block cannot be opened.
        keep: Paths, class names or classes of modules to leave alone.
        in_action: As in `GroupAverage`: "scalar" for images, "vector", "regular", "labels" or "invariant".
        out_action: As in `GroupAverage`; one that knows the image's size is given that of the example.
        reduce: "mean" for the group average, "none" for the maps on the group; see `ConvertedNetwork`.
        dropout: "independent" draws a mask for each orientation, "tied" one for all of them, so that training too is
            equivariant. It concerns torch's dropouts and modules named StochasticDepth or DropPath.
        verify: Whether to compare with the group average.
        tolerance: The largest difference allowed; see `ConversionReport`.

    Returns:
        The network; see `ConvertedNetwork`. ``print(net.report)`` lists what became of each module.

    Raises:
        NotConvertible: The result is not the group average, or a module cannot have one of the same size. The message
            names the modules and what to do.
        ValueError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import convert
        >>> plain = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)
        ... )
        >>> net = convert(plain, "C4", torch.randn(1, 3, 24, 32))
        >>> print(net.report)  # doctest: +ELLIPSIS
        module  class   action  why
        ------  ------  ------  ------------
        0       Conv2d  swap    kernels turn
        1       ReLU    keep    commutes
        2       Conv2d  swap    kernels turn
        C4: 1 keep, 2 swap, 0 conjugate; differs from the group average by ...

    References:
        Basu et al., "Equi-tuning: group equivariant fine-tuning of pretrained models", AAAI 2023 (the group average of
        a trained network is the nearest equivariant one).
    """
    symmetry = as_group(group)
    if not symmetry.is_exact():
        advice = "average with GroupAverage at other angles"
        raise invalid("group", "one of C1, C2, C4, D1, D2, D4", symmetry.name, advice)
    if not isinstance(model, nn.Module):
        raise invalid("model", "a torch.nn.Module", model)
    one_of("dropout", dropout, ("independent", "tied"))
    inputs = _checked(example)
    actions = as_actions(in_action, "in_action"), as_actions(out_action, "out_action")
    check_in_action(actions[0])
    for name, each in nest_leaves(actions[1], "out_action"):
        if isinstance(each, LabelMask):
            raise invalid(name, "an action on something that has a mean; class indices have none", each)
    tied = dropout == "tied"
    rewiring = Rewiring(symmetry, as_wanted("conjugate", conjugate), as_wanted("keep", keep), tied)

    def rewired(plain: nn.Module) -> ConvertedNetwork:
        net = ConvertedNetwork(rewiring.run(plain), symmetry, *actions, reduce, tied, rewiring.report)
        # Not net.train(): the parts keep their own modes.
        net.training = plain.training
        return net

    lifting = Trial(model, inputs, rewired).run(verify, tolerance)
    net = rewired(deepcopy(model))
    for path, module in net.convolutions().items():
        module.lifts = path in lifting
    return net


def _checked(example: Tensor | Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of the model.

    Raises:
        ValueError: They do not start with a batch of images that can show a difference.
    """
    if not isinstance(example, Tensor | list | tuple):
        raise invalid("example", "a batch of images [B, C, H, W], or a tuple that starts with one", example)
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4 or not inputs[0].numel():
        raise invalid("example", "a batch of images [B, C, H, W], or a tuple that starts with one", example)
    if bool((inputs[0] == inputs[0].flatten()[0]).all()) or not bool(torch.isfinite(inputs[0]).all()):
        raise invalid("example", "finite images with some contrast", inputs[0], "a constant one proves nothing")
    return inputs

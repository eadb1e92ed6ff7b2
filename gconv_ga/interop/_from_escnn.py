"""Networks of escnn as networks of ours."""

from typing import Any

from torch import nn

from .._validate import one_of
from ._fields import load_escnn
from ._read_modules import Reader


def from_escnn(module: Any, *, filters: str = "escnn", sampling: str = "shared") -> nn.Module:
    r"""A network of escnn, trained or not, as a network of this package: the same output, without escnn.

    ================================================  ===================================================
    escnn                                             here
    ================================================  ===================================================
    R2Conv, trivial to regular                        LiftingConv2d
    R2Conv, regular to regular                        GroupConv2d
    R2Conv, regular to trivial                        GroupConv2d of one tap, then GroupPool("mean")
    R2Conv, trivial to trivial                        LiftingConv2d of C1, GroupPool; nn.Conv2d if 1 x 1
    InnerBatchNorm                                    BatchNorm2d, with its statistics
    ReLU, ELU, LeakyReLU, PointwiseNonLinearity       torch's
    PointwiseDropout, IdentityModule                  torch's
    PointwiseMaxPool2D, PointwiseAvgPool2D            MaxPool2d, AvgPool2d
    the same, antialiased                             a pool without a stride, then a fixed blur with one
    PointwiseAdaptiveMaxPool2D, ...AvgPool2D          torch's
    GroupPooling                                      GroupPool("max")
    R2Upsampling, by a whole scale_factor             Upsample
    MaskModule                                        a fixed mask
    SequentialModule, nested too                      nn.Sequential with the same names
    ================================================  ===================================================

    What goes in and out are plain tensors. For a geometric tensor ``t`` of n trivial fields that is ``t.tensor``, an
    image; for one of n regular fields it is ``t.tensor.unflatten(1, (n, |G|))``, a map on the group: escnn lists the
    elements in our order and turns the same way, unless its group was given a mirror axis of its own.

    Up to rounding the output is escnn's: 1e-5 relative in float32, 1e-10 in float64. escnn samples its functions in
    float32, so that its network, and with ``filters="escnn"`` this one, is equivariant to about 1e-7 even in float64.
    (Its ``GroupPooling`` returns float32 even then; this one does not.)

    The result is a module like any other: it trains on, and `gconv_ga.conversion.fold` makes plain convolutions of it.
    ``torch.save(net, path)`` saves it, and ``torch.load(path, weights_only=False)`` loads it where escnn is not
    installed; a ``state_dict`` alone fits a network so loaded, or a copy.

    Args:
        module: A module of escnn. It stays as it is.
        filters: "escnn" keeps its functions as a fixed table and its coefficients as the weights, so that training goes
            on in the same space from the same numbers. "grid" makes all taps of the kernels free, those too that escnn
            leaves out, and turns them exactly; the output differs by escnn's rounding. It takes C1, C2, C4, D1, D2, D4.
        sampling: For layers with a stride. "shared" samples as escnn does: one grid for all orientations, equivariant
            at some image sizes only; at the others it warns. "per_orientation" is equivariant at every size, with other
            numbers than escnn's at those others.

    Returns:
        The network, in the same mode, of the same dtype, on the same device, with parameters of its own.

    Raises:
        ValueError: ``module``, or one inside it, has no counterpart here, or is of fields or a group that have none;
            the message has its path, its type and what to do. ``filters`` or ``sampling`` is none of those above.
        ModuleNotFoundError: escnn is not installed.

    Example:
        >>> import importlib.util
        >>> import torch
        >>> from gconv_ga.interop import from_escnn
        >>> if importlib.util.find_spec("escnn"):  # the extra of that name
        ...     from escnn import gspaces, nn as enn
        ...
        ...     space = gspaces.rot2dOnR2(8)
        ...     image = enn.FieldType(space, [space.trivial_repr])
        ...     maps = enn.FieldType(space, 4 * [space.regular_repr])
        ...     layers = enn.R2Conv(image, maps, 5, padding=2), enn.InnerBatchNorm(maps), enn.GroupPooling(maps)
        ...     theirs = enn.SequentialModule(*layers).eval()
        ...     ours = from_escnn(theirs)
        ...     x = torch.randn(2, 1, 16, 16)
        ...     torch.testing.assert_close(ours(x), theirs(image(x)).tensor, rtol=0, atol=1e-5)

    References:
        Weiler and Cesa, "General E(2)-equivariant steerable CNNs", NeurIPS 2019: the kernels of escnn.
    """
    one_of("filters", filters, ("escnn", "grid"))
    one_of("sampling", sampling, ("shared", "per_orientation"))
    return Reader(load_escnn().nn, filters, sampling)(module, "module")

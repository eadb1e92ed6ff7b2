"""`from_escnn`: networks of escnn as networks of this package."""

from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .. import nn as gnn
from .._validate import argument_of, error_about, invalid, one_of
from ..groups import Group
from ._convolutions import ConvolutionReader, grid_check, refuse_own_grids
from ._field_layers import (
    Branches,
    FieldBasis,
    FieldBatchNorm,
    FieldMaximum,
    FieldNorm,
    Pick,
    around,
    to_channels,
    to_maps,
)
from ._field_reader import FieldReader
from ._fields import load_escnn, read_fields
from ._geometric import stand_in
from ._layers import Blur, Mask, Spread
from ._networks import OwnForward, Part, copy_network


def from_escnn(module: Any, *, filters: str = "escnn", sampling: str = "shared") -> nn.Module:
    r"""Convert an escnn network, trained or not, to a network of this package with the same output.

    ================================================  ===================================================
    escnn                                             here
    ================================================  ===================================================
    R2Conv, trivial to regular                        LiftingConv2d, and its bias
    R2Conv, regular to regular                        GroupConv2d, and its bias
    R2Conv, regular to trivial                        GroupConv2d of one tap, then GroupPool("mean")
    R2Conv, trivial to trivial                        LiftingConv2d of C1, GroupPool; nn.Conv2d if 1 x 1
    R2Conv of mixed, vector, quotient, ... fields     a convolution between escnn's channels
    R2ConvTransposed                                  GroupConvTranspose2d, or as above
    InnerBatchNorm                                    BatchNorm2d, with its statistics
    ReLU, ELU, LeakyReLU, PointwiseNonLinearity       torch's
    PointwiseDropout, IdentityModule                  torch's
    PointwiseMaxPool2D, PointwiseAvgPool2D            MaxPool2d, AvgPool2d
    the same, antialiased                             a pool with stride 1, then a fixed blur with a stride
    PointwiseAdaptiveMaxPool2D, ...AvgPool2D          torch's
    GroupPooling, NormPool                            GroupPool("max"), lengths of fields
    R2Upsampling, by a whole scale_factor             Upsample
    R2Upsampling, corners aligned, or to a size       torch's
    MaskModule                                        a fixed mask
    ReshuffleModule, RestrictionModule                other channels
    DisentangleModule, MultipleModule                 other channels, branches
    NormNonLinearity, GatedNonLinearity1              the same, on escnn's channels
    NormMaxPool, FourierPointwise, FourierELU, ...    the same, on escnn's channels
    GNormBatchNorm, IIDBatchNorm2d                    the same, on escnn's channels
    SequentialModule, nested too                      nn.Sequential with the same names
    a subclass of these that changes no method        as these
    a module of your own                              its copy, with its forward and converted parts
    ================================================  ===================================================

    **Modules of escnn.** Input and output are plain tensors. For a geometric tensor ``t`` of n trivial fields the plain
    tensor is ``t.tensor``, an image. For one of n regular fields it is ``t.tensor.unflatten(1, (n, |G|))``, a feature
    map on the group: escnn's elements have our order and sense of rotation, unless its group has a reflection axis
    other than the default. For any other fields, and for groups that this package does not have (all rotations, a
    tilted mirror), it is ``t.tensor``. A vector (an irrep of frequency one) has its second component against the rows;
    that of `gconv_ga.actions.VectorField` goes down the rows, so change its sign.

    **Networks of your own.** Pass the whole network, an instance of your class: ``ours = from_escnn(net)``. It may hold
    escnn's modules anywhere, in ``nn.Sequential``, ``nn.ModuleList``, lists and dictionaries, and equivariant modules
    of your own. The result is of the same class, with the same attributes and the same forward, which takes and returns
    what it did. In it, field types, planes and geometric tensors are light stand-ins: they can be called, compared,
    added, scaled, split and concatenated (``tensor_directsum``), pass for escnn's with ``isinstance``, and have names
    and sizes; what asks for more, such as ``transform``, raises `AttributeError` and says so. Names of parameters have
    a level more, as in ``conv1.module.weight``. A forward that reads escnn's parameters, or changes its modules, is
    not followed.

    **Networks of e2cnn.** Build the same network with escnn, in eval mode; ``Rot2dOnR2(n)`` is ``rot2dOnR2(n)`` there,
    and so on. Load e2cnn's whole state, ``net.load_state_dict(theirs.state_dict())``: it holds the tables of e2cnn's
    functions, whose order is not escnn's, so weights without tables give another network. Then convert. Do so in a
    process of its own: escnn's layers share their tables, so other networks with the same kernels change too.

    Up to rounding, the output is escnn's: 1e-5 relative in float32, 1e-10 in float64. escnn samples its functions in
    float32, so its network, and this one with ``filters="escnn"``, is equivariant to about 1e-7 even in float64. (Its
    ``GroupPooling`` returns float32 even then; this one does not.)

    The result is a module like any other: it can be trained further, and `gconv_ga.conversion.fold` makes plain
    convolutions of it, except of those between mixed fields. Save it with ``torch.save(net, path)`` and load it with
    ``torch.load(path, weights_only=False)`` where escnn is not installed. (If the file with your class imports escnn,
    load it in `without_escnn`.) The functions are saved once for all layers that have them; for large groups they are
    most of the file: 51 MB for C36 and 5 x 5 kernels, 4.5 MB for D8; plain convolutions have none. A ``state_dict``
    alone fits a network loaded in this way, or a copy.

    Args:
        module: A module of escnn, or one with such modules in it. It is not changed.
        filters: "escnn" keeps its functions as a fixed table and its coefficients as the parameters, of kernels and of
            biases, so that every optimizer continues from the same point along the same gradients. "grid" makes all
            taps of the kernels free, including those that escnn leaves out, and rotates them exactly; the output
            differs by escnn's rounding. It takes C1, C2, C4, D1, D2, D4, and fields all regular or all trivial.
        sampling: For layers with a stride. "shared" samples as escnn does, with one grid for all orientations. It is
            equivariant at some image sizes only, and warns at the others. "per_orientation" is equivariant at every
            size, but its output differs from escnn's at those others. On images it is the mean over the orientations'
            own grids, at ``|G|`` times the cost. Mixed fields with a stride have none.

    Returns:
        The network, with the same mode, dtype and device, and parameters of its own.

    Raises:
        ValueError: ``module``, or one inside it, has no counterpart here, has fields that are not on a plane, or cannot
            be copied. The message gives its path, its type and what to do. ``filters`` or ``sampling`` is none of the
            above, or does not fit the module.
        ModuleNotFoundError: escnn is not installed.

    Example:
        >>> import importlib.util
        >>> import torch
        >>> from gconv_ga.interop import from_escnn
        >>> if importlib.util.find_spec("escnn"):  # the extra of that name
        ...     from escnn import gspaces, nn as enn
        ...
        ...     class Net(torch.nn.Module):
        ...         def __init__(self):
        ...             super().__init__()
        ...             space = gspaces.rot2dOnR2(8)
        ...             self.image = enn.FieldType(space, [space.trivial_repr])
        ...             maps = enn.FieldType(space, 4 * [space.regular_repr])
        ...             self.lift, self.norm = enn.R2Conv(self.image, maps, 5, padding=2), enn.InnerBatchNorm(maps)
        ...             self.conv, self.pool = enn.R2Conv(maps, maps, 3, padding=1), enn.GroupPooling(maps)
        ...
        ...         def forward(self, x):
        ...             f = self.norm(self.lift(self.image(x)))
        ...             return self.pool(f + self.conv(f)).tensor.mean((2, 3))
        ...
        ...     theirs = Net().eval()
        ...     ours = from_escnn(theirs)
        ...     x = torch.randn(2, 1, 16, 16)
        ...     torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)

    References:
        Weiler and Cesa, "General E(2)-equivariant steerable CNNs", NeurIPS 2019: the kernels of escnn.
    """
    one_of("filters", filters, ("escnn", "grid"))
    one_of("sampling", sampling, ("shared", "per_orientation"))
    return Reader(load_escnn(), filters, sampling).network(module)


# By class name: escnn may not be installed when this file is imported.
VOLUMES = "convert networks for images: volumes have no counterpart here"
ADVICE = {
    "R3Conv": VOLUMES,
    "R3ConvTransposed": VOLUMES,
    "Linear": "use torch.nn.Linear on invariant numbers, after GroupPooling or NormPool: it has no image",
    "FieldDropout": "replace it with PointwiseDropout: it drops single pixels of fields, which no layer here does",
}
E2CNN_ADVICE = (
    "build the same network with escnn (Rot2dOnR2(n) is rot2dOnR2(n) there), put both into eval mode, load the whole "
    "state, tables included, with net.load_state_dict(theirs.state_dict()), and pass that to from_escnn"
)
# What a subclass may have of its own, and is still read as the class of escnn that it inherits from.
OWN_NAMES = {"extra_repr", "evaluate_output_shape", "check_equivariance", "export"}
POINTWISE: dict[Any, type[nn.Module]] = {F.relu: nn.ReLU, F.elu: nn.ELU, F.sigmoid: nn.Sigmoid, F.tanh: nn.Tanh}


class Reader:
    """Converts modules of escnn; a module that is used twice there is used twice here.

    Args:
        escnn: The package.
        filters: "escnn" or "grid".
        sampling: "shared" or "per_orientation".
    """

    def __init__(self, escnn: ModuleType, filters: str, sampling: str) -> None:
        enn = escnn.nn
        self.escnn, self.enn, self.sampling = escnn, enn, sampling
        self.done: dict[Any, nn.Module] = {}
        self.parts: dict[Any, nn.Module] = {}
        self.memo: dict[int, Any] = {}
        convolutions = ConvolutionReader(filters, sampling)
        self.pointwise: dict[type, Callable[[Any, str], nn.Module]] = {
            enn.ReLU: lambda m, path: nn.ReLU(m._inplace),  # noqa: SLF001  escnn has no other name for it
            enn.ELU: lambda m, path: nn.ELU(m.alpha, m._inplace),  # noqa: SLF001
            enn.LeakyReLU: lambda m, path: nn.LeakyReLU(m._negative_slope, m._inplace),  # noqa: SLF001
            enn.PointwiseNonLinearity: self._pointwise,
            enn.PointwiseDropout: lambda m, path: nn.Dropout(m.p, m.inplace),
            enn.IdentityModule: lambda m, path: nn.Identity(),
        }
        self.makers: dict[type, Callable[[Any, str], nn.Module]] = (
            self.pointwise
            | {
                enn.SequentialModule: self._sequence,
                enn.R2Conv: convolutions.convolution,
                enn.R2ConvTransposed: convolutions.transposed,
                enn.InnerBatchNorm: self._batch_norm,
                enn.PointwiseMaxPool2D: self._max_pool,
                enn.PointwiseAvgPool2D: self._avg_pool,
                enn.PointwiseMaxPoolAntialiased2D: self._blurred_max_pool,
                enn.PointwiseAvgPoolAntialiased2D: lambda m, path: self._blur(m, path, m.padding),
                enn.PointwiseAdaptiveMaxPool2D: lambda m, path: self._adaptive(m, path, "Max"),
                enn.PointwiseAdaptiveAvgPool2D: lambda m, path: self._adaptive(m, path, "Avg"),
                enn.GroupPooling: self._group_pool,
                enn.NormPool: self._norm_pool,
                enn.R2Upsampling: self._upsample,
                enn.MaskModule: lambda m, path: Mask(m.mask[0, 0]),
                enn.ReshuffleModule: self._reshuffle,
                enn.RestrictionModule: self._restrict,
                enn.DisentangleModule: self._disentangle,
                enn.MultipleModule: self._multiple,
            }
            | FieldReader(enn, sampling).makers
        )

    def network(self, module: Any) -> nn.Module:
        """Convert a module of escnn, or one with parts of escnn.

        Args:
            module: The module.

        Raises:
            ValueError: It, or a part, has no counterpart.
        """
        if isinstance(module, self.enn.EquivariantModule):
            return self(module, "module")
        parts = list(module.modules()) if isinstance(module, nn.Module) else []
        origins = {type(part).__module__.partition(".")[0] for part in parts}
        if "e2cnn" in origins:
            raise invalid("module", "a network of escnn", "one of e2cnn", E2CNN_ADVICE)
        if not any(isinstance(part, self.enn.EquivariantModule) for part in parts):
            advice = "pass a network as you built it with escnn; what its export() returns are plain layers of torch"
            raise invalid("module", "a module of escnn, or one that has such modules", type(module).__name__, advice)
        return copy_network(module, self.escnn, self.part, "module", self.memo)

    def __call__(self, module: Any, path: str) -> nn.Module:
        """Convert one module of escnn, or an equivariant module of the user's, to one on plain tensors.

        Args:
            module: The module.
            path: Its path, for the message.

        Raises:
            ValueError: It has no counterpart, or its arguments have none.
        """
        if module in self.done:
            return self.done[module]
        made: nn.Module
        kind = self._read_as(module, path)
        if kind is None and not isinstance(module.in_type, self.enn.FieldType):
            made = self.part(module, path)
        elif kind is None:
            into, outof = read_fields(module.in_type, path), read_fields(module.out_type, path)
            made = OwnForward(self.part(module, path), into, outof, stand_in(module.in_type, self.escnn))
            made.training = module.training
        else:
            made = self._make(self.makers[kind], module, path)
            if kind is self.enn.SequentialModule or kind is self.enn.MultipleModule:
                made.training = module.training
            else:
                made.train(module.training)
        self.done[module] = made
        return made

    def part(self, module: Any, path: str) -> nn.Module:
        """Convert one module to one that takes geometric tensors, for a user's forward.

        Args:
            module: The module.
            path: Its path, for the message.

        Raises:
            ValueError: It has no counterpart, or its arguments have none.
        """
        if module not in self.parts:
            kind = self._read_as(module, path)
            if kind is None:
                self.parts[module] = copy_network(module, self.escnn, self.part, path, self.memo)
            elif kind is self.enn.SequentialModule:
                # A forward may take it apart, so its modules are parts too.
                self.parts[module] = self._sequence(module, path, self.part)
                vars(self.parts[module]).update(
                    in_type=stand_in(module.in_type, self.escnn),
                    out_type=stand_in(module.out_type, self.escnn),
                    training=module.training,
                )
            else:
                into, outof = read_fields(module.in_type, path), read_fields(module.out_type, path)
                in_type, out_type = stand_in(module.in_type, self.escnn), stand_in(module.out_type, self.escnn)
                made = Part(self(module, path), into, outof, in_type, out_type, kind in self.pointwise)
                made.training = module.training
                self.parts[module] = made
        return self.parts[module]

    def _read_as(self, module: Any, path: str) -> type | None:
        """Return the class of escnn that a module is read as; None for one whose own forward is kept.

        Raises:
            ValueError: It is neither.
        """
        mro = type(module).__mro__
        for place, parent in enumerate(mro):
            if parent in self.makers:
                changed = {name for kind in mro[:place] for name in vars(kind) if _overrides(name, parent)}
                if not changed:
                    return parent
                if parent is self.enn.SequentialModule:
                    return None
                takes = f"a module that keeps {parent.__name__}'s {', '.join(sorted(changed))}"
                advice = (
                    f"derive it from EquivariantModule and let it hold a {parent.__name__}: then its forward is kept"
                )
                raise invalid(path, takes, type(module).__name__, advice)
        theirs = next((kind for kind in mro if kind.__module__.partition(".")[0] == "escnn"), None)
        if theirs in (None, self.enn.EquivariantModule):
            return None
        last = (
            "train with a module that the table of from_escnn lists, or convert what is before and after it and join "
        )
        last += "them by hand"
        name = theirs.__name__
        raise invalid(path, "a module that from_escnn converts", type(module).__name__, ADVICE.get(name, last))

    def _make(self, make: Callable[[Any, str], nn.Module], module: Any, path: str) -> nn.Module:
        try:
            return make(module, path)
        except ValueError as error:
            if (argument_of(error) or "").startswith((path, "filters", "sampling")):
                raise
            # A layer that refuses an argument does not know its own path.
            raise error_about(path, f"{path}: {error}") from error

    def _sequence(self, module: Any, path: str, convert: Callable[[Any, str], nn.Module] | None = None) -> nn.Module:
        convert = convert or self
        # named_children() leaves out second names.
        children = module._modules.items()  # noqa: SLF001
        return nn.Sequential(OrderedDict((name, convert(child, f"{path}.{name}")) for name, child in children))

    def _batch_norm(self, module: Any, path: str) -> nn.Module:
        fields = read_fields(module.in_type, path)
        norms = [child for child in module.children() if isinstance(child, nn.BatchNorm3d)]
        if fields.kind != "other":
            return _copy_norm(norms[0], gnn.BatchNorm2d if fields.regular else nn.BatchNorm2d)
        named = dict(module.named_children())
        by_size = [named[f"batch_norm_[{size}]"] for size in sorted(set(fields.sizes))]
        return FieldBatchNorm(fields.sizes, [_copy_norm(norm, nn.BatchNorm3d) for norm in by_size])

    def _pointwise(self, module: Any, path: str) -> nn.Module:
        return POINTWISE[module._function]()  # noqa: SLF001

    def _strided(
        self, module: Any, path: str, window: tuple[Any, ...], on_images: Callable[[], nn.Module],
        on_maps: Callable[[Group, str], nn.Module],
    ) -> nn.Module:  # fmt: skip
        """Return a layer with windows and no weights.

        Args:
            module: The module of escnn.
            path: Its path, for the message.
            window: Kernel size, stride, padding and dilation, each for rows and columns.
            on_images: Returns the layer on images.
            on_maps: Returns the layer on feature maps on a group, with a sampling.
        """
        fields, (kernel, stride, padding, dilation) = read_fields(module.in_type, path), window
        if fields.regular:
            # Without a stride all orientations share a grid, and this is faster.
            return on_maps(fields.group, "per_orientation" if stride == (1, 1) else self.sampling)
        check = grid_check(fields.group, kernel, stride, padding, dilation)
        if check is None:
            return on_images()
        if self.sampling == "shared":
            return nn.Sequential(check, on_images())
        if fields.kind == "other":
            refuse_own_grids(path)
        # Each orientation samples its own grid; their mean is equivariant at every size.
        layer = on_maps(fields.group, "per_orientation")
        return nn.Sequential(Spread(fields.group), layer, gnn.GroupPool(fields.group, "mean"))

    def _max_pool(self, module: Any, path: str, stride: tuple[int, int] | None = None) -> nn.Module:
        window = module.kernel_size, stride or module.stride, module.padding, module.dilation
        return self._strided(
            module, path, window, lambda: nn.MaxPool2d(*window, ceil_mode=module.ceil_mode),
            lambda group, sampling: gnn.MaxPool2d(*window, module.ceil_mode, group=group, sampling=sampling),
        )  # fmt: skip

    def _avg_pool(self, module: Any, path: str) -> nn.Module:
        window = module.kernel_size, module.stride, module.padding
        arguments = (*window, module.ceil_mode)
        return self._strided(
            module, path, (*window, (1, 1)), lambda: nn.AvgPool2d(*arguments),
            lambda group, sampling: gnn.AvgPool2d(*arguments, group=group, sampling=sampling),
        )  # fmt: skip

    def _blurred_max_pool(self, module: Any, path: str) -> nn.Module:
        pool = self._max_pool(module, path, (1, 1))
        return nn.Sequential(pool, self._blur(module, path, module._pad))  # noqa: SLF001

    def _blur(self, module: Any, path: str, padding: tuple[int, int]) -> nn.Module:
        kernel, stride = module.filter[0, 0], _pair(module.stride)
        window = tuple(kernel.shape), stride, padding, (1, 1)
        return self._strided(
            module, path, window, lambda: Blur(kernel, stride, padding, None, "shared"),
            lambda group, sampling: Blur(kernel, stride, padding, group, sampling),
        )  # fmt: skip

    def _adaptive(self, module: Any, path: str, kind: str) -> nn.Module:
        size = module.output_size
        if not read_fields(module.in_type, path).regular:
            flat: nn.Module = getattr(nn, f"Adaptive{kind}Pool2d")(size)
            return flat
        pool: nn.Module = getattr(nn, f"Adaptive{kind}Pool3d")((None, *size))
        return pool

    def _group_pool(self, module: Any, path: str) -> nn.Module:
        fields = read_fields(module.in_type, path)
        if fields.kind == "other":
            return FieldMaximum(fields.sizes, invariant=True)
        return gnn.GroupPool(fields.group, "max") if fields.regular else nn.Identity()

    def _norm_pool(self, module: Any, path: str) -> nn.Module:
        fields, outof = read_fields(module.in_type, path), read_fields(module.out_type, path)
        return around(fields, FieldNorm(fields.sizes, invariant=True), outof)

    def _upsample(self, module: Any, path: str) -> nn.Module:
        fields, factor, mode = read_fields(module.in_type, path), module._scale_factor, module._mode  # noqa: SLF001
        size, aligned = module._size, bool(module._align_corners)  # noqa: SLF001
        whole = isinstance(factor, int) or (isinstance(factor, float) and factor.is_integer())
        if mode == "bilinear" and (aligned or size is not None):
            # Symmetric about the centre of the image whatever the factor.
            return around(fields, nn.Upsample(size, factor, mode, aligned), fields)
        if not whole:
            advice = "use mode='bilinear' with a size, or with align_corners=True: others move the centre of the image"
            raise invalid(path, "an R2Upsampling by a whole scale_factor", "R2Upsampling", advice)
        factor = int(factor)
        return gnn.Upsample(factor, mode, group=fields.group) if fields.regular else nn.Upsample(None, factor, mode)

    def _reshuffle(self, module: Any, path: str) -> nn.Module:
        return around(read_fields(module.in_type, path), Pick(module.indices), read_fields(module.out_type, path))

    def _restrict(self, module: Any, path: str) -> nn.Module:
        return around(read_fields(module.in_type, path), nn.Identity(), read_fields(module.out_type, path))

    def _disentangle(self, module: Any, path: str) -> nn.Module:
        names = [field.name for field in module.in_type.representations]
        matrices = [module.get_buffer(f"change_of_basis_{name}").cpu() for name in names]
        return around(read_fields(module.in_type, path), FieldBasis(matrices), read_fields(module.out_type, path))

    def _multiple(self, module: Any, path: str) -> nn.Module:
        branching, merging = module.branching, module.merging
        order = torch.arange(module.in_type.size)
        if branching.reshuffle_layer is not None:
            order = branching.reshuffle_layer.indices.cpu()
        parts, channels = [], []
        for i, labels in enumerate(merging._labels):  # noqa: SLF001
            (label,) = labels
            index = branching.get_buffer(f"indices_{label}").cpu()
            index = torch.arange(int(index[0]), int(index[1])) if branching._contiguous[label] else index  # noqa: SLF001
            child, place = getattr(merging, f"submodule_{i}"), f"{path}.merging.submodule_{i}"
            core = [to_maps(read_fields(child.in_type, place)), self(child, place)]
            core.append(to_channels(read_fields(child.out_type, place)))
            parts.append(nn.Sequential(*(layer for layer in core if layer is not None)))
            channels.append(order[index])
        into, outof = read_fields(module.in_type, path), read_fields(module.out_type, path)
        return around(into, Branches(parts, channels), outof)


def _copy_norm(norm: nn.BatchNorm3d, make: Any) -> nn.Module:
    made: nn.Module = make(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
    )  # fmt: skip
    made.load_state_dict({name: value.clone() for name, value in norm.state_dict().items()}, assign=True)
    made.training = norm.training
    for parameter, theirs in zip(made.parameters(), norm.parameters(), strict=True):
        parameter.requires_grad_(theirs.requires_grad)
    return made


def _overrides(name: str, parent: type) -> bool:
    """Return whether an attribute of a subclass changes what a module of escnn computes."""
    hidden = name.startswith(("__", "_abc")) and name != "__call__"
    return not hidden and name not in OWN_NAMES and hasattr(parent, name)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])

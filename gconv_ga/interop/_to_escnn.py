"""`to_escnn`: networks of this package as networks of escnn."""

import math
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid, one_of
from ..groups import C1, Group, as_group
from ._field_layers import Channels
from ._fields import load_escnn, make_type
from ._layers import Blur, FieldBias, Mask, SharedGrid, Spread


def to_escnn(
    module: nn.Module,
    *,
    group: Group | str | None = None,
    sampling: str = "per_orientation",
    functions: str = "auto",
    max_error: float = 1e-5,
) -> Any:
    """Convert a network of this package, or one made by `from_escnn`, to a network of escnn.

    It may consist of ``nn.Sequential``, nested too, of `LiftingConv2d`, `GroupConv2d`, `BatchNorm2d`, `MaxPool2d`,
    `AvgPool2d`, `GroupPool`, `Upsample`, of torch's ``Conv2d``, ``BatchNorm2d``, pools and ``Upsample`` on images, and
    of torch's ``ReLU``, ``ELU``, ``LeakyReLU``, ``Sigmoid``, ``Tanh``, ``Dropout`` and ``Identity``. It may also be one
    of these.

    The coefficients of each ``R2Conv`` are found by least squares. For C1, C2, C4, D1, D2, D4, and for 3 x 3 kernels of
    every group, this is exact to escnn's rounding, 1e-7. At other angles, escnn rotates larger kernels differently.
    Then the error of a layer's kernels, the relative root mean square distance from the nearest that escnn can express,
    must not exceed ``max_error`` (it is 0.16 for 5 x 5 and C8). Networks that `from_escnn` made of layers with escnn's
    default functions come back as they were, for every group.

    A convolution and ``GroupPool("mean")`` alone in an ``nn.Sequential`` become one ``R2Conv`` to trivial fields. Such
    a pool elsewhere becomes an ``R2Conv`` of 1 x 1. ``GroupPool("max")`` becomes ``GroupPooling``, which returns
    float32 whatever its input.

    Images ``[B, C, H, W]`` become geometric tensors of C trivial fields, and feature maps on the group
    ``[B, C, |G|, H, W]`` those of C regular fields: ``kind(x.flatten(1, 2))`` with the ``in_type`` of the result.

    Args:
        module: The network. It is not changed.
        group: The group. If None, that of its layers.
        sampling: "per_orientation" refuses layers with a stride that sample each orientation on its own grid, which
            escnn cannot do. "shared" gives them escnn's single grid: the output is the same where no pixel is left
            over, and at other sizes the network is not equivariant.
        functions: "default" for the functions that ``R2Conv`` chooses by itself; "all" for enough of them to express
            every kernel that is rotated by multiples of 90 degrees, more than there are taps; "auto" for the default
            where it is enough, and all elsewhere.
        max_error: Largest relative error of a layer's kernels.

    Returns:
        The network, with the same mode, dtype and device, and parameters of its own.

    Raises:
        ValueError: The network, or a module inside it, has no counterpart in escnn; the message gives its path, its
            type and what to do. The error of a layer's kernels exceeds ``max_error``. An argument is none of the above.
        ModuleNotFoundError: escnn is not installed.

    Example:
        >>> import importlib.util
        >>> import torch
        >>> import gconv_ga.nn as gnn
        >>> from gconv_ga.interop import to_escnn
        >>> ours = torch.nn.Sequential(
        ...     gnn.LiftingConv2d(1, 4, 3, padding=1, group="C4"), torch.nn.ReLU(), gnn.GroupPool("C4", "max")
        ... )
        >>> if importlib.util.find_spec("escnn"):  # the extra of that name
        ...     theirs = to_escnn(ours)
        ...     x = torch.randn(2, 1, 16, 16)
        ...     torch.testing.assert_close(theirs(theirs.in_type(x)).tensor, ours(x), rtol=0, atol=1e-5)
    """
    if not isinstance(module, nn.Module):
        raise invalid("module", "a torch.nn.Module", module)
    one_of("sampling", sampling, ("per_orientation", "shared"))
    one_of("functions", functions, ("auto", "default", "all"))
    number = isinstance(max_error, int | float) and not isinstance(max_error, bool)
    if not number or not 0 <= max_error < math.inf:
        raise invalid("max_error", "a number of at least 0", max_error)
    found = _find_group(module) if group is None else as_group(group)
    enn = load_escnn().nn
    writer = Writer(enn, found, sampling, functions, float(max_error))
    parameters = (parameter for parameter in module.parameters() if parameter.is_floating_point())
    writer.like = torch.empty_like(next(parameters, torch.empty(())), requires_grad=False)
    return writer(module, make_type(found, *_first_fields(module)), "module")


def _find_group(module: nn.Module) -> Group:
    """Return the group of the layers, of which those of a single element, which are for images, are ignored."""
    named: list[Any] = [getattr(layer, "group", None) for layer in module.modules()]
    groups = {group for group in named if isinstance(group, Group) and group.order > 1}
    found = sorted(groups, key=lambda group: group.name)
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise invalid("module", "a network of one group", names, "escnn needs a separate network for each")
    return found[0] if found else C1


def _first_fields(module: nn.Module) -> tuple[int, bool]:
    """Return the number of input fields and whether they are regular, from the first layer that knows."""
    regular: bool | None = None
    for layer in module.modules():
        if isinstance(layer, Spread):
            regular = False if regular is None else regular
        on_maps = regular is None and isinstance(layer, gnn.MaxPool2d | gnn.AvgPool2d | gnn.Upsample | gnn.GroupPool)
        if on_maps or (regular is None and isinstance(layer, Blur) and layer.group is not None):
            # These keep the number of fields.
            regular = True
        if isinstance(layer, gnn.LiftingConv2d | gnn.GroupConv2d | nn.Conv2d):
            return layer.in_channels, isinstance(layer, gnn.GroupConv2d) if regular is None else regular
        if isinstance(layer, gnn.BatchNorm2d | nn.BatchNorm2d):
            return layer.num_features, isinstance(layer, gnn.BatchNorm2d) if regular is None else regular
    advice = "escnn's layers need to know their fields; for a pool or a ReLU alone, create it in escnn"
    raise invalid("module", "a network with a convolution or a norm", module, advice)


class Window(NamedTuple):
    """The arguments of ``R2Conv`` apart from its types."""

    kernel_size: int
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int
    groups: int
    padding_mode: str


ADVICE = {
    "Dropout2d": "replace it with nn.Dropout: it drops whole maps, escnn's FieldDropout single pixels of fields",
    "GroupConvTranspose2d": "replace it with Upsample and GroupConv2d before training",
}


class Writer:
    """Converts modules to escnn, given their input type; a module that is used twice here is used twice there.

    Args:
        enn: ``escnn.nn``.
        group: The group of the network.
        sampling: "shared" to use escnn's single grid where a layer has one for each orientation.
        functions: "auto", "default" or "all".
        max_error: Largest relative error of a layer's kernels.
    """

    def __init__(self, enn: ModuleType, group: Group, sampling: str, functions: str, max_error: float) -> None:
        self.enn, self.group = enn, group
        self.sampling, self.functions, self.max_error = sampling, functions, max_error
        self.like = torch.empty(0)
        self.done: dict[tuple[nn.Module, Any], Any] = {}
        self.makers: dict[type, Callable[[Any, Any, str], Any]] = {
            nn.Sequential: self._sequence,
            gnn.LiftingConv2d: self._convolution,
            gnn.GroupConv2d: self._convolution,
            nn.Conv2d: self._convolution,
            gnn.BatchNorm2d: self._batch_norm,
            nn.BatchNorm2d: self._batch_norm,
            nn.ReLU: lambda m, kind, path: enn.ReLU(kind, m.inplace),
            nn.ELU: lambda m, kind, path: enn.ELU(kind, m.alpha, m.inplace),
            nn.LeakyReLU: lambda m, kind, path: enn.LeakyReLU(kind, m.negative_slope, m.inplace),
            nn.Sigmoid: lambda m, kind, path: enn.PointwiseNonLinearity(kind, "p_sigmoid"),
            nn.Tanh: lambda m, kind, path: enn.PointwiseNonLinearity(kind, "p_tanh"),
            nn.Dropout: lambda m, kind, path: enn.PointwiseDropout(kind, m.p, m.inplace),
            nn.Identity: lambda m, kind, path: enn.IdentityModule(kind),
            gnn.MaxPool2d: self._max_pool,
            nn.MaxPool2d: self._max_pool,
            gnn.AvgPool2d: self._avg_pool,
            nn.AvgPool2d: self._avg_pool,
            nn.AdaptiveMaxPool2d: self._adaptive,
            nn.AdaptiveAvgPool2d: self._adaptive,
            nn.AdaptiveMaxPool3d: self._adaptive,
            nn.AdaptiveAvgPool3d: self._adaptive,
            gnn.GroupPool: self._group_pool,
            gnn.Upsample: self._upsample,
            nn.Upsample: self._upsample,
            Blur: self._blur,
            Mask: self._mask,
        }

    def __call__(self, module: Any, kind: Any, path: str) -> Any:
        """Convert one module.

        Args:
            module: A module of this package or of torch.
            kind: The escnn type of its input.
            path: Its path, for the message.

        Raises:
            ValueError: It has no counterpart, or its arguments have none.
        """
        if (module, kind) in self.done:
            return self.done[module, kind]
        make = self.makers.get(type(module))
        if make is None:
            name = type(module).__name__
            last = "convert the modules before and after it one by one and join them by hand"
            raise invalid(path, "a module that to_escnn converts", name, ADVICE.get(name, last))
        made = make(module, kind, path)
        if isinstance(made, self.enn.SequentialModule):
            # Its parts have their own modes.
            made.training = module.training
        else:
            made.train(module.training)
        self.done[module, kind] = made
        return made

    def _sequence(self, module: nn.Sequential, kind: Any, path: str) -> Any:
        # These pass their input on, in escnn's terms.
        parts = [part for part in module if not isinstance(part, SharedGrid | Channels)]
        if len(parts) < len(module):
            return self(parts[0] if len(parts) == 1 else nn.Sequential(*parts), kind, path)
        if len(parts) == 2 and isinstance(parts[0], gnn.LiftingConv2d | gnn.GroupConv2d):
            if _is_mean_pool(parts[1]):
                return self._convolution(parts[0], kind, f"{path}.0", to_images=True)
            if isinstance(parts[1], FieldBias) and parts[0].bias is None:
                return self._convolution(parts[0], kind, f"{path}.0", bias=parts[1])
        if len(parts) == 3 and isinstance(parts[0], Spread) and _is_mean_pool(parts[2]):
            return self(parts[1], kind, f"{path}.1")
        made = OrderedDict()
        # named_children() leaves out second names.
        for name, child in module._modules.items():  # noqa: SLF001
            made[name] = self(child, kind, f"{path}.{name}")
            kind = made[name].out_type
        return self.enn.SequentialModule(made) if made else self.enn.IdentityModule(kind)

    def _expect_input(self, kind: Any, path: str, regular: bool, count: int) -> None:
        given, expected = (_is_regular(kind), len(kind)), (regular, count)
        if given != expected:
            comes, takes = (f"{'maps' if r else 'images'} of {n} channels" for r, n in (given, expected))
            raise invalid(path, f"a layer that takes {comes}, the output of the layers before it", takes)

    def _check_sampling(self, module: Any, path: str) -> None:
        """Refuse a layer with a grid for each orientation, unless escnn's single grid is accepted."""
        rows, columns = module.geometry.rows, module.geometry.columns
        if module.geometry.shared or rows.stride == columns.stride == 1 or not any(module.geometry.flipped_axes()):
            return
        if self.sampling != "shared":
            takes = f"'shared' for {path}, which has a stride"
            advice = "escnn has one grid for all orientations: sampling='shared' uses it, with the same output only at "
            advice += "sizes where no pixel is left over"
            raise invalid("sampling", takes, self.sampling, advice)

    def _convolution(
        self, module: Any, kind: Any, path: str, *, to_images: bool = False, bias: FieldBias | None = None
    ) -> Any:
        """Return an ``R2Conv``; one to images has the mean of a layer's kernels over the elements of its output."""
        plain, of_maps = isinstance(module, nn.Conv2d), isinstance(module, gnn.GroupConv2d)
        self._expect_input(kind, path, of_maps, module.in_channels)
        # From images to images there may be a layer of one element, whose kernels are symmetric.
        if not plain and not (to_images and module.group.order == 1 and not of_maps):
            self._check_group(module, path)
        if not plain:
            self._check_sampling(module, path)
        window, outof = read_window(module, path), make_type(self.group, module.out_channels, not (plain or to_images))
        kernels = read_kernels(module)
        if to_images:
            kernels = kernels.mean(2, keepdim=True)
        own, numbers = (module.bias, module.bias) if bias is None else (bias.bias, bias.scale * bias.bias.detach())
        made = self._fit((kind, outof), window, kernels, numbers, path)
        made.weights.requires_grad_(module.weight.requires_grad)
        if own is not None:
            made.bias.requires_grad_(own.requires_grad)
        return made

    def _check_group(self, module: Any, path: str) -> None:
        if module.group != self.group:
            advice = "escnn's networks have one group; pass it to to_escnn as group="
            raise invalid(path, f"of the group {self.group.name} of the network", module, advice)

    def _fit(self, types: tuple[Any, Any], window: Window, kernels: Tensor, bias: Any, path: str) -> Any:
        nearest = math.inf
        for functions in ("default", "all") if self.functions == "auto" else (self.functions,):
            found = write_convolution(types, window, kernels, bias, self.like, functions)
            if found is not None and found[1] <= self.max_error:
                return found[0]
            nearest = nearest if found is None else min(nearest, found[1])
        advice = "except by multiples of 90 degrees, escnn rotates kernels larger than 3 x 3 differently"
        if self.functions == "default":
            advice = "use functions='auto', which adds functions where the default ones are not enough"
        takes = f"at least {nearest:.2g} for {path}, the distance of its kernels from the nearest of escnn's"
        raise invalid("max_error", takes, self.max_error, advice)

    def _batch_norm(self, module: Any, kind: Any, path: str) -> Any:
        self._expect_input(kind, path, isinstance(module, gnn.BatchNorm2d), module.num_features)
        made = self.enn.InnerBatchNorm(kind, module.eps, module.momentum, module.affine, module.track_running_stats)
        (norm,) = (child for child in made.children() if isinstance(child, nn.BatchNorm3d))
        norm.to(self.like)
        norm.load_state_dict(module.state_dict())
        for theirs, ours in zip(norm.parameters(), module.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        return made.to(self.like.device)

    def _check_pool(self, module: Any, path: str) -> None:
        if isinstance(module, gnn.MaxPool2d | gnn.AvgPool2d):
            self._check_group(module, path)
            self._check_sampling(module, path)

    def _max_pool(self, module: Any, kind: Any, path: str) -> Any:
        self._check_pool(module, path)
        return self.enn.PointwiseMaxPool2D(
            kind, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        )  # fmt: skip

    def _avg_pool(self, module: Any, kind: Any, path: str) -> Any:
        self._check_pool(module, path)
        if not module.count_include_pad or getattr(module, "divisor_override", None):
            raise invalid(path, "a pool that includes its padding and has no divisor of its own, like escnn's", module)
        return self.enn.PointwiseAvgPool2D(kind, module.kernel_size, module.stride, module.padding, module.ceil_mode)

    def _adaptive(self, module: Any, kind: Any, path: str) -> Any:
        size = module.output_size
        if isinstance(module, nn.AdaptiveMaxPool3d | nn.AdaptiveAvgPool3d):
            if not isinstance(size, tuple) or size[0] not in (None, self.group.order):
                raise invalid(path, "a pool that keeps the elements: (None, H, W)", module)
            size = size[1:]
        maximum = isinstance(module, nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d)
        return (self.enn.PointwiseAdaptiveMaxPool2D if maximum else self.enn.PointwiseAdaptiveAvgPool2D)(kind, size)

    def _group_pool(self, module: gnn.GroupPool, kind: Any, path: str) -> Any:
        self._expect_input(kind, path, True, len(kind))
        self._check_group(module, path)
        if module.subgroup is not None:
            raise invalid(path, "a pool over the whole group", module, "escnn needs a separate network from there on")
        if module.reduction == "max":
            return self.enn.GroupPooling(kind)
        # A mean is a convolution of 1 x 1.
        types = kind, make_type(self.group, len(kind), False)
        mean = torch.eye(len(kind), dtype=torch.float64)[:, :, None, None, None] / self.group.order
        mean = mean.expand(-1, -1, 1, self.group.order, 1)
        return self._fit(types, Window(1, 1, 0, 1, 1, "zeros"), mean, None, path)

    def _upsample(self, module: Any, kind: Any, path: str) -> Any:
        plain = isinstance(module, nn.Upsample)
        if module.mode not in ("nearest", "bilinear"):
            raise invalid(path, "'nearest' or 'bilinear', as in escnn", module)
        if not plain:
            self._check_group(module, path)
            return self.enn.R2Upsampling(kind, module.scale_factor, mode=module.mode)
        factor = module.scale_factor
        factor = int(factor) if factor is not None and float(factor).is_integer() else factor
        return self.enn.R2Upsampling(kind, factor, module.size, module.mode, bool(module.align_corners))

    def _blur(self, module: Blur, kind: Any, path: str) -> Any:
        self._check_sampling(module, path)
        # A filter of this width has as many taps; its values are replaced.
        width = max((len(module.kernel) - 1) / 6, 0.1)
        made = self.enn.PointwiseAvgPoolAntialiased2D(kind, width, module.stride, module.padding).to(self.like)
        made.filter.copy_(module.kernel.expand_as(made.filter))
        return made

    def _mask(self, module: Mask, kind: Any, path: str) -> Any:
        made = self.enn.MaskModule(kind, len(module.mask)).to(self.like)
        made.mask.copy_(module.mask.expand_as(made.mask))
        return made


def _is_regular(kind: Any) -> bool:
    """Return whether an escnn type is of regular fields."""
    found: bool = kind.representations[0] == kind.gspace.regular_repr
    return found


def _is_mean_pool(module: nn.Module) -> bool:
    """Return whether a module is a mean over the whole group."""
    return isinstance(module, gnn.GroupPool) and module.reduction == "mean" and module.subgroup is None


def read_window(conv: Any, path: str) -> Window:
    """Read the window of a convolution of this package or of torch.

    Args:
        conv: The convolution.
        path: Its path, for the message.

    Raises:
        ValueError: It has no counterpart in escnn: its kernel or dilation is not square, or "same" pads one end more
            than the other.
    """
    if len(set(conv.kernel_size)) > 1 or len(set(conv.dilation)) > 1:
        advice = "escnn has square kernels with one dilation"
        raise invalid(path, "a convolution with a square kernel", conv, advice)
    size, dilation = conv.kernel_size[0], conv.dilation[0]
    padding = conv.padding
    if isinstance(padding, str):
        total = dilation * (size - 1) if padding == "same" else 0
        if total % 2:
            raise invalid(path, "padded equally at both ends", conv, "escnn does not have padding='same'")
        padding = (total // 2, total // 2)
    return Window(size, _single(conv.stride), _single(padding), dilation, conv.groups, conv.padding_mode)


def _single(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def read_kernels(conv: Any) -> Tensor:
    """Return the kernels of a layer between all channels, ``[C_out, C_in / groups, o, i, k * k]``."""
    with torch.no_grad():
        if isinstance(conv, nn.Conv2d):
            return conv.weight.detach().double().flatten(2)[:, :, None, None]
        stack = conv.rotated_kernels().detach().double()
    channels, order = conv.in_channels // conv.groups, conv.group.order
    planes = stack.unflatten(2, (channels, -1)).transpose(1, 2)
    if isinstance(conv, gnn.LiftingConv2d) or planes.shape[3] == order:
        return planes
    # Few planes are in the order of taps: place each at the element that it is applied to.
    by_element = planes.new_zeros(*planes.shape[:3], order, planes.shape[4])
    for g, neighbours in enumerate(conv.neighbours.tolist()):
        by_element[:, :, g, neighbours] = planes[:, :, g]
    return by_element


def write_convolution(
    types: tuple[Any, Any], window: Window, kernels: Tensor, bias: Tensor | None, like: Tensor, functions: str
) -> tuple[Any, float] | None:
    """Return an ``R2Conv`` with the nearest kernels that it can have, and their relative error; None if it has none.

    Args:
        types: escnn's types, in and out.
        window: Its other arguments.
        kernels: The kernels between all channels.
        bias: One number for each field.
        like: A tensor with the dtype and device of the result.
        functions: "default" or "all".
    """
    try:
        conv = _make_conv(types, window, bias is not None, like, functions)
    except ValueError:
        # escnn has no default function for 2 x 2 taps.
        return None
    (block,) = conv.basisexpansion.children()
    basis = block.sampled_basis.double().cpu().flatten(1)
    wanted = kernels.double().cpu().flatten(2).flatten(0, 1)
    # Some functions may be equal on the grid: of all solutions, the smallest.
    solution = torch.linalg.lstsq(basis.T, wanted.T, driver="gelsd").solution.T
    error = (solution @ basis - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny)
    with torch.no_grad():
        conv.weights.copy_(solution.flatten())
        if bias is not None:
            spread = bias.detach().double().cpu().repeat_interleave(types[1].size // len(types[1]))
            conv.bias.copy_(torch.linalg.lstsq(conv.bias_expansion.double().cpu(), spread[:, None]).solution[:, 0])
    return conv, float(error)


def _make_conv(types: tuple[Any, Any], window: Window, bias: bool, like: Tensor, functions: str) -> Any:
    enn = load_escnn().nn
    more = _functions_for_every_tap(window.kernel_size, window.dilation) if functions == "all" else {}

    def make(recompute: bool) -> Any:
        return enn.R2Conv(*types, **window._asdict(), bias=bias, initialize=False, recompute=recompute, **more)

    # escnn's layers share the tables of their functions, and moving one moves all: this layer gets its own.
    plain = torch.float32, torch.device("cpu")
    conv = make((like.dtype, like.device) != plain)
    (block,) = conv.basisexpansion.children()
    if (block.sampled_basis.dtype, block.sampled_basis.device) != plain:
        conv = make(True)
    return conv.to(like)


def _functions_for_every_tap(kernel_size: int, dilation: int) -> dict[str, Any]:
    """Return arguments with which an ``R2Conv`` can express every kernel that is rotated by multiples of 90 degrees.

    There is a narrow ring through each tap, with as many frequencies as are needed to tell its taps apart.

    Args:
        kernel_size: Number of rows and columns.
        dilation: As in ``R2Conv``.
    """
    along = [i - (kernel_size - 1) / 2 for i in range(kernel_size)]
    squares = [x * x + y * y for x in along for y in along]
    # escnn takes no ring beyond the corner, not even by rounding.
    corner = dilation * (kernel_size - 1) / 2 * math.sqrt(2)
    taps = {min(math.sqrt(square) * dilation, corner): squares.count(square) for square in sorted(squares)}
    return {
        "rings": list(taps),
        "sigma": [0.05 * dilation if ring else 0.005 for ring in taps],
        "frequencies_cutoff": lambda radius: taps[min(taps, key=lambda ring: abs(ring - radius))] // 2,
    }

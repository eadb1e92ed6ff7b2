"""Kernels of ours as a convolution of escnn, whose coefficients are found by least squares."""

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
from ._fields import load_escnn, make_type
from ._layers import Blur, Mask


class Window(NamedTuple):
    """What ``R2Conv`` takes beside its types."""

    kernel_size: int
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int
    groups: int
    padding_mode: str


def read_window(conv: Any, path: str) -> Window:
    """The window of a convolution of ours or torch's.

    Args:
        conv: The convolution.
        path: Where it is, for the message.

    Raises:
        ValueError: It has no counterpart in escnn: the kernel or its dilation is not square, or "same" pads one end
            more than the other.
    """
    if len(set(conv.kernel_size)) > 1 or len(set(conv.dilation)) > 1:
        advice = "escnn has square kernels, with one dilation"
        raise invalid(path, "a convolution with a square kernel", conv, advice)
    size, dilation = conv.kernel_size[0], conv.dilation[0]
    padding = conv.padding
    if isinstance(padding, str):
        total = dilation * (size - 1) if padding == "same" else 0
        if total % 2:
            raise invalid(path, "padded alike at both ends", conv, "escnn does not know padding='same'")
        padding = (total // 2, total // 2)
    return Window(size, _single(conv.stride), _single(padding), dilation, conv.groups, conv.padding_mode)


def _single(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def read_kernels(conv: Any) -> Tensor:
    """The kernels of a layer of ours or torch's between all channels, ``[C_out, C_in / groups, o, i, k * k]``."""
    with torch.no_grad():
        if isinstance(conv, nn.Conv2d):
            return conv.weight.detach().double().flatten(2)[:, :, None, None]
        stack = conv.turned_kernels().detach().double()
    channels, order = conv.in_channels // conv.groups, conv.group.order
    planes = stack.unflatten(2, (channels, -1)).transpose(1, 2)
    if isinstance(conv, gnn.LiftingConv2d) or planes.shape[3] == order:
        return planes
    # Few planes lie by tap: now each where the element is that it meets.
    whole = planes.new_zeros(*planes.shape[:3], order, planes.shape[4])
    for g, near in enumerate(conv.neighbours.tolist()):
        whole[:, :, g, near] = planes[:, :, g]
    return whole


def write_convolution(
    types: tuple[Any, Any], window: Window, kernels: Tensor, bias: Tensor | None, like: Tensor, functions: str
) -> tuple[Any, float] | None:
    """An ``R2Conv`` with the nearest kernels that it can have, and how far they are, relative; None if it has none.

    Args:
        types: escnn's types, in and out.
        window: Its other arguments.
        kernels: The kernels between all channels.
        bias: One number for each field.
        like: A tensor of the dtype and on the device that is wanted.
        functions: "default" or "all".
    """
    try:
        conv = _empty(types, window, bias is not None, like, functions)
    except ValueError:
        # escnn has no function for 2 x 2 taps by itself.
        return None
    (block,) = conv.basisexpansion.children()
    basis = block.sampled_basis.double().cpu().flatten(1)
    wanted = kernels.double().cpu().flatten(2).flatten(0, 1)
    # Some functions may be alike on the grid: of all the coefficients that do, the smallest.
    found = torch.linalg.lstsq(basis.T, wanted.T, driver="gelsd").solution.T
    far = (found @ basis - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny)
    with torch.no_grad():
        conv.weights.copy_(found.flatten())
        if bias is not None:
            spread = bias.detach().double().cpu().repeat_interleave(types[1].size // len(types[1]))
            conv.bias.copy_(torch.linalg.lstsq(conv.bias_expansion.double().cpu(), spread[:, None]).solution[:, 0])
    return conv, float(far)


def _empty(types: tuple[Any, Any], window: Window, bias: bool, like: Tensor, functions: str) -> Any:
    enn = load_escnn().nn
    more = every_tap(window.kernel_size, window.dilation) if functions == "all" else {}

    def make(recompute: bool) -> Any:
        return enn.R2Conv(*types, **window._asdict(), bias=bias, initialize=False, recompute=recompute, **more)

    # escnn's layers share the tables of their functions, and to move one is to move all: so this gets its own.
    plain = torch.float32, torch.device("cpu")
    conv = make((like.dtype, like.device) != plain)
    (block,) = conv.basisexpansion.children()
    if (block.sampled_basis.dtype, block.sampled_basis.device) != plain:
        conv = make(True)
    return conv.to(like)


def every_tap(kernel_size: int, dilation: int) -> dict[str, Any]:
    """Arguments with which an ``R2Conv`` has functions for every kernel that turns by quarter turns.

    A narrow ring through each tap, and on it as many frequencies as it takes to tell its taps apart.

    Args:
        kernel_size: The number of rows and columns.
        dilation: As in ``R2Conv``.
    """
    along = [i - (kernel_size - 1) / 2 for i in range(kernel_size)]
    squares = [x * x + y * y for x in along for y in along]
    # escnn takes no ring beyond the corner, to the last bit.
    corner = dilation * (kernel_size - 1) / 2 * math.sqrt(2)
    taps = {min(math.sqrt(square) * dilation, corner): squares.count(square) for square in sorted(squares)}
    return {
        "rings": list(taps),
        "sigma": [0.05 * dilation if ring else 0.005 for ring in taps],
        "frequencies_cutoff": lambda radius: taps[min(taps, key=lambda ring: abs(ring - radius))] // 2,
    }


ADVICE = {
    "Dropout2d": "it drops whole maps, escnn's FieldDropout single pixels of fields; replace it by nn.Dropout",
    "GroupConvTranspose2d": "replace it by Upsample and GroupConv2d before training",
}


class Writer:
    """Makes modules of escnn of ours; each is told the type that comes in. What is used twice here is used twice there.

    Args:
        enn: ``escnn.nn``.
        group: The group of the network.
        sampling: "shared" to take escnn's one grid where a layer has one for each orientation.
        functions: "auto", "default" or "all".
        max_error: The largest relative error of a layer's kernels.
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
        """The module of escnn.

        Args:
            module: One of ours or torch's.
            kind: The escnn type of what goes in.
            path: Where the module is, for the message.

        Raises:
            ValueError: It has no counterpart, or its arguments have none.
        """
        if (module, kind) in self.done:
            return self.done[module, kind]
        make = self.makers.get(type(module))
        if make is None:
            name = type(module).__name__
            kinds = sorted({f"{one.__module__.split('.')[0]}'s {one.__name__}" for one in self.makers})
            takes = "one of " + ", ".join(kinds).replace("gconv_ga's Blur, gconv_ga's ", "gconv_ga's ")
            last = "give the modules before and after it one by one and join them by hand"
            raise invalid(path, takes, name, ADVICE.get(name, last))
        made = make(module, kind, path)
        if isinstance(made, self.enn.SequentialModule):
            # Its parts have their own modes.
            made.training = module.training
        else:
            made.train(module.training)
        self.done[module, kind] = made
        return made

    def _sequence(self, module: nn.Sequential, kind: Any, path: str) -> Any:
        parts = list(module)
        if len(parts) == 2 and isinstance(parts[0], gnn.LiftingConv2d | gnn.GroupConv2d) and is_mean(parts[1]):
            return self._convolution(parts[0], kind, f"{path}.0", to_images=True)
        made = OrderedDict()
        # named_children() leaves out second names.
        for name, child in module._modules.items():  # noqa: SLF001
            made[name] = self(child, kind, f"{path}.{name}")
            kind = made[name].out_type
        return self.enn.SequentialModule(made) if made else self.enn.IdentityModule(kind)

    def _expect(self, kind: Any, path: str, regular: bool, count: int) -> None:
        if (is_regular(kind), len(kind)) != (regular, count):
            takes, comes = (f"{'maps' if r else 'images'} of {n} channels" for r, n in ((regular, count), shape(kind)))
            raise invalid(path, f"a layer that takes {comes}, which the layers before it make", takes)

    def _refuse_sampling(self, module: Any, path: str) -> None:
        """Layers of escnn have one grid for all orientations."""
        rows, columns = module.geometry.rows, module.geometry.columns
        if module.geometry.shared or rows.stride == columns.stride == 1 or not any(module.geometry.flipped_axes()):
            return
        if self.sampling != "shared":
            advice = (
                "escnn has one grid for all orientations: sampling='shared' takes it, with the same numbers only at "
            )
            advice += "sizes where no pixel is left over"
            raise invalid("sampling", f"'shared' for {path}, which has a stride", self.sampling, advice)

    def _convolution(self, module: Any, kind: Any, path: str, *, to_images: bool = False) -> Any:
        """An ``R2Conv``; one to images has the mean of a layer's kernels over the elements of its output."""
        plain, of_maps = isinstance(module, nn.Conv2d), isinstance(module, gnn.GroupConv2d)
        self._expect(kind, path, of_maps, module.in_channels)
        # What goes from images to images may be a layer of one element, whose kernels are symmetric.
        if not plain and not (to_images and module.group.order == 1 and not of_maps):
            self._refuse_group(module, path)
        if not plain:
            self._refuse_sampling(module, path)
        window, outof = read_window(module, path), make_type(self.group, module.out_channels, not (plain or to_images))
        kernels = read_kernels(module)
        if to_images:
            kernels = kernels.mean(2, keepdim=True)
        made = self._nearest((kind, outof), window, kernels, module.bias, path)
        made.weights.requires_grad_(module.weight.requires_grad)
        if module.bias is not None:
            made.bias.requires_grad_(module.bias.requires_grad)
        return made

    def _refuse_group(self, module: Any, path: str) -> None:
        if module.group != self.group:
            advice = "escnn's networks have one group; to_escnn takes it as group="
            raise invalid(path, f"of the group {self.group.name} of the network", module, advice)

    def _nearest(self, types: tuple[Any, Any], window: Window, kernels: Tensor, bias: Any, path: str) -> Any:
        nearest = math.inf
        for functions in ("default", "all") if self.functions == "auto" else (self.functions,):
            found = write_convolution(types, window, kernels, bias, self.like, functions)
            if found is not None and found[1] <= self.max_error:
                return found[0]
            nearest = nearest if found is None else min(nearest, found[1])
        advice = "larger kernels than 3 x 3 turn there, but by quarter turns, in another way than here"
        if self.functions == "default":
            advice = "take functions='auto', which makes more where these do not do"
        takes = f"at least {nearest:.2g} for {path}, whose kernels lie that far from the nearest of escnn's"
        raise invalid("max_error", takes, self.max_error, advice)

    def _batch_norm(self, module: Any, kind: Any, path: str) -> Any:
        self._expect(kind, path, isinstance(module, gnn.BatchNorm2d), module.num_features)
        made = self.enn.InnerBatchNorm(kind, module.eps, module.momentum, module.affine, module.track_running_stats)
        (norm,) = (child for child in made.children() if isinstance(child, nn.BatchNorm3d))
        norm.to(self.like)
        norm.load_state_dict(module.state_dict())
        for theirs, ours in zip(norm.parameters(), module.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        return made.to(self.like.device)

    def _pool(self, module: Any, path: str) -> None:
        if isinstance(module, gnn.MaxPool2d | gnn.AvgPool2d):
            self._refuse_group(module, path)
            self._refuse_sampling(module, path)

    def _max_pool(self, module: Any, kind: Any, path: str) -> Any:
        self._pool(module, path)
        return self.enn.PointwiseMaxPool2D(
            kind, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        )  # fmt: skip

    def _avg_pool(self, module: Any, kind: Any, path: str) -> Any:
        self._pool(module, path)
        if not module.count_include_pad or getattr(module, "divisor_override", None):
            raise invalid(path, "a pool that counts its padding, and no divisor of its own", module, "as escnn's does")
        return self.enn.PointwiseAvgPool2D(kind, module.kernel_size, module.stride, module.padding, module.ceil_mode)

    def _adaptive(self, module: Any, kind: Any, path: str) -> Any:
        size = module.output_size
        if isinstance(module, nn.AdaptiveMaxPool3d | nn.AdaptiveAvgPool3d):
            if not isinstance(size, tuple) or size[0] not in (None, self.group.order):
                raise invalid(path, "a pool that leaves the elements alone: (None, H, W)", module)
            size = size[1:]
        maximum = isinstance(module, nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d)
        return (self.enn.PointwiseAdaptiveMaxPool2D if maximum else self.enn.PointwiseAdaptiveAvgPool2D)(kind, size)

    def _group_pool(self, module: gnn.GroupPool, kind: Any, path: str) -> Any:
        self._expect(kind, path, True, len(kind))
        self._refuse_group(module, path)
        if module.subgroup is not None:
            raise invalid(path, "a pool over the whole group", module, "escnn needs a network of its own from there on")
        if module.reduction == "max":
            return self.enn.GroupPooling(kind)
        # A mean is a linear map.
        types = kind, make_type(self.group, len(kind), False)
        mean = torch.eye(len(kind), dtype=torch.float64)[:, :, None, None, None] / self.group.order
        mean = mean.expand(-1, -1, 1, self.group.order, 1)
        return self._nearest(types, Window(1, 1, 0, 1, 1, "zeros"), mean, None, path)

    def _upsample(self, module: Any, kind: Any, path: str) -> Any:
        plain = isinstance(module, nn.Upsample)
        if module.mode not in ("nearest", "bilinear") or (plain and (module.size or module.align_corners)):
            advice = "that is what escnn has"
            raise invalid(path, "'nearest' or 'bilinear' by a factor, without align_corners", module, advice)
        if not plain:
            self._refuse_group(module, path)
        return self.enn.R2Upsampling(kind, module.scale_factor, mode=module.mode)

    def _blur(self, module: Blur, kind: Any, path: str) -> Any:
        self._refuse_sampling(module, path)
        # This width has as many taps; their values follow.
        width = max((len(module.kernel) - 1) / 6, 0.1)
        made = self.enn.PointwiseAvgPoolAntialiased2D(kind, width, module.stride, module.padding).to(self.like)
        made.filter.copy_(module.kernel.expand_as(made.filter))
        return made

    def _mask(self, module: Mask, kind: Any, path: str) -> Any:
        made = self.enn.MaskModule(kind, len(module.mask)).to(self.like)
        made.mask.copy_(module.mask.expand_as(made.mask))
        return made


def is_regular(kind: Any) -> bool:
    """Whether an escnn type is of regular fields."""
    found: bool = kind.representations[0] == kind.gspace.regular_repr
    return found


def shape(kind: Any) -> tuple[bool, int]:
    """Whether an escnn type is of regular fields, and how many."""
    return is_regular(kind), len(kind)


def is_mean(module: nn.Module) -> bool:
    """Whether it is a mean over the whole group."""
    return isinstance(module, gnn.GroupPool) and module.reduction == "mean" and module.subgroup is None


def to_escnn(
    module: nn.Module,
    *,
    group: Group | str | None = None,
    sampling: str = "per_orientation",
    functions: str = "auto",
    max_error: float = 1e-5,
) -> Any:
    """A network of this package, or one that `from_escnn` made, as a network of escnn: the way back.

    It takes ``nn.Sequential``, nested too, of `LiftingConv2d`, `GroupConv2d`, `BatchNorm2d`, `MaxPool2d`, `AvgPool2d`,
    `GroupPool`, `Upsample`, of torch's ``Conv2d``, ``BatchNorm2d``, pools and ``Upsample`` on images, and of torch's
    ``ReLU``, ``ELU``, ``LeakyReLU``, ``Sigmoid``, ``Tanh``, ``Dropout`` and ``Identity``; or one of them alone.

    The coefficients of each ``R2Conv`` are found by least squares. For C1, C2, C4, D1, D2, D4, and for 3 x 3 kernels of
    every group, that is exact to escnn's rounding, 1e-7. Larger kernels turn, at other angles, in another way there
    than here: how far a layer's are from the nearest that escnn has, relative, root mean square, must not exceed
    ``max_error`` (0.16 for 5 x 5 and C8). Networks that `from_escnn` made of layers with escnn's default functions come
    back as they were, whatever the group.

    A convolution and ``GroupPool("mean")`` that are alone in an ``nn.Sequential`` become one ``R2Conv`` to trivial
    fields; such a pool elsewhere becomes an ``R2Conv`` of 1 x 1. ``GroupPool("max")`` becomes ``GroupPooling``, which
    returns float32 whatever it is given.

    Images ``[B, C, H, W]`` become geometric tensors of C trivial fields, maps ``[B, C, |G|, H, W]`` those of C regular
    fields: ``kind(x.flatten(1, 2))`` with the ``in_type`` of the result.

    Args:
        module: The network. It stays as it is.
        group: The group; None for the one that its layers have.
        sampling: "per_orientation" refuses layers with a stride that sample each orientation on its own grid, which
            escnn cannot. "shared" gives them escnn's one grid: the same numbers where no pixel is left over, and at
            other sizes a network that is not equivariant.
        functions: "default" for those that ``R2Conv`` chooses by itself; "all" for enough of them to make every kernel
            that turns by quarter turns, more than there are taps; "auto" for the default where it does, else for all.
        max_error: The largest relative error of a layer's kernels.

    Returns:
        The network, in the same mode, of the same dtype, on the same device, with parameters of its own.

    Raises:
        ValueError: The network, or a module inside it, has no counterpart in escnn; the message has its path, its type
            and what to do. Kernels are farther than ``max_error`` from escnn's. An argument is none of those above.
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
    numbers = (each for each in module.parameters() if each.is_floating_point())
    writer.like = torch.empty_like(next(numbers, torch.empty(())), requires_grad=False)
    return writer(module, make_type(found, *_first_fields(module)), "module")


def _find_group(module: nn.Module) -> Group:
    """The one group that layers name; layers of a single element, which are for images, are not asked."""
    said: list[Any] = [getattr(each, "group", None) for each in module.modules()]
    groups = {group for group in said if isinstance(group, Group) and group.order > 1}
    found = sorted(groups, key=lambda group: group.name)
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise invalid("module", "a network of one group", names, "escnn needs a network for each")
    return found[0] if found else C1


def _first_fields(module: nn.Module) -> tuple[int, bool]:
    """How many fields go in, and whether they are maps: what the first layer that knows says."""
    maps: bool | None = None
    for layer in module.modules():
        on_maps = isinstance(layer, gnn.MaxPool2d | gnn.AvgPool2d | gnn.Upsample | gnn.GroupPool)
        if on_maps or (isinstance(layer, Blur) and layer.group is not None):
            # These keep the number of fields.
            maps = True
        if isinstance(layer, gnn.LiftingConv2d | gnn.GroupConv2d | nn.Conv2d):
            return layer.in_channels, isinstance(layer, gnn.GroupConv2d) if maps is None else maps
        if isinstance(layer, gnn.BatchNorm2d | nn.BatchNorm2d):
            return layer.num_features, isinstance(layer, gnn.BatchNorm2d) if maps is None else maps
    advice = "escnn's layers are told their fields; a pool or a ReLU alone is a line of escnn's"
    raise invalid("module", "a network with a convolution or a norm", module, advice)

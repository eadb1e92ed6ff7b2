"""Whole networks as users of escnn write them: classes with a forward of their own, small versions of public kinds.

`NETWORKS` maps a name to a function that builds one, and to the shape of its input without the batch.
"""

import torch
import torch.nn.functional as F
from escnn_networks import enn, gspaces
from torch import nn


def types(space, count, field=None):
    return enn.FieldType(space, count * [space.regular_repr if field is None else field])


def images(space, count):
    return types(space, count, space.trivial_repr)


def block(into, outof, kernel_size, activation=enn.ReLU, **options):
    conv = enn.R2Conv(into, outof, kernel_size, padding=kernel_size // 2, bias=False, **options)
    return enn.SequentialModule(conv, enn.InnerBatchNorm(outof), activation(outof, inplace=True))


class SteerableCNN(nn.Module):
    """The classifier of escnn's introduction: a mask, antialiased pools, a pool over the group, a head of torch."""

    def __init__(self, space):
        super().__init__()
        self.input_type = images(space, 1)
        few, more = types(space, 2), types(space, 3)
        conv = enn.R2Conv(self.input_type, few, 7, padding=1, bias=False)
        mask = enn.MaskModule(self.input_type, 21, margin=1)
        self.block1 = enn.SequentialModule(mask, conv, enn.InnerBatchNorm(few), enn.ReLU(few, inplace=True))
        self.pool1 = enn.SequentialModule(enn.PointwiseAvgPoolAntialiased2D(few, sigma=0.66, stride=2))
        self.block2 = block(few, more, 5)
        self.pool2 = enn.PointwiseAvgPoolAntialiased2D(more, sigma=0.66, stride=1, padding=0)
        self.gpool = enn.GroupPooling(more)
        self.head = nn.Sequential(
            nn.Linear(3 * 5 * 5, 4, bias=False), nn.BatchNorm1d(4), nn.ELU(inplace=True), nn.Linear(4, 3)
        )

    def forward(self, x):
        x = enn.GeometricTensor(x, self.input_type)
        for part in (self.block1, self.pool1, *self.block2, self.pool2, self.gpool):
            x = part(x)
        return self.head(x.tensor.reshape(x.tensor.shape[0], -1))


class WideBlock(enn.EquivariantModule):
    """A residual block with a shortcut, as in wide residual networks."""

    def __init__(self, into, outof, stride=1):
        super().__init__()
        self.in_type, self.out_type = into, outof
        self.bn, self.relu = enn.InnerBatchNorm(into), enn.ReLU(into, inplace=True)
        self.conv1 = enn.R2Conv(into, outof, 3, padding=1, stride=stride, bias=False)
        self.bn2, self.relu2 = enn.InnerBatchNorm(outof), enn.ReLU(outof, inplace=True)
        self.dropout = enn.PointwiseDropout(outof, p=0.0)
        self.conv2 = enn.R2Conv(outof, outof, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or into != outof:
            self.shortcut = enn.R2Conv(into, outof, 1, stride=stride, bias=False)

    def forward(self, x):
        assert x.type == self.in_type
        normed = self.relu(self.bn(x))
        out = self.conv2(self.dropout(self.relu2(self.bn2(self.conv1(normed)))))
        if self.shortcut is not None:
            out += self.shortcut(normed)
        else:
            out += x
        return out

    def evaluate_output_shape(self, input_shape):
        return input_shape


class WideResNet(nn.Module):
    """Blocks of one's own inside SequentialModule, a restriction to fewer symmetries, trivial fields with a stride."""

    def __init__(self, space, subgroup=None):
        super().__init__()
        self.gspace = space
        self.in_type = images(space, 2)
        a = types(space, 2)
        self.conv1 = enn.R2Conv(self.in_type, a, 3, padding=1, bias=False)
        self.layer1 = enn.SequentialModule(WideBlock(a, a), WideBlock(a, a))
        self.restrict = None
        if subgroup is not None:
            restriction = enn.RestrictionModule(a, subgroup)
            disentangle = enn.DisentangleModule(restriction.out_type)
            self.restrict = enn.SequentialModule(restriction, disentangle)
            a = disentangle.out_type
        b, t = types(a.gspace, 3), images(a.gspace, 4)
        self.layer2 = enn.SequentialModule(WideBlock(a, b, 2), WideBlock(b, t, 2), WideBlock(t, t, 2))
        self.bn, self.relu, self.linear = enn.InnerBatchNorm(t, momentum=0.9), enn.ReLU(t), nn.Linear(4, 3)

    def forward(self, x):
        x = self.layer1(self.conv1(self.in_type(x)))
        if self.restrict is not None:
            x = self.restrict(x)
        x = self.relu(self.bn(self.layer2(x))).tensor
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Residual(nn.Module):
    """A module of torch around sequences, as in encoders for robots."""

    def __init__(self, into, outof):
        super().__init__()
        self.layer1 = enn.SequentialModule(enn.R2Conv(into, outof, 3, padding=1), enn.ReLU(outof, inplace=True))
        self.layer2 = enn.SequentialModule(enn.R2Conv(outof, outof, 3, padding=1))
        self.relu = enn.ReLU(outof, inplace=True)
        self.up = enn.SequentialModule(enn.R2Conv(into, outof, 1, bias=False)) if into != outof else None

    def forward(self, x):
        out = self.layer2(self.layer1(x))
        return self.relu(out + (x if self.up is None else self.up(x)))


class ResidualEncoder(nn.Module):
    """torch.nn.Sequential of escnn's modules and of modules of one's own."""

    def __init__(self, space):
        super().__init__()
        self.input_type = images(space, 3)
        a, b = types(space, 2), types(space, 3)
        self.conv = nn.Sequential(
            enn.R2Conv(self.input_type, a, 5),
            enn.ReLU(a, inplace=True),
            Residual(a, a),
            enn.PointwiseMaxPool2D(a, 2),
            Residual(a, b),
            enn.PointwiseMaxPool2D(b, 3),
            enn.R2Conv(b, b, 3),
        )

    def forward(self, x):
        return self.conv(self.input_type(x)).tensor


class Actor(nn.Module):
    """A flat torch.nn.Sequential that ends in a vector and scalars."""

    def __init__(self, space):
        super().__init__()
        self.input_type, maps = images(space, 2), types(space, 3)
        self.out_type = enn.FieldType(space, [space.irrep(1), *4 * [space.trivial_repr]])
        self.net = nn.Sequential(
            enn.R2Conv(self.input_type, maps, 3, padding=1),
            enn.ReLU(maps, inplace=True),
            enn.R2Conv(maps, self.out_type, 1),
        )

    def forward(self, x):
        out = self.net(enn.GeometricTensor(x, self.input_type)).tensor
        return out[:, :2], out[:, 2:]


class Critic(nn.Module):
    """Mixed fields at the input: feature maps, scalars and a vector."""

    def __init__(self, space):
        super().__init__()
        maps = types(space, 3)
        self.in_type = enn.FieldType(space, 2 * [space.regular_repr] + [space.trivial_repr, space.irrep(1)])
        self.net = nn.Sequential(
            enn.R2Conv(self.in_type, maps, 3),
            enn.ReLU(maps),
            enn.GroupPooling(maps),
            enn.R2Conv(images(space, 3), images(space, 1), 1),
        )

    def forward(self, x):
        return self.net(self.in_type(x)).tensor.mean((2, 3))


class VelocityField(nn.Module):
    """Vectors in and out, as for flows."""

    def __init__(self, space):
        super().__init__()
        self.vectors, maps = types(space, 2, space.irrep(1)), types(space, 2)
        self.net = nn.Sequential(
            block(self.vectors, maps, 3),
            Residual(maps, maps),
            enn.R2Conv(maps, types(space, 1, space.irrep(1)), 3, padding=1),
        )

    def forward(self, x):
        return self.net(self.vectors(x)).tensor


class UNet(nn.Module):
    """Skip connections by tensor_directsum; other kinds of fields, ways up and heads as options."""

    def __init__(self, space, field=None, up="aligned", head="pool"):
        super().__init__()
        self.input_type, a, b = images(space, 1), types(space, 2, field), types(space, 3, field)
        self.first, self.pool = block(self.input_type, a, 3), enn.PointwiseMaxPool2D(a, 2)
        self.middle = block(a, b, 3)
        if up == "transposed":
            self.up = enn.R2ConvTransposed(b, b, 3, stride=2, padding=1, output_padding=1)
        else:
            mode = "nearest" if up == "nearest" else "bilinear"
            self.up = enn.R2Upsampling(b, scale_factor=2, mode=mode, align_corners=up == "aligned")
        self.last = block(a + b, a, 3)
        self.head = enn.R2Conv(a, images(space, 2), 1)
        if head == "pool":
            conv = enn.R2Conv(images(space, 2), images(space, 2), 1)
            self.head = enn.SequentialModule(enn.GroupPooling(a), conv)

    def forward(self, x):
        skip = self.first(self.input_type(x))
        y = self.up(self.middle(self.pool(skip)))
        return self.head(self.last(enn.tensor_directsum([skip, y]))).tensor


class Pyramid(nn.Module):
    """A pyramid of features: lists and dictionaries of modules, sums at two scales, a dictionary of maps out."""

    def __init__(self, space):
        super().__init__()
        self.input_type, a, b = images(space, 3), types(space, 2), types(space, 4)
        self.stem = nn.ModuleList([enn.R2Conv(self.input_type, a, 7, stride=2, padding=3, bias=False)])
        self.norms = nn.ModuleDict({"stem": enn.InnerBatchNorm(a)})
        self.pool = enn.PointwiseMaxPool2D(a, 3, 2, 1)
        self.layer1, self.layer2 = nn.Sequential(WideBlock(a, b)), nn.Sequential(WideBlock(b, b, 2))
        self.up, self.lateral = enn.R2Upsampling(b, 2), enn.R2Conv(b, b, 1)

    def forward(self, x):
        x = self.pool(self.norms["stem"](self.stem[0](self.input_type(x))))
        fine = self.layer1(x)
        coarse = self.layer2(fine)
        return {"fine": (self.lateral(fine) * 0.5 + self.up(coarse)).tensor, "coarse": coarse.tensor}


class WideConv(enn.R2Conv):
    """escnn's convolution with other defaults."""

    def __init__(self, into, outof, **options):
        super().__init__(into, outof, kernel_size=5, padding=2, **options)


class Stage(enn.SequentialModule):
    """escnn's sequence, built from numbers, with a shortcut around it."""

    def __init__(self, kind):
        super().__init__(WideConv(kind, kind), enn.ELU(kind))

    def forward(self, x):
        return super().forward(x) + x


class Subclasses(nn.Module):
    """Subclasses of escnn's own modules, slices and pieces of geometric tensors, types that are made in forward."""

    def __init__(self, space):
        super().__init__()
        self.input_type, self.kind = images(space, 1), types(space, 2)
        self.lift, self.stage = WideConv(self.input_type, self.kind), Stage(self.kind)
        self.one = enn.ReLU(self.kind.index_select([0]))
        self.parts = [self.kind, {"in": self.input_type}]

    def forward(self, x):
        x = self.stage(self.lift(self.parts[1]["in"](x)))
        first, second = x.split([1])
        rest = enn.GeometricTensor(second.tensor.sigmoid(), second.type)
        joined = enn.tensor_directsum([self.one(first), rest])
        assert isinstance(joined, enn.GeometricTensor)
        assert joined.type == self.kind
        assert joined.shape[1] == self.parts[0].size == 2 * self.kind.gspace.fibergroup.order()
        return (2.0 * joined - x)[:1].tensor


class Branched(nn.Module):
    """Scalars, maps and vectors, each with a nonlinearity of its own, and their norms."""

    def __init__(self, space):
        super().__init__()
        scalars, maps, vectors = images(space, 2), types(space, 1), types(space, 2, space.irrep(1))
        self.in_type, mixed = images(space, 1), scalars + maps + vectors
        pointwise, lengths = enn.ReLU(scalars + maps), enn.NormNonLinearity(vectors)
        self.net = enn.SequentialModule(
            enn.R2Conv(self.in_type, mixed, 3, padding=1, bias=False),
            enn.GNormBatchNorm(mixed),
            enn.MultipleModule(mixed, ["p"] * 3 + ["n"] * 2, [(pointwise, "p"), (lengths, "n")]),
            enn.R2Conv(mixed, vectors, 3, padding=1),
        )

    def forward(self, x):
        return self.net(self.in_type(x)).tensor


class Continuous(nn.Module):
    """All rotations: irreps and gates, Fourier nonlinearities, lengths of vectors at the end."""

    def __init__(self):
        super().__init__()
        space = gspaces.rot2dOnR2(-1, maximum_frequency=2)
        act = enn.FourierELU(space, 2, space.fibergroup.bl_irreps(2), N=8)
        self.in_type, vectors = images(space, 1), [space.irrep(0), space.irrep(1), space.irrep(2)]
        gated = enn.GatedNonLinearity1(enn.FieldType(space, 3 * [space.trivial_repr] + vectors))
        self.net = enn.SequentialModule(
            enn.R2Conv(self.in_type, act.in_type, 5, padding=2),
            enn.IIDBatchNorm2d(act.in_type),
            act,
            enn.R2Conv(act.out_type, gated.in_type, 3),
            gated,
            enn.NormMaxPool(gated.out_type, 2),
            enn.NormPool(gated.out_type),
        )

    def forward(self, x):
        return self.net(self.in_type(x)).tensor


C4, C8, D4 = gspaces.rot2dOnR2(4), gspaces.rot2dOnR2(8), gspaces.flipRot2dOnR2(4)
NETWORKS = {
    "steerable CNN, C8": (lambda: SteerableCNN(C8), (1, 21, 21)),
    "steerable CNN, D4": (lambda: SteerableCNN(D4), (1, 21, 21)),
    "wide residual network, D4": (lambda: WideResNet(D4), (2, 17, 17)),
    "wide residual network, restricted": (lambda: WideResNet(C8, 4), (2, 17, 17)),
    "residual encoder, C8": (lambda: ResidualEncoder(C8), (3, 22, 22)),
    "actor": (lambda: Actor(C4), (2, 6, 7)),
    "critic": (lambda: Critic(C4), (11, 6, 7)),
    "velocity field": (lambda: VelocityField(C4), (4, 6, 7)),
    "U-Net, corners aligned": (lambda: UNet(C4), (1, 8, 10)),
    "U-Net, quotient fields": (lambda: UNet(C4, C4.quotient_repr(2), "bilinear"), (1, 8, 10)),
    "U-Net, transposed": (lambda: UNet(D4, up="transposed", head="trivial"), (1, 8, 10)),
    "U-Net, a mirror elsewhere": (
        lambda: UNet(gspaces.flipRot2dOnR2(4, axis=0.3), up="nearest", head="trivial"),
        (1, 8, 10),
    ),
    "U-Net, another order": (
        lambda: UNet(gspaces.flipRot2dOnR2(4, axis=torch.pi / 4), up="nearest", head="trivial"),
        (1, 8, 10),
    ),
    "pyramid": (lambda: Pyramid(C8), (3, 32, 32)),
    "branches": (lambda: Branched(C4), (1, 6, 7)),
    "all rotations": (Continuous, (1, 8, 8)),
    "subclasses": (lambda: Subclasses(C4), (1, 8, 9)),
}


def tensors(output):
    """The tensors of an output, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for each in (output.values() if isinstance(output, dict) else output) for tensor in tensors(each)]


def build(name, dtype=torch.float64):
    """A network with random norms and biases, and its input."""
    from escnn.nn.modules.basismanager import basisexpansion_singleblock

    make, shape = NETWORKS[name]
    # Layers share their tables, and a dtype alters them all: this network keeps its own.
    stored = basisexpansion_singleblock._stored_filters
    stored.clear()
    net = make().to(dtype).train()
    stored.clear()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return net, torch.randn(3, *shape, dtype=torch.float64).to(dtype)

"""Whole networks with a forward of their own, as users of escnn write them; run where ``escnn`` is installed."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from escnn_catalogue import C4, NETWORKS, Subclasses, VelocityField, WideBlock, build, images, tensors, types
from escnn_networks import convolution, enn, random, relative
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga import equivariance_error
from gconv_ga.conversion import fold
from gconv_ga.interop import from_escnn

pytestmark = [
    pytest.mark.escnn,
    pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant"),
]

TIGHT = TOLERANCES[torch.float64]
EQUIVARIANT = ["critic", "velocity field", "U-Net, corners aligned", "residual encoder, C8"]


class InFloat64:
    """torch, except that tensors without a dtype, or of float32, are made in float64."""

    float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, *size, dtype=torch.float64, **options):
        return torch.empty(*size, dtype=dtype, **options)


@pytest.fixture(autouse=True)
def _escnn_in_float64(monkeypatch):
    """Some modules of escnn make their output in float32 whatever comes; here in float64, so that all digits count."""
    rooms = "invariantmaps.gpool", "invariantmaps.norm", "nonlinearities.gated1", "pooling.norm_max", "merge_module"
    for room in rooms:
        monkeypatch.setattr(sys.modules[f"escnn.nn.modules.{room}"], "torch", InFloat64())


def worst(got, expected):
    got, expected = tensors(got), tensors(expected)
    assert len(got) == len(expected)
    # A constant output would agree with much.
    assert all(float(y.detach().std()) > 1e-3 for y in expected)
    return max(relative(a, b) for a, b in zip(got, expected, strict=True))


def sum_of_squares(output):
    return sum(y.square().mean() for y in tensors(output))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_converts_as_a_whole_and_goes_on_training_as_in_escnn(name):
    """In both modes, and after steps of SGD with momentum on all parameters, biases and norms included."""
    theirs, x = build(name)
    ours = from_escnn(theirs)
    assert type(ours) is type(theirs)
    assert worst(ours(x.clone()), theirs(x.clone())) <= TIGHT
    nets = theirs, ours
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9) for net in nets]
    before = [parameter.clone() for parameter in ours.parameters()]
    for _ in range(3):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            sum_of_squares(net(x.clone())).backward()
            optimizer.step()
    # escnn's mask is a parameter that is not trained.
    count, expected = (sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (ours, theirs))
    assert count == expected
    # Vectors have a bias of no numbers.
    assert all(not torch.equal(old, new) for old, new in zip(before, ours.parameters(), strict=True) if old.numel())
    assert worst(ours.eval()(x.clone()), theirs.eval()(x.clone())) <= 100 * TIGHT


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_a_converted_network_is_as_equivariant_as_escnn(name):
    theirs, x = build(name)
    x = torch.randn(1, x.shape[1], 22, 22, dtype=torch.float64)
    kinds = {"critic": ("scalar", "invariant"), "velocity field": ("vector", "vector")}
    ours = from_escnn(theirs.eval())
    if name == "critic":
        # Fields of several kinds at the input: rotate by hand what escnn's type says.
        turned = theirs.in_type(x).transform(C4.fibergroup.element(1)).tensor
        assert relative(ours(turned), ours(x)) <= 1e-5
        assert relative(ours(turned.flip(1)), ours(x)) > 1e-3
        return
    if name == "velocity field":
        ours = Flow(ours)
        x = x[:, :2]
    if name == "residual encoder, C8":
        # escnn's elements are ours: the output is a feature map on the group.
        ours, kinds[name] = nn.Sequential(ours, nn.Unflatten(1, (-1, 8))), ("scalar", "regular")
    into, outof = kinds.get(name, ("scalar", "scalar"))
    group = {"residual encoder, C8": "C8"}.get(name, "C4")
    errors = equivariance_error(ours, group, x, in_action=into, out_action=outof)
    assert errors[:: len(errors) // 4].max() <= 1e-5


class Flow(nn.Module):
    """A network on two vector fields of escnn as one on a field of ours, whose second component points down."""

    def __init__(self, net, sign=-1.0):
        super().__init__()
        self.net = net
        self.register_buffer("sign", torch.tensor([1.0, sign], dtype=torch.float64).view(2, 1, 1))

    def forward(self, x):
        return self.sign * self.net(torch.cat([self.sign * x, 2 * self.sign * x], 1))


def test_vectors_that_point_up_would_be_seen():
    theirs, _ = build("velocity field")
    ours, x = from_escnn(theirs.eval()), torch.randn(1, 2, 9, 9, dtype=torch.float64)
    assert equivariance_error(Flow(ours), "C4", x, in_action="vector", out_action="vector").max() <= 1e-5
    assert equivariance_error(Flow(ours, 1.0), "C4", x, in_action="vector", out_action="vector").max() > 0.1


def test_names_modes_and_frozen_weights_are_kept():
    theirs, _ = build("wide residual network, D4")
    theirs.layer1[1].bn.eval()
    theirs.layer2[0].conv1.weights.requires_grad_(False)
    ours = from_escnn(theirs)
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]
    assert [ours.layer1[i].bn.training for i in (0, 1)] == [True, False]
    convs = [part for part in ours.modules() if isinstance(part, gnn.GroupConv2d)]
    assert [conv.weight.requires_grad for conv in convs].count(False) == 1
    assert ours.gspace.fibergroup.order() == 8
    assert ours.training


def test_the_network_that_is_converted_stays_as_it_is():
    theirs, _ = build("U-Net, corners aligned")
    before = copy.deepcopy(theirs.state_dict())
    ours = from_escnn(theirs)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in before.items())
    assert type(theirs.input_type) is enn.FieldType


def test_what_is_shared_stays_shared():
    maps = types(C4, 2)
    conv, one = enn.R2Conv(maps, maps, 3, padding=1), nn.Linear(3, 3)
    theirs = nn.ModuleDict({"a": nn.Sequential(conv, one), "b": WideBlock(maps, maps), "c": nn.ModuleList([conv, one])})
    theirs["b"].extra = one
    ours = from_escnn(theirs)
    assert ours["a"][0] is ours["c"][0]
    assert ours["a"][1] is ours["c"][1] is ours["b"].extra
    assert ours["a"][1] is not one


def test_equivariant_modules_of_ones_own_take_plain_tensors_alone_and_in_a_sequence():
    maps = types(C4, 2)
    for theirs in (WideBlock(maps, maps), enn.SequentialModule(WideBlock(maps, maps), enn.ReLU(maps))):
        random(theirs, torch.float32).eval()
        x = torch.randn(2, 8, 7, 6)
        got = from_escnn(theirs)(x.unflatten(1, (2, 4)))
        assert relative(got.flatten(1, 2), theirs(maps(x)).tensor) <= TOLERANCES[torch.float32]


def test_a_plain_sequence_of_torch_takes_plain_tensors_too():
    image, maps = images(C4, 1), types(C4, 2)
    theirs = nn.Sequential(convolution(image, maps, 3), enn.ReLU(maps))
    ours, x = from_escnn(theirs), torch.randn(1, 1, 7, 6)
    assert relative(ours(x).flatten(1, 2), theirs(image(x)).tensor) <= TOLERANCES[torch.float32]


def test_a_geometric_tensor_of_another_type_is_refused():
    theirs, _ = build("actor")
    ours = from_escnn(theirs)
    maps = types(C4, 2)
    with pytest.raises(ValueError, match=r"^input must be a geometric tensor of the type .*irrep_0 \(x2\)"):
        ours.net[0](maps(torch.randn(1, 8, 5, 5)))


def test_sequences_can_be_taken_apart():
    theirs, x = build("steerable CNN, C8")
    ours = from_escnn(theirs.eval())
    assert (len(ours.block2), ours.block2.in_type, ours.block2.out_type) == (
        3,
        *(theirs.pool1.out_type, theirs.block2.out_type),
    )
    f, g = ours.input_type(x.clone()), theirs.input_type(x.clone())
    assert relative(ours.block1[1:](ours.block1[0](f)).tensor, theirs.block1[1:](theirs.block1[0](g)).tensor) <= TIGHT


def test_a_mode_of_training_reaches_all_parts():
    ours = from_escnn(build("wide residual network, D4")[0])
    assert all(part.training for part in ours.modules())
    assert not any(part.training for part in ours.eval().modules())


@pytest.mark.parametrize("name", ["wide residual network, D4", "U-Net, another order"])
def test_a_converted_network_folds(name):
    ours, x = from_escnn(build(name)[0].eval()), build(name)[1]
    folded = fold(ours)
    assert worst(folded(x.clone()), ours(x.clone())) <= TIGHT
    assert not any(isinstance(part, gnn.LiftingConv2d | gnn.GroupConv2d) for part in folded.modules())


def test_a_converted_network_is_exported():
    net, x = build("U-Net, corners aligned")
    ours = from_escnn(net.eval())
    program = torch.export.export(ours, (x,), strict=False)
    assert worst(program.module()(x.clone()), ours(x.clone())) <= TIGHT


def test_a_copy_is_of_its_own():
    theirs, x = build("subclasses")
    ours = from_escnn(theirs.eval())
    before, twin = ours(x.clone()), copy.deepcopy(ours)
    with torch.no_grad():
        twin.lift.module[0].weight.zero_()
    assert torch.equal(ours(x.clone()), before)
    assert worst(twin(x.clone()) + 1e-9 * before, before) > 0.1


def test_files_hold_nothing_of_escnn():
    for name in NETWORKS:
        data = pickle.dumps(from_escnn(build(name)[0]))
        assert b"escnn_catalogue" in data
        assert not any(room in data for room in (b"escnn.nn", b"escnn.gspaces", b"escnn.group"))
    # escnn's own types would be seen: they cannot even be pickled.
    with pytest.raises(AttributeError, match="Can't pickle local object"):
        pickle.dumps(Subclasses(C4))


def test_a_saved_network_of_a_users_class_loads_and_trains_without_escnn(tmp_path):
    """The user's file imports escnn; where that is not installed, its imports find stand-ins."""
    theirs, x = build("U-Net, corners aligned")
    ours = from_escnn(theirs.eval())
    torch.save((ours, x, ours(x.clone())), tmp_path / "net.pt")
    program = f"""
import sys

class Nowhere:  # as if escnn were not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "escnn":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nowhere())
sys.path.insert(0, "tests")
import importlib.util
import torch
from gconv_ga.interop import from_escnn, without_escnn

found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "escnn" else found(name)
import types
stub = types.ModuleType("escnn_networks")  # skips without escnn
with without_escnn():
    import escnn.nn as enn
    from escnn import gspaces
    stub.enn, stub.gspaces = enn, types.SimpleNamespace(rot2dOnR2=lambda n: None, flipRot2dOnR2=lambda n: None)
    sys.modules["escnn_networks"] = stub
    net, x, expected = torch.load({str(tmp_path / "net.pt")!r}, weights_only=False)
    try:
        from_escnn(net)
    except ModuleNotFoundError as error:
        print(error)
    try:
        gspaces.rot2dOnR2(4)
    except ModuleNotFoundError as error:
        print(error)
print("escnn" in sys.modules, torch.equal(net(x), expected))
net.train()(x).square().sum().backward()
print(all(parameter.grad is not None for parameter in net.parameters()))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = run.stdout.splitlines()
    assert lines[2:] == ["False True", "True"], run.stderr
    assert 'pip install "gconv_ga[escnn]"' in lines[0]
    assert "rot2dOnR2 of it was called" in lines[1]


def test_forwards_that_ask_for_more_than_names_and_sizes_are_told_so():
    ours = from_escnn(VelocityField(C4))
    with pytest.raises(
        AttributeError, match="Representation has no 'change_of_basis': in a converted network it stands"
    ):
        _ = ours.vectors.representations[0].change_of_basis
    maps = ours.vectors(torch.zeros(1, 4, 3, 3))
    with pytest.raises(AttributeError, match="GeometricTensor has no 'transform'"):
        maps.transform(1)
    with pytest.raises(ValueError, match=r"^tensor must be a tensor \[B, C=4, H, W\]"):
        ours.vectors(torch.zeros(1, 3, 3, 3))
    with pytest.raises(ValueError, match=r"^index must be such that all four axes and all channels stay"):
        maps[:, :2]
    with pytest.raises(ValueError, match=r"^factor must be a number"):
        _ = maps * torch.ones(4, 1, 1)
    with pytest.raises(ValueError, match=r"^other must be a geometric tensor of the type"):
        _ = maps + 1.0
    with pytest.raises(ValueError, match=r"^coords must be None"):
        ours.vectors(torch.zeros(5, 4), torch.zeros(5, 2))


def test_strides_of_a_whole_network_warn_or_are_exact():
    """At a size where each stride leaves pixels over, in feature maps and in images."""
    theirs, _ = build("wide residual network, D4")
    shared, own = (from_escnn(theirs.eval(), sampling=sampling) for sampling in ("shared", "per_orientation"))
    good, bad = (torch.randn(1, 2, n, n, dtype=torch.float64) for n in (17, 18))
    assert worst(own(good), shared(good)) <= TIGHT
    assert equivariance_error(own, "D4", bad, out_action="invariant").max() <= 1e-5
    with pytest.warns(UserWarning, match="not equivariant at H=18"):
        assert equivariance_error(shared, "D4", bad, out_action="invariant").max() > 1e-3

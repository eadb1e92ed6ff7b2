"""The identity itself: six groups, every kind of size, train and eval, against loops with torch.rot90 and flip."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conversion_nets import Busy, Classifier, image, mean_over_orbit, orbit_of, randomised
from slow_average import EXACT, elements, relative, slow_average, turn, turn_back
from tolerances import TOLERANCES
from torch import nn
from torch.utils.checkpoint import checkpoint

from gconv_ga.averaging import GroupAverage
from gconv_ga.conversion import NotConvertible, convert
from gconv_ga.nn.authoring import Geometry

TIGHT = TOLERANCES[torch.float64]
SIZES = [(32, 32), (33, 33), (32, 47), (47, 32), (36, 41)]


@pytest.fixture(scope="module")
def busy() -> Busy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomised(Busy(), image(2, 3, 33, 40))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", EXACT)
@torch.no_grad()
def test_equal_to_the_average_and_equivariant(busy, group, size, device):
    net = convert(busy, group, image(1, 3, 33, 40)).to(device)
    x = image(2, 3, *size, seed=7)
    y = net(x.to(device)).cpu()
    assert relative(y, slow_average(busy, group, x)) <= TIGHT
    assert group == "C1" or relative(busy(x), y) > 1e-2
    for g in elements(group):
        assert relative(net(turn(x, g).to(device)).cpu(), turn(y, g)) <= TIGHT


@pytest.mark.parametrize("group", EXACT)
@torch.no_grad()
def test_a_classifier_that_flattens_is_invariant(group):
    model = randomised(Classifier(), image(2, 3, 33, 40))
    net = convert(model, group, image(1, 3, 33, 40))
    x = image(2, 3, 40, 29, seed=7)
    expected = sum(model(turn_back(x, g)) for g in elements(group)) / len(elements(group))
    assert relative(net(x), expected) <= TIGHT
    assert group == "C1" or relative(model(x), expected) > 1e-3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:sampling='shared'")
def test_without_the_phase_rule_it_is_refused(busy, monkeypatch):
    """One grid for all orientations, as in other libraries."""
    real = Geometry.__post_init__

    def shared(self):
        object.__setattr__(self, "shared", True)
        real(self)

    # Layers that rotate their maps need no phases; here all kernels are rotated.
    monkeypatch.setattr("gconv_ga.conversion._layers.MAP_NUMBERS_PER_WEIGHT", {"cached": 0.0, "rotated": 0.0})
    x = image(1, 3, 36, 36, seed=7)
    assert relative(convert(busy, "C4", x)(x), slow_average(busy, "C4", x)) <= TIGHT
    monkeypatch.setattr(Geometry, "__post_init__", shared)
    with pytest.raises(NotConvertible, match=r"stem \(Conv2d, "):
        convert(busy, "C4", x)
    net = convert(busy, "C4", x, verify=False)
    assert relative(net(x), slow_average(busy, "C4", x)) > 1e-3


@pytest.mark.parametrize("threshold", [0.0, float("inf")], ids=["kernels rotate", "maps rotate"])
@pytest.mark.parametrize("size", [(32, 32), (36, 41)], ids=str)
@torch.no_grad()
def test_both_ways_to_compute_a_layer_agree(busy, threshold, size, monkeypatch):
    net = convert(busy, "D4", image(1, 3, 33, 40))
    thresholds = {"cached": threshold, "rotated": threshold}
    monkeypatch.setattr("gconv_ga.conversion._layers.MAP_NUMBERS_PER_WEIGHT", thresholds)
    x = image(1, 3, *size, seed=7)
    assert relative(net(x), slow_average(busy, "D4", x)) <= TIGHT


@pytest.mark.parametrize("group", ["C2", "C4", "D4"])
def test_training_is_that_of_the_orbit_in_the_batch(busy, group):
    """Outputs, running statistics and gradients of three steps, with a batch written out by hand."""
    plain, net = copy.deepcopy(busy).train(), convert(busy, group, image(1, 3, 33, 40)).train()
    by_hand = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    converted = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        x, target = image(3, 3, 36, 36, seed=step), image(3, 2, 18, 18, seed=10 + step)
        expected, actual = mean_over_orbit(plain(orbit_of(x, group)), group), net(x)
        assert relative(actual, expected) <= TIGHT
        for optimiser, y in ((by_hand, expected), (converted, actual)):
            optimiser.zero_grad()
            (y - target).square().mean().backward()
        gradients = dict(net.model.named_parameters())
        whole = max(float(p.grad.abs().max()) for p in plain.parameters())
        for name, parameter in plain.named_parameters():
            assert float((gradients[name].grad - parameter.grad).abs().max()) <= TIGHT * whole, name
        by_hand.step()
        converted.step()
    state = net.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.allclose(state[name], value, rtol=1e-9, atol=1e-12), name
    assert int(state["norm.num_batches_tracked"]) == 3 + int(busy.norm.num_batches_tracked)


class Checkpointed(nn.Module):
    """A block that is computed again in the backward pass: pools, sizes, channels last, and random drops."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Conv2d(6, 2, 1)
        self.parts = nn.Sequential(nn.MaxPool2d(3, 2), nn.Dropout(0.5))
        self.reentrant = None

    def forward(self, x):
        x = self.first(x)
        for block in (self.parts, self._pools, self._slices):
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.last(x.permute(0, 3, 1, 2))

    def _pools(self, x):
        return F.interpolate(F.max_pool2d(x, 2), scale_factor=1.5).permute(0, 2, 3, 1)

    def _slices(self, x):
        return self.mix(x)[:, ::2, ::2].tanh()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dropout", ["independent", "tied"])
def test_gradient_checkpoints_change_no_gradient(reentrant, dropout):
    net = convert(Checkpointed().double().train(), "C4", image(1, 3, 25, 40), dropout=dropout)
    gradients = []
    for net.model.reentrant in (None, reentrant):
        torch.manual_seed(0)
        net.zero_grad()
        net(image(2, 3, 25, 40, seed=7)).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))
    assert relative(gradients[1], gradients[0]) <= TIGHT


def test_gradient_checkpoints_of_a_compiled_network_change_no_gradient():
    net = convert(Checkpointed().double().eval(), "C4", image(1, 3, 25, 40))
    x = image(2, 3, 25, 40, seed=7).requires_grad_()
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    net.model.reentrant = False
    (actual,) = torch.autograd.grad(torch.compile(net, backend="eager", fullgraph=True)(x).square().sum(), x)
    assert relative(actual, expected) <= TIGHT


def test_the_gradient_of_the_image(busy):
    net = convert(busy, "D4", image(1, 3, 33, 40))
    x = image(1, 3, 36, 31, seed=7).requires_grad_()
    weights = image(1, 2, 18, 16, seed=8)
    (actual,) = torch.autograd.grad((net(x) * weights).sum(), x)
    (expected,) = torch.autograd.grad((slow_average(busy, "D4", x) * weights).sum(), x)
    assert relative(actual, expected) <= TIGHT


def test_training_on_images_that_are_not_square(busy):
    """Batch statistics are over all orientations at once, as in no loop of passes. It is at least equivariant."""
    net = convert(busy, "C4", image(1, 3, 33, 40)).train()
    x = image(2, 3, 36, 41, seed=7)
    for g in elements("C4"):
        assert relative(copy.deepcopy(net)(turn(x, g)), turn(copy.deepcopy(net)(x), g)) <= TIGHT


class Drops(nn.Module):
    """A random drop between two convolutions."""

    def __init__(self, drop) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Conv2d(3, 16, 3), drop, nn.Conv2d(16, 2, 3)

    def forward(self, x):
        y = self.first(x)
        return self.last(self.drop(y) if isinstance(self.drop, nn.Module) else self.drop(y, 0.5, self.training))


DROPS = {
    "Dropout2d": lambda: nn.Dropout2d(0.5),
    "F.dropout2d": lambda: nn.functional.dropout2d,
    "Dropout": lambda: nn.Dropout(0.5),
    "F.dropout": lambda: nn.functional.dropout,
    "StochasticDepth": lambda: pytest.importorskip("torchvision").ops.StochasticDepth(0.5, "row"),
    "DropPath": lambda: pytest.importorskip("timm").layers.DropPath(0.5),
}


@pytest.mark.parametrize("name", DROPS)
def test_tied_drops_train_equivariantly(name):
    """Given one draw, masks rotate with the image; also where it is not square."""
    x, errors = image(4, 3, 12, 17), {}
    for dropout in ("tied", "independent"):
        net = convert(Drops(DROPS[name]()).double(), "C4", image(1, 3, 12, 15), dropout=dropout).train()

        def drawn(y, net=net):
            torch.manual_seed(0)
            return net(y)

        errors[dropout] = relative(drawn(x.rot90(1, (-2, -1))), drawn(x).rot90(1, (-2, -1)))
    assert errors["tied"] <= TIGHT
    assert errors["independent"] > 1e-2


@pytest.mark.parametrize("drop", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.functional.dropout])
@pytest.mark.parametrize("dropout", ["tied", "independent"])
def test_tied_drops_have_one_mask_that_rotates_with_the_orientation(drop, dropout):
    plain = Drops(drop).double()
    plain.first, plain.last = nn.Identity(), nn.Identity()
    net = convert(plain, "C4", image(1, 3, 12, 15), dropout=dropout, reduce="none")
    assert torch.equal(net.eval()(image(2, 3, 12, 15)), image(2, 3, 12, 15)[:, :, None].expand(-1, -1, 4, -1, -1))
    dropped = net.train()(torch.ones(8, 3, 12, 12).double()) == 0
    assert 0.2 < dropped.double().mean() < 0.8
    same = all(torch.equal(turn_back(dropped[:, :, i], g), dropped[:, :, 0]) for i, g in enumerate(elements("C4")))
    assert same == (dropout == "tied")


def test_parts_keep_their_own_modes(busy):
    """A norm that its owner froze stays frozen in a network that trains."""
    plain = copy.deepcopy(busy).train()
    plain.norm.eval()
    net = convert(plain, "C4", image(1, 3, 33, 40))
    assert net.training
    assert net.model.training
    assert not net.model.norm.training
    before = net.model.norm.running_mean.clone()
    net(image(1, 3, 33, 40, seed=4))
    assert torch.equal(net.model.norm.running_mean, before)
    assert not convert(busy.eval(), "C4", image(1, 3, 33, 40)).training


def test_neither_the_model_nor_the_generator_is_touched(busy):
    plain = copy.deepcopy(busy).train()
    before, state = copy.deepcopy(plain.state_dict()), torch.get_rng_state()
    x = image(1, 3, 33, 40)
    convert(plain, "D4", x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, image(1, 3, 33, 40))
    assert type(plain.stem) is nn.Conv2d
    assert plain.training
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert relative(GroupAverage(plain.eval(), "D4")(x), convert(plain, "D4", x)(x)) <= TIGHT


COUNT_PRODUCTS = """
import sys
import torch
from torch import nn
from gconv_ga.conversion import convert
from gconv_ga.groups import Group

calls = {Group.product.__code__: 0, Group.inverse.__code__: 0}

def count(frame, event, argument):
    if event == "call" and frame.f_code in calls:
        calls[frame.f_code] += 1

for group in ("C4", "D4"):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 1, 3))
    sys.setprofile(count)
    convert(model, group, torch.randn(1, 1, 16, 12))
    sys.setprofile(None)
print(*calls.values())
"""


def test_group_products_are_computed_once():
    """In a new process, where no table is cached: 4 x 4 and 8 x 8 products, however many layers there are."""
    run = subprocess.run([sys.executable, "-c", COUNT_PRODUCTS], capture_output=True, text=True, check=True)
    products, inverses = map(int, run.stdout.split())
    assert 0 < products <= 16 + 64
    assert inverses <= 100

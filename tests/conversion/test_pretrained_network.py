"""A trained network on a real exposure: rotations by 90 degrees change its output; converted, they do not."""

import pytest
import torch
from cosmic_ray_network import load_exposure, load_network
from slow_average import elements, relative, slow_average, turn, turn_back
from tolerances import TOLERANCES

from gconv_ga.conversion import convert, fold

TIGHT = TOLERANCES[torch.float64]


@pytest.fixture(scope="module")
def network(shared_data):
    return load_network(shared_data("pretrained") / "deepcr_acs_wfc.npz")


@pytest.fixture(scope="module")
def exposure(shared_data):
    pytest.importorskip("PIL", reason="the exposure is a PNG of 16 bit")
    return load_exposure(shared_data("ccd") / "saao_rf0420.png")


def moved(module, x, group):
    """The largest change of the output, rotated back, under any element."""
    y = module(x)
    return max(float((turn_back(module(turn(x, g)), g) - y).abs().max()) for g in elements(group))


@torch.no_grad()
def test_the_plain_network_moves_by_what_is_known(network, exposure):
    """0.320 and 75 pixels on the whole exposure, as measured with the network's own package."""
    assert moved(network, exposure, "C4") == pytest.approx(0.320, abs=5e-4)
    assert int((network(exposure) > 0.5).sum()) == 75


@torch.no_grad()
def test_converted_it_is_its_average_and_stays(network, exposure):
    plain = network.double()
    x = exposure[..., 96:144, 300:372].double()
    net = convert(plain, "C4", x)
    assert net.report.defect <= TIGHT
    assert moved(plain, x, "C4") > 1e-2
    assert relative(net(x), slow_average(plain, "C4", x)) <= TIGHT
    assert moved(net, x, "C4") <= TIGHT
    assert relative(fold(net)(x), net(x)) <= TIGHT
    # Rays are still seen, where the plain network sees them.
    both = (net(x) > 0.5) & (plain(x) > 0.5)
    assert int(both.sum()) >= 0.8 * int((plain(x) > 0.5).sum()) > 0


@torch.no_grad()
def test_opened_it_is_the_same_and_stays(network, exposure):
    x = exposure[..., 104:128, 306:338].double()
    net = convert(network.double(), "D4", x)
    before = net(x)
    net.open_taps()
    assert relative(net(x), before) <= 1e-12
    for module in net.convolutions().values():
        module.taps.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
    assert relative(net(x), before) > 1e-3
    assert moved(net, x, "D4") <= TIGHT

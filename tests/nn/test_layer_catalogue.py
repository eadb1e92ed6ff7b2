"""Each public layer against its slow reference, and under every element; what is wrong must be seen."""

from pathlib import Path

import pytest
import torch
from house import declared_names
from layer_catalogue import CATALOGUE, GROUPS, SIZES, scrambled
from slow_average import relative
from slow_layers import act_on_map, product_table
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.groups import as_group

EXACT = TOLERANCES[torch.float64]


def layers_without_entry(names, catalogue):
    """The public modules that no entry is about."""
    classes = {name for name in names if isinstance(getattr(gnn, name), type)}
    return classes - {entry.layer.__name__ for entry in catalogue.values()}


def test_every_public_layer_has_an_entry():
    names = declared_names(Path(gnn.__file__).read_text(encoding="utf-8"))
    assert len(names) >= 10
    assert layers_without_entry(names, CATALOGUE) == set()


def test_a_layer_without_an_entry_is_seen():
    fewer = {name: entry for name, entry in CATALOGUE.items() if entry.layer is not gnn.MaxPool2d}
    assert layers_without_entry(["MaxPool2d", "AvgPool2d", "functional"], fewer) == {"MaxPool2d"}


def equivariance(layer, entry, group, x, seed=None):
    """The largest relative error of ``layer(L_g x) = L_g layer(x)`` over the elements; NaN if there is one."""

    def run(x):
        if seed is not None:
            torch.manual_seed(seed)
        return layer(x)

    y, errors = run(x), []
    for acting, h, g in entry.symmetry(group):
        errors.append(relative(run(entry.act_in(x, group, g)), entry.act_out(y, acting, h)))
    return torch.tensor(errors).max()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_layer_is_its_slow_reference(name, group, size, device):
    entry = CATALOGUE[name]
    layer, x = scrambled(entry.make(group)).to(device), entry.input(group, size).to(device)
    assert relative(layer(x), entry.reference(layer, x, group)) <= EXACT


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_output_turns_with_the_input(name, group, size, device):
    entry = CATALOGUE[name]
    layer, x = scrambled(entry.make(group)).to(device), entry.input(group, size).to(device)
    assert equivariance(layer, entry, group, x) <= EXACT


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_output_turns_while_the_layer_trains(name, device):
    entry = CATALOGUE[name]
    layer, x = scrambled(entry.make("D4")).to(device).train(), entry.input("D4", (8, 11)).to(device)
    assert equivariance(layer, entry, "D4", x, seed=1) <= EXACT


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d"])
def test_norms_are_their_slow_reference_while_they_train(name, device):
    entry = CATALOGUE[name]
    layer, x = scrambled(entry.make("C4")).to(device).train(), entry.input("C4", (8, 11)).to(device)
    assert relative(layer(x), entry.reference(layer, x, "C4")) <= EXACT


def test_running_statistics_are_those_of_the_maps(device):
    layer = gnn.BatchNorm2d(2, momentum=None, dtype=torch.float64, device=device)
    f = torch.randn(3, 2, 4, 5, 6, dtype=torch.float64).to(device)
    layer(f)
    for c in range(2):
        numbers = torch.cat([f[b, c, g].flatten() for b in range(3) for g in range(4)])
        assert relative(layer.running_mean[c], numbers.mean()) <= EXACT
        assert relative(layer.running_var[c], numbers.var()) <= EXACT


def test_dropout_takes_whole_fields_and_keeps_the_mean(device):
    layer, f = gnn.Dropout2d(0.25), torch.ones(40, 50, 4, 2, 3, device=device)
    fields = layer(f).flatten(2)
    kept = fields[..., 0] != 0
    assert torch.equal(fields, (kept / 0.75).unsqueeze(2).expand_as(fields).to(fields.dtype))
    assert abs(kept.float().mean().item() - 0.75) < 0.05


@pytest.mark.parametrize("group", GROUPS)
def test_the_tables_of_the_references_are_those_of_the_groups(group):
    assert product_table(group) == as_group(group).cayley_table.tolist()


class Broken(nn.Module):
    """A layer that forgets one thing."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.layer = gnn.GroupConv2d(2, 2, 3, stride=2, padding=1, group="C4", dtype=torch.float64)

    def forward(self, f):
        if self.fault == "shift":  # two elements of the output change places
            return self.layer(f)[:, :, [1, 0, 2, 3]]
        if self.fault == "kernel":  # kernels that do not turn
            return nn.functional.conv3d(f, self.layer.weight[:, :, :1], padding=(0, 1, 1))
        if self.fault == "phase":  # one grid for all orientations
            return nn.functional.max_pool3d(f, (1, 2, 2))
        return f * 0 if self.fault == "nothing" else torch.full_like(f, torch.nan)


@pytest.mark.parametrize("fault", ["shift", "kernel", "phase", "nothing", "nan"])
def test_a_broken_layer_is_seen(fault):
    entry = CATALOGUE["GroupConv2d"]
    error = equivariance(Broken(fault), entry, "C4", entry.input("C4", (9, 9)))
    assert not error <= EXACT


def test_wrong_values_are_seen():
    """A layer may be equivariant and still be another one: the references see a kernel that is turned too far."""
    entry = CATALOGUE["GroupConv2d"]
    layer, f = scrambled(entry.make("C4")), entry.input("C4", (9, 9))
    expected = entry.reference(layer, f, "C4")
    with torch.no_grad():
        layer.weight.copy_(torch.rot90(layer.weight, 1, (-2, -1)))
    assert equivariance(layer, entry, "C4", f) <= EXACT
    assert relative(layer(f), expected) > 0.1


def test_the_action_on_maps_moves_pixels_and_elements():
    f = torch.zeros(1, 1, 4, 3, 3)
    f[0, 0, 1, 0, 2] = 1
    moved = act_on_map(f, "C4", 1)
    assert moved[0, 0, 2, 0, 0] == 1
    assert moved.sum() == 1

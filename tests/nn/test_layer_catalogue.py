"""Each public layer against its slow reference, and under every group element; faults must be detected."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from house import declared_names
from layer_catalogue import CATALOGUE, GROUPS, SIZES, USES, lacking, scrambled
from slow_average import relative
from slow_layers import act_on_map, product_table
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.groups import as_group

EXACT = TOLERANCES[torch.float64]


def layers_without_entry(names, catalogue):
    """Return the public layers that have no entry."""
    offered = {name: getattr(gnn, name) for name in names}
    layers = {name for name, kind in offered.items() if isinstance(kind, type) and issubclass(kind, torch.nn.Module)}
    return layers - set(catalogue)


def test_every_public_layer_has_an_entry():
    names = declared_names(Path(gnn.__file__).read_text(encoding="utf-8"))
    assert len(names) >= 10
    assert layers_without_entry(names, CATALOGUE) == set()


def test_a_layer_without_an_entry_is_seen():
    fewer = {name: entry for name, entry in CATALOGUE.items() if name != "MaxPool2d"}
    assert layers_without_entry(["MaxPool2d", "AvgPool2d", "functional"], fewer) == {"MaxPool2d"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_is_complete_and_about_its_layer(name):
    entry = CATALOGUE[name]
    assert lacking(entry) == []
    assert {use.layer for use in entry.uses.values()} == {getattr(gnn, name)}
    assert {use.grouped for use in entry.uses.values()} == {entry.grouped}
    assert set(entry.representatives) <= set(entry.uses)


@pytest.mark.parametrize(
    ("field", "empty"),
    [
        ("refused", []), ("refused_inputs", []), ("texts", []), ("any_angle", {}), ("resizing", None),
        ("representatives", ()),
    ],
)  # fmt: skip
def test_an_entry_that_lacks_something_is_seen(field, empty):
    assert lacking(replace(CATALOGUE["GroupConvTranspose2d"], **{field: empty})) == [field]


def test_uses_have_names_of_their_own():
    assert len(USES) == sum(len(entry.uses) for entry in CATALOGUE.values())


def equivariance(layer, use, group, x, seed=None):
    """Return the largest relative error of ``layer(L_g x) = L_g layer(x)`` over the elements, or NaN if any is NaN."""

    def run(x):
        if seed is not None:
            torch.manual_seed(seed)
        return layer(x)

    y, errors = run(x), []
    for acting, h, g in use.symmetry(group):
        errors.append(relative(run(use.act_in(x, group, g)), use.act_out(y, acting, h)))
    return torch.tensor(errors).max()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", USES)
def test_the_layer_is_its_slow_reference(name, group, device):
    use = USES[name]
    for size in SIZES:
        layer, x = scrambled(use.make(group)).to(device), use.input(group, size).to(device)
        assert relative(layer(x), use.reference(layer, x, group)) <= EXACT, size


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", USES)
def test_the_output_turns_with_the_input(name, group, device):
    use = USES[name]
    for size in SIZES:
        layer, x = scrambled(use.make(group)).to(device), use.input(group, size).to(device)
        assert equivariance(layer, use, group, x) <= EXACT, size


@pytest.mark.parametrize("name", USES)
def test_the_output_turns_while_the_layer_trains(name, device):
    use = USES[name]
    layer, x = scrambled(use.make("D4")).to(device).train(), use.input("D4", (8, 11)).to(device)
    assert equivariance(layer, use, "D4", x, seed=1) <= EXACT


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d"])
def test_norms_are_their_slow_reference_while_they_train(name, device):
    use = USES[name]
    layer, x = scrambled(use.make("C4")).to(device).train(), use.input("C4", (8, 11)).to(device)
    assert relative(layer(x), use.reference(layer, x, "C4")) <= EXACT


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
    """A layer with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.layer = gnn.GroupConv2d(2, 2, 3, stride=2, padding=1, group="C4", dtype=torch.float64)

    def forward(self, f):
        if self.fault == "shift":  # two elements of the output change places
            return self.layer(f)[:, :, [1, 0, 2, 3]]
        if self.fault == "kernel":  # kernels that are not transformed
            return nn.functional.conv3d(f, self.layer.weight[:, :, :1], padding=(0, 1, 1))
        if self.fault == "phase":  # one grid for all orientations
            return nn.functional.max_pool3d(f, (1, 2, 2))
        return f * 0 if self.fault == "nothing" else torch.full_like(f, torch.nan)


@pytest.mark.parametrize("fault", ["shift", "kernel", "phase", "nothing", "nan"])
def test_a_broken_layer_is_seen(fault):
    use = USES["GroupConv2d"]
    error = equivariance(Broken(fault), use, "C4", use.input("C4", (9, 9)))
    assert not error <= EXACT


def test_wrong_values_are_seen():
    """A layer may be equivariant and still be wrong: the references detect a kernel that is rotated too far."""
    use = USES["GroupConv2d"]
    layer, f = scrambled(use.make("C4")), use.input("C4", (9, 9))
    expected = use.reference(layer, f, "C4")
    with torch.no_grad():
        layer.weight.copy_(torch.rot90(layer.weight, 1, (-2, -1)))
    assert equivariance(layer, use, "C4", f) <= EXACT
    assert relative(layer(f), expected) > 0.1


def test_the_action_on_maps_moves_pixels_and_elements():
    f = torch.zeros(1, 1, 4, 3, 3)
    f[0, 0, 1, 0, 2] = 1
    moved = act_on_map(f, "C4", 1)
    assert moved[0, 0, 2, 0, 0] == 1
    assert moved.sum() == 1

"""Groups of other angles: rotations by multiples of 90 degrees and reflections are exact at every size."""

import warnings

import pytest
import torch
from layer_catalogue import CATALOGUE, scrambled
from slow_average import relative
from slow_layers import turn, turn_vectors
from tolerances import TOLERANCES

import gconv_ga.nn as gnn
from gconv_ga.groups import as_group

EXACT = TOLERANCES[torch.float64]
SIZES = [(16, 16), (17, 17), (16, 19), (15, 18)]


def exact_elements(group):
    """Return ``(element, (rotations by 90 degrees, reflected))`` of the elements that map pixels to pixels."""
    n = as_group(group).n
    quarters = [(i, 4 * i // n) for i in range(n) if 4 * i % n == 0]
    rotations = [(i, (q, False)) for i, q in quarters]
    return rotations if group[0] == "C" else rotations + [(n + i, (q, True)) for i, q in quarters]


def act(f, group, element, quarters):
    """Transform a feature map on the group, or an image, which has no element axis."""
    if f.ndim == 4:
        return turn(f, quarters)
    symmetry = as_group(group)
    back = symmetry.inverse(element)
    return torch.stack([turn(f[:, :, symmetry.product(back, h)], quarters) for h in range(symmetry.order)], dim=2)


# By name, the entry and the arguments.
CASES = {name: (entry, given) for entry in CATALOGUE.values() for name, given in entry.any_angle.items()}


@pytest.mark.parametrize("group", ["C8", "D8", "C6", "D6", "C12", "D3"])
@pytest.mark.parametrize("name", CASES)
def test_what_moves_pixels_to_pixels_is_exact(name, group, device):
    entry, given = CASES[name]
    layer = scrambled(given.make(entry.layer, group)).to(device)
    elements = exact_elements(group)
    assert len(elements) == {"C8": 4, "D8": 8, "C6": 2, "D6": 4, "C12": 4, "D3": 2}[group]
    with torch.no_grad():
        for size in SIZES:
            axes = () if entry.image_in else (as_group(group).order,)
            f = torch.randn(1, 1, *axes, *size, dtype=torch.float64).to(device)
            y = layer(f)
            for element, quarters in elements:
                expected = turn_vectors(y, quarters) if entry.vectors_out else act(y, group, element, quarters)
                assert relative(layer(act(f, group, element, quarters)), expected) <= EXACT


@pytest.mark.parametrize("group", ["C8", "D6"])
def test_one_shared_grid_is_broken_there_too(group):
    layer = scrambled(gnn.LiftingConv2d(1, 1, 5, 2, 2, group=group, sampling="shared"))
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = layer(x)
        errors = [relative(layer(act(x, group, e, q)), act(y, group, e, q)) for e, q in exact_elements(group)]
    assert "shared" in str(caught[0].message)
    assert max(errors) > 0.01


def test_repr_says_how_many_functions_a_kernel_has():
    layer = gnn.GroupConv2d(2, 3, 5, group="C8")
    assert layer.weight.shape == (3, 2, 8, 15)
    assert repr(layer) == "GroupConv2d(2, 3, kernel_size=(5, 5), stride=(1, 1), group='C8', functions=15)"

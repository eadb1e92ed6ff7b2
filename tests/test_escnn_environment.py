"""Our groups and actions against escnn's, an independent implementation; run where the extra ``escnn`` is installed.

escnn writes an element of its dihedral group as ``(f, k)``: reflect if f, then rotate by ``2 pi k / n``, and lists the
rotations first. Our index of it is ``f n + k``; of the rotation ``k`` of its cyclic group it is ``k``.
"""

import pytest
import torch
from tolerances import TOLERANCES

from gconv_ga.actions import RegularField, ScalarField
from gconv_ga.groups import as_group

groups = pytest.importorskip("escnn.group", reason="the extra escnn is not installed")
gspaces = pytest.importorskip("escnn.gspaces")
escnn_nn = pytest.importorskip("escnn.nn")

pytestmark = pytest.mark.escnn

NAMES = [f"{kind}{n}" for kind in "CD" for n in (1, 2, 3, 4, 6, 8, 12, 16)]
EXACT = ["C1", "C2", "C4", "D1", "D2", "D4"]


def plane(name):
    """escnn's plane with the group of that name."""
    n = int(name[1:])
    if name[0] == "C":
        return gspaces.rot2dOnR2(n) if n > 1 else gspaces.trivialOnR2()
    return gspaces.flipRot2dOnR2(n) if n > 1 else gspaces.flip2dOnR2()


def index(element, n):
    """Our index of an escnn element; our D1 is a cyclic group of order 2 there."""
    value = element.value
    if isinstance(value, tuple):
        mirrored, rotation = value
        return mirrored * n + rotation
    return value


@pytest.mark.parametrize("name", NAMES)
def test_products_and_inverses_agree(name):
    n, ours = int(name[1:]), as_group(name)
    theirs = groups.cyclic_group(n) if name[0] == "C" else groups.dihedral_group(n)
    elements = sorted(theirs.elements, key=lambda element: index(element, n))
    assert [index(element, n) for element in elements] == list(range(ours.order))
    assert ours.cayley_table.tolist() == [[index(g @ h, n) for h in elements] for g in elements]
    assert [ours.inverse(g) for g in range(ours.order)] == [index(~g, n) for g in elements]


@pytest.mark.parametrize("name", NAMES)
def test_the_plane_turns_the_same_way(name):
    space, n, ours = plane(name), int(name[1:]), as_group(name)
    assert space.fibergroup.order() == ours.order
    for element in space.fibergroup.elements:
        theirs = torch.as_tensor(space.basespace_action(element))
        torch.testing.assert_close(ours.matrices[index(element, n)], theirs, rtol=0, atol=TOLERANCES[torch.float64])


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("field", ["scalar", "regular"])
def test_images_and_maps_turn_the_same_way(name, field, generator):
    space, n, ours = plane(name), int(name[1:]), as_group(name)
    representation = space.trivial_repr if field == "scalar" else space.regular_repr
    action = ScalarField() if field == "scalar" else RegularField()
    kind = escnn_nn.FieldType(space, 2 * [representation])
    order = 1 if field == "scalar" else ours.order
    x = torch.randn(1, 2, order, 5, 5, generator=generator)
    for element in space.fibergroup.elements:
        theirs = kind(x.flatten(1, 2)).transform(element).tensor.unflatten(1, (2, order))
        torch.testing.assert_close(action(x, ours, index(element, n)), theirs, rtol=0, atol=TOLERANCES[torch.float32])

"""The head for vectors: every element of every group, the most general such map, and what a wrong one does."""

import pytest
import torch

import gconv_ga.nn as gnn
from gconv_ga.actions import RegularField, VectorField
from gconv_ga.groups import as_group


def pixel_matrix(group, element):
    """The matrix of an element for components with y down."""
    (xx, xy), (yx, yy) = group.matrix(element)
    return torch.tensor([[xx, -xy], [-yx, yy]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["C1", "C3", "C8", "C12", "D1", "D3", "D8"])
def test_on_one_pixel_every_element_turns_the_vector(name):
    group = as_group(name)
    head = gnn.VectorHead(5, group=name, dtype=torch.float64)
    f = torch.randn(1, 5, group.order, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        v = head(f).flatten()
        for element in range(group.order):
            back = group.inverse(element)
            moved = f[:, :, [group.product(back, h) for h in range(group.order)]]
            assert (head(moved).flatten() - pixel_matrix(group, element) @ v).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["C1", "C2", "C4", "C8", "D1", "D2", "D4"])
def test_there_are_no_more_such_maps(name):
    """The linear maps from one regular field to vectors that commute with the group have two dimensions."""
    group = as_group(name)
    equations = []
    for element in range(group.order):
        back = group.inverse(element)
        moved = torch.eye(group.order, dtype=torch.float64)[:, [group.product(back, h) for h in range(group.order)]]
        # M P = R M for a 2 x |G| matrix M, written for its entries row by row.
        right = torch.kron(torch.eye(2, dtype=torch.float64), moved)
        left = torch.kron(pixel_matrix(group, element), torch.eye(group.order, dtype=torch.float64))
        equations.append(right - left)
    rank = int(torch.linalg.matrix_rank(torch.cat(equations)))
    assert 2 * group.order - rank == 2


def test_vectors_with_y_up_are_seen():
    head = gnn.VectorHead(3, group="C4", dtype=torch.float64)
    f = torch.randn(1, 3, 4, 6, 7, dtype=torch.float64)
    head.matrices = head.group.matrices
    with torch.no_grad():
        error = head(RegularField()(f, "C4", 1)) - VectorField()(head(f), "C4", 1)
    assert error.abs().max() > 0.1


def test_the_matrices_are_not_rounded_on_the_way():
    head = gnn.VectorHead(1, group="C8").to(torch.bfloat16).to(torch.float64)
    assert (head.matrices[1].abs() - 0.5**0.5).abs().max() < 1e-15


def test_the_variance_is_kept():
    f = torch.randn(4, 64, 8, 20, 20)
    with torch.no_grad():
        assert 0.7 < gnn.VectorHead(64, group="D4")(f).std() < 1.4

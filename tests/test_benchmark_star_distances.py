"""benchmarks/star_distances.py: its targets, its rays under rotations, its quick form, and its resumption."""

import importlib

import numpy as np
import pytest
import torch
from house import ROOT
from tolerances import TOLERANCES

for _package in ("pytorch_lightning", "skimage", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")


@pytest.fixture
def stars(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("star_distances")


def rotated_rays(maps, turn, *, step=8):
    """Rotate maps by ``rotate`` times 90 degrees: two rotations by 45 degrees, which move the rays on by 4 each."""
    maps = maps.rot90(turn, (-2, -1))
    return torch.cat((maps[..., :-32, :, :], maps[..., -32:, :, :].roll(step * turn, -3)), dim=-3)


def test_targets_of_a_rectangle(stars):
    instances = torch.zeros(12, 16, dtype=torch.int64)
    instances[3:8, 4:13] = 7
    inside, probability, *rays = stars.star_targets(instances)
    assert torch.equal(inside, (instances > 0).float())
    # From row 5, column 6: 7 pixels to the right, 3 up, 3 to the left, 3 down, all but half of one.
    assert [float(rays[ray][5, 6]) for ray in (0, 8, 16, 24)] == [6.5, 2.5, 2.5, 2.5]
    assert float(rays[4][3, 4]) == pytest.approx(np.sqrt(0.5))
    assert (float(probability[5, 8]), float(probability[3, 8])) == (1, pytest.approx(0.2))
    assert not any(map_[instances == 0].any() for map_ in (probability, *rays))


def test_rays_that_leave_the_image_are_negative(stars):
    instances = torch.zeros(9, 9, dtype=torch.int64)
    instances[2:6, 5:] = 1
    instances[2:6, 3:5] = 2
    rays = stars.star_targets(instances)[2:]
    assert (rays[0, 3, 6], rays[8, 3, 6], rays[16, 3, 6]) == (-2.5, 1.5, 1.5)
    assert rays[0, 3, 3] == 1.5


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_targets_rotate_with_the_instances(stars, turn):
    instances = torch.randint(3, (5, 7), generator=torch.Generator().manual_seed(0)).kron(torch.ones(4, 4)).long()
    expected = rotated_rays(stars.star_targets(instances), turn)
    assert torch.equal(stars.star_targets(instances.rot90(turn)), expected)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_the_heads_rotate_with_the_image(stars, turn):
    torch.manual_seed(0)
    model = stars.StarUNet(1, 1, 4.0).double().eval()
    torch.nn.init.normal_(model.ray_head.weight)
    x = torch.randn(1, 1, 24, 32, dtype=torch.float64)
    with torch.no_grad():
        maps, of_rotated = model.maps(x), model.maps(x.rot90(turn, (-2, -1)))

    def error(expected):
        return float((of_rotated - expected).abs().max() / maps.abs().max())

    assert error(rotated_rays(maps, turn)) < TOLERANCES[torch.float64]
    assert error(rotated_rays(maps, turn, step=4)) > 0.01


def test_true_distances_yield_the_objects(stars):
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(50), indexing="ij")
    true = ((rows - 15) ** 2 + (columns - 15) ** 2 < 100).long() + 2 * ((rows - 22) ** 2 + (columns - 37) ** 2 < 80)
    maps = stars.star_targets(true).abs().numpy()
    for filled in (False, True):
        labels = stars.draw(maps, stars.find_stars(maps, 0.3), 0.5, filled)
        scores = stars.object_scores(labels, true)
        assert (scores.found, scores.true) == (2, 2)
        assert scores.average_precision[-1] == 1
    assert not labels[true == 0].any()


def test_the_study_in_short(stars, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    call = ["--quick", "--tasks", "nuclei", "--out", str(out)]
    rows = stars.main(call)
    assert [row["method"] for row in rows] == [stars.TRUE, *stars.METHODS]
    assert rows[0]["AP50"] > 0.9
    assert all(row["moved pixels"] < 0.01 and 0 <= row["AP"] <= row["AP50"] <= 1 for row in rows[1:])
    assert capsys.readouterr().out.count("\n| nuclei |") == len(rows)
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    again = stars.main(call)
    assert out.read_text().splitlines()[:-1] == lines[:-1]
    assert [row["AP"] for row in again] == [row["AP"] for row in rows]
    beside = tmp_path / "objects.jsonl"
    beside.write_text(out.read_text().replace(stars.STARS + '"', 'C8", "decoder": "flow"'))
    capsys.readouterr()
    assert stars.main(["--quick", "--table", str(out), "--beside", str(beside)]) == again
    assert "| nuclei | 2 | 0 | C8, stars | flow | +0.000 | +0.000 |" in capsys.readouterr().out

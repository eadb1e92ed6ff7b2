"""benchmarks/networks.py: its slopes, its candidates, and its tables in README.md."""

import importlib
import json
from types import ModuleType

import pytest
import torch
from house import ROOT

import gconv_ga.nn as gnn

RESULTS = ROOT / "benchmarks" / "results" / "networks.json"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("networks")


@pytest.mark.parametrize("power", [-1, 0.5, 2])
def test_the_slope_of_a_power_is_its_exponent(power: float, benchmark: ModuleType) -> None:
    assert benchmark.slope([(x, 3 * x**power) for x in (2, 4, 8, 32)]) == pytest.approx(power, abs=1e-6)


def test_the_slope_is_that_of_least_squares(benchmark: ModuleType) -> None:
    points = [(1.0, 1.0), (2.0, 8.0), (4.0, 16.0), (8.0, 300.0)]
    design = torch.tensor([[x, 1.0] for x, _ in points], dtype=torch.float64)
    design[:, 0] = design[:, 0].log()
    expected = torch.linalg.lstsq(design, torch.tensor([[y] for _, y in points], dtype=torch.float64).log()).solution[0]
    assert benchmark.slope(points) == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("group", ["C4", "C8", "D4"])
def test_candidates_do_as_many_multiply_adds(group: str, benchmark: ModuleType) -> None:
    x = torch.zeros(1, 3, 16, 16)
    work = {name: benchmark.multiply_adds(network, x) for name, network in benchmark.networks(group, 2).items()}
    ours = work.pop("gconv_ga")  # which may choose the Fourier algorithm
    assert all(count == pytest.approx(work["plain"], rel=0.01) for count in work.values()), work
    assert 0 < ours < 1.01 * work["plain"]
    assert benchmark.multiply_adds(benchmark.networks(group, 3)["plain"], x) > 2 * work["plain"]


def test_multiply_adds_are_those_of_one_image(benchmark: ModuleType) -> None:
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert benchmark.multiply_adds(layer, torch.zeros(4, 3, 8, 10)) == 3 * 5 * 9 * 80


def test_the_expansion_is_compared_with_the_same_convolution(benchmark: ModuleType) -> None:
    layer = benchmark.GroupConv2d(2, 3, 5, padding=2, group="C8")
    f = torch.randn(1, 2, 8, 9, 9)
    assert (benchmark.FixedKernel(layer)(f) - layer(f)).abs().max() < 1e-5


@pytest.mark.parametrize("section", ["start", "steps", "growth", "expansion"])
def test_the_readme_has_the_tables_of_the_results(section: str, benchmark: ModuleType) -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))[section]["rows"]
    assert set(benchmark.TABLES[section](rows).splitlines()) <= set(page)
    # A time twice as long would be another line.
    rows[-1]["import" if section == "start" else "seconds"] *= 2
    assert not set(benchmark.TABLES[section](rows).splitlines()) <= set(page)


def test_multiply_adds_of_the_fourier_algorithm_are_those_of_its_products(benchmark: ModuleType) -> None:
    """On C4 each function makes two real products and a complex one of three, in place of 16 dense ones for 9 taps."""
    if not gnn.algorithms()["fourier"].startswith("available"):
        pytest.skip("the C++ library is not there")
    layer = gnn.GroupConv2d(3, 5, 3, padding=1, group="C4", bias=False)
    x = torch.zeros(2, 3, 4, 8, 10)
    with gnn.algorithm("fourier"):
        assert benchmark.multiply_adds(layer, x) == 3 * 5 * 80 * (2 + 3) * 9
    with gnn.algorithm("dense"):
        assert benchmark.multiply_adds(layer, x) == 3 * 5 * 80 * 16 * 9

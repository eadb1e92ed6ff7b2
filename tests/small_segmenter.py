"""Fixtures: the sample, and a segmenter small enough to train in a test."""

import pytest

from gconv_ga.images import load_sample
from gconv_ga.segmenter import SegmenterConfig


@pytest.fixture(scope="session")
def sample():
    return load_sample("nuclei")


@pytest.fixture
def config(sample):
    arguments = {"in_channels": 1, "classes": 2, "group": "C4", "width": 2, "depth": 2}
    return SegmenterConfig("EquivariantUNet", arguments, sample.classes, sample.normalization)

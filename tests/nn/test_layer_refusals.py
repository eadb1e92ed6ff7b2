"""Arguments and inputs that layers refuse, each with a ValueError that names the argument and says what to do."""

import re

import pytest
import torch
from layer_catalogue import CATALOGUE, each_item

from gconv_ga.nn.functional import group_conv2d, group_pool, lifting_conv2d

GROUPED = [name for name, entry in CATALOGUE.items() if entry.grouped]
RESIZING = [name for name, entry in CATALOGUE.items() if entry.resizing]


@pytest.mark.parametrize(("layer", "refusal"), each_item("refused"))
def test_arguments(layer, refusal):
    with pytest.raises(ValueError, match=refusal.match):
        refusal.arguments.make(layer)


@pytest.mark.parametrize("name", GROUPED)
def test_the_group_must_be_given(name):
    use = next(iter(CATALOGUE[name].uses.values()))
    with pytest.raises(TypeError, match="group"):
        use.layer(*use.arguments, **use.options)


@pytest.mark.parametrize("name", GROUPED)
def test_the_group_is_not_a_number(name):
    use = next(iter(CATALOGUE[name].uses.values()))
    with pytest.raises(ValueError, match=r"^group must be a group or its name.*but got group=4\. .*'C4'"):
        use.layer(*use.arguments, **use.options, group=4)


@pytest.mark.parametrize(("layer", "refusal"), each_item("refused_inputs"))
def test_inputs_of_other_axes(layer, refusal):
    with pytest.raises(ValueError, match=re.escape(refusal.text)):
        refusal.arguments.make(layer)(torch.zeros(refusal.shape))


@pytest.mark.parametrize(("layer", "smallest"), each_item("smallest_inputs"))
def test_the_smallest_size_that_a_message_names_is_taken(layer, smallest):
    assert min(smallest.arguments.make(layer)(torch.ones(smallest.shape)).shape) >= 1


@pytest.mark.parametrize("size", [(15, 16), (16, 18), 15, (16, 16, 16)], ids=str)
@pytest.mark.parametrize("name", RESIZING)
def test_sizes_out_of_reach(name, size):
    layer = CATALOGUE[name].resizing.make(CATALOGUE[name].layer)
    takes = r"an int or a pair" if isinstance(size, tuple) and len(size) == 3 else r"from \(16, 16\) to \(17, 17\)"
    with pytest.raises(ValueError, match=f"output_size must be {takes}.*but got output_size="):
        layer(torch.zeros(1, 1, 4, 8, 8), output_size=size)


@pytest.mark.parametrize("size", [16, (17, 16), [16, 17], torch.Size((17, 17))], ids=str)
@pytest.mark.parametrize("name", RESIZING)
def test_sizes_within_reach(name, size):
    layer = CATALOGUE[name].resizing.make(CATALOGUE[name].layer)
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    assert layer(torch.zeros(1, 1, 4, 8, 8), output_size=size).shape[-2:] == wanted


X, F = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 8, 8)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 1, 3, 3), "C4"), "weight must be a tensor"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 3, 3, 3), "C4"), "x must be a tensor .*C=3"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 3, 3), "C8"), "group must be one of C1"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 3, 3), "C4", stride=1.5), "stride must be"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 3, 3), "C4", padding="sam"), "padding must be one of"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 9, 9), "C4"), "input must be a tensor .*H >= 9"),
        (lambda: group_conv2d(F, torch.zeros(4, 2, 3, 3), "C4"), "weight must be a tensor"),
        (lambda: group_conv2d(F, torch.zeros(4, 2, 5, 3, 3), "C4"), "group_kernel_size must be"),
        (lambda: group_conv2d(F, torch.zeros(4, 2, 4, 3, 3), "D4"), r"f must be a tensor .*\|G\|=8"),
        (lambda: group_pool(X, "C4"), "input must be a tensor"),
        (lambda: group_pool(F, "C4", "median"), "reduction must be one of"),
        (lambda: group_pool(F, "C4", to="D1"), "to must be a subgroup of C4, but got to='D1'"),
    ],
)  # fmt: skip
def test_functions(call, match):
    with pytest.raises(ValueError, match=match):
        call()

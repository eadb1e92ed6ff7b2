"""Transformed kernels are computed once in eval mode, and again after any change of the weights."""

import copy

import pytest
import torch
from layer_catalogue import REPRESENTATIVES, USES, scrambled
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations


@pytest.fixture(params=[name for name in REPRESENTATIVES if USES[name].is_convolution])
def case(request, device, monkeypatch):
    """A layer in eval mode, an input, and a list that grows by one at each computation of the kernels."""
    use = USES[request.param]
    layer, x = scrambled(use.make("C4")).to(device), use.input("C4", (8, 8)).to(device)
    computations, transform = [], use.layer._transform

    def counted(self, weight):
        computations.append(weight)
        return transform(self, weight)

    monkeypatch.setattr(use.layer, "_transform", counted)
    return layer, x, computations


def truth(layer, x):
    """Return the output of the layer without cached kernels."""
    return copy.deepcopy(layer).train()(x).detach()


def test_kernels_are_computed_once_in_eval_mode(case):
    layer, x, computations = case
    with torch.no_grad():
        first = layer(x)
        assert all(torch.equal(layer(x), first) for _ in range(3))
    assert len(computations) == 1
    with torch.inference_mode():
        layer(x)
    assert len(computations) == 1


def test_kernels_are_computed_at_each_call_while_the_weights_learn(case):
    layer, x, computations = case
    layer.train()
    with torch.no_grad():
        layer(x), layer(x)
    assert len(computations) == 2
    layer.eval()  # fine-tuning with frozen statistics
    y = layer(x)
    assert y.requires_grad
    layer(x)
    assert len(computations) == 4


def test_a_change_without_a_trace_is_seen_after_training(case, monkeypatch):
    """As of training steps that are replayed from a CUDA graph, or of optimizers that write to `.data` there."""
    layer, x, _ = case
    monkeypatch.setattr("gconv_ga.nn._geometry._CacheEntry.is_valid", lambda entry, weights: True)
    with torch.no_grad():
        before = layer(x)
        layer.train()
        layer.weight.mul_(2)
        layer.eval()
        assert torch.equal(layer(x), truth(layer, x))
        assert not torch.equal(layer(x), before)


def test_kernels_of_frozen_weights_are_computed_once_although_the_input_learns(case):
    layer, x, computations = case
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(x)
    x.requires_grad_()
    for _ in range(2):
        layer(x).sum().backward()
    assert len(computations) == 1
    assert x.grad.abs().max() > 0


def load_state_dict(layer, x):
    layer.load_state_dict({key: 2 * value for key, value in layer.state_dict().items()})


def load_state_dict_by_assignment(layer, x):
    layer.load_state_dict({key: 2 * value for key, value in layer.state_dict().items()}, assign=True)


def optimizer_step(layer, x):
    with torch.enable_grad():
        layer(x).square().mean().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def edit_in_place(layer, x):
    layer.weight.mul_(2)


def edit_one_number(layer, x):
    layer.weight.view(-1)[3] += 1


def new_parameter(layer, x):
    layer.weight = nn.Parameter(2 * layer.weight)


def reset_parameters(layer, x):
    layer.reset_parameters()


def weight_norm(layer, x):
    parametrizations.weight_norm(layer)
    layer.parametrizations.weight.original0.mul_(2)


def training(layer, x):
    layer.train()
    optimizer_step(layer, x)
    layer.eval()


CHANGES = [
    load_state_dict, load_state_dict_by_assignment, optimizer_step, edit_in_place, edit_one_number, new_parameter,
    reset_parameters, weight_norm, training,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_cached_kernels_go_when_the_weights_change(case, change):
    layer, x, _ = case
    with torch.no_grad():
        before = layer(x)
        change(layer, x)
        after = layer(x)
        assert torch.equal(after, truth(layer, x))
        assert not torch.equal(after, before)


def data_in_place(layer):
    layer.weight.data.mul_(2)


def data_one_number(layer):
    layer.weight.data.view(-1)[3] += 1


def data_assigned(layer):
    layer.weight.data = 2 * layer.weight.data


@pytest.mark.parametrize("change", [data_in_place, data_one_number, data_assigned], ids=lambda change: change.__name__)
def test_edits_through_data_are_seen_on_the_cpu(case, change):
    layer, x, _ = case
    if x.device.type != "cpu" and change is not data_assigned:
        pytest.skip("such an edit leaves no trace, and comparing numbers would make an accelerator wait (see the docs)")
    with torch.no_grad():
        before = layer(x)
        change(layer)
        assert torch.equal(layer(x), truth(layer, x))
        assert not torch.equal(layer(x), before)


def test_cached_kernels_follow_the_dtype(case):
    layer, x, _ = case
    with torch.no_grad():
        layer(x)
        y = layer.to(torch.float32)(x.float())
        assert y.dtype == torch.float32
        assert torch.equal(y, truth(layer, x.float()))
        assert torch.equal(layer.double()(x), truth(layer, x))


def test_other_weights_for_one_call_leave_nothing_behind(case):
    layer, x, _ = case
    with torch.no_grad():
        mine = layer(x)
        others = {key: 2 * value for key, value in layer.named_parameters()}
        theirs = functional_call(layer, others, (x,))
        assert torch.equal(layer(x), mine)
        layer.load_state_dict(others, strict=False)
        assert torch.equal(layer(x), theirs)
        assert not torch.equal(mine, theirs)


def test_what_is_cached_does_not_depend_on_autocast(case):
    layer, x, _ = case
    layer, x = layer.float(), x.float()
    with torch.no_grad():
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            layer(x)
        assert torch.equal(layer(x), truth(layer, x))


def test_an_ensemble_shares_one_layer(case):
    """torch.func.vmap over stacked weights: nothing batched may be cached."""
    layer, x, _ = case
    with torch.no_grad():
        mine = layer(x)
        stacked = {key: torch.stack((value, 2 * value)) for key, value in layer.named_parameters()}
        both = torch.func.vmap(lambda parameters: functional_call(layer, parameters, (x,)))(stacked)
        assert torch.allclose(both[0], mine, atol=1e-12)
        assert torch.allclose(both[1], 2 * mine, atol=1e-12)
        assert torch.equal(layer(x), mine)

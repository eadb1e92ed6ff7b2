"""A check restores the state of the module and of the random numbers, and leaves the inputs alone."""

import contextlib
import copy
import random

import pytest
import torch
from symmetric_nets import image, symmetric_net
from torch import nn

from gconv_ga.checks import assert_equivariant, equivariance_error, equivariance_report

CHECKS = [equivariance_error, assert_equivariant, equivariance_report]


def quietly(check, module, *args, **options):
    """Run the check, whatever its verdict."""
    with contextlib.suppress(AssertionError, RuntimeError, ValueError):
        check(module, *args, **options)


class Stateful(nn.Module):
    """Writes into its input, counts in a saved buffer, replaces another, draws random numbers, and may fail."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.net, self.fails_at = symmetric_net(), fails_at
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.ones(3))
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.shared = self.net  # a second path to the same parts
        self.seen_training = []

    def forward(self, x):
        self.count += 1
        self.mean = self.mean * 0.5
        self.cache.fill_(1)
        self.seen_training += [torch.is_grad_enabled(), *(part.training for part in self.modules())]
        if self.fails_at is not None and self.count >= self.fails_at:
            raise RuntimeError("failed on purpose")
        return self.net(x.add_(1)) + 0 * torch.rand(())


@pytest.mark.parametrize("fails_at", [None, 1, 3])
@pytest.mark.parametrize("check", CHECKS)
def test_everything_is_as_before(check, fails_at):
    module, x = Stateful(fails_at), image(2, 1, 6, 6).requires_grad_()
    module.train()
    module.net[1].eval()  # frozen by its user
    module.net[2][1].requires_grad_(False)
    modes = [part.training for part in module.modules()]
    state, buffers, before = copy.deepcopy(module.state_dict()), dict(module.named_buffers()), x.detach().clone()
    randoms = torch.get_rng_state(), random.getstate()

    quietly(check, module, "C4", x)

    assert not any(module.seen_training)
    assert len(module.seen_training) > 0
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), randoms[0])
    assert random.getstate() == randoms[1]
    assert torch.equal(x, before)
    assert x.requires_grad
    assert x.grad is None
    after = module.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert all(buffer is buffers[name] for name, buffer in module.named_buffers() if name != "cache")
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.is_grad_enabled()


def test_a_stateful_module_is_measured_right_all_the_same():
    """The module writes into its input, so every run must get its own copy."""
    assert float(equivariance_error(Stateful(), "D4", image(2, 1, 6, 7)).max()) <= 1e-10


class HandsBackItsBuffer(nn.Module):
    """Returns the same memory at every call, and its input as it is."""

    def __init__(self, shift):
        super().__init__()
        self.shift, self.out = shift, torch.zeros(1, 1, 6, 6, dtype=torch.float64)

    def forward(self, x):
        self.out.copy_(x.roll(self.shift, -1))
        return self.out, x


def test_outputs_are_kept_apart():
    """Otherwise the second output would overwrite the first, and every error would be that of the last run."""
    errors = equivariance_error(HandsBackItsBuffer(shift=1), "C4", image(1, 1, 6, 6))
    assert errors[0] == 0
    assert bool((errors[1:] > 0.1).all())
    assert float(equivariance_error(HandsBackItsBuffer(shift=0), "C4", image(1, 1, 6, 6)).max()) == 0


class BuildsInEval(nn.Module):
    """Does more in `train` than set a flag, like libraries that cache rotated kernels in eval mode."""

    def __init__(self):
        super().__init__()
        self.scale, self.kept = nn.Parameter(torch.full((1,), 2.0)), None
        self.norm = nn.BatchNorm2d(1)

    def train(self, mode=True):
        super().train(mode)
        self.kept = None if mode else self.scale.detach() * 3
        self.norm.eval()  # its norm never trains
        return self

    def forward(self, x):
        return self.norm(x) * (self.scale * 3 if self.training else self.kept)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("check", CHECKS)
def test_eval_and_train_are_called_not_only_the_flags_set(check, training):
    module = BuildsInEval().train(training)
    with torch.no_grad():
        module.scale.fill_(5)  # the cache of eval() is stale now
    quietly(check, module, "C4", image(1, 1, 5, 5, dtype=torch.float32))
    assert module.training == training
    assert not module.norm.training
    assert (module.kept is None) == training


class Frozen(nn.Sequential):
    """Never trains, whatever it is told."""

    def train(self, mode=True):
        return super().train(False)


@pytest.mark.parametrize("check", CHECKS)
def test_flags_that_train_would_not_set_come_back(check):
    module = nn.Sequential(Frozen(symmetric_net(), nn.Dropout(0.5)))
    module.train()
    module[0][1].training = True  # as for Monte Carlo dropout
    module[0].training = True
    modes = [part.training for part in module.modules()]
    quietly(check, module, "C4", image(1, 1, 6, 6))
    assert [part.training for part in module.modules()] == modes


def test_training_runs_before_and_after_give_the_same_numbers():
    """A check in between changes nothing: dropout draws the same, norms have the same statistics."""

    def train(check):
        torch.manual_seed(3)
        net = nn.Sequential(symmetric_net(), nn.Dropout(0.5))
        losses = []
        for _ in range(3):
            loss = net(torch.randn(4, 1, 6, 6, dtype=torch.float64)).square().mean()
            losses.append(loss.item())
            check(net)
        return losses, net.state_dict()

    plain, plain_state = train(lambda net: None)
    checked, checked_state = train(lambda net: equivariance_error(net, "D4", image(2, 1, 6, 6)))
    assert plain == checked
    assert all(torch.equal(plain_state[name], checked_state[name]) for name in plain_state)


def test_hooks_of_the_user_stay_and_ours_go():
    net, calls = symmetric_net(), []
    net[0].register_forward_hook(lambda *args: calls.append(1))
    hooks = [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in net.modules()]
    equivariance_report(net, "C4", image(1, 1, 6, 6))
    quietly(equivariance_report, Stateful(fails_at=1), "C4", image(1, 1, 6, 6))
    assert [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in net.modules()] == hooks
    assert calls


def test_modules_that_take_gradients_inside_work():
    """Forces of an energy: the module turns gradients on itself."""

    class Forces(nn.Module):
        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (force,) = torch.autograd.grad((x - x.mean(1, keepdim=True)).square().sum() ** 2, x)
            return force

    assert_equivariant(Forces(), "C8", image(2, 5, 3), in_action="points", out_action="points")


def test_inference_mode_outside_is_no_problem():
    net = symmetric_net()
    with torch.inference_mode():
        assert float(equivariance_error(net, "C4", image(1, 1, 6, 6)).max()) <= 1e-10


def test_lazy_modules_are_run():
    net = nn.Sequential(nn.LazyConv2d(2, 1), nn.LazyBatchNorm2d(affine=False))
    assert float(equivariance_error(net, "C4", image(2, 1, 6, 6, dtype=torch.float32)).max()) <= 1e-5

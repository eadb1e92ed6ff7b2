"""Two processes on the CPU: batch norm, the loss and the curve are those of one process with the whole batch."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.train import CrossEntropyDice, Segmenter
from gconv_ga.train._processes import (
    BatchShareSampler,
    SharedBatchNorm,
    gather,
    is_main_process,
    process_count,
)

NORMS = {
    "torch": (nn.BatchNorm2d, (5, 6)),
    "ours": (gnn.BatchNorm2d, (4, 5, 6)),
    "plain numbers": (functools.partial(nn.BatchNorm2d, affine=False), (5, 6)),
    "mean of all": (functools.partial(nn.BatchNorm2d, momentum=None), (5, 6)),
    "no memory": (functools.partial(nn.BatchNorm2d, track_running_stats=False), (5, 6)),
}


def batches(size):
    """Four samples whose statistics differ."""
    noise = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise * torch.arange(1, 5).view(-1, *(1 for _ in (3, *size))) + torch.arange(4).view(
        -1, *(1 for _ in (3, *size))
    )


def trained(norm, x):
    """What comes of two batches: output, gradients, statistics."""
    norm(x.flip(1))
    x = x.clone().requires_grad_()
    y = norm(x)
    y.pow(3).sum().backward()
    gradients = {f"{name}.grad": parameter.grad for name, parameter in norm.named_parameters()}
    return {"y": y.detach(), "x.grad": x.grad, **gradients, **norm.state_dict()}


JOINED = {"y": torch.cat, "x.grad": torch.cat, "weight.grad": sum, "bias.grad": sum}


def in_process(rank, store, folder):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for name, (kind, size) in NORMS.items():
        for shared in (True, False):
            norm = kind(3).double()
            if shared:
                SharedBatchNorm().apply(norm)
            found = trained(norm, batches(size)[2 * rank : 2 * rank + 2])
            torch.save(found, f"{folder}/{name}-{shared}-{rank}.pt")
            SharedBatchNorm().revert(norm)
            assert "forward" not in vars(norm)
    model = nn.Conv2d(1, 2, 1)
    part = slice(rank, rank + 1)
    loss = Segmenter(model).training_step(tuple(each[part] for each in images_and_masks(model)), 0)
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2  # as DDP does
    torch.save({"loss": loss.detach(), "grad": model.weight.grad}, f"{folder}/loss-{rank}.pt")
    dist.destroy_process_group()


def images_and_masks(model):
    """One image full of the class, one with a pixel of it: the Dice loss of both is not the mean of the two."""
    masks = torch.zeros(2, 6, 6, dtype=torch.int64)
    masks[0], masks[1, 0, 0] = 1, 1
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.3, -0.7]).view(2, 1, 1, 1))
        model.bias.zero_()
    return torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)), masks


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder in which two processes have left what they found; forked, as importing takes ten times as long."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(in_process, (folder / "store", folder), nprocs=2, start_method="fork")
    return folder


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("name", list(NORMS))
def test_batch_norm_sees_all_processes_as_one(name, shared, together):
    kind, size = NORMS[name]
    parts = [torch.load(together / f"{name}-{shared}-{rank}.pt") for rank in (0, 1)]
    whole = trained(kind(3).double(), batches(size))
    errors = {}
    for key, value in whole.items():
        found = [part[key] for part in parts]
        joined = JOINED[key](found) if key in JOINED else found[0]
        errors[key] = float((joined - value).abs().max())
    exact = all(error <= 1e-10 for error in errors.values())
    assert exact == shared, errors


def test_the_loss_is_that_of_the_whole_batch(together):
    parts = [torch.load(together / f"loss-{rank}.pt") for rank in (0, 1)]
    model, loss = nn.Conv2d(1, 2, 1), CrossEntropyDice()
    images, masks = images_and_masks(model)
    whole = loss(model(images), masks)
    whole.backward()
    mean = (loss(model(images[:1]), masks[:1]) + loss(model(images[1:]), masks[1:])) / 2
    assert (mean - whole).abs().item() > 0.01, "an example on which the mean would do proves nothing"
    for part in parts:
        assert torch.allclose(part["loss"], whole, rtol=0, atol=1e-6)
        assert torch.allclose(part["grad"], model.weight.grad, rtol=0, atol=1e-6)


def test_one_process_is_left_alone(generator):
    x = torch.randn(3, 2, generator=generator)
    assert process_count() == 1
    assert is_main_process()
    assert torch.equal(gather(x), x[None])
    norm, plain = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    SharedBatchNorm().apply(norm)
    assert torch.equal(norm(x), plain(x))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_batches_of_all_processes_are_those_of_one(count, monkeypatch):
    parts = []
    monkeypatch.setattr("gconv_ga.train._processes.process_count", lambda: count)
    for rank in range(count):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        part = BatchShareSampler(22, 4, count)
        parts.append(list(part))
        assert len(part) == len(parts[-1])
    own = 4 // count
    for batch in range(5):
        items = [item for part in parts for item in part[batch * own : (batch + 1) * own]]
        assert items == list(range(4 * batch, 4 * batch + 4))


@pytest.mark.parametrize(("variable", "value"), [("NODE_RANK", "1"), ("GROUP_RANK", "2")])
def test_another_node_does_not_lead(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert not is_main_process()

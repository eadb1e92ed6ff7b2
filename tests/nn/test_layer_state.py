"""Saving, copying and moving of layers; layers on the meta device and on devices that are absent."""

import copy
import io
import pickle

import pytest
import torch
from layer_catalogue import CONVOLUTIONS, USES, scrambled
from slow_average import relative
from tolerances import TOLERANCES
from torch import distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import gconv_ga.nn as gnn

AVERAGES = {
    "swa": {},
    "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.9999)},
    "ema by tensor": {"avg_fn": get_ema_avg_fn(0.9)},
}
LEARNT = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def layer_and_input(name, group="C4", size=(8, 11)):
    use = USES[name]
    return scrambled(use.make(group)), use.input(group, size)


@pytest.mark.parametrize("name", USES)
def test_the_state_is_what_was_learnt_in_both_modes(name):
    layer, x = layer_and_input(name)
    keys = list(layer.train().state_dict())
    assert set(keys) == {key for key, _ in [*layer.named_parameters(), *layer.named_buffers()] if key in LEARNT}
    layer.eval()
    with torch.no_grad():
        layer(x)
    assert list(layer.state_dict()) == keys
    assert list(layer.train().state_dict()) == keys


@pytest.mark.parametrize("modes", [("train", "eval"), ("eval", "train"), ("eval", "eval")], ids="-".join)
@pytest.mark.parametrize("name", USES)
def test_saved_in_one_mode_and_loaded_in_another(name, modes):
    layer, x = layer_and_input(name)
    other, _ = layer_and_input(name)
    with torch.no_grad():
        expected, before = layer(x), other(x)
        getattr(layer, modes[0])()
        getattr(other, modes[1])()
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        assert str(other.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
        assert torch.equal(other.eval()(x), expected)
    assert not list(layer.parameters()) or not torch.equal(before, expected)


def tensors_of(layer):
    """Return all tensors that a layer and its parts hold: parameters, buffers and lookup tables."""
    held = [value for part in layer.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
    return [*layer.parameters(), *layer.buffers(), *held]


def pickled(layer):
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", USES)
def test_copies_compute_the_same_and_live_on_their_own(name, copied):
    layer, x = layer_and_input(name)
    with torch.no_grad():
        expected = layer(x)
        other = copied(layer)
        assert not any("_cache_entry" in module.__dict__ for module in other.modules())
        assert torch.equal(other(x), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(layer(x), expected)


def test_a_whole_layer_is_saved_and_loaded(tmp_path):
    layer, x = layer_and_input("GroupConv2d, stride 2")
    torch.save(layer, tmp_path / "layer.pt")
    assert torch.equal(torch.load(tmp_path / "layer.pt", weights_only=False)(x), layer(x))


@pytest.mark.parametrize("name", USES)
def test_a_layer_made_on_the_meta_device_comes_to_life(name):
    use = USES[name]
    with torch.device("meta"):
        layer = use.make("C4")
    assert {tensor.device.type for tensor in tensors_of(layer)} <= {"meta"}
    alive = layer.to_empty(device="cpu")
    for module in alive.modules():
        if hasattr(module, "reset_parameters"):
            torch.manual_seed(3)
            module.reset_parameters()
    torch.manual_seed(3)
    twin, x = use.make("C4"), use.input("C4", (8, 11), dtype=torch.float32)
    assert torch.equal(alive.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_layer_made_on_the_meta_device_is_loaded(name, assign):
    layer, x = layer_and_input(name)
    empty = USES[name].make("C4", device="meta", dtype=torch.float64)
    if not assign:
        empty.to_empty(device="cpu")
    empty.load_state_dict(layer.state_dict(), assign=assign)
    assert torch.equal(empty.eval()(x), layer(x))


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", USES)
def test_every_tensor_is_where_the_layer_is(name, mode):
    """On a fake device: a table left on the CPU would stop the layer on an accelerator."""
    use = USES[name]
    with FakeTensorMode():
        layer = getattr(use.make("D4", device="cuda"), mode)()
        x = torch.empty(use.shape("D4", (8, 11)), device="cuda")
        found = [*tensors_of(layer), layer(x)]
        with torch.no_grad():
            found.append(layer(x))
        assert {tensor.device.type for tensor in found} == {"cuda"}


@pytest.mark.usefixtures("fake_cuda")
def test_a_tensor_left_behind_is_seen():
    with FakeTensorMode():
        layer = USES["GroupConv2d"].make("C4", device="cuda")
        layer._parameters["bias"] = layer._parameters["bias"].cpu()
        with pytest.raises(RuntimeError, match="device"):
            layer(torch.empty(2, 2, 4, 8, 8, device="cuda"))


@pytest.mark.parametrize("name", USES)
def test_a_moved_layer_leaves_nothing_behind(name):
    layer = USES[name].make("C4").to("meta", torch.bfloat16)
    tensors = tensors_of(layer)
    assert {tensor.device.type for tensor in tensors} <= {"meta"}
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} <= {torch.bfloat16}


def test_batch_norm_becomes_the_synchronised_one():
    layer, f = layer_and_input("BatchNorm2d")
    net = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(copy.deepcopy(layer)))
    assert type(net[0]) is nn.SyncBatchNorm
    assert torch.equal(net.eval()(f), layer(f))


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("name", [name for name, use in USES.items() if list(use.make("C4").parameters())])
def test_the_average_of_equal_layers_is_the_layer(name, average):
    """With its buffers, as batch norm asks for: an average that rounds takes 6 to 5."""
    layer, x = layer_and_input(name)
    averaged = AveragedModel(layer, use_buffers=True, **AVERAGES[average])
    with torch.no_grad():
        for _ in range(4):
            averaged.update_parameters(layer)
            assert relative(averaged.eval()(x), layer(x)) <= TOLERANCES[torch.float64]


@pytest.fixture
def _empty_is_full_of_nonsense():
    """Memory that is not initialized has NaN and the largest ints, not the numbers of the last tensor there."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_empty_is_full_of_nonsense")
@pytest.mark.parametrize("name", USES)
def test_weights_of_ones_own_after_a_start_without_numbers(name):
    """`to_empty`, of which `torch.nn.utils.skip_init` is made, and then no `reset_parameters`."""
    layer, x = layer_and_input(name)
    for empty in copy.deepcopy(layer).to("meta"), copy.deepcopy(layer):
        empty.to_empty(device="cpu")
        with torch.no_grad():
            for mine, its in zip(empty.state_dict().values(), layer.state_dict().values(), strict=True):
                mine.copy_(its)
            assert torch.equal(empty.eval()(x), layer(x))


def without_its_layer(layer, weights):
    """Replace parameters one by one, as tools that shard or load large networks do."""
    for name, weight in weights.items():
        layer._parameters[name] = nn.Parameter(weight)


def by_assignment(layer, weights):
    layer.load_state_dict(weights, assign=True)


@pytest.mark.parametrize("load", [without_its_layer, by_assignment], ids=lambda load: load.__name__)
@pytest.mark.parametrize("name", [*CONVOLUTIONS, "VectorHead"])
def test_weights_that_come_in_place_of_empty_ones(name, load):
    """Of another device and dtype; the tables follow, with all their digits."""
    layer, x = layer_and_input(name)
    empty = USES[name].make("C4", device="meta", dtype=torch.bfloat16).eval()
    load(empty, layer.state_dict())
    assert torch.equal(empty(x), layer(x))


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "VectorHead"])
def test_a_device_that_is_given_overrules_the_context(name):
    layer = USES[name].make("C4")
    with torch.device("meta"):
        given = USES[name].make("C4", device="cpu")
    given.load_state_dict(layer.state_dict())
    x = USES[name].input("C4", (8, 11), dtype=torch.float32)
    assert torch.equal(given(x), layer(x))


@pytest.mark.parametrize("group", ["C4", "C8"])
def test_sharded_weights_are_drawn_like_whole_ones(group, tmp_path):
    """As `fully_shard` leaves them on the meta device, before `to_empty` and `reset_parameters`."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with torch.device("meta"):
            layer = gnn.GroupConv2d(2, 4, 3, group=group)
        fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
        layer.to_empty(device="cpu").reset_parameters()
        whole = layer.weight.full_tensor()
    finally:
        distributed.destroy_process_group()
    expected = torch.as_tensor(layer.filters.variance(2 * layer.group.order, rectified=True)) ** 0.5
    drawn = whole.flatten(0, 2) if group == "C8" else whole.flatten()
    assert (drawn.std(0) / expected - 1).abs().max() < 0.5

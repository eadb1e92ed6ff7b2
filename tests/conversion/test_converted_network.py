"""Using a converted network: weights in and out, torch's tools, outputs of every kind."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from conversion_nets import Busy, Classifier, image, of_smp, randomised
from slow_average import elements, relative, slow_average, turn, turn_back
from tolerances import TOLERANCES
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gconv_ga.actions import Keypoints, RegularField, VectorField
from gconv_ga.averaging import GroupAverage
from gconv_ga.conversion import ConvertedNetwork, convert, fold
from gconv_ga.conversion._layers import OrbitConv2d
from gconv_ga.groups import D4
from gconv_ga.nn import algorithm, algorithms

TIGHT = TOLERANCES[torch.float64]
X = image(2, 3, 24, 31)


def busy(seed: int = 0) -> Busy:
    torch.manual_seed(seed)
    return randomised(Busy(), X)


@pytest.fixture
def net() -> ConvertedNetwork:
    return convert(busy(), "C4", X)


class TestWeights:
    def test_the_keys_are_the_plain_networks(self, net):
        assert list(net.state_dict()) == list(busy().state_dict())
        assert list(net.train().state_dict()) == list(net.eval().state_dict())

    @torch.no_grad()
    def test_loading_before_and_after_is_the_same(self, net):
        other = busy(seed=1)
        for parameter in other.parameters():
            parameter.mul_(1.1)
        missing = net.load_state_dict(other.state_dict())
        assert (missing.missing_keys, missing.unexpected_keys) == ([], [])
        assert relative(net(X), slow_average(other, "C4", X)) <= TIGHT
        assert relative(net(X), convert(other, "C4", X)(X)) <= TIGHT
        # And back: a plain network takes what the converted one has learnt.
        plain = Busy().double().eval()
        plain.load_state_dict(net.state_dict())
        assert relative(plain(X), other(X)) <= TIGHT

    def test_loading_leaves_the_callers_dict_alone(self, net):
        state = busy().state_dict()
        keys = list(state)
        net.load_state_dict(state)
        assert list(state) == keys

    def test_a_missing_key_is_named_as_the_plain_network_names_it(self, net):
        state = busy().state_dict()
        del state["stem.weight"]
        with pytest.raises(RuntimeError, match=r"stem\.weight"):
            net.load_state_dict(state)

    @torch.no_grad()
    def test_inside_of_another_module(self, net):
        outer = nn.ModuleDict({"net": net, "list": nn.ModuleList([convert(Classifier(), "C2", X)])})
        plain = nn.ModuleDict({"net": busy(), "list": nn.ModuleList([Classifier()])})
        assert list(outer.state_dict()) == list(plain.state_dict())
        outer.load_state_dict(plain.state_dict())
        copied = copy.deepcopy(outer)
        assert torch.equal(copied["net"](X), outer["net"](X))

    def test_a_network_with_a_part_called_model(self):
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = nn.ModuleDict({"model": nn.Conv2d(3, 2, 3)})

            def forward(self, x):
                return self.model["model"](x)

        net = convert(Model().double(), "C4", X)
        assert list(net.state_dict()) == ["model.model.weight", "model.model.bias"]
        net.load_state_dict(net.state_dict())

    @torch.no_grad()
    def test_saved_in_training_loaded_for_evaluation(self, net):
        file = io.BytesIO()
        torch.save(net.train().state_dict(), file)
        file.seek(0)
        fresh = convert(busy(seed=1), "C4", X).eval()
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(fresh(X), net.eval()(X))


class TestTools:
    @pytest.mark.parametrize("opened", [False, True])
    @torch.no_grad()
    def test_copies(self, net, opened):
        if opened:
            net.open_taps()
            perturb(net)
        expected = net(X)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(twin(X), expected)
            assert str(twin.report) == str(net.report)
            # A copy has conjugated modules of its own.
            for parameter in twin.parameters():
                parameter.zero_()
            assert not torch.equal(twin(X), expected)
            assert torch.equal(net(X), expected)

    @torch.no_grad()
    def test_copies_of_what_is_conjugated(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.PixelShuffle(2))).double()
        net = convert(model, "C4", X, conjugate="1")
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert twin.model[1].forward.module is twin.model[1]
            assert torch.equal(twin(X), net(X))

    @pytest.mark.parametrize("opened", [False, True])
    @torch.no_grad()
    def test_compile(self, opened):
        torch._dynamo.reset()
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 3)
        )
        net = convert(randomised(model, X), "C4", X)
        if opened:
            net.open_taps()
            perturb(net)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        for x in (X, X[:1, :, :20]):
            assert relative(compiled(x), net(x)) <= TIGHT

    def test_compiled_training_step(self):
        torch._dynamo.reset()
        net = convert(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).double(), "C4", X)
        twin = copy.deepcopy(net)
        torch.compile(net.train(), fullgraph=True, backend="aot_eager")(X).square().mean().backward()
        twin.train()(X).square().mean().backward()
        for (name, parameter), other in zip(net.named_parameters(), twin.parameters(), strict=True):
            assert torch.allclose(parameter.grad, other.grad, rtol=1e-9, atol=1e-12), name

    @torch.no_grad()
    def test_export_at_every_size(self, net):
        """Batch, height and width stay free, odd and even; test_fold_onnx.py exports one with open taps."""
        axes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
        exported = torch.export.export(net, (X,), dynamic_shapes=(axes,)).module()
        for shape in ((2, 3, 24, 31), (1, 3, 33, 33), (3, 3, 32, 18)):
            x = image(*shape, seed=7)
            assert relative(exported(x), net(x)) <= TIGHT

    @torch.no_grad()
    def test_autocast_and_half(self, net):
        expected = net(X)
        low = copy.deepcopy(net).float()
        with torch.autocast("cpu", torch.bfloat16):
            assert relative(low(X.float()).double(), expected) <= TOLERANCES[torch.bfloat16]
        assert low(X.float()).dtype == torch.float32
        assert relative(low(X.float()).double(), expected) <= TOLERANCES[torch.float32]
        half = copy.deepcopy(net).bfloat16()(X.bfloat16())
        assert half.dtype == torch.bfloat16
        assert relative(half.double(), expected) <= TOLERANCES[torch.bfloat16]

    @torch.no_grad()
    def test_channels_last(self, net):
        net.open_taps()
        perturb(net)
        expected = net(X)
        net.to(memory_format=torch.channels_last)
        assert relative(net(X.contiguous(memory_format=torch.channels_last)), expected) <= TIGHT

    @torch.no_grad()
    def test_kept_kernels_follow_the_weights(self, net):
        before = net(X)
        net.model.wide.weight.mul_(2)
        assert relative(net(X), before) > 1e-3
        busy_again = copy.deepcopy(net.state_dict())
        plain = busy()
        plain.load_state_dict(busy_again)
        assert relative(net(X), slow_average(plain, "C4", X)) <= TIGHT

    def test_gradcheck(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Tanh(), nn.ConvTranspose2d(2, 1, 2, 2)).double()
        net = convert(model, "C4", image(1, 1, 6, 5))
        net.open_taps()
        perturb(net)
        assert torch.autograd.gradcheck(net, image(1, 1, 6, 5).requires_grad_())

    def test_frozen_parameters_and_dtype_stay(self):
        model = busy().float()
        model.stem.requires_grad_(False)
        net = convert(model, "C4", X.float())
        assert not net.model.stem.weight.requires_grad
        assert net.model.wide.weight.requires_grad
        assert {p.dtype for p in net.parameters()} == {torch.float32}

    def test_repr(self, net):
        text = repr(net)
        assert text.startswith("ConvertedNetwork(\n  group='C4', reduce='mean'\n  (model): Busy(")
        assert "(stem): OrbitConv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), group='C4')" in text
        net.open_taps("up", 3)
        assert ", group='C4', taps=3)" in repr(net.model.up)

    def test_devices(self, net, device):
        expected = net(X)
        assert relative(net.to(device)(X.to(device)).cpu(), expected.detach()) <= TIGHT


def perturb(net: ConvertedNetwork) -> None:
    generator = torch.Generator().manual_seed(5)
    for name, parameter in net.named_parameters():
        if name.endswith("taps"):
            size = parameter[0].numel() ** -0.5
            parameter.data = (size * torch.randn(parameter.shape, generator=generator)).to(parameter)


@pytest.mark.parametrize("decay", [0.9, 0.9999])
@pytest.mark.parametrize("way", ["converted", "opened", "folded"])
@torch.no_grad()
def test_the_average_of_equal_networks_is_the_network(net, way, decay):
    """With its buffers, as batch norm asks for: an average that rounds takes the index 6 to 5."""
    if way != "converted":
        net.open_taps()
        perturb(net)
    same = fold(net) if way == "folded" else net.eval()
    averaged = AveragedModel(same, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(decay)).eval()
    for _ in range(3):
        averaged.update_parameters(same)
    assert relative(averaged(X), net(X)) <= TIGHT


class TestOutputs:
    @pytest.mark.parametrize("group", ["C4", "D4"])
    @torch.no_grad()
    def test_maps_on_the_group(self, group):
        """`reduce="none"` is a regular field: rotating the image rotates and shifts the feature maps."""
        model, order = busy(), len(elements(group))
        net = convert(model, group, X, reduce="none")
        maps = net(X)
        assert maps.shape == (2, 2, order, 12, 16)
        for g, element in enumerate(elements(group)):
            assert relative(maps[:, :, g], turn(model(turn_back(X, element)), element)) <= TIGHT
        for g, element in enumerate(elements(group)):
            assert relative(net(turn(X, element)), RegularField()(maps, group, g)) <= TIGHT
        net.reduce = "mean"
        assert relative(net(X), maps.mean(2)) <= TIGHT

    @torch.no_grad()
    def test_class_scores_of_every_orientation(self):
        net = convert(Classifier().double(), "D4", X, reduce="none").eval()
        scores = net(X)
        assert scores.shape == (2, 4, 8)
        # The scores of the reflected and rotated image are the same, in another order.
        shuffled = net(turn(X, elements("D4")[5]))
        assert relative(shuffled[..., [D4.product(5, h) for h in range(8)]], scores) <= TIGHT

    def test_reduce_is_checked_whenever_it_is_set(self, net):
        with pytest.raises(ValueError, match=r"reduce must be one of 'mean', 'none', but got reduce='mena'.*'mean'"):
            net.reduce = "mena"
        assert net.reduce == "mean"

    @pytest.mark.parametrize("order", ["xy", "yx"])
    @pytest.mark.parametrize("group", ["C4", "D2", "D4"])
    @torch.no_grad()
    def test_vectors(self, group, order):
        """Components are rotated with the pixels: against the average, and against a gradient."""
        action = VectorField(order=order)
        model = busy()
        net = convert(model, group, X, out_action=action)
        assert relative(net(X), GroupAverage(model, group, "scalar", action)(X)) <= TIGHT
        assert relative(net(X), convert(model, group, X)(X)) > 1e-2

        class Gradient(nn.Module):
            def forward(self, x):
                rows, columns = torch.gradient(x.mean(1, keepdim=True), dim=(-2, -1))
                return torch.cat((columns, rows) if order == "xy" else (rows, columns), dim=1)

        # The gradient is equivariant already, so its average is the gradient.
        exact = convert(nn.Sequential(nn.Identity(), Gradient()), group, X, keep="1", out_action=action, verify=False)
        x = image(1, 3, 14, 17, seed=8)
        upright = convert(Gradient(), group, X, out_action=action, verify=False)
        assert relative(upright(x), Gradient()(x)) <= TIGHT
        assert relative(exact(x), Gradient()(x)) > 1e-2, "with keep=, its images are not upright"

    @torch.no_grad()
    def test_vectors_in(self):
        """Flow in, flow out."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 4, 3)).double()
        x = image(2, 2, 17, 20)
        net = convert(model, "D4", x, in_action="vector", out_action="vector")
        expected = GroupAverage(model, "D4", "vector", "vector")(x)
        assert relative(net(x), expected) <= TIGHT
        assert relative(convert(model, "D4", x, out_action="vector")(x), expected) > 1e-2
        field = VectorField()
        for g in range(8):
            assert relative(net(field(x, D4, g)), field(net(x), D4, g)) <= TIGHT

    @torch.no_grad()
    def test_points_on_the_image(self):
        """Coordinates come from upright images and are rotated with their orientation."""

        class Corners(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.linear = nn.Conv2d(3, 2, 3), nn.Linear(32, 6)

            def forward(self, x):
                return self.linear(F.adaptive_avg_pool2d(self.conv(x), 4).flatten(1)).unflatten(1, (3, 2))

        torch.manual_seed(0)
        model, action = Corners().double(), Keypoints((24, 31))
        net = convert(model, "C4", X, out_action=action)
        assert relative(net(X), GroupAverage(model, "C4", "scalar", action)(X)) <= TIGHT

    @torch.no_grad()
    def test_nests(self):
        """Dicts, tuples and lists in each other, with an action for each part; anything but a tensor passes through."""

        class Many(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.flow, self.head = Busy(3, 4), nn.Conv2d(4, 2, 3), nn.Linear(4, 5)

            def forward(self, x):
                y = self.stem(x)
                levels = [y, F.avg_pool2d(y, 2)]
                return {
                    "levels": levels,
                    "flow": (self.flow(y), "px"),
                    "scores": self.head(y.mean((2, 3))),
                    "none": None,
                }

        torch.manual_seed(0)
        model = randomised(Many(), X)
        actions = {"levels": "scalar", "flow": ("vector", "invariant"), "scores": "invariant", "none": "invariant"}
        net = convert(model, "C4", X, out_action=actions)
        x = image(2, 3, 26, 21, seed=7)
        out, expected = net(x), GroupAverage(model, "C4", "scalar", actions)(x)
        for actual, wanted in (
            (out["levels"][0], expected["levels"][0]),
            (out["levels"][1], expected["levels"][1]),
            (out["flow"][0], expected["flow"][0]),
            (out["scores"], expected["scores"]),
        ):
            assert relative(actual, wanted) <= TIGHT
        assert (out["flow"][1], out["none"], type(out["levels"])) == ("px", None, list)
        with pytest.raises(ValueError, match=r"out_action must be .*'scores'"):
            convert(model, "C4", X, out_action={"levels": "scalar", "flow": "scalar", "none": "scalar"})


class Conditioned(nn.Module):
    """An image, a second image of another size, a vector, a table of tokens, and a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(1, 4, 3, 2, 1)
        self.scale, self.tokens, self.last = nn.Linear(5, 4), nn.Linear(6, 4), nn.Conv2d(4, 2, 3)

    def forward(self, x, other, extra, flag=True):
        y = self.first(x) + F.interpolate(self.second(other), size=((x.shape[-2] + 1) // 2, (x.shape[-1] + 1) // 2))
        y = y * self.scale(extra["vector"])[..., None, None] + self.tokens(extra["tokens"]).mean(1)[..., None, None]
        return self.last(torch.tanh(y)) if flag else y


class TestInputs:
    @torch.no_grad()
    def test_several(self):
        torch.manual_seed(0)
        model = Conditioned().double()
        extra = {"vector": image(2, 5, seed=1), "tokens": image(2, 7, 6, seed=2)}
        example = (X, image(2, 1, 15, 20), extra, True)
        action = ("scalar", "scalar", "invariant", "invariant")
        net = convert(model, "D4", example, in_action=action)
        assert relative(net(*example), GroupAverage(model, "D4", action)(*example)) <= TIGHT
        x, other = image(2, 3, 20, 20, seed=7), image(2, 1, 9, 9, seed=8)
        expected = [turn(model(turn_back(x, g), turn_back(other, g), extra, True), g) for g in elements("D4")]
        assert relative(net(x, other, extra, True), sum(expected) / 8) <= TIGHT

    def test_several_batches_are_refused(self, net):
        both = convert(
            Conditioned().double(),
            "C4",
            (X, X[:, :1], {"vector": image(2, 5), "tokens": image(2, 7, 6)}),
            in_action=("scalar", "scalar", "invariant"),
        )
        with pytest.raises(
            ValueError, match=r"inputs\[1\] must be a tensor \[B=2, ...\] like inputs\[0\], but got \(1, "
        ):
            both(X, X[:1, :1], {"vector": image(2, 5), "tokens": image(2, 7, 6)})
        with pytest.raises(ValueError, match="inputs must be tensors with a batch axis, or nests with at least one"):
            net(3.0)

    @torch.no_grad()
    def test_batches_of_any_length(self, net):
        whole = net(X)
        for i in range(2):
            assert relative(net(X[i : i + 1]), whole[i : i + 1]) <= TIGHT
        assert net(X[:0]).shape == (0, *whole.shape[1:])


class TestTaps:
    """Opening the dial."""

    @pytest.mark.parametrize("count", [None, 1, 2, 3])
    @pytest.mark.parametrize("group", ["C2", "C4", "D1", "D2", "D4"])
    @torch.no_grad()
    def test_opening_changes_nothing_and_equivariance_survives_training(self, group, count):
        model, order = busy(), len(elements(group))
        if count is not None and count > order:
            pytest.skip("more taps than elements")
        net = convert(model, group, X)
        before = net(X)
        net.open_taps(group_kernel_size=count)
        assert relative(net(X), before) <= 1e-12
        assert {module.count for module in net.convolutions().values()} == {count or order}
        perturb(net)
        assert count == 1 or relative(net(X), before) > 1e-2
        # Every size, strided layers too: the phases turn with the elements.
        for size in ((24, 31), (32, 32), (33, 26), (29, 29)):
            x = image(1, 3, *size, seed=9)
            y = net(x)
            for g in elements(group):
                assert relative(net(turn(x, g)), turn(y, g)) <= TIGHT

    @pytest.mark.parametrize("threshold", [0.0, float("inf")], ids=["kernels rotate", "maps rotate"])
    @pytest.mark.parametrize("count", [2, 4])
    @torch.no_grad()
    def test_both_ways_to_compute_an_opened_layer_agree(self, count, threshold, monkeypatch):
        net = convert(busy(), "C4", X)
        net.open_taps(group_kernel_size=count)
        perturb(net)
        expected = net(X)
        thresholds = {"cached": threshold, "rotated": threshold}
        monkeypatch.setattr("gconv_ga.conversion._layers.MAP_NUMBERS_PER_WEIGHT", thresholds)
        assert relative(net(X), expected) <= TIGHT

    @pytest.mark.parametrize(
        ("count", "kind"), [(4, nn.Conv2d), (2, nn.Conv2d), (4, nn.ConvTranspose2d), (3, nn.ConvTranspose2d)]
    )
    @pytest.mark.parametrize("groups", [1, 2])
    @torch.no_grad()
    def test_an_opened_layer_is_the_sum_written_out(self, count, kind, groups):
        """``out_g = L_g sum_u k_u * L_g^-1 x_(g u)``, with plain convolutions of images rotated by torch.rot90."""
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), kind(4, 6, 3, 2, 1, groups=groups)).double()
        net = convert(plain, "C4", image(1, 2, 9, 12), reduce="none")
        net.open_taps(group_kernel_size=count)
        perturb(net)
        layer, near = net.model[1], {2: (0, 1), 3: (0, 1, 3), 4: (0, 1, 2, 3)}[count]
        x = image(1 * 4, 4, 9, 12, seed=4)
        kernels = torch.cat((layer.weight, layer.taps)).chunk(count)
        apply = F.conv2d if kind is nn.Conv2d else F.conv_transpose2d
        expected = [0] * 4
        for u, kernel in zip(near, kernels, strict=True):
            for g in range(4):
                if kind is nn.Conv2d:
                    upright = x[(g + u) % 4 : (g + u) % 4 + 1].rot90(-g, (-2, -1))
                    y = apply(upright, kernel, None, 2, 1, groups=groups).rot90(g, (-2, -1))
                    expected[g] = expected[g] + y
                else:
                    upright = x[g : g + 1].rot90(-g, (-2, -1))
                    y = apply(upright, kernel, None, 2, 1, groups=groups).rot90(g, (-2, -1))
                    expected[(g + u) % 4] = expected[(g + u) % 4] + y
        expected = torch.cat(expected) + layer.bias.view(-1, 1, 1)
        assert relative(layer(x), expected) <= TIGHT

    def test_every_tap_gets_a_gradient(self):
        net = convert(busy(), "D4", X)
        net.open_taps()
        (net(X) * image(2, 2, 12, 16, seed=9)).sum().backward()
        taps = {name: p for name, p in net.named_parameters() if name.endswith("taps")}
        assert len(taps) == len(net.convolutions()) == 8
        for name, parameter in taps.items():
            weight = net.get_parameter(name.replace("taps", "weight"))
            planes = parameter.grad.unflatten(0, (7, -1)).flatten(1)
            assert bool((planes != 0).any(1).all()), name
            ratio = planes.square().mean(1).sqrt() / weight.grad.square().mean().sqrt()
            assert 0.1 < float(ratio.min()) < 10, name

    def test_the_first_layer_stays_a_lifting_layer(self):
        """Further kernels would be redundant: their gradients all equal that of the weight."""
        net = convert(busy(), "C4", X)
        assert net.model.stem.lifts
        assert "stem" not in net.convolutions()
        net.open_taps()
        assert net.model.stem.taps is None
        with pytest.raises(
            ValueError, match=r"layers must be paths among those of .convolutions\(\), \['deep', .*layers='stem'"
        ):
            net.open_taps("stem")
        net.model.stem.open(4)
        net(X).square().mean().backward()
        stem = net.model.stem
        for plane in stem.taps.grad.chunk(3):
            assert relative(plane, stem.weight.grad) <= TIGHT

    @torch.no_grad()
    def test_a_layer_after_fixed_normalisation_lifts_too(self):
        net = convert(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).double(), "C4", X)
        assert list(net.convolutions()) == ["2"]

    def test_some_layers(self, net):
        net.open_taps(["wide", "up"], 2)
        net.open_taps(lambda path, module: path == "line", 3)
        net.open_taps("down")
        assert {path: module.count for path, module in net.convolutions().items() if module.count > 1} == {
            "wide": 2,
            "up": 2,
            "line": 3,
            "down": 4,
        }

    @torch.no_grad()
    def test_opening_further_keeps_what_is_there(self, net):
        net.open_taps(group_kernel_size=2)
        perturb(net)
        before = net(X)
        net.open_taps(group_kernel_size=3)
        assert relative(net(X), before) <= 1e-12
        net.open_taps()
        assert relative(net(X), before) <= 1e-12
        with pytest.raises(ValueError, match="group_kernel_size must be at least 4, the planes that are open"):
            net.open_taps(group_kernel_size=3)

    @pytest.mark.parametrize("count", [0, 5, 1.5])
    def test_counts_out_of_range(self, net, count):
        with pytest.raises(ValueError, match="group_kernel_size must be"):
            net.open_taps(group_kernel_size=count)

    @torch.no_grad()
    def test_opened_weights_load_into_an_opened_network(self, net):
        net.open_taps(group_kernel_size=2)
        perturb(net)
        fresh = convert(busy(seed=1), "C4", X)
        with pytest.raises(RuntimeError, match=r"Unexpected key.*wide.taps"):
            fresh.load_state_dict(net.state_dict())
        fresh.open_taps(group_kernel_size=2)
        fresh.load_state_dict(net.state_dict())
        assert torch.equal(fresh(X), net(X))

    def test_param_groups(self, net):
        assert [group["lr"] for group in net.param_groups(0.1)] == [0.1]
        net.open_taps(["wide", "up"])
        plain, taps = net.param_groups(0.1)
        assert (plain["lr"], taps["lr"]) == (0.1, 0.1 / 4)
        assert {id(p) for p in taps["params"]} == {id(net.model.wide.taps), id(net.model.up.taps)}
        assert len(plain["params"]) + len(taps["params"]) == len(list(net.parameters()))
        assert net.param_groups(0.1, tap_scale=0.5)[1]["lr"] == 0.05
        torch.optim.Adam(net.param_groups(1e-3)).step()

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [((0.0,), "lr must be a positive number"), ((0.1, -1.0), "tap_scale must be a positive number")],
    )
    def test_rates_that_are_not_positive(self, net, arguments, match):
        with pytest.raises(ValueError, match=match):
            net.param_groups(*arguments)

    def test_training_moves_an_opened_network_beyond_the_average(self):
        """A few steps lower the loss more than the same steps on the closed network, and it stays equivariant."""
        losses = {}
        for opened in (False, True):
            net = convert(busy(), "C4", X).train()
            if opened:
                net.open_taps()
            optimiser = torch.optim.Adam(net.param_groups(1e-2))
            target = slow_average(lambda x: F.avg_pool2d(x[:, :2], 2, ceil_mode=True).sin(), "C4", X)
            for _ in range(15):
                optimiser.zero_grad()
                loss = (net(X) - target).square().mean()
                loss.backward()
                optimiser.step()
            losses[opened] = loss.item()
        assert losses[True] < losses[False]
        with torch.no_grad():
            net.eval()
            assert relative(net(X.rot90(1, (-2, -1))), net(X).rot90(1, (-2, -1))) <= TIGHT

    @torch.no_grad()
    def test_a_network_that_people_use(self):
        model = randomised(of_smp("Unet")(), image(1, 3, 32, 64))
        net = convert(model, "C4", image(1, 3, 32, 64))
        x = image(1, 3, 64, 32, seed=7)
        before = net(x)
        net.open_taps(group_kernel_size=2)
        assert relative(net(x), before) <= 1e-12
        perturb(net)
        y = net(x)
        assert relative(y, before) > 1e-2
        assert relative(net(x.rot90(1, (-2, -1))), y.rot90(1, (-2, -1))) <= TIGHT


def test_opened_layers_may_be_computed_in_the_fourier_basis(monkeypatch):
    """The same numbers and gradients, whichever algorithm is chosen."""
    calls, convolve_by = [], OrbitConv2d._convolve_by
    monkeypatch.setattr(OrbitConv2d, "_convolve_by", lambda *args: calls.append(1) or convolve_by(*args))
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1))
    net = convert(plain.double(), "D4", X)
    net.open_taps()
    perturb(net)
    found, used = [], []
    for name in ("dense", "fourier"):
        x = image(2, 3, 42, 50).requires_grad_()
        calls.clear()
        with algorithm(name):
            y = net(x)
            used.append(bool(calls))
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), (x, *net.parameters()))))
    assert used == [False, algorithms()["fourier"].startswith("available")]
    assert len(net.state_dict()) == len(list(net.parameters())) == 8
    for one, other in zip(*found, strict=True):
        assert relative(one, other) <= TIGHT
    # In eval mode expanded kernels are kept, until the weights change.
    net.eval()
    x = image(2, 3, 42, 50)
    with torch.no_grad():
        for _ in range(2):
            outputs = []
            for name in ("dense", "fourier", "fourier"):
                with algorithm(name):
                    outputs.append(net(x))
            assert relative(outputs[1], outputs[0]) <= TIGHT
            assert relative(outputs[2], outputs[0]) <= TIGHT
            net.model[2].taps.mul_(1.5)

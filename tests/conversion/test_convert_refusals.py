"""Networks that convert refuses: the message names where, why, by how much, and what to do."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from conversion_nets import image, of_smp, of_timm, randomised
from slow_average import relative, slow_average
from tolerances import TOLERANCES
from torch import nn

from gconv_ga import nn as gnn
from gconv_ga.actions import Points
from gconv_ga.conversion import ConversionReport, NotConvertible, convert

X = image(1, 3, 16, 20)


def conv(*args, **options):
    return nn.Conv2d(3, 4, 3, *args, **options).double()


class Focus(nn.Module):
    """Half the pixels, four times the channels: positions become channels."""

    def forward(self, x):
        return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)


class Detector(nn.Module):
    """A container whose block is not a leaf, so that it is conjugated only on request."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Focus(), nn.Conv2d(12, 6, 3))
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3), Strip(), nn.ReLU())
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.head(self.block(self.stem(x)))


class Strip(nn.Module):
    """Attends to the columns only."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(6, 6, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x.mean(-1, keepdim=True)))


def test_the_smallest_block_at_fault_is_named_with_its_defect():
    model = randomised(Detector(), X)
    with pytest.raises(NotConvertible) as caught:
        convert(model, "C4", X)
    message = str(caught.value)
    assert message.startswith("Detector differs from its group average by ")
    assert "(tolerance 1e-08). Suspects: block.1 (Strip, " in message
    assert "The maps part at mean() in block.1 (Strip), test_convert_refusals.py:" in message
    assert "return x * torch.sigmoid(self.gate(x.mean(-1, keepdim=True)))" in message
    assert "conjugate=['block.1'] makes it exact: it was tried." in message
    assert message.endswith("Or: GroupAverage(model, group) is exact for any network.")
    report = caught.value.report
    assert report.defect > 1e-3
    (refused,) = [row for row in report.rows if row.action == "refuse"]
    assert (refused.path, refused.kind) == ("block.1", "Strip")
    assert refused.why.startswith("differs by ")
    assert "1 refuse; differs from the group average by " in str(report)


@pytest.mark.parametrize("name", ["block.1", "Strip", Strip, "block"])
@torch.no_grad()
def test_the_way_out_is_to_conjugate_the_block(name):
    model = randomised(Detector(), X)
    for wanted in (name, [name], (name, "stem")):
        net = convert(model, "C4", X, conjugate=wanted)
        x = image(2, 3, 18, 14, seed=7)
        assert relative(net(x), slow_average(model, "C4", x)) <= TOLERANCES[torch.float64]
    assert {row.path: row.why for row in net.report.rows}["stem"] == "requested"


def test_conjugating_the_wrong_block_does_not_help():
    with pytest.raises(NotConvertible, match=r"block\.1"):
        convert(randomised(Detector(), X), "C4", X, conjugate="stem")


@pytest.mark.parametrize("keep", ["Focus", ["stem"]])
def test_a_wrong_keep_is_refused(keep):
    model = nn.Sequential(OrderedDict(stem=Detector().stem)).double()
    assert convert(model, "C4", X).report.defect < 1e-12
    with pytest.raises(NotConvertible, match="Suspects: stem"):
        convert(model, "C4", X, keep=keep)


@torch.no_grad()
def test_a_convolution_that_is_kept_runs_upright_and_stays_closed():
    net = convert(nn.Sequential(conv(padding=1), nn.Conv2d(4, 2, 3, 2).double()), "C4", X, keep=nn.Conv2d)
    assert not net.convolutions()
    assert net.report.defect <= TOLERANCES[torch.float64]


def test_a_right_keep_is_taken():
    net = convert(nn.Sequential(conv(padding=1), nn.Sigmoid()), "C4", X, keep="1")
    assert [row.why for row in net.report.rows] == ["kernels rotate", "requested"]


def test_two_refused_at_once():
    model = nn.Sequential(conv((2, 1)), nn.AdaptiveMaxPool2d((2, None)))
    with pytest.raises(NotConvertible) as caught:
        convert(model, "C4", X)
    message = str(caught.value)
    assert "0 (Conv2d): stride must be the same for rows and columns under C4, but got stride=(2, 1)" in message
    assert "1 (AdaptiveMaxPool2d): a rotation by 90 degrees would change output_size=(2, None)" in message
    assert [row.action for row in caught.value.report.rows] == ["refuse", "refuse"]
    assert str(caught.value.report).endswith("C4: 0 keep, 0 swap, 0 conjugate, 2 refuse; not verified")


class Gates(nn.Module):
    """Attends to rows and to columns (coordinate attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(self.rows(x))) * torch.sigmoid(2 * self.gate(self.columns(x)))


def test_the_block_around_what_has_no_average_is_tried():
    model = nn.Sequential(conv(padding=1), nn.Sequential(Gates(), nn.ReLU())).double()
    with pytest.raises(NotConvertible) as caught:
        convert(model, "C4", X)
    message = str(caught.value)
    assert "1.0.rows (AdaptiveAvgPool2d): a rotation by 90 degrees would change output_size=(None, 1)" in message
    assert message.endswith("conjugate=['1.0'] makes it exact: it was tried.")
    assert convert(model, "C4", X, conjugate="1.0").report.defect < 1e-12


@pytest.mark.parametrize("group", ["C2", "D1", "D2"])
@torch.no_grad()
def test_what_only_a_quarter_turn_would_break_is_fine_without_one(group):
    model = nn.Sequential(conv((2, 1), (2, 0)), nn.AdaptiveAvgPool2d((5, 7)), nn.Conv2d(4, 2, (3, 1)).double())
    net = convert(model, group, X)
    x = image(2, 3, 19, 14, seed=7)
    assert relative(net(x), slow_average(model, group, x)) <= TOLERANCES[torch.float64]


class Called(nn.Module):
    """Calls a function of the feature map, and has a parameter outside of any layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function
        self.own = nn.Parameter(torch.zeros(4, 16, 16))

    def forward(self, x):
        return self.function(self, self.conv(x))


FAULTS = {
    "a table of positions that starts at zero": lambda m, y: y + m.own,
    "a branch that starts at zero": lambda m, y: y + m.own.mean(0) * y,
    "its own kernel": lambda m, y: (
        F.conv2d(y, m.own[:, :3, :3].reshape(4, 1, 3, 3) + 1, groups=4) + y.roll(1, -1)[..., 2:, 2:]
    ),
    "roll": lambda m, y: y.roll(1, -1),
    "every other row": lambda m, y: y[..., ::2, :].repeat_interleave(2, -2),
    "the middle": lambda m, y: y[..., y.shape[-2] // 2, y.shape[-1] // 2],
    "softmax along the rows": lambda m, y: y.softmax(-1),
    "cumulative sum": lambda m, y: y.cumsum(-2),
    "a ramp": lambda m, y: y + torch.linspace(0, 1, y.shape[-1]).to(y),
    "unfold": lambda m, y: F.fold(F.unfold(y, 2, stride=2).roll(1, 1), (16, 16), 2, stride=2),
    "reshaped without a transposition": lambda m, y: y.flatten(2).transpose(1, 2).reshape(y.shape),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_positions_in_a_forward_are_seen(fault):
    """A network that calls such a function is refused, even if its weights hide the effect for now."""
    with pytest.raises(NotConvertible, match=r"Suspects: \(model\) \(Called, "):
        convert(Called(FAULTS[fault]).double(), "C4", image(1, 3, 16, 16))


def test_a_line_of_the_models_own_is_mended_on_trial():
    model, x = Called(FAULTS["roll"]).double(), image(1, 3, 16, 16)
    with pytest.raises(
        NotConvertible, match=r"roll\(\) on that line, moved to a module of its own that is named in conj"
    ):
        convert(model, "C4", x)

    class Roll(nn.Module):
        def forward(self, y):
            return y.roll(1, -1)

    assert convert(nn.Sequential(conv(padding=1), Roll()), "C4", x, conjugate=Roll).report.defect < 1e-12
    twice = Called(lambda m, y: y.roll(1, -1).softmax(-1)).double()
    with pytest.raises(NotConvertible, match="No block contains the fault, so that there is none to conjugate"):
        convert(twice, "C4", x)


class Positions(nn.Module):
    """Makes a map of the image's size from nothing but that."""

    def __init__(self, table) -> None:
        super().__init__()
        self.first, self.project, self.table = conv(padding=1), nn.Conv2d(1, 4, 1).double(), table

    def forward(self, x):
        y = self.first(x)
        return y + self.project(self.table(y))


def test_maps_that_are_not_computed_from_the_image_are_told_so():
    def rows(y):
        return torch.linspace(0, 1, y.shape[-1]).to(y).expand(1, 1, y.shape[-2], -1)

    with pytest.raises(
        NotConvertible, match=r"The maps part at add\(\) in \(model\) \(Positions\), .* such as a position embedding"
    ):
        convert(Positions(rows), "C4", X)
    model = Positions(rows)
    model.project = nn.Conv2d(1, 4, 3, padding=1).double()
    with pytest.raises(NotConvertible) as caught:
        convert(model, "C4", X)
    message = str(caught.value)
    assert "the converted Positions fails at project (Conv2d), test_convert_refusals.py:" in message
    assert "return y + self.project(self.table(y))" in message
    assert "it is given maps [1, 1, 16, 20] that are not computed from the image, but from its size alone" in message


def test_a_position_embedding_is_named_as_one():
    with pytest.raises(NotConvertible) as caught:
        convert(Called(FAULTS["a table of positions that starts at zero"]).double(), "C4", image(1, 3, 16, 16))
    assert "lambda m, y: y + m.own, (a table that has numbers of its own for each place" in str(caught.value)
    mixed = nn.Sequential(conv(), Called(lambda m, y: y + y.flatten(2).transpose(1, 2).reshape(y.shape)).double())
    mixed[1].conv = nn.Identity()
    with pytest.raises(NotConvertible) as caught:
        convert(mixed, "C4", X)
    assert "position embedding" not in str(caught.value)


def bell(size):
    squares = torch.linspace(-1, 1, size, dtype=torch.float64) ** 2
    return torch.exp(-squares[:, None] - squares)


# Of the rotations and reflections, each has all for symmetries, until it is trained.
SYMMETRIC = {
    "a window": bell(16),
    "a window for each channel": torch.rand(4, 1, 1) * bell(16),
    "one place": F.pad(torch.ones(2, 2), (7, 7, 7, 7)),
    "numbers by channel": torch.rand(4, 1, 1).expand(4, 16, 16),
    "with channels last": bell(16)[..., None] * torch.rand(4),
    "in a row": bell(16).flatten(),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("table", SYMMETRIC)
def test_a_table_that_is_symmetric_for_now_is_seen(table, frozen):
    def weigh(m, y):
        own = m.own.reshape(16, 16) if m.own.ndim == 1 else m.own
        return y * (own.permute(2, 0, 1) if own.shape[-1] == 4 else own)

    model = Called(weigh).double()
    model.own = nn.Parameter(SYMMETRIC[table].double(), requires_grad=not frozen)
    with pytest.raises(NotConvertible, match=r"The maps part at mul\(\) in .* \(a table that has numbers of its own"):
        convert(model, "C4", image(1, 3, 16, 16))
    model.own = nn.Parameter(torch.rand(4, 1, 1).double(), requires_grad=not frozen)
    assert convert(model, "C4", image(1, 3, 16, 16)).report.defect < 1e-12


def test_a_symmetric_table_that_is_resized_is_seen():
    model = Called(lambda m, y: y * F.interpolate(m.own, y.shape[2:], mode="bilinear", align_corners=True)).double()
    model.own = nn.Parameter(bell(16)[None, None])
    with pytest.raises(NotConvertible, match=r"The maps part at mul\(\) in \(model\) \(Called\)"):
        convert(model, "C4", X)


def test_a_frozen_table_of_zeros_is_seen():
    model = Called(lambda m, y: y + m.own).double()
    model.own.requires_grad_(False)
    with pytest.raises(NotConvertible, match=r"The maps part at add\(\)"):
        convert(model, "C4", image(1, 3, 16, 16))


@pytest.mark.parametrize("frozen", [False, True])
@torch.no_grad()
def test_symmetric_kernels_are_fine_and_stay_as_they_are(frozen):
    """So is a symmetric table in a buffer, which is never trained."""
    blur = nn.Conv2d(4, 4, 3, groups=4).double()
    blur.weight.copy_(bell(3).expand(4, 1, 3, 3)).requires_grad_(not frozen)
    own = Called(lambda m, y: F.conv2d(y, m.own, groups=4)).double()
    own.own = nn.Parameter(bell(3).repeat(4, 1, 1, 1), requires_grad=not frozen)
    window = Called(lambda m, y: y * F.interpolate(m.table, y.shape[2:])).double()
    window.register_buffer("table", bell(2)[None, None])
    models = (nn.Sequential(conv(), blur), own, window)
    for model in models:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        net = convert(model, "C4", X)
        x = image(2, 3, 18, 14, seed=7)
        assert relative(net(x), slow_average(model, "C4", x)) <= TOLERANCES[torch.float64]
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Single(nn.Module):
    """Computes in float32, whatever it is given."""

    def __init__(self, inside) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x):
        y = self.inside(x.float())
        return y.to(x.dtype) * torch.sigmoid(x.to(torch.float32).type(torch.float64))


@pytest.mark.parametrize("conjugate", [(), Single])
def test_parts_in_float32_are_compared_in_float64(conjugate):
    model = nn.Sequential(conv(), Single(nn.Softmax(1)), nn.Conv2d(4, 2, 3).double())
    assert convert(model, "C4", X, conjugate=conjugate).report.defect < 1e-12
    blind = nn.Sequential(conv(), Single(nn.Softmax(3)))
    assert convert(blind, "C4", X, conjugate=Single).report.defect < 1e-12
    with pytest.raises(NotConvertible, match=r"Suspects: 1.inside \(Softmax, "):
        convert(blind, "C4", X, keep=Single)


def test_what_one_orientation_fails_at_is_named():
    """Sizes that come out of a block have to fit."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x):
            return self.inner(x)[..., :8, :]

    model = nn.Sequential(conv(padding=1), Rows(), nn.Conv2d(4, 2, 1).double())
    with pytest.raises(NotConvertible, match="Sequential has no average under C4 on this example: "):
        convert(model, "C4", X)
    with pytest.raises(NotConvertible, match=r"the converted Sequential fails at 1 \(Rows\): .* tried"):
        convert(model, "C4", X, conjugate="1", verify=False)


def test_what_the_plain_network_refuses_is_told_in_its_own_words():
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 2 channels"):
        convert(conv(), "C4", image(1, 2, 16, 20))


def test_networks_that_are_equivariant_are_told_that_they_need_no_conversion():
    by_design = gnn.LiftingConv2d(3, 4, 3, group="C4")
    with pytest.raises(
        NotConvertible,
        match=r"0 \(LiftingConv2d\): a layer of gconv_ga.nn; .* equivariant by design, and needs no conv",
    ):
        convert(nn.Sequential(by_design, gnn.GroupPool("C4")), "C4", X)
    net = convert(nn.Sequential(conv()), "C4", X)
    with pytest.raises(NotConvertible, match=r"model is converted already, to C4: .* needs no conversion"):
        convert(net, "C4", X)


def test_transformers_are_refused():
    vit = of_timm("vit_tiny_patch16_224", img_size=32, num_classes=3, embed_dim=48, depth=2)()
    with pytest.raises(
        NotConvertible, match=r"something else at patch_embed \(PatchEmbed\).*GroupAverage\(model, group\)"
    ):
        convert(vit, "C4", image(1, 3, 32, 32))
    swin = pytest.importorskip("torchvision").models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [7, 7])
    with pytest.raises(NotConvertible, match=r"features.1.0.attn \(ShiftedWindowAttention, .* and \d+ more"):
        convert(swin, "C4", image(1, 3, 32, 32))


@torch.no_grad()
def test_manet_needs_its_attention_conjugated():
    """Its block reads channels as positions, so no rotated kernel can be right."""
    narrow = {"encoder_depth": 3, "decoder_channels": (32, 16, 16)}
    model = randomised(of_smp("MAnet", "tu-tf_mobilenetv3_small_minimal_100", **narrow)(), image(1, 3, 32, 64))
    with pytest.raises(NotConvertible, match=r"Suspects: decoder.center \(PABBlock, "):
        convert(model, "C4", image(1, 3, 32, 64))
    net = convert(model, "C4", image(1, 3, 32, 64), conjugate="PABBlock")
    x = image(1, 3, 64, 32, seed=7)
    assert relative(net(x), slow_average(model, "C4", x)) <= TOLERANCES[torch.float64]


class Lost(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.conv, self.answer = nn.Conv2d(3, 4, 3), answer

    def forward(self, x):
        return self.answer(self.conv(x))


def test_an_answer_that_does_not_depend_on_the_image_proves_nothing():
    with pytest.raises(ValueError, match="example must be one that the model's output depends on"):
        convert(Lost(lambda y: torch.ones_like(y)).double(), "C4", X)
    # Nearly so is seen as well: the difference is measured by what the image does.
    faint = Lost(lambda y: 1 + 1e-12 * y.roll(1, -1)).double()
    with pytest.raises(NotConvertible):
        convert(faint, "C4", image(1, 3, 16, 16))


def test_a_plain_network_that_returns_nan_is_told_so():
    pool = nn.LPPool2d(3, 2, ceil_mode=True)  # cube roots of negative sums
    model = nn.Sequential(nn.Conv2d(3, 6, 3), pool, nn.Conv2d(6, 2, 3))
    advice = (
        r"returns NaN or infinity, first at 1 \(LPPool2d\), before any conversion .*; mend it, or use another example"
    )
    with pytest.raises(
        ValueError, match=f"example must be one that Sequential returns finite numbers for.* The plain network {advice}"
    ):
        convert(model, "C4", X)
    infinite = Lost(lambda y: y / (y.shape[-1] - 18)).double()
    with pytest.raises(ValueError, match=r"NaN or infinity, first at \(model\) \(Lost\), before any"):
        convert(infinite, "C4", X)
    # In one orientation only.
    with pytest.raises(ValueError, match="returns finite numbers for, in all orientations"):
        convert(Lost(lambda y: y / (y.shape[-1] - 14)).double(), "C4", X)


def test_sizes_that_a_plain_network_returns_nan_for_are_left_out():
    model = Lost(lambda y: y / (y.shape[-1] * y.shape[-2] - 17 * 23)).double()
    assert convert(model, "C4", X).report.sizes == [(16, 20), (21, 25)]


@pytest.mark.parametrize(
    "answer", [lambda y: y.argmax(1), lambda y: y.mean(), lambda y: y[y > 0], lambda y: y.flatten(0, 1).sum((1, 2))]
)
def test_an_answer_without_a_mean_is_refused(answer):
    with pytest.raises(NotConvertible, match="has no average under C4 on this example: output"):
        convert(Lost(answer).double(), "C4", X)


def test_an_answer_that_has_lost_its_batch_is_refused_unverified_too():
    lost = Lost(lambda y: y.mean((0, 2, 3))[:3]).double()
    with pytest.raises(ValueError, match=r"output must be a tensor \[B \|G\|, ...\] with \|G\|=4, but got \(3,\)"):
        convert(lost, "C4", X, verify=False)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"group": "C8"}, "group must be one of C1, C2, C4, D1, D2, D4, but got group='C8'. Average with GroupAverage"),
        ({"group": "C4x"}, "group must be"),
        ({"model": conv}, "model must be a torch.nn.Module, but got model="),
        ({"example": "x"}, r"example must be a batch of images \[B, C, H, W\], or a tuple that starts with one"),
        ({"example": ()}, "example must be a batch of images"),
        ({"example": (1, X)}, "example must be a batch of images"),
        ({"example": X[0]}, "example must be a batch of images"),
        ({"example": X[:0]}, "example must be a batch of images"),
        (
            {"example": torch.ones(1, 3, 8, 8)},
            "example must be finite images with some contrast.* A constant one proves",
        ),
        ({"example": X / 0}, "example must be finite images"),
        ({"dropout": "shared"}, "dropout must be one of 'independent', 'tied'"),
        ({"reduce": "max"}, "reduce must be one of 'mean', 'none'"),
        ({"conjugate": "0.conv"}, "conjugate must be paths, class names or classes of modules of the model.*'0.conv'"),
        ({"conjugate": [3]}, "conjugate must be paths, class names or classes of modules, but got conjugate=3"),
        ({"conjugate": int}, "conjugate must be paths, class names or classes of modules"),
        ({"keep": ["Conv2D"]}, "keep must be paths, class names or classes of modules of the model"),
        ({"out_action": "vectors"}, "out_action must be"),
        ({"out_action": "labels"}, "out_action must be an action on something that has a mean"),
        ({"out_action": {"a": "scalar"}}, "out_action must be one action, or actions nested as output is"),
        ({"in_action": Points()}, "in_action must be an action on images, or 'invariant'.* use GroupAverage"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments(options, match):
    arguments = {"model": conv(), "group": "C4", "example": X} | options
    with pytest.raises(ValueError, match=match):
        convert(arguments.pop("model"), arguments.pop("group"), arguments.pop("example"), **arguments)


def test_dropout_that_also_shifts_cannot_be_tied():
    model = nn.Sequential(conv(), nn.AlphaDropout(0.5))
    assert convert(model, "C4", X).report.count("keep") == 1
    with pytest.raises(NotConvertible, match=r"1 \(AlphaDropout\): dropout='tied' is for masks that only multiply"):
        convert(model, "C4", X, dropout="tied")


def test_without_verification_the_report_says_so():
    net = convert(Called(FAULTS["roll"]).double(), "C4", image(1, 3, 16, 16), verify=False)
    assert net.report.defect is None
    assert str(net.report).endswith("C4: 0 keep, 1 swap, 0 conjugate; not verified")


def test_a_report_of_nothing():
    assert str(ConversionReport("C4")).splitlines()[-1] == "C4: 0 keep, 0 swap, 0 conjugate; not verified"

"""`equivariance_report` names the part that breaks the whole, and no other."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from symmetric_nets import Lifting, SmallUNet, block, classifier, image, symmetric_net, symmetrise
from torch import nn

from gconv_ga.checks import Report, equivariance_error, equivariance_report
from gconv_ga.models import EquivariantUNet


def row(report, path):
    (found,) = [row for row in report.rows if row.path == path]
    return found


def blamed(report):
    """The paths of the culprits, from the headline of the text."""
    return list(report.culprits)


@pytest.mark.parametrize("size", [(8, 8), (6, 10)], ids=str)
@pytest.mark.parametrize("group", ["C4", "D4"])
@pytest.mark.parametrize(
    "make", [symmetric_net, lambda: symmetrise(SmallUNet()), classifier], ids=["net", "unet", "classifier"]
)
def test_a_good_net_is_good_in_every_part(make, group, size):
    report = equivariance_report(make(), group, image(2, 1, *size))
    assert report.ok
    assert report.worst is None
    assert {row.status for row in report.rows} == {"ok"}
    assert all(row.error <= 1e-10 for row in report.rows)
    assert not any(row.why for row in report.rows)


@pytest.mark.parametrize(("whole", "part"), [("C8", "C4"), ("D4", "C4"), ("D4", "D2"), ("D8", "D4")])
def test_regular_fields_of_a_larger_group_are_known_under_a_part_of_it(whole, part):
    net, x = EquivariantUNet(1, 2, group=whole, width=1, depth=2).double().eval(), image(1, 1, 16, 16)
    report = equivariance_report(net, part, x)
    assert report.ok
    assert {row.status for row in report.rows} == {"ok"}
    assert row(report, "encoder.blocks.0.3").fields == "regular -> regular"
    # Maps in an order that is not that of the group.
    hook = net.encoder.blocks[0][2].register_forward_hook(lambda module, inputs, output: output.roll(1, 2) * output)
    broken = equivariance_report(net, part, x)
    hook.remove()
    assert broken.ok == (whole[0] == "C"), "a shift commutes with the shifts of C_n, and not with those of D_n"
    hook = net.encoder.blocks[0][2].register_forward_hook(lambda module, inputs, output: output.flip(2) * output)
    broken = equivariance_report(net, part, x)
    hook.remove()
    assert blamed(broken) == ["encoder.blocks.0.2"]


@pytest.mark.parametrize("parts", ["all", "suspect"])
@pytest.mark.parametrize(("own", "tested"), [("C1", "C4"), ("C8", "D4"), ("C4", "C8")])
def test_of_a_network_for_another_group_only_the_whole_is_tested(own, tested, parts):
    """Its maps with 1 or 8 elements are no regular fields of the group to test, though D4 and C8 have 8 as well."""
    net, x = EquivariantUNet(1, 2, group=own, width=1, depth=2).double().eval(), image(1, 1, 16, 16)
    report = equivariance_report(net, tested, x, parts=parts, tolerance=1e-6)
    assert [row.path for row in report.rows] == [""]
    assert row(report, "").error == pytest.approx(float(equivariance_error(net, tested, x).max()), rel=1e-12)
    assert str(report).count("\n") == 3
    assert report.worst.why == (
        f"Give it a group that contains {tested}: it is made for {own}, and need not be equivariant under more."
    )


def test_errors_are_those_of_the_parts_alone():
    """Each one is `equivariance_error` of that part on its own input, computed here by hand."""
    net, x = symmetric_net(), image(2, 1, 6, 6)
    net[1][0].weight.data[0, 0, 0, 0] += 1
    report = equivariance_report(net, "C4", x)
    with torch.no_grad():
        z = net.eval()[0](x)
    assert row(report, "1.0").error == pytest.approx(float(equivariance_error(net[1][0], "C4", z).max()), rel=1e-12)
    assert row(report, "").error == pytest.approx(float(equivariance_error(net, "C4", x).max()), rel=1e-12)
    assert row(report, "1.0").shapes == ((2, 4, 6, 6),)
    assert row(report, "1.0").kind == "Conv2d"


@pytest.mark.parametrize("path", ["0.0", "1.0", "2.0"])
def test_the_broken_part_is_named_and_those_behind_it_are_not(path):
    net = symmetric_net()
    net.get_submodule(path).weight.data[0, 0, 0, 1] += 1
    report = equivariance_report(net, "C4", image(2, 1, 6, 6))
    assert not report.ok
    assert blamed(report) == [path]
    assert report.worst.path == path
    assert {row.path for row in report.rows if row.status == "broken"} == {"", path[0], path}
    assert row(report, "").why == f"Fix {path} first: only then can its own forward be judged."
    assert "its kernel is not symmetric under C4" in report.worst.why


def test_the_worst_of_several_culprits_is_the_one_with_the_largest_error():
    net = symmetric_net()
    net[0][0].weight.data[0, 0, 0, 1] += 1e-6
    net[2][0].weight.data[0, 0, 0, 1] += 10
    report = equivariance_report(net, "C4", image(2, 1, 6, 6))
    assert blamed(report) == ["0.0", "2.0"]
    assert report.worst.path == "2.0"


class Functional(nn.Module):
    """Equivariant parts, and one operation in between."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.operation = symmetric_net(), operation
        self.last = symmetrise(nn.Conv2d(2, 2, 3, padding=1))

    def forward(self, x):
        return self.last(self.operation(self.first(x)))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.roll(1, -1),
        lambda x: F.pad(x, (0, 1, 0, 1)),
        lambda x: x[..., ::2, ::2],
        lambda x: x.flatten(2).reshape(1, 36, 2, 1).permute(0, 2, 1, 3),
        lambda x: x.softmax(-1),
        lambda x: x + torch.arange(6.0),
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ],
    ids=["roll", "pad", "slice", "reshape", "softmax", "position", "pool"],
)
def test_an_operation_in_a_forward_is_put_down_to_it(operation):
    report = equivariance_report(nn.Sequential(Functional(operation)), "C4", image(1, 1, 6, 6))
    assert blamed(report) == ["0"]
    assert report.worst.why.startswith("Look for the fault in its own forward, since its parts are fine:")
    assert row(report, "").why.startswith("Fix 0 first:")


def test_a_good_operation_in_a_forward_is_not():
    report = equivariance_report(Functional(lambda x: F.avg_pool2d(x, 2)), "C4", image(1, 1, 6, 6))
    assert report.ok


def test_a_part_inside_something_equivariant_does_no_harm():
    class Average(nn.Module):
        """The group average over C_4, of a net with any kernels."""

        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(1, 2, 3, padding=1).double()

        def forward(self, x):
            return sum(torch.rot90(self.net(torch.rot90(x, -g, (-2, -1))), g, (-2, -1)) for g in range(4))

    report = equivariance_report(nn.Sequential(Average(), nn.ReLU()), "C4", image(1, 1, 6, 7))
    assert report.ok
    assert blamed(report) == []
    inner = row(report, "0.net")
    assert (inner.status, inner.calls) == ("harmless", 4)
    assert inner.why == "Not equivariant by itself, but the whole is."
    assert str(report).count("\n    ") == 0, "in the table the status alone says it"
    # and where the whole is broken elsewhere, the average is named
    report = equivariance_report(nn.Sequential(Average(), nn.MaxPool2d(2)), "C4", image(1, 1, 6, 7))
    assert blamed(report) == ["1"]
    assert row(report, "0.net").why == "Not equivariant by itself, but 0 is."


def test_a_part_that_is_called_twice_is_judged_by_its_worst_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return self.pool(self.pool(x))

    report = equivariance_report(Twice(), "C4", image(1, 1, 10, 10))
    assert (row(report, "pool").calls, row(report, "pool").shapes) == (2, ((1, 1, 5, 5),))
    assert "leaves 1 of 5 rows over" in row(report, "pool").why
    assert equivariance_report(Twice(), "C4", image(1, 1, 12, 12)).ok


def test_parts_that_write_into_their_input_are_judged_on_what_they_were_given():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Hardswish(inplace=True), nn.MaxPool2d(2, ceil_mode=True))
    report = equivariance_report(net, "C4", image(1, 1, 6, 5))
    assert [row.status for row in report.rows] == ["broken", "ok", "ok", "broken"]

    class ShiftsTheNegative(nn.Module):
        """Broken by the negative entries of its input, which it then sets to zero."""

        def forward(self, x):
            y = x.clamp(min=0) + x.clamp(max=0).roll(1, -1)
            x.relu_()
            return y

    assert blamed(equivariance_report(nn.Sequential(ShiftsTheNegative()), "C4", image(1, 1, 6, 6))) == ["0"]


def test_parts_that_are_never_called_are_listed_as_such():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.ReLU(), nn.Conv2d(1, 1, 3)
            self.several = nn.ModuleList([nn.ReLU()])

        def forward(self, x):
            return self.used(x) * self.unused.weight.double().sum()

    report = equivariance_report(Unused(), "C4", image(1, 1, 6, 6))
    assert report.ok
    assert [row.path for row in report.rows if row.status == "not called"] == ["unused", "several.0"]
    assert row(report, "unused").why.startswith("Never called.")
    assert row(report, "unused").calls == 0
    assert math.isnan(row(report, "unused").error)
    assert "several" not in {row.path for row in report.rows}, "a list has no forward"


class Several(nn.Module):
    """Passes a keyword on, and returns a tuple, a dict and None."""

    def __init__(self, shift=0):
        super().__init__()
        self.inner = Inner(shift)

    def forward(self, x):
        (first, second), more = self.inner(x, scale=x.amax((1, 2, 3)), name="a")
        return {"sum": first + second, "more": more["third"], "none": None}


class Inner(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, x, *, scale, name):
        assert name == "a"
        return (x * scale.view(-1, 1, 1, 1), x.square()), {"third": x.roll(self.shift, -1), "name": name}


def test_several_inputs_and_outputs():
    report = equivariance_report(Several(), "D4", image(2, 1, 5, 6))
    assert report.ok
    assert row(report, "inner").fields == "scalar, invariant -> scalar, scalar, scalar"
    assert row(report, "inner").shapes == ((2, 1, 5, 6), (2,))
    assert blamed(equivariance_report(Several(shift=1), "D4", image(2, 1, 5, 6))) == ["inner"]


def test_a_dead_part_is_no_evidence_and_no_culprit():
    net = nn.Sequential(nn.ReLU(), nn.Identity())
    alive = lambda x: x.clone()  # noqa: E731

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return alive(x) + self.net(-x.abs())

    report = equivariance_report(Dead(), "C4", image(1, 1, 6, 6))
    assert report.ok
    assert row(report, "net.0").status == "no evidence"
    assert "output is zero, which proves nothing" in row(report, "net.0").why


def test_parts_behind_a_global_pool_cannot_break():
    report = equivariance_report(classifier(), "D4", image(2, 1, 8, 8))
    assert row(report, "4").fields == "invariant -> invariant"
    assert row(report, "2").fields == "scalar -> scalar"
    assert row(report, "3").fields == "scalar -> invariant"


def test_tokens_are_listed_as_not_tested():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(1, 3).double()

        def forward(self, x):
            return self.mix(x.flatten(2).mT).mT.unflatten(-1, x.shape[-2:])

    report = equivariance_report(Tokens(), "C4", image(1, 1, 6, 6))
    assert report.ok
    assert row(report, "mix").status == "not tested"
    assert row(report, "mix").why == "No rule tells how C4 acts on a tensor of shape (1, 36, 1)."


def test_a_part_that_is_told_a_size_is_tested_where_the_size_can_turn():
    class Resize(nn.Module):
        def forward(self, x, size):
            return F.interpolate(x, size=size, mode="bilinear")

    class Decoder(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.up, self.shift = Resize(), shift

        def forward(self, x):
            return self.up(F.avg_pool2d(x, 2), x.shape[-2:]).roll(self.shift, -1)

    report = equivariance_report(Decoder(0), "C4", image(1, 1, 6, 8))
    assert report.ok
    assert row(report, "up").status == "not tested"
    assert row(report, "up").why == (
        "Use a square image: the size (6, 8) among its inputs does not rotate with the image."
    )
    # The part is not blamed for the fault of its parent.
    report = equivariance_report(Decoder(1), "C4", image(1, 1, 6, 8))
    assert blamed(report) == [""]
    assert report.worst.why.startswith("Look for the fault in its own forward or in what was not tested (up), since")
    for group, size in (("C4", (6, 6)), ("D2", (6, 8))):
        assert row(equivariance_report(Decoder(0), group, image(1, 1, *size)), "up").status == "ok"


def test_maps_on_the_group_are_regular_fields():
    class Net(nn.Module):
        def __init__(self, steps):
            super().__init__()
            self.lift, self.norm = Lifting(steps).double(), nn.BatchNorm3d(2).double()
            self.pool = nn.MaxPool3d((1, 2, 2))

        def forward(self, x):
            return self.pool(self.norm(self.lift(x)))

    report = equivariance_report(Net((0, 1, 2, 3)), "C4", image(1, 1, 6, 8))
    assert report.ok
    assert row(report, "lift").fields == "scalar -> regular"
    assert row(report, "pool").fields == "regular -> regular"
    assert blamed(equivariance_report(Net((0, 3, 2, 1)), "C4", image(1, 1, 6, 8))) == ["lift"]
    # Four entries on the element axis do not make a feature map on D_4.
    whole = nn.Sequential(Net((0, 1, 2, 3)), nn.Flatten(1, 2))
    assert row(equivariance_report(whole, "D4", image(1, 1, 6, 8)), "0.lift").status == "not tested"


def test_channels_last_parts_are_understood():
    class Permute(nn.Module):
        def __init__(self, dims):
            super().__init__()
            self.dims = dims

        def forward(self, x):
            return x.permute(self.dims)

    body = [Permute([0, 2, 3, 1]), nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4), Permute([0, 3, 1, 2])]
    net = nn.Sequential(symmetrise(block(1, 4)), nn.Sequential(*body)).double()
    report = equivariance_report(net, "D4", image(2, 1, 5, 6))
    assert report.ok
    assert {row.status for row in report.rows} == {"ok"}
    assert row(report, "1.2").fields == "scalar, channels last -> scalar, channels last"
    assert blamed(equivariance_report(nn.Sequential(nn.Linear(6, 6).double()), "C4", image(2, 6, 6, 6))) == ["0"]


def test_the_users_actions_are_used_inside_too():
    class Flow(nn.Module):
        """A vector field in, its negative out."""

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Identity(), nn.Identity()

        def forward(self, v):
            return self.last(-self.first(v))

    report = equivariance_report(Flow(), "D4", image(1, 2, 5, 6), in_action="vector", out_action="vector")
    assert report.ok
    assert row(report, "").fields == row(report, "first").fields.replace("scalar", "vector") == "vector -> vector"
    assert row(report, "last").fields == "vector -> vector"
    assert not equivariance_report(Flow(), "D4", image(1, 2, 5, 6), in_action="vector", out_action="scalar").ok


def test_a_part_that_fails_on_the_turned_input_is_broken():
    class FixedSize(nn.Module):
        def forward(self, x):
            return x + torch.zeros(5, 6)

    report = equivariance_report(nn.Sequential(nn.ReLU(), FixedSize()), "C4", image(1, 1, 5, 6))
    assert blamed(report) == ["1"]
    assert report.worst.error == math.inf
    assert report.worst.why.startswith("It fails on its input moved by the group: RuntimeError: The size of tensor")


def test_random_parts_are_named():
    class Noise(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=True)

    report = equivariance_report(nn.Sequential(nn.ReLU(), Noise()), "C4", image(1, 1, 6, 6))
    assert blamed(report) == ["1"]
    assert report.worst.why.startswith("Make it deterministic: two runs on the same input differ")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parts_that_are_not_finite_are_named(value):
    class Overflow(nn.Module):
        def forward(self, x):
            return x.where(torch.arange(x.shape[-1]) != 2, value)

    report = equivariance_report(nn.Sequential(nn.ReLU(), Overflow()), "C4", image(1, 1, 6, 6))
    assert not report.ok
    assert blamed(report) == ["1"]
    assert "Its output is not finite." in report.worst.why
    assert math.isnan(report.worst.error)


def test_another_output_shape_is_told():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, stride=(2, 1)).double())
    report = equivariance_report(net, "C4", image(1, 1, 7, 7))
    assert "Under element 1 it returns output of shape (1, 1, 4, 7) instead of (1, 1, 7, 4)." in report.worst.why
    assert "Use the same stride for rows and columns: " in report.worst.why
    assert "stride is (2, 1)." in report.worst.why
    assert equivariance_report(net, "D2", image(1, 1, 7, 7)).ok


def test_angles_off_the_grid_have_their_own_words():
    line = torch.linspace(-2, 2, 33, dtype=torch.float64)
    x = torch.exp(-((line - 0.4) ** 2) * 2 - 3 * (line.unsqueeze(1) + 0.3) ** 2).view(1, 1, 33, 33)
    net = nn.Sequential(nn.AvgPool2d(3, 1, 1), symmetrise(nn.Conv2d(1, 1, 5, padding=2)))
    assert equivariance_report(net, "C4", x).ok
    report = equivariance_report(net, "C8", x, tolerance=1e-6)
    assert not report.ok
    assert report.worst.why.startswith("Compare with interpolation_error: the errors arise only at angles off the grid")
    with pytest.raises(ValueError, match=r"^tolerance must be given for C8"):
        equivariance_report(net, "C8", x)


def test_narrow_types_have_their_own_tolerance():
    net = symmetric_net().bfloat16()
    assert equivariance_report(net, "D4", image(2, 1, 8, 8, dtype=torch.bfloat16)).ok
    net[1][0].weight.data[0, 0, 0, 1] += 1
    assert blamed(equivariance_report(net, "D4", image(2, 1, 8, 8, dtype=torch.bfloat16))) == ["1.0"]


def test_the_text_is_a_table():
    net = nn.Sequential(symmetric_net(), nn.MaxPool2d(2), nn.Conv2d(2, 1, 1).double())
    text = str(equivariance_report(net, "C4", image(1, 1, 6, 7)))
    lines = text.splitlines()
    assert lines[0] == "Sequential is not equivariant under C4, because of 1."
    assert lines[1].split() == ["part", "class", "calls", "input", "fields", "error"]
    table = [line for line in lines[1:] if not line.startswith("    ")]
    columns = [lines[1].index(head) for head in ("class", "calls", "input", "fields", "error")]
    for line in table:
        assert all(line[column - 1] == " " and line[column] != " " for column in columns)
    (pool,) = [line for line in table if line.startswith("1 ")]
    assert pool.split()[:7] == ["1", "MaxPool2d", "1", "1x2x6x7", "scalar", "->", "scalar"]
    assert pool.endswith("broken")
    why = [line.strip() for line in lines if line.startswith("    ")]
    assert "kernel 2, stride 2, padding 0 leaves 1 of 7 columns over at the far end." in " ".join(why)
    assert "Give this layer 6 or 8 columns, or use a layer of gconv_ga.nn" in " ".join(why)
    assert max(map(len, lines)) <= 120


def test_the_text_of_a_good_net_and_of_many_culprits():
    good = str(equivariance_report(symmetric_net(), "C4", image(1, 1, 6, 6)))
    assert good.startswith("Sequential is equivariant under C4.\n")
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(6))).double()
    bad = str(equivariance_report(net, "C4", image(1, 1, 6, 6)))
    assert bad.startswith("Sequential is not equivariant under C4, because of 0, 1, 2 and 3 more.\n")
    forward = str(equivariance_report(Functional(lambda x: x.roll(1, -1)), "C4", image(1, 1, 6, 6)))
    assert forward.startswith("Functional is not equivariant under C4, because of its own forward.\n")


class HiddenOutput(nn.Module):
    """Returns what no check sees: a tensor in an object."""

    def forward(self, x):
        return x, SimpleNamespace(y=x.roll(1, -1))


def test_a_report_is_a_value():
    report = equivariance_report(symmetric_net(), "C4", image(1, 1, 6, 6))
    assert isinstance(report, Report)
    assert isinstance(report.rows, tuple)
    with pytest.raises(AttributeError):
        report.rows = ()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda x: equivariance_report(lambda x: x, "C4", x),
            r"^module must be a torch\.nn\.Module",
        ),
        (lambda x: equivariance_report(nn.ReLU(), "C5.5", x), r"^group must be a group or its name"),
        (lambda x: equivariance_report(nn.ReLU(), "C4", "x"), r"^inputs must be tensors, or nests"),
        (lambda x: equivariance_report(nn.ReLU(), "C4", x, in_action="scaler"), r"^in_action must be one of"),
        (lambda x: equivariance_report(nn.ReLU(), "C4", x, out_action="scaler"), r"^out_action must be one of"),
        (lambda x: equivariance_report(nn.ReLU(), "C4", x, tolerance=-1), r"^tolerance must be a positive number"),
        (lambda x: equivariance_report(nn.ReLU(), "C4", x, view=0), r"^view must be above 0"),
        (
            lambda x: equivariance_report(nn.Flatten(2), "C4", x),
            r"^out_action must be given for this module, .* No rule tells how C4 acts on .* shape \(1, 1, 25\)",
        ),
        (
            lambda x: equivariance_report(HiddenOutput(), "C4", x),
            r"^output\[1\] must be a tensor, None, a number or a string",
        ),
    ],
)
def test_bad_arguments_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(image(1, 1, 5, 5))


def test_a_size_among_the_users_inputs_must_be_able_to_turn():
    class Resize(nn.Module):
        def forward(self, x, size):
            return F.interpolate(x, size=size, mode="bilinear")

    assert equivariance_report(Resize(), "C4", image(1, 1, 5, 5), (7, 7)).ok
    with pytest.raises(ValueError, match=r"^inputs must rotate with the image, but the size \(7, 8\) among them"):
        equivariance_report(Resize(), "C4", image(1, 1, 5, 5), (7, 8))


def test_a_module_that_cannot_run_says_so_itself():
    with pytest.raises(RuntimeError, match="channels"):
        equivariance_report(nn.Conv2d(3, 1, 1).double(), "C4", image(1, 1, 5, 5))


@pytest.mark.parametrize("broken", [None, "0.0", "1.0", "2.0"])
def test_suspects_alone_give_the_same_verdict(broken):
    """The rows are the same too, except that parts inside an equivariant part are left out."""
    net, x = symmetric_net(), image(2, 1, 6, 6)
    if broken is not None:
        net.get_submodule(broken).weight.data[0, 0, 0, 1] += 1
    every, suspects = equivariance_report(net, "C4", x), equivariance_report(net, "C4", x, parts="suspect")
    assert (suspects.ok, suspects.culprits, suspects.worst) == (every.ok, every.culprits, every.worst)
    fine = [part.path for part in every.rows if part.status == "ok"]
    listed = [part.path for part in suspects.rows]
    expected = [
        part.path for part in every.rows
        if not any(path == "" != part.path or part.path.startswith(f"{path}.") for path in fine)
    ]  # fmt: skip
    assert listed == expected
    assert len(listed) < len(every.rows)
    assert [repr(part) for part in suspects.rows] == [repr(row(every, path)) for path in listed]


@pytest.mark.parametrize("parts", ["all", "suspect"])
def test_progress_counts_all_parts(parts):
    net, seen = symmetric_net(), []
    equivariance_report(net, "C4", image(2, 1, 6, 6), parts=parts, progress=lambda *numbers: seen.append(numbers))
    total = len(list(net.modules()))
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_other_parts_are_refused():
    with pytest.raises(ValueError, match=r"^parts must be one of 'all', 'suspect', but got parts='some'\."):
        equivariance_report(symmetric_net(), "C4", image(2, 1, 6, 6), parts="some")

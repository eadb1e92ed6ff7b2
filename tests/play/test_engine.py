"""What the page computes, run in node as it stands in the page, against torch."""

import json
import shutil
import subprocess

import pytest
import torch
from torch import nn

from gconv_ga.actions import ScalarField
from gconv_ga.averaging import GroupAverage
from gconv_ga.images import Normalization, load_sample
from gconv_ga.models import EquivariantUNet, ObjectUNet, UNet
from gconv_ga.nn.functional import lifting_conv2d
from gconv_ga.play import NETWORKS, play_page
from gconv_ga.segmenter import Checkpoint, SegmenterConfig, load_checkpoint

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

# The page's own script and data, and what a test asks of them.
PROGRAM = """
const fs = require("fs");
const page = fs.readFileSync(process.argv[2], "utf8");
const part = (pattern) => page.match(pattern)[1];
const Engine = new Function(part(/<script id="engine">([^]*?)<\\/script>/) + "; return Engine;")();
const data = JSON.parse(part(/<script type="application\\/json" id="data">([^]*?)<\\/script>/));
const read = ({ weights, ...rest }) => Engine.readNetwork(rest, new Float32Array(Engine.decodeBytes(weights).buffer));
const ours = data.networks.map(read);
const baseline = data.baseline && read(data.baseline);
const input = JSON.parse(fs.readFileSync(process.argv[3], "utf8"));
if (input.image) input.image = Float32Array.from(input.image);
const list = (numbers) => Array.from(numbers);
const answer = (() => { %s })();
process.stdout.write(JSON.stringify(answer));
"""


@pytest.fixture
def ask(tmp_path):
    """A function that runs a few lines of JavaScript on a page and returns what they return."""

    def run(page, lines, **given):
        for name, text in (("page.html", page), ("input.json", json.dumps(given)), ("ask.cjs", PROGRAM % lines)):
            (tmp_path / name).write_text(text, encoding="utf-8")
        command = [NODE, *(str(tmp_path / name) for name in ("ask.cjs", "page.html", "input.json"))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def checkpoint(model, architecture, **arguments):
    """A checkpoint of a network in which every weight matters, those of the batch norms too."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.add_(0.3 * noise.abs() if name.endswith("running_var") else 0.3 * noise)
    classes = [f"class {index}" for index in range(model.classes)]
    normalization = Normalization([100.0] * model.in_channels, [50.0] * model.in_channels)
    arguments = {"in_channels": model.in_channels, "classes": model.classes, **arguments}
    return Checkpoint(model.eval(), SegmenterConfig(architecture, arguments, classes, normalization), 0)


def equivariant(in_channels, classes, **arguments):
    model = EquivariantUNet(in_channels, classes, **arguments)
    return checkpoint(model, "EquivariantUNet", **arguments)


def with_objects(in_channels, classes, **arguments):
    model = ObjectUNet(in_channels, classes, **arguments)
    model.in_channels = in_channels
    return checkpoint(model, "ObjectUNet", **arguments)


def plain(in_channels, classes, **arguments):
    return checkpoint(UNet(in_channels, classes, **arguments), "UNet", **arguments)


FORWARD = """
const chosen = input.networks.map((name) => (name < 0 ? baseline : ours[name]));
return chosen.map((net) => list(Engine.forward(net, input.image, input.side)));
"""


def logits_of(ask, page, image, networks=(0,)):
    side = image.shape[-1]
    found = ask(page, FORWARD, image=image.flatten().tolist(), side=side, networks=list(networks))
    return torch.tensor(found).view(len(networks), -1, side, side)


def assert_close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (equivariant, {"group": "C4", "width": 4, "depth": 3}),
        (equivariant, {"group": "C4", "width": 5, "depth": 2, "group_kernel_size": 2, "reduction": "max"}),
        (equivariant, {"group": "D4", "width": 2, "depth": 2, "filters": "steerable"}),
        (equivariant, {"group": "C8", "width": 1, "depth": 3, "kernel_size": 5, "pooling": "max_blur"}),
        (equivariant, {"group": "D3", "width": 2, "depth": 2, "group_kernel_size": 4}),
        (with_objects, {"group": "C4", "width": 3, "depth": 2, "neck": 20}),
        (with_objects, {"group": "C8", "width": 1, "depth": 2}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@torch.no_grad()
def test_forward_pass_equals_torch(network, options, ask, generator):
    run = network(3, 3, **options)
    image = torch.randn(1, 3, 16, 16, generator=generator)
    found = logits_of(ask, play_page(run), image)
    assert_close(found, run.model(image))
    with pytest.raises(AssertionError):
        assert_close(found, run.model(image.rot90(1, (-2, -1))))


@torch.no_grad()
def test_plain_network_and_its_group_average_equal_torch(ask, generator):
    run = plain(1, 2, width=6, depth=2, pooling="max_blur")
    image = torch.randn(1, 1, 16, 16, generator=generator)
    average, itself = logits_of(ask, play_page(run), image, networks=(0, -1))
    assert_close(itself[None], run.model(image))
    # The mean over the group comes before the linear head, so that it is the average of the logits.
    assert_close(average[None], GroupAverage(run.model, "C4")(image))


@torch.no_grad()
def test_trained_networks_equal_torch_on_the_images_of_the_page(ask):
    """From the bytes of the image to the logits, at full size."""
    lines = """
    const raw = Float32Array.from(Engine.decodeBytes(data.images[1].pixels));
    const image = Engine.normalize(raw, 1, ours[3].normalization);
    return [ours[3], baseline].map((net) => list(Engine.forward(net, image, 128)));
    """
    image = load_sample("nuclei").test.images[:1]
    found = torch.tensor(ask(play_page(), lines)).view(2, 1, 2, 128, 128)
    for logits, name in zip(found, ("c4-taps-4", "baseline"), strict=True):
        assert_close(logits, load_checkpoint(NETWORKS / f"{name}.safetensors").model(image))


def test_images_rotate_as_in_torch(ask, generator):
    image = torch.rand(1, 2, 8, 8, generator=generator)
    lines = "return [90, 180, 270, 45, -45].map((angle) => list(Engine.rotate(input.image, 8, angle)))"
    found = torch.tensor(ask(play_page(), lines, image=image.flatten().tolist())).view(5, 1, 2, 8, 8)
    for turns in (1, 2, 3):
        torch.testing.assert_close(found[turns - 1], image.rot90(turns, (-2, -1)))
    inside = slice(2, 6)  # the corners come from outside, where torch and the page put other values
    for angle, element in ((3, 1), (4, 7)):
        expected = ScalarField()(image, "C8", element)
        assert_close(found[angle][..., inside, inside], expected[..., inside, inside], 1e-5)


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_lifted_maps_and_their_mean_equal_torch(group, ask, generator):
    run = equivariant(3, 2, group=group, width=2, depth=1)
    image = torch.randn(1, 3, 16, 16, generator=generator)
    lines = """
    const maps = Engine.lift(ours[0], 1, input.image, 16);
    const average = Engine.groupAverage(ours[0], 1, input.image, 16);
    const broken = Engine.groupAverage(ours[0], 1, input.image, 16, { inverse: true });
    return { maps: maps.map(list), mean: list(Engine.mean(maps)), average: list(average), broken: list(broken) };
    """
    found = {
        name: torch.tensor(value) for name, value in ask(play_page(run), lines, image=image.flatten().tolist()).items()
    }
    lift, norm = run.model.encoder.blocks[0][:2]
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    expected = lifting_conv2d(image, lift.weight.detach() * scale.view(-1, 1, 1, 1), group, padding=1)[0, 1]
    assert_close(found["maps"].view_as(expected), expected, 1e-5)
    average = GroupAverage(nn.Conv2d(3, 2, 3, padding=1, bias=False), group)
    average.module.weight = nn.Parameter(lift.weight * scale.view(-1, 1, 1, 1))
    wanted = average(image)[0, 1].detach().flatten()
    assert_close(found["mean"], wanted, 1e-5)
    assert_close(found["average"], wanted, 1e-5)
    with pytest.raises(AssertionError):
        assert_close(found["broken"], wanted, 1e-2)


def test_each_mistake_breaks_what_the_page_says_it_breaks(ask):
    """Labels that change at 90 degrees: none by the rule, many with each mistake, with all taps and with one."""
    lines = """
    const raw = Float32Array.from(Engine.decodeBytes(data.images[0].pixels));
    const { disc, fill } = Engine.prepare(raw, ours[3], 128);
    const count = (net, breaks) => {
      const [upright, rotated] = [0, 90].map((angle) => Engine.predict(net, disc, 128, angle, fill, breaks));
      return upright.filter((label, at) => label !== rotated[at]).length;
    };
    const only = (name) => ({ ...Engine.NO_BREAKS, [name]: true });
    return {
      none: ours.map((net) => count(net, Engine.NO_BREAKS)),
      full: ["direction", "inverse", "shift"].map((name) => count(ours[3], only(name))),
      one: ["direction", "inverse", "shift"].map((name) => count(ours[0], only(name))),
      baseline: count(baseline, Engine.NO_BREAKS),
    };
    """
    changed = ask(play_page(), lines)
    assert changed["none"] == [0, 0, 0, 0]
    assert min(changed["full"] + changed["one"]) > 20
    assert changed["baseline"] > 20

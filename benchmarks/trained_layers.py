"""What training does to the error of a layer: C_8 segmenters of any_angle.py before and after. See README.md there.

In the environment of any_angle.py:

    python benchmarks/trained_layers.py --methods "escnn, k=3" "ours, k=3"
"""

import argparse
from collections.abc import Sequence

import torch
from any_angle import TASKS
from any_angle_networks import METHODS
from segmentation_tasks import load_task, quick_parts, read_parts, train
from torch import Tensor, nn

from gconv_ga.nn import GroupConv2d, LiftingConv2d

ORDER = 8


def kernels(layer: nn.Module) -> Tensor | None:
    """Of a convolution all kernels, ``[C_out, 8, C_in, 8, k, k]``, of a lifting one ``[C_out, 8, C_in, 1, k, k]``."""
    if isinstance(layer, LiftingConv2d | GroupConv2d):
        flat = layer.turned_kernels().unflatten(2, (layer.in_channels, -1))
    elif type(layer).__name__ == "R2Conv":
        filters, _ = layer.expand_parameters()
        planes = ORDER if layer.in_type.size > len(layer.in_type.representations) else 1
        flat = filters.flatten(2).view(-1, ORDER, layer.in_type.size // planes, planes, filters[0, 0].numel())
    else:
        return None
    size = round(flat.shape[-1] ** 0.5)
    return flat.detach().double().view(*flat.shape[:4], size, size)


def layer_error(K: Tensor) -> float:
    """How much a layer's output differs when kernels and photographs are turned by 45 degrees, relative.

    Photographs are waves whose power falls as ``1 / p^2``, none of which correlate, and so are the input channels.
    """
    size = K.shape[-1]
    along = torch.linspace(-torch.pi, torch.pi, 130, dtype=torch.float64)[1:-1]
    wx, wy = torch.meshgrid(along, along, indexing="xy")
    inside = wx.square() + wy.square() < torch.pi**2
    waves = torch.stack((wx[inside], wy[inside]), dim=1)
    power = 1 / (waves.square().sum(1) + 0.01)
    half = 0.5**0.5
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    x, y = place.repeat(size), -place.repeat_interleave(size)
    answers = []
    for turned, planes in ((waves, K[:, 0]), (waves @ torch.tensor([[half, half], [-half, half]]).double(), K[:, 1])):
        phases = turned[:, :1] * x + turned[:, 1:] * y
        answers.append(planes.flatten(-2).to(torch.complex128) @ torch.exp(1j * phases).T)
    upright, turned = answers
    if K.shape[3] == ORDER:
        turned = turned.roll(-1, dims=2)  # the plane of h goes to that of the next element
    missed = ((upright - turned).abs().square() * power).sum()
    energy = ((upright.abs().square() + turned.abs().square()) / 2 * power).sum()
    return float((missed / energy).sqrt())


def errors(model: nn.Module) -> list[float]:
    """Of each convolution on maps and of the lifting one."""
    found = [kernels(layer) for layer in model.modules()]
    return [layer_error(K) for K in found if K is not None and K.shape[-1] > 1]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Trains each network and prints the errors before and after: mean, lowest and highest of its layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["escnn, k=3", "ours, k=3"])
    parser.add_argument("--task", choices=TASKS, default="nuclei")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="on corners of the package's sample")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts = quick_parts(args.task) if args.quick else read_parts(args.task)
    task = load_task(parts, args.task, seed=args.seed, crop=32 if args.quick else 0)
    print("| network | one layer at 45 degrees, before training | after |\n|---|---|---|", flush=True)
    rows = []
    for method in args.methods:
        torch.manual_seed(args.seed)
        model = METHODS[method](task.test.images.shape[1], task.kind.classes)
        before = errors(model)
        train(model, task, steps=args.steps, seed=args.seed, symmetry=None)
        after = errors(model.eval())
        cells = [f"{sum(e) / len(e):.3f} ({min(e):.3f} to {max(e):.3f})" for e in (before, after)]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)
        rows.append({"before": sum(before) / len(before), "after": sum(after) / len(after)})
    return rows


if __name__ == "__main__":
    main()

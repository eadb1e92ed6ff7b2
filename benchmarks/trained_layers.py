"""Measure the error of single layers before and after training, in the C8 segmenters of any_angle.py. See README.md.

Run this in the environment of any_angle.py:

    python benchmarks/trained_layers.py --methods "escnn, k=3" "ours, k=3"
"""

import argparse
from collections.abc import Sequence

import torch
from any_angle import TASKS
from any_angle_networks import METHODS
from result_tables import markdown_table
from segmentation_tasks import load_task, quick_parts, read_parts, train
from torch import Tensor, nn

from gconv_ga.nn import GroupConv2d, LiftingConv2d

ORDER = 8


def kernels(layer: nn.Module) -> Tensor | None:
    """Return all kernels of a layer, ``[C_out, 8, C_in, 8, k, k]``, or ``[C_out, 8, C_in, 1, k, k]`` if it lifts."""
    if isinstance(layer, LiftingConv2d | GroupConv2d):
        flat = layer.rotated_kernels().unflatten(2, (layer.in_channels, -1))
    elif type(layer).__name__ == "R2Conv":
        filters, _ = layer.expand_parameters()
        planes = ORDER if layer.in_type.size > len(layer.in_type.representations) else 1
        flat = filters.flatten(2).view(-1, ORDER, layer.in_type.size // planes, planes, filters[0, 0].numel())
    else:
        return None
    size = round(flat.shape[-1] ** 0.5)
    return flat.detach().double().view(*flat.shape[:4], size, size)


def layer_error(K: Tensor) -> float:
    """Compute the relative equivariance error of a layer at 45 degrees, on images with the spectrum of photographs.

    The images are sums of uncorrelated plane waves with power ``1 / p^2``; the input channels are uncorrelated too.
    """
    size = K.shape[-1]
    frequencies = torch.linspace(-torch.pi, torch.pi, 130, dtype=torch.float64)[1:-1]
    wx, wy = torch.meshgrid(frequencies, frequencies, indexing="xy")
    inside = wx.square() + wy.square() < torch.pi**2
    waves = torch.stack((wx[inside], wy[inside]), dim=1)
    power = 1 / (waves.square().sum(1) + 0.01)
    half = 0.5**0.5
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    x, y = offset.repeat(size), -offset.repeat_interleave(size)
    quarter = torch.tensor([[half, half], [-half, half]], dtype=torch.float64)
    phases = [torch.exp(1j * (waves @ matrix @ torch.stack((x, y)))) for matrix in (torch.eye(2).double(), quarter)]

    def energy(kernels: Tensor, phases: Tensor) -> Tensor:
        """Sum ``power |kernel . phases|^2`` over kernels and waves, as a quadratic form of the kernel."""
        form = ((phases.T * power) @ phases.conj()).real
        return ((kernels @ form) * kernels).sum()

    upright, rotated = (K[:, element].flatten(-2) for element in (0, 1))
    if K.shape[3] == ORDER:
        rotated = rotated.roll(-1, dims=2)  # the rotation moves the plane of each element to the next one
    error = energy(torch.cat((upright, -rotated), dim=-1), torch.cat(phases, dim=-1))
    mean = (energy(upright, phases[0]) + energy(rotated, phases[1])) / 2
    return float((error / mean).sqrt())


def errors(model: nn.Module) -> list[float]:
    """Compute the error of the lifting layer and of each group convolution."""
    stacks = [kernels(layer) for layer in model.modules()]
    return [layer_error(K) for K in stacks if K is not None and K.shape[-1] > 1]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Train each network and print the errors of its layers before and after: mean, lowest and highest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["escnn, k=3", "ours, k=3"])
    parser.add_argument("--task", choices=TASKS, default="nuclei")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--quick", action="store_true", help="train on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts = quick_parts(args.task) if args.quick else read_parts(args.task)
    task = load_task(parts, args.task, seed=args.seed, crop=32 if args.quick else 0)
    titles = [
        "network",
        *(f"{time}, {value}" for time in ("before", "after") for value in ("mean", "lowest", "highest")),
    ]
    print(markdown_table(titles, []), flush=True)
    rows = []
    for method in args.methods:
        torch.manual_seed(args.seed)
        model = METHODS[method](task.test.images.shape[1], task.kind.classes)
        before = errors(model)
        train(model, task, steps=args.steps, seed=args.seed, symmetry=None)
        after = errors(model.eval())
        values = [value for e in (before, after) for value in (sum(e) / len(e), min(e), max(e))]
        print(f"| {method} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True)
        rows.append({"before": sum(before) / len(before), "after": sum(after) / len(after)})
    return rows


if __name__ == "__main__":
    main()

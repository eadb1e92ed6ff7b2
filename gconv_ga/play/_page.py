"""The page: what its script needs to know of the networks and images, put into a template."""

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader
from torch import Tensor, nn

from .._validate import invalid
from ..filters import Filters, as_filters
from ..groups import C1, C4, DihedralGroup, Group
from ..images import find_images, read_image, write_sample
from ..models import EquivariantUNet, ObjectUNet, UNet
from ..nn import GroupPool
from ..segmenter import Checkpoint, SegmenterConfig, load_checkpoint

FOLDER = Path(__file__).parent
NETWORKS = FOLDER / "networks"  # made by figures/play_networks.py
TEMPLATES = Environment(loader=FileSystemLoader(FOLDER), autoescape=True)
SIDE = 128  # pixels of the image: every network of up to 8 levels halves it without a rest
IMAGES = 3


def play_page(run: Checkpoint | None = None, baseline: Checkpoint | None = None) -> str:
    """Return a page that rotates an image and shows what the predictions of two networks do, as HTML.

    Without arguments it shows C4 U-Nets with 1 to 4 taps on the group and their compute-matched baseline, trained on
    the nuclei sample (``figures/play_networks.py``); it has 0.4 MB. Weights are part of the page: a network of your own
    adds 5.3 bytes a weight. The page computes on 128 x 128 pixels in float32, and agrees with torch to 1e-4.

    Args:
        run: Network to show: of an `ObjectUNet` the classes of the pixels. A plain `UNet` is shown beside its group
            average over C4, which has the same weights. If None, networks that were trained for the page.
        baseline: Network to show beside an equivariant ``run``. If None, the baseline of the package if it takes the
            same images and has the same classes, or else no other network.

    Raises:
        ValueError: A network is not a U-Net of `gconv_ga.models`, is an `ObjectUNet` without a group, or has more than
            8 levels; ``baseline`` takes other images or has other classes than ``run``, or is given where it is not
            shown.

    Example:
        >>> from gconv_ga.play import NETWORKS, play_page
        >>> from gconv_ga.segmenter import load_checkpoint
        >>> page = play_page(load_checkpoint(NETWORKS / "baseline.safetensors"))
        >>> "group average of your U-Net" in page
        True
    """
    for name, given in (("run", run), ("baseline", baseline)):
        if given is not None:
            _check_network(name, given)
    if baseline is not None and (run is None or isinstance(run.model, UNet)):
        advice = "it is compared with its own group average" if run else "give run too"
        raise invalid("baseline", "None unless run is an EquivariantUNet", baseline.config.architecture, advice)
    if run is not None and baseline is not None and _interface(baseline.config) != _interface(run.config):
        raise invalid("baseline", f"a network for {_interface(run.config)}, as run is", _interface(baseline.config))
    if run is None:
        shipped = [load_checkpoint(NETWORKS / f"c4-taps-{taps}.safetensors") for taps in (1, 2, 3, 4)]
        networks = [_describe(each, "C4 U-Net") for each in shipped]
        plain: dict[str, Any] | None = _describe(load_checkpoint(NETWORKS / "baseline.safetensors"), "baseline")
    elif isinstance(run.model, UNet):
        networks = [_describe(run, "group average of your U-Net", average_over=C4)]
        plain = _describe(run, "your U-Net")
    else:
        assert isinstance(run.model, EquivariantUNet | ObjectUNet)
        networks = [_describe(run, f"your {_body(run.model).group.name} U-Net")]
        other = baseline or _shipped_baseline(run)
        plain = other and _describe(other, "your baseline" if baseline else "baseline of the package")
    channels = networks[0]["channels"]
    data = {"side": SIDE, "networks": networks, "baseline": plain, "images": _sample_images(channels)}
    return TEMPLATES.get_template("page.html.j2").render(
        data=data,
        ours=networks[-1],
        own=run is not None,
        style=_source("page.css"),
        engine=_source("engine.js"),
        script=_source("page.js"),
    )


def _source(name: str) -> str:
    """Return a file of the package that is put into the page as it is."""
    return (FOLDER / name).read_text(encoding="utf-8")


def _check_network(argument: str, checkpoint: Checkpoint) -> None:
    """Refuse a network that the page cannot compute.

    Raises:
        ValueError: It is not a U-Net of ours, has too many levels, or takes a number type that has no range.
    """
    model, config = _body(checkpoint.model), checkpoint.config
    if not isinstance(model, EquivariantUNet | UNet) or (isinstance(model, UNet) and model is not checkpoint.model):
        takes = "a network of --arch unet (EquivariantUNet, UNet, or ObjectUNet with a group)"
        raise invalid(argument, takes, config.architecture, "the page cannot compute others")
    if 2 ** (model.depth - 1) > SIDE:
        raise invalid(argument, "a network of at most 8 levels", model.depth, f"the page has {SIDE} x {SIDE} pixels")
    try:
        _normalization(config)
    except ValueError as error:
        numbers = config.reading.numbers
        raise invalid(argument, "trained on images of numbers from 0 up", numbers, "a browser reads 8 bits") from error


def _body(model: nn.Module) -> Any:
    """Return the U-Net in a network."""
    return model.body if isinstance(model, ObjectUNet) else model


def _interface(config: SegmenterConfig) -> str:
    """Return what two networks that are compared have in common."""
    return f"{config.arguments['in_channels']} channels and the classes {', '.join(config.classes)}"


def _shipped_baseline(run: Checkpoint) -> Checkpoint | None:
    """Return the baseline of the package if it can be compared with a network."""
    baseline = load_checkpoint(NETWORKS / "baseline.safetensors")
    return baseline if _interface(baseline.config) == _interface(run.config) else None


def _describe(checkpoint: Checkpoint, title: str, average_over: Group | None = None) -> dict[str, Any]:
    """Return everything that the engine needs to compute a network.

    Args:
        checkpoint: The network.
        title: Name on the page.
        average_over: Group over which a plain U-Net is averaged: with one tap and mean pooling, the U-Net of that
            group with the same weights is the average.
    """
    model, whole = _body(checkpoint.model), checkpoint.model
    first, pool = model.encoder.blocks[0], whole.pool if isinstance(whole, ObjectUNet) else model.decoder.pool
    kernel_size = first[0].kernel_size
    if isinstance(model, EquivariantUNet):
        group, filters, taps = model.group, first[0].filters, first[3].taps
    else:
        group = average_over or C1
        filters, taps = as_filters("grid", group, kernel_size), (0,)
    numbers = _weights(whole)
    return {
        "title": title,
        "group": group.name,
        "elements": [_element(group, g) for g in range(group.order)],
        "products": group.products,
        "inverse": [group.inverse(g) for g in range(group.order)],
        "taps": taps,
        "basis": _basis(filters),
        "functions": _basis_size(filters),
        "kernelSize": kernel_size[0],
        "channels": model.in_channels,
        "classes": model.classes,
        "classNames": checkpoint.config.classes,
        "width": model.width,
        "depth": model.depth,
        "neck": whole.neck[0].out_channels if isinstance(whole, ObjectUNet) else 0,
        "pooling": "max_blur" if checkpoint.config.arguments.get("pooling") == "max_blur" else "max",
        "reduction": pool.reduction if isinstance(pool, GroupPool) else "mean",
        "normalization": _normalization(checkpoint.config),
        "parameters": sum(parameter.numel() for parameter in whole.parameters()),
        "weights": _base64(numbers),
    }


def _element(group: Group, g: int) -> dict[str, Any]:
    """Return what an element does to an image: reflect the last axis, perhaps, then rotate."""
    reflects = isinstance(group, DihedralGroup) and g >= group.n
    return {"angle": 360 * (g % group.n) / group.n, "reflects": reflects}


def _basis_size(filters: Filters) -> int:
    return int(torch.Size(filters.shape).numel())


def _basis(filters: Filters) -> list[list[list[float]]]:
    """Return the functions that a kernel is combined of, transformed by each element: ``[|G|][F][k * k]``.

    For free taps these are the single pixels, so that a combination of them is the rotated kernel.
    """
    count = _basis_size(filters)
    single = torch.eye(count, dtype=torch.float64).view(count, 1, *filters.shape)
    stack = filters.rotate(single, filters.tables())
    rotated: list[list[list[float]]] = stack[:, :, 0].transpose(0, 1).tolist()
    return rotated


def _normalization(config: SegmenterConfig) -> dict[str, Any]:
    """Return the normalization for images of 8 bits, which is what a browser reads."""
    normalization, reading = config.normalization, config.reading
    factor = 1.0
    if normalization.percentile is None:  # a percentile cancels the factor
        factor = replace(reading, other_numbers="scale").factor("uint8", "an image in a browser")
    return {
        "mean": [value / factor for value in normalization.mean],
        "std": [value / factor for value in normalization.std],
        "percentile": normalization.percentile,
        "black": normalization.black,
    }


def _weights(model: Any) -> Tensor:
    """Return all weights in the order in which the engine reads them, with batch norms as part of convolutions."""
    body = _body(model)
    blocks = [*body.encoder.blocks, *body.decoder.blocks]
    pairs = [(block[place], block[place + 1]) for block in blocks for place in (0, 3)]
    parts = [part for pair in pairs for part in _with_norm(*pair)]
    if body is not model:
        weight, bias = _with_norm(model.neck[0], model.neck[1])
        parts += [weight * _basis(as_filters(model.neck[0].filters, model.group, (1, 1)))[0][0][0], bias]
    parts += [model.segmentation_head.weight, model.segmentation_head.bias]
    return torch.cat([part.detach().double().flatten() for part in parts])


def _with_norm(conv: Any, norm: Any) -> Sequence[Tensor]:
    """Return the weight and the bias of a convolution that does what a convolution and a batch norm do in eval mode."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return conv.weight.double() * scale.view(-1, *[1] * (conv.weight.ndim - 1)), norm.bias - norm.running_mean * scale


def _base64(numbers: Tensor) -> str:
    return base64.b64encode(bytes(numbers.to(torch.float32).numpy().astype("<f4").tobytes())).decode()


def _sample_images(channels: int) -> list[dict[str, str]]:
    """Return images of the package that were not trained on, as bytes; none for networks of other channels."""
    name = {1: "nuclei", 3: "histology"}.get(channels)
    if name is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        files = find_images(write_sample(name, folder) / "test" / "images")
        chosen = [files[index] for index in SHOWN if index < len(files)]
        pixels = [read_image(file).to(torch.uint8) for file in chosen]
    return [
        {"name": f"{name} {file.stem}", "pixels": base64.b64encode(bytes(image.flatten().tolist())).decode()}
        for file, image in zip(chosen, pixels, strict=True)
    ]


SHOWN = (1, 0, 5)  # of the test images; the baseline changes most labels of the first

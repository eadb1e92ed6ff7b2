"""``gconv-ga export``: plain convolutions as one file, compared with the checkpoint before the file appears."""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._validate import missing_extra
from ._options import Debug, Run, load_run, make_folder, refuse

if TYPE_CHECKING:  # these rooms take seconds to load
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..segmenter import SegmenterConfig


TOLERANCE = 1e-4  # relative; float32 summed in another order is off by 1e-6
ENDINGS = (".onnx", ".pt2")


def export(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file: .onnx, or .pt2 for torch.export.")],
    debug: Debug = False,
) -> None:
    """Write the network as plain convolutions for every batch size, height and width: ONNX, or a program of torch.

    Input "image": float32 [batch, C, H, W], normalised; output "logits". Networks of --arch smp take heights and
    widths that are multiples of their encoder's stride, mostly 32: pad. The metadata entry gconv_ga holds the classes
    and the normalisation as JSON. The file is run (by onnxruntime, by torch) and compared with the checkpoint at three
    sizes before it appears. ONNX needs the extra onnx.

    Example: [bold]gconv-ga export --run run --out segmenter.onnx[/bold]
    """
    if out.suffix not in ENDINGS:
        refuse("--out", f"{out} ends in none of {', '.join(ENDINGS)}")
    model, config, _ = load_run(run)
    make_folder(out.parent, "'--out'")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        made = Path(folder) / out.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's exporter warns about itself
                exported = (_write_onnx if out.suffix == ".onnx" else _write_program)(model, config, made)
        except ModuleNotFoundError as absent:
            raise missing_extra(__name__, "onnx", absent) from absent
        error = _difference(model, config, exported)
        if not error <= TOLERANCE:
            raise RuntimeError(f"the exported network differs from the checkpoint by {error:.1e}; nothing was written")
        made.replace(out)
    print(f"{out}: differs from the checkpoint by {error:.1e} of its largest logit")


def _sides(model: "nn.Module", config: "SegmenterConfig") -> tuple[int, int, int]:
    """What sides are multiples of, the least that is exported, and one a little larger."""
    if config.architecture == "smp":
        step: int = vars(model.get_submodule("model"))["step"]
        return step, max(64, 2 * step), 96
    least = max(8, 2 ** config.arguments.get("depth", 4))
    return 1, least, 3 * least + 1


def _program(model: "nn.Module", config: "SegmenterConfig") -> Any:
    import torch

    from ..conversion import fold

    step, least, side = _sides(model, config)
    rows, columns = (
        step * torch.export.Dim(name, min=-(-least // step)) if step > 1 else torch.export.Dim(name, min=least)
        for name in ("height", "width")
    )
    axes = {0: torch.export.Dim("batch"), 2: rows, 3: columns}
    image = torch.zeros(2, config.arguments["in_channels"], side, side + max(3, step))
    return torch.export.export(
        fold(model), (image,), dynamic_shapes=(axes,), prefer_deferred_runtime_asserts_over_guards=True
    )  # fmt: skip


def _write_program(model: "nn.Module", config: "SegmenterConfig", path: Path) -> "Callable[[Tensor], Tensor]":
    """Writes the program; returns what the file does."""
    import torch

    torch.export.save(_program(model, config), path, extra_files={"gconv_ga": config.to_json()})
    written = torch.export.load(path).module()

    def run(image: "Tensor") -> "Tensor":
        logits: Tensor = written(image)
        return logits

    return run


def _write_onnx(model: "nn.Module", config: "SegmenterConfig", path: Path) -> "Callable[[Tensor], Tensor]":
    """Writes the ONNX; returns what the file does."""
    import onnx
    import onnxruntime
    import torch

    torch.onnx.export(
        _program(model, config), f=path, dynamo=True, input_names=["image"], output_names=["logits"],
        external_data=False, verbose=False,
    )  # fmt: skip
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"gconv_ga": config.to_json()})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image: "Tensor") -> "Tensor":
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    return run


def _difference(model: "nn.Module", config: "SegmenterConfig", exported: "Callable[[Tensor], Tensor]") -> float:
    """The largest relative difference of logits at sizes other than the exported example's."""
    import torch

    step, least, side = _sides(model, config)
    shapes = [(1, least, least), (1, side, 2 * side + step), (3, side + 2 * step, least + step)]
    errors = []
    for seed, (batch, *size) in enumerate(shapes):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(batch, config.arguments["in_channels"], *size, generator=generator)
        with torch.no_grad():
            expected, logits = model(image), exported(image)
        errors.append((logits - expected).abs().max() / expected.abs().max())
    return float(torch.stack(errors).max())

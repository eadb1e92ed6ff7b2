"""``gconv-ga export``: plain convolutions as ONNX, compared with the checkpoint before the file appears."""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._validate import missing_extra
from ._options import Debug, make_folder
from ._refusals import refuse
from ._runs import Run, load_run

if TYPE_CHECKING:  # the room takes seconds to load
    from torch import nn

    from ..training import SegmenterConfig

TOLERANCE = 1e-4  # relative; float32 summed in another order is off by 1e-6


def export(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="The file.")],
    debug: Debug = False,
) -> None:
    """Write the network as ONNX: plain convolutions, every batch size, height and width.

    Input "image": float32 [batch, C, H, W], normalised; output "logits". The metadata entry gconv_ga holds the
    classes and the normalisation as JSON. The file is run by onnxruntime and compared with the checkpoint at three
    sizes before it appears. Needs the extra onnx.

    Example: [bold]gconv-ga export --run run --out segmenter.onnx[/bold]
    """
    if out.suffix != ".onnx":
        refuse("--out", f"{out} does not end in .onnx")
    model, config, _ = load_run(run)
    if config.architecture != "EquivariantUNet":
        refuse("--run", f"{run} is a plain {config.architecture}; only an EquivariantUNet can be exported")
    make_folder(out.parent, "'--out'")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        made = Path(folder) / out.name
        try:
            _write(model, config, made)
            error = _difference(model, config, made)
        except ModuleNotFoundError as absent:
            raise missing_extra(__name__, "onnx", absent) from absent
        if not error <= TOLERANCE:
            raise RuntimeError(f"the exported network differs from the checkpoint by {error:.1e}; nothing was written")
        made.replace(out)
    print(f"{out}: differs from the checkpoint by {error:.1e} of its largest logit")


def _sides(config: "SegmenterConfig") -> tuple[int, int]:
    """The least size that is exported, and one a little larger."""
    least = max(8, 2 ** config.arguments.get("depth", 4))
    return least, 3 * least + 1


def _write(model: "nn.Module", config: "SegmenterConfig", path: Path) -> None:
    import onnx
    import torch

    from ..conversion import fold

    least, side = _sides(config)
    axes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=least),
        3: torch.export.Dim("width", min=least),
    }
    image = torch.zeros(2, config.arguments["in_channels"], side, side + 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        torch.onnx.export(
            fold(model), (image,), path, dynamo=True, dynamic_shapes=(axes,), input_names=["image"],
            output_names=["logits"], external_data=False, verbose=False,
        )  # fmt: skip
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"gconv_ga": config.to_json()})
    onnx.save(proto, path)


def _difference(model: "nn.Module", config: "SegmenterConfig", path: Path) -> float:
    """The largest relative difference of logits at sizes other than the exported example's."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    least, side = _sides(config)
    errors = []
    for seed, shape in enumerate([(1, least, least), (1, side, 2 * side + 1), (3, side + 2, least + 1)]):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(shape[0], config.arguments["in_channels"], *shape[1:], generator=generator)
        with torch.no_grad():
            expected = model(image)
        logits = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        errors.append((logits - expected).abs().max() / expected.abs().max())
    return float(torch.stack(errors).max())

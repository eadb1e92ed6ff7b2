"""``gconv-ga export``: plain convolutions as one file, compared with the checkpoint before the file appears."""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._files import write_atomically
from .._validate import missing_extra
from ._options import Debug, Run, load_run, make_folder, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..segmenter import SegmenterConfig

    Predict = Callable[[Tensor], Tensor]

TOLERANCE = 1e-4  # relative; summing float32 numbers in another order gives 1e-6
SUFFIXES = (".onnx", ".pt2")


def export(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write: .onnx, or .pt2 for torch.export.")],
    debug: Debug = False,
) -> None:
    """Write the network as plain convolutions, for any batch size, height and width: ONNX or a torch.export program.

    The input "image" is float32 of shape (batch, C, H, W), normalized as in training; the output is "logits". Networks
    of --arch smp take heights and widths that are multiples of the stride of their encoder, mostly 32: pad the image.
    The metadata entry gconv_ga holds the classes and the normalization as JSON. Before the file appears it is run (by
    onnxruntime or torch) and compared with the checkpoint at three sizes. ONNX needs the extra onnx.

    Example: gconv-ga export --run run --out segmenter.onnx
    """
    if out.suffix not in SUFFIXES:
        refuse("--out", f"{out} does not end in {' or '.join(SUFFIXES)}")
    model, config, _ = load_run(run)
    make_folder(out.parent, "--out")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / out.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's exporter warns about itself
                exported = (_write_onnx if out.suffix == ".onnx" else _write_program)(model, config, file)
        except ModuleNotFoundError as absent:
            raise missing_extra(__name__, "onnx", absent) from absent
        error = _difference(model, config, exported)
        if not error <= TOLERANCE:
            raise RuntimeError(f"the exported network differs from the checkpoint by {error:.1e}; nothing was written")
        write_atomically(out, file.read_bytes())
    print(f"{out}: differs from the checkpoint by {error:.1e} of its largest logit")


def _sides(model: "nn.Module", config: "SegmenterConfig") -> tuple[int, int, int]:
    """Return the number that sides are multiples of, the least side that is exported, and one a little larger."""
    if config.architecture == "smp":
        step: int = vars(model.get_submodule("model"))["step"]
        return step, max(64, 2 * step), 96
    least = max(8, 2 ** config.arguments.get("depth", 4))
    return 1, least, 3 * least + 1


def _program(model: "nn.Module", config: "SegmenterConfig") -> Any:
    """Return the `torch.export.ExportedProgram` of the network."""
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


def _write_program(model: "nn.Module", config: "SegmenterConfig", path: Path) -> "Predict":
    """Write the program; return the function that the file computes."""
    import torch

    torch.export.save(_program(model, config), path, extra_files={"gconv_ga": config.to_json()})
    written = torch.export.load(path).module()

    def predict(image: "Tensor") -> "Tensor":
        logits: Tensor = written(image)
        return logits

    return predict


def _write_onnx(model: "nn.Module", config: "SegmenterConfig", path: Path) -> "Predict":
    """Write the ONNX file; return the function that the file computes."""
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

    def predict(image: "Tensor") -> "Tensor":
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    return predict


def _difference(model: "nn.Module", config: "SegmenterConfig", exported: "Predict") -> float:
    """Return the largest relative difference of the logits, at sizes other than that of the exported example."""
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

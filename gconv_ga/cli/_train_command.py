"""``gconv-ga train``: train a segmenter on images and masks."""

from pathlib import Path
from typing import Any

import typer

from ._options import make_folder, progress_bars, refuse
from ._train_options import CallOptions, values_of, with_options
from ._train_runs import Plan, new_run, record, resumed_run


@with_options
def train(*, context: typer.Context, **values: Any) -> None:
    """Train an equivariant segmenter on your images.

    All files are read once before training. If there is a problem with any of them, a table lists the problems, and
    nothing is written.

    A run that was stopped, even by a power cut, is resumed with --resume and ends with the same weights. Type --out
    RUN --resume alone: settings, images and masks are those of the run, and an option that differs from it is
    refused. Only --steps may be larger, to train longer; devices may differ, and so may the place of the files.

    A CSV in place of the two folders (--table) may contain the split, or the patient or slide of each image, whose
    images then stay in the same part of the split. Its paths are relative to its own folder and must lie in it.

    RUN/model.safetensors is the last checkpoint, RUN/best.safetensors the one with the best validation score.

    --arch smp:NAME:ENCODER selects a network of segmentation_models_pytorch, converted so that it is exactly
    equivariant: Unet, UnetPlusPlus, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, UPerNet or Segformer, with a
    convolutional encoder such as resnet18 or tu-convnext_atto. Without --open-taps it is the group average of the
    plain network and has the same number of weights.

    The options of a run are stored in RUN/config.json, for use with --config; options that are typed take precedence.
    RUN/sources.json holds the absolute paths of its images and masks, for --resume. Several processes share each
    batch, and the result is that of one process up to rounding. PSPNet has weights that it does not use; with several
    processes it needs --strategy ddp_find_unused_parameters_true.

    Example: gconv-ga train --images images --masks masks --out run --steps 2000

    Example: gconv-ga train --out run --resume

    Example: gconv-ga train --images images --masks masks --out run --arch smp:Unet:resnet18 --open-taps

    Example: gconv-ga train --config run/config.json --out again --seed 1

    Example: gconv-ga train --table data/table.csv --colors colors.json --ignore-index 255 --out run

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (nothing is written), 130 stopped by Ctrl-C.
    """
    from ..train import is_main_process

    call = CallOptions(**values_of(CallOptions, values))
    exists = (call.out / "run.json").exists()
    # The other processes of a run that has just begun find it written by the main one.
    if call.resume or (exists and not is_main_process()):
        plan = resumed_run(context, call, scan=is_main_process())
    elif exists:
        refuse("--out", f"{call.out} holds a run; --resume resumes it")
    else:
        plan = new_run(context, call)
    if is_main_process():
        make_folder(call.out, "--out")
        record(call.out, plan, call.data)
    _train(call.out, plan)


def _train(out: Path, plan: Plan) -> None:
    """Train with a progress bar, and print what was written."""
    from ..train import is_main_process, train_run

    try:
        with progress_bars() as bars:
            task = bars.add_task("training", total=plan.config.steps, note="", visible=is_main_process())
            train_run(
                out, plan.config, plan.pairs, machines=plan.machines, init=plan.weights,
                tensorboard=plan.values["tensorboard"],
                report=lambda step, loss: bars.update(task, completed=step, note=f"loss {loss:.3f}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"gconv-ga: stopped; --resume resumes from the last saved step in {out}", err=True)
        raise typer.Exit(130) from None
    if is_main_process():
        print(_summary(out))


def _summary(out: Path) -> str:
    """Return one line about the files of a run."""
    from ..segmenter import load_checkpoint

    last = load_checkpoint(out / "model.safetensors").step
    text = f"{out}: model.safetensors after {last} steps, log.csv, curves.png"
    if (out / "best.safetensors").exists():
        text += f"; best.safetensors after {load_checkpoint(out / 'best.safetensors').step}"
    return text

"""``gconv-ga train``: train a segmenter on images and masks."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from ._options import alone, make_folder, note, refuse
from ._train_options import CallOptions, values_of, with_options
from ._train_runs import Plan, new_run, record, resumed_run

TIMED = 5  # steps after the first one, from which the time of the training is estimated


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

    RUN/model.safetensors is the last checkpoint, RUN/best.safetensors the one with the best validation score, which
    other commands take for --run RUN: Dice, and of objects their average precision. It is of the second half of the
    steps, when the learning rate falls; with --patience, of all.

    --instances in place of --masks trains a network for objects: beside the class of each pixel it predicts the
    distance to the edge of its object and a flow towards the middle, whose components rotate with the image. At each
    validation the rules that find objects with the highest average precision are chosen and stored in the checkpoint;
    predict --objects and evaluate --instances use them.

    Crops are rotated and reflected at random. --augment adds random changes: light or strong, or kinds of them: color
    (hue and saturation, of images of three channels), contrast (and brightness, each channel on its own), scale, blur,
    noise, elastic. Each is made in half of the crops. strong,scale,noise makes these two as large as strong does.

    --balance crops: half of the crops hold a pixel of a class other than the most frequent one. --balance weights: in
    the cross-entropy a class weighs the inverse square root of its frequency. --boundary 2 gives three times the weight
    of others to pixels near a boundary between classes.

    --arch smp:NAME:ENCODER selects a network of segmentation_models_pytorch, converted so that it is exactly
    equivariant: Unet, UnetPlusPlus, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, UPerNet or Segformer, with a
    convolutional encoder such as resnet18 or tu-convnext_atto. Without --open-taps it is the group average of the
    plain network and has the same number of weights.

    The options of a run are stored in RUN/config.json, for use with --config; options that are typed take precedence.
    RUN/sources.json holds the absolute paths of its images and masks, for --resume. Several processes share each
    batch, and the result is that of one process up to rounding. PSPNet has weights that it does not use; with several
    processes it needs --strategy ddp_find_unused_parameters_true.

    Example: gconv-ga train --images images --masks masks --out run --steps 2000

    Example: gconv-ga train --images images --instances instances --out run

    Example: gconv-ga train --out run --resume

    Example: gconv-ga train --images images --masks masks --out run --arch smp:Unet:resnet18 --open-taps

    Example: gconv-ga train --config run/config.json --out again --seed 1

    Example: gconv-ga train --table data/table.csv --colors colors.json --ignore-index 255 --out run

    On Ctrl-C and SIGTERM the step in progress is finished and its state saved. Training stops with an error when the
    loss or a weight is no longer finite; RUN then holds the last checkpoint before. While it runs, other trainings in
    RUN are refused. After a few steps the time that the training takes is printed. Without a terminal, as in the log of
    a job, progress is one line each half minute.

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (nothing is written), 130 stopped by Ctrl-C, 143 by
    SIGTERM.
    """
    from ..train import is_main_process

    call = CallOptions(**values_of(CallOptions, values))
    with ExitStack() as held:
        exists = (call.out / "run.json").exists()
        if exists and is_main_process():
            held.enter_context(alone(call.out, "training"))
        # The other processes of a run that has just begun find it written by the main one.
        if call.resume or (exists and not is_main_process()):
            plan = resumed_run(context, call, scan=is_main_process())
        elif exists:
            refuse("--out", f"{call.out} holds a run; --resume resumes it")
        else:
            plan = new_run(context, call)
        if is_main_process():
            held.enter_context(alone(make_folder(call.out, "--out"), "training"))
            if not exists and (call.out / "run.json").exists():
                refuse("--out", f"{call.out} holds a run that has begun meanwhile")
            record(call.out, plan, call.data)
        _train(call.out, plan)


def _train(out: Path, plan: Plan) -> None:
    """Train with a progress bar, and print what was written."""
    from ..train import is_main_process, train_run
    from ._progress import progress_bars

    try:
        with progress_bars() as bars:
            task = bars.add_task("training", total=plan.config.steps, note="", visible=is_main_process())
            ends: list[float] = []  # of steps, in seconds

            def report(step: int, loss: float) -> None:
                bars.update(task, completed=step, note=f"loss {loss:.3f}")
                ends.append(time.monotonic())
                left = plan.config.steps - step
                if len(ends) == TIMED + 1 and left > TIMED:
                    each = (ends[-1] - ends[0]) / TIMED
                    _note(f"about {_duration(each * left)} for {left} steps of {each:.2f} s, without validations")

            train_run(
                out, plan.config, plan.pairs, machines=plan.machines, init=plan.weights,
                tensorboard=plan.values["tensorboard"], report=report,
            )  # fmt: skip
    except FloatingPointError as error:
        _note(f"the training has diverged: {error}; {_saved(out)}. Train anew with a lower --learning-rate")
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, SystemExit) as ended:
        code = ended.code if isinstance(ended, SystemExit) else 130
        if code not in (130, 143):
            raise
        by = "Ctrl-C" if code == 130 else "SIGTERM"
        _note(f"stopped by {by}; {_saved(out)}; --resume goes on from there")
        raise typer.Exit(int(code)) from None
    if is_main_process():
        print(_summary(out))


def _duration(seconds: float) -> str:
    """Return a time in words, in the unit of which it is at least 2."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _note(text: str) -> None:
    """Print one line, in one of the processes that train together."""
    from ..train import is_main_process

    if is_main_process():
        note(text)


def _saved(out: Path) -> str:
    """Return how far a run is saved."""
    from ..segmenter import load_checkpoint

    file = out / "model.safetensors"
    return f"{file} is of step {load_checkpoint(file).step}" if file.exists() else f"nothing is saved in {out}"


def _summary(out: Path) -> str:
    """Return one line about the files of a run."""
    from ..segmenter import load_checkpoint

    last = load_checkpoint(out / "model.safetensors").step
    text = f"{out}: model.safetensors after {last} steps, log.csv, curves.png"
    if (out / "best.safetensors").exists():
        text += f"; best.safetensors after {load_checkpoint(out / 'best.safetensors').step}"
    return text

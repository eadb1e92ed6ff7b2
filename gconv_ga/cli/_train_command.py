"""``gconv-ga train``: a segmenter from a folder of images and a folder of masks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ._options import KINDS, Colors, Debug, Device, GroupName, IgnoreIndex, Seed, TableFile, make_folder, naming, refuse
from ._train_options import (
    FILE,
    FORMS,
    is_typed,
    known_files,
    load_config,
    named_machines,
    new_run,
    place_files,
    read_arch,
    refuse_other_settings,
    source_of,
    write_config,
)

if TYPE_CHECKING:  # these rooms take seconds to load
    from ..segmenter import Machines
    from ..train import RunConfig


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the run: settings, weights, log, curves.")],
    images: Annotated[Path | None, typer.Option(metavar="DIR", help=f"Images: {KINDS}; grey, RGB, n channels.")] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Masks of class indices 0, 1, ..., named as the images.")
    ] = None,
    table: TableFile = None,
    colors: Colors = None,
    ignore_index: IgnoreIndex = None,
    arch: Annotated[str, typer.Option(metavar="ARCH", help=f"The network: {FORMS}; see below.")] = "unet",
    open_taps: Annotated[
        bool, typer.Option("--open-taps", help="Of a network of smp: let orientations mix, beyond the group average.")
    ] = False,
    pretrained: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Of an encoder of smp, such as imagenet; downloaded.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Begin with the weights of this checkpoint (safetensors).")
    ] = None,
    group: GroupName = "C4",
    classes: Annotated[int | None, typer.Option(min=2, help="How many, background included; else counted.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1000,
    width: Annotated[int, typer.Option(min=1, help="Fields of the finest level.")] = 8,
    depth: Annotated[int, typer.Option(min=1, help="Levels; the image is halved depth - 1 times.")] = 4,
    pooling: Annotated[
        Literal["max", "max_blur"],
        typer.Option(help="How levels go down; with max_blur fewer labels change at angles beside quarter turns."),
    ] = "max",
    crop: Annotated[
        int | None, typer.Option(min=1, help="Side of a crop; else 128, or the smallest image's smaller side.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="The highest of the cycle.")] = 0.01,
    percentile: Annotated[
        float | None, typer.Option(help="Scale each image by this percentile of its own, such as 99.8.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file, split (train, val, test); else 1 of 5 validates.")
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Steps from one validation and saved state to the next; else a tenth.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many validations in a row without a better score.")
    ] = None,
    precision: Annotated[str, typer.Option(help="32, bf16-mixed, or on a GPU 16-mixed.")] = "32",
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many; on the CPU, processes. They share the batch.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines, on each of which this command is started.")] = 1,
    strategy: Annotated[str, typer.Option(help="auto, ddp, or ddp_find_unused_parameters_true.")] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too; extra tensorboard.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=load_config, is_eager=True, help=f"Options from a file: RUN/{FILE}."),
    ] = None,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the paths of --config begin, and may not lead out of.")
    ] = Path(),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its settings.")] = False,
    debug: Debug = False,
) -> None:
    """Train an equivariant segmenter on your images.

    Every file is read once before; if anything is wrong with one, a table says what, and nothing is written. A run
    that was stopped, in whatever way, goes on with --resume and ends with the same weights.

    A CSV in place of the folders (--table) may hold the split, or a patient or slide, whose images then stay in one
    part of it; its paths are relative to its own folder and may not lead out of it.

    RUN/model.safetensors is the last checkpoint, RUN/best.safetensors that of the best validation score.

    --arch smp:NAME:ENCODER takes a network of segmentation_models_pytorch, converted so that it is exactly
    equivariant: Unet, UnetPlusPlus, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, UPerNet or Segformer, with a
    convolutional encoder such as resnet18 or tu-convnext_atto. Without --open-taps it is the group average of the
    plain network, with as many weights.

    What a run was started with is in RUN/config.json, for --config; what is typed beside it goes before. With more
    than one process a batch is shared out, and the numbers are those of one process up to rounding. PSPNet has
    weights that it does not use: --strategy ddp_find_unused_parameters_true.

    Example: [bold]gconv-ga train --images images --masks masks --out run --steps 2000[/bold]

    Example: [bold]gconv-ga train --images images --masks masks --out run --arch smp:Unet:resnet18 --open-taps[/bold]

    Example: [bold]gconv-ga train --config run/config.json --out again --seed 1[/bold]

    Example: [bold]gconv-ga train --table data/table.csv --colors colors.json --ignore-index 255 --out run[/bold]

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (nothing is written), 130 stopped by Ctrl-C.
    """
    from ..train import is_main_process, read_run

    options = place_files(context, data)
    if read_arch(arch)[0] == "smp":
        for name in ("width", "depth", "pooling"):
            if is_typed(context, name):
                refuse(f"--{name}", "it is for --arch unet; the encoder of smp has its own")
    weights = None
    if resume or ((out / "run.json").exists() and not is_main_process()):
        with naming("--out"):
            settings = read_run(out)
        refuse_other_settings(context, settings)
        pairs: Any = known_files(source_of(options), settings, scan=is_main_process())
    else:
        if (out / "run.json").exists():
            refuse("--out", f"{out} holds a run; --resume goes on with it")
        pairs, settings, weights = new_run(options)
    machines = named_machines(options, settings.precision, settings.batch_size)
    if is_main_process():
        make_folder(out, "'--out'")
        if not (out / "run.json").exists():
            write_config(out, options, data)
    _train(out, settings, pairs, machines, weights, tensorboard)


def _train(out: Path, config: "RunConfig", pairs: Any, machines: "Machines", weights: Any, tensorboard: bool) -> None:
    from ..train import is_main_process, train_run
    from ._options import progress_bars

    try:
        with progress_bars() as bars:
            task = bars.add_task("training", total=config.steps, note="", visible=is_main_process())
            train_run(
                out, config, pairs, device=machines.device, devices=machines.devices, nodes=machines.nodes,
                strategy=machines.strategy, init=weights, tensorboard=tensorboard,
                report=lambda step, loss: bars.update(task, completed=step, note=f"loss {loss:.3f}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"gconv-ga: stopped; --resume goes on from the last saved step in {out}", err=True)
        raise typer.Exit(130) from None
    if is_main_process():
        print(closing(out))


def closing(out: Path) -> str:
    """What there is now."""
    from ..segmenter import load_checkpoint

    last = load_checkpoint(out / "model.safetensors").step
    text = f"{out}: model.safetensors after {last} steps, log.csv, curves.png"
    if (out / "best.safetensors").exists():
        text += f"; best.safetensors after {load_checkpoint(out / 'best.safetensors').step}"
    return text

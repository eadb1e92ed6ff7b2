"""``--arch`` and what it takes: the network of a new run."""

from typing import TYPE_CHECKING, Any

from ._refusals import naming, refuse

if TYPE_CHECKING:  # these rooms take seconds to load
    from collections.abc import Sequence

    from ..data import Normalization
    from ..training import SegmenterConfig

FORMS = "unet or smp:NAME:ENCODER"


def read_arch(text: str) -> tuple[str, ...]:
    """``("unet",)`` or ``("smp", NAME, ENCODER)``.

    Raises:
        typer.BadParameter: It is neither.
    """
    parts = tuple(text.split(":"))
    if parts != ("unet",) and not (len(parts) == 3 and parts[0] == "smp" and all(parts)):
        refuse("--arch", f"{text!r} is not of the form {FORMS}")
    return parts


def written_arch(config: "SegmenterConfig") -> str:
    """What is typed after ``--arch`` for such a network."""
    if config.architecture != "smp":
        return "unet"
    return f"smp:{config.arguments['name']}:{config.arguments['encoder']}"


def new_network(
    options: dict[str, Any], channels: int, classes: "Sequence[str]", normalization: "Normalization"
) -> "SegmenterConfig":
    """The network that the options describe; a converted one is compared with its group average.

    Args:
        options: Of the command.
        channels: Of the images.
        classes: Their names.
        normalization: Of the images.

    Raises:
        typer.BadParameter: There is no such network, or it cannot be converted.
    """
    from ..conversion import NotConvertible
    from ..training import SegmenterConfig

    arch = read_arch(options["arch"])
    arguments: dict[str, Any] = {"in_channels": channels, "classes": len(classes), "group": options["group"]}
    if arch == ("unet",):
        if options["open_taps"]:
            refuse("--open-taps", "it is for --arch smp:NAME:ENCODER; the taps of a unet are open")
        if options["pretrained"] is not None:
            refuse("--pretrained", "it is for --arch smp:NAME:ENCODER")
        own = {name: options[name] for name in ("width", "depth", "pooling")}
        config = SegmenterConfig("EquivariantUNet", arguments | own, classes, normalization)
        with naming("--group"):
            config.build()
        return config
    _, name, encoder = arch
    arguments |= {"name": name, "encoder": encoder, "open_taps": options["open_taps"]}
    config = SegmenterConfig("smp", arguments, classes, normalization)
    try:
        config.build(verify=True)
    except ValueError as error:
        refuse("--group" if str(error).startswith("group ") else "--arch", str(error), error)
    except NotConvertible as error:
        refuse("--arch", str(error), error)
    return config

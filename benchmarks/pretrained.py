"""Train the networks that come with the package, score them, and write their files. See README.md.

    python benchmarks/pretrained_data.py --data bbbc038/stage1_train --out pretrained/data
    nohup python benchmarks/pretrained.py --data pretrained/data --out pretrained/runs nuclei histology &

An interrupted training is continued. Each network is a run in a folder of its name. Its last checkpoint, with the rules
for objects of the highest average precision on the validation images, is scored on images that were neither trained nor
chosen on. ``--package`` names the folder for weights and cards, gconv_ga/pretrained.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pretrained_data import read_split

from gconv_ga.evaluate import dice, evaluate_objects, mean_score
from gconv_ga.images import (
    MaskEncoding,
    PairDataset,
    PairFiles,
    Reading,
    find_images,
    measure_files,
    read_image,
    read_mask,
    write_sample,
)
from gconv_ga.objects import object_scores
from gconv_ga.predict import predict_objects
from gconv_ga.pretrained import PretrainedModel
from gconv_ga.segmenter import Checkpoint, SegmenterConfig, load_checkpoint, save_checkpoint
from gconv_ga.train import RunConfig, train_run

MODELS = ("nuclei", "histology")
STEPS = 3000
EVERY = 1000  # steps between validations, which have no effect on the weights; those of nuclei take minutes
PERCENTILE, BLACK = 99.8, 1.0
ARGUMENTS = {"classes": 2, "group": "C8", "width": 6, "depth": 4}
PARTS = {
    "test": "test images",
    "other": "further images, of other sizes than the test images",
}
ABOUT = Path(__file__).parent / "pretrained_about.json"  # what a card says in words


def files(data: Path, model: str, part: str) -> list[PairFiles]:
    """Return the images of a part of the split with the numbers of their objects."""
    names = [f"{row['id']}.png" for row in read_split() if (row["model"], row["part"]) == (model, part)]
    return [PairFiles(data / model / "images" / name, data / model / "instances" / name) for name in sorted(names)]


def configure(data: Path, model: str, steps: int) -> RunConfig:
    """Return the configuration of the run of a network."""
    parts = {part: files(data, model, part) for part in ("train", "val")}
    reading = Reading(numbers="uint8")
    normalization = measure_files(parts["train"], PERCENTILE, reading, BLACK)
    arguments = {"in_channels": len(normalization.mean)} | ARGUMENTS
    segmenter = SegmenterConfig("ObjectUNet", arguments, ("background", "nucleus"), normalization, reading)
    return RunConfig(
        segmenter,
        {pair.name: part for part, pairs in parts.items() for pair in pairs},
        steps=steps,
        batch_size=8,
        crop=96,
        augment="strong",
        every=EVERY,
        mask_encoding=MaskEncoding(instances=True),
    )


def train(data: Path, folder: Path, model: str, steps: int) -> None:
    """Train a network, or continue its training."""
    pairs = [*files(data, model, "train"), *files(data, model, "val")]

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"{model}: step {step} of {steps}, loss {loss:.3f}", flush=True)

    train_run(folder / model, configure(data, model, steps), pairs, report=report)


def objects_of(data: Path, model: str, part: str, config: SegmenterConfig) -> PairDataset:
    """Return the images of a part, normalized, with the numbers of their objects."""
    return PairDataset(files(data, model, part), config.normalization, None, config.reading)


def scores_of(checkpoint: Checkpoint, image: torch.Tensor, objects: torch.Tensor) -> dict[str, Any]:
    """Return the scores of one image, as `gconv-ga predict` computes its objects."""
    found = predict_objects(checkpoint.model, image, decoder=checkpoint.config.decoder)
    scores = object_scores(found.objects.labels, objects)
    return {
        "dice": dice(found.labels[None], (objects > 0).long()[None], classes=2),
        "ap50": scores.average_precision[0],
        "ap": scores.mean_average_precision,
        "count_error": scores.count_error,
    }


def mean_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the means of scores over images, rounded."""
    means = {key: mean_score([row[key] for row in rows]) for key in rows[0]}
    return {key: None if value is None else round(value, 4) for key, value in means.items()}


def score(data: Path, model: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the scores of a card: of each image of the parts that there are, and their means."""
    parts = {}
    for part, title in PARTS.items():
        images = objects_of(data, model, part, checkpoint.config)
        rows = {}
        for pair, (image, objects) in zip(images.pairs, images, strict=True):
            rows[f"{pair.name} ({image.shape[1]} x {image.shape[2]})"] = scores_of(checkpoint, image, objects)
        if rows:
            by_image = {name: mean_of([row]) for name, row in rows.items()}
            parts[title] = {"images": len(rows), "mean": mean_of(list(rows.values())), "by_image": by_image}
            print(f"{model}, {title}: {parts[title]['mean']}", flush=True)
    return parts


def measured_facts(data: Path, model: str, checkpoint: Checkpoint) -> dict[str, str]:
    """Return what a card says about the network, and about what rotations change on the test images."""
    images = objects_of(data, model, "test", checkpoint.config)
    moved = [
        change
        for image, objects in images
        for change in evaluate_objects(checkpoint.model, image, objects, decoder=checkpoint.config.decoder).changes
    ]
    decoder, arguments = checkpoint.config.decoder, checkpoint.config.arguments
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    counts = {part: len(files(data, model, part)) for part in ("train", "val")}
    return {
        "Rotations": f"by 90, 180 and 270 degrees, of {len(images)} test images: at most "
        f"{100 * max(change.pixels for change in moved):.3f} % of the foreground pixels of an image are in another "
        f"object, and {100 * max(change.partnerless for change in moved):.3f} % of its objects have no partner.",
        "Network": f"ObjectUNet, group {arguments['group']}, {arguments['width']} fields, {arguments['depth']} levels, "
        f"{parameters:,} parameters; objects by the rules {decoder.method!r}, which had the highest average precision "
        "on the validation images.",
        "Training": f"{checkpoint.step} steps on {counts['train']} images, {counts['val']} for validation, with random "
        'rotations, reflections and the changes "strong" (benchmarks/pretrained.py).',
    }


def sample_scores(network: PretrainedModel) -> dict[str, Any]:
    """Return the Dice score and the number of objects of the test images of the sample, for a test to find again."""
    scores, counts = [], []
    with tempfile.TemporaryDirectory() as folder:
        test = write_sample(network.name, folder) / "test"
        for file in find_images(test / "images"):
            objects = network(read_image(file))
            mask = read_mask(test / "masks" / file.name)
            scores.append(dice((objects.labels > 0).long()[None], mask[None], classes=2))
            counts.append(len(objects.classes))
    return {"dice": round(sum(scores) / len(scores), 4), "objects": counts}


def package(data: Path, folder: Path, model: str, out: Path) -> None:
    """Write the weights and the card of a network."""
    checkpoint = load_checkpoint(folder / model / "model.safetensors")
    # Images of every number type are read as they are: percentiles of their own cancel the unit.
    checkpoint = checkpoint._replace(config=replace(checkpoint.config, reading=Reading()))
    print(f"{model}: step {checkpoint.step}, {checkpoint.config.decoder}", flush=True)
    save_checkpoint(out / f"{model}.safetensors", checkpoint.model, checkpoint.config, step=checkpoint.step)
    words = json.loads(ABOUT.read_text(encoding="utf-8"))[model]
    card = {
        "name": model,
        "purpose": words["purpose"],
        "channels": checkpoint.config.arguments["in_channels"],
        "facts": words["facts"] | measured_facts(data, model, checkpoint),
        "fails": words["fails"],
        "sample": sample_scores(PretrainedModel(model, checkpoint.model, checkpoint.config, {})),
        "scores": score(data, model, checkpoint),
    }
    (out / f"{model}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Train and score the networks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=STEPS, help="number of steps")
    parser.add_argument("--package", type=Path, help="folder to write weights and cards to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for model in args.models:
        train(args.data, args.out, model, args.steps)
        if args.package is not None:
            package(args.data, args.out, model, args.package)


if __name__ == "__main__":
    main()

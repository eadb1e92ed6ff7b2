"""Train the networks that come with ``gconv-ga play``: C4 U-Nets with 1 to 4 taps on the group, and a baseline.

They have the settings of ``gconv-ga demo`` (nuclei sample, 300 steps, seed 0, crops rotated and reflected) and half its
width, to be fast in a browser. Weights are rounded to half precision: the five files together hold 0.13 MB. Takes two
minutes on one core.
Usage: python figures/play_networks.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

from gconv_ga.evaluate import orientation_scores
from gconv_ga.images import CropStream, load_sample
from gconv_ga.models import EquivariantUNet
from gconv_ga.play import NETWORKS
from gconv_ga.segmenter import SegmenterConfig, load_checkpoint, save_checkpoint
from gconv_ga.train import Segmenter, fit, start_at_frequencies

STEPS, BATCH, CROP = 300, 8, 64
WIDTH, DEPTH = 2, 3  # of the equivariant networks: fields, and levels


def main(folder: Path) -> None:
    """Train the networks one after the other, and print their scores on the test images."""
    sample = load_sample("nuclei")
    shared = {"in_channels": 1, "classes": 2, "depth": DEPTH}
    configs = {
        f"c4-taps-{taps}": ("EquivariantUNet", {**shared, "group": "C4", "width": WIDTH, "group_kernel_size": taps})
        for taps in (1, 2, 3, 4)
    }
    configs["baseline"] = ("UNet", {**shared, "width": EquivariantUNet(1, 2, width=WIDTH).baseline().width})
    for name, (architecture, arguments) in configs.items():
        config = SegmenterConfig(architecture, arguments, sample.classes, sample.normalization)
        model = config.build(seed=0)
        start_at_frequencies(model, sample.train.masks)
        stream = CropStream(sample.train, length=STEPS * BATCH, crop=CROP, symmetry="D4", seed=0)
        fit(Segmenter(model, learning_rate=1e-2), stream, batch_size=BATCH)
        path = save_checkpoint(folder / f"{name}.safetensors", model.half(), config, step=STEPS)
        test = sample.test
        scores = orientation_scores(load_checkpoint(path).model, test.images, test.masks, classes=2, group="C4")
        print(f"{path}: {path.stat().st_size} bytes, Dice {scores.upright:.3f}, changed {100 * scores.changed:.3f} %")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else NETWORKS)

"""The data of the trained networks: the split keeps what must not be trained on apart, and groups find neighbours."""

import csv
import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from house import ROOT

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def data():
    path = ROOT / "benchmarks" / "pretrained_data.py"
    spec = importlib.util.spec_from_file_location("pretrained_data", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def leaks(rows, banned, group_of):
    """The images to train or choose on that are banned, or in a group with one that is."""
    bad = {group_of[name] for name in banned if name in group_of} | {
        row["group"] for row in rows if row["id"] in banned
    }
    used = [row for row in rows if row["part"] in ("train", "val", "unseen")]
    return [row["id"] for row in used if row["id"] in banned or row["group"] in bad or group_of.get(row["id"]) in bad]


def test_nothing_that_is_banned_is_trained_on(data):
    if not (SHARED / "never_train.csv").exists():
        pytest.skip("the list of images that must not be trained on is not here")
    short = data.LETTERS
    banned = {name[:short] for name in (SHARED / "never_train.csv").read_text().split()[1:]}
    group_of = {}
    for kind in ("nuclei", "histology"):
        with (SHARED / kind / "split.csv").open(newline="") as file:
            group_of |= {row["source_id"][:short]: f"{kind} {row['group']}" for row in csv.DictReader(file)}
    rows = data.read_split()
    assert leaks(rows, banned, group_of) == []
    victim = next(row for row in rows if row["part"] == "train")
    assert leaks(rows, {*banned, victim["id"]}, group_of)
    assert Counter(row["part"] for row in rows)["test"] == 24 + 17


def test_parts_share_no_group_and_names_are_unique(data):
    rows = data.read_split()
    parts = {}
    for row in rows:
        parts.setdefault(row["group"], set()).add(row["part"])
    assert [group for group, found in parts.items() if len(found & {"train", "val", "unseen"}) > 1] == []
    assert len({row["id"] for row in rows}) == len(rows)
    seen = {(row["height"], row["width"]) for row in rows if row["part"] in ("train", "val")}
    assert not seen & {(row["height"], row["width"]) for row in rows if row["part"] == "unseen"}


def test_tiles_of_one_image_are_a_group(data):
    large = np.random.default_rng(0).normal(size=(129, 97, 1))
    for _ in range(20):  # smooth, as images are
        large = (large + np.roll(large, 1, 0) + np.roll(large, 1, 1) + np.roll(large, (1, 1), (0, 1))) / 4
    large = np.repeat((60 * large / large.std() + 128).clip(0, 255), 3, axis=2).astype(np.uint8)
    tiles = {f"{top} {left}": large[top : top + 32, left : left + 32] for top in (0, 32, 64) for left in (0, 32)}
    alone = {"alone": large[95:127, 60:92][::-1].copy()}
    groups = data.joined({**tiles, **alone}, data.neighbours({**tiles, **alone}))
    assert len({groups[name] for name in tiles}) == 1
    assert groups["alone"] == "alone"


def test_stains_are_told_apart(data):
    def plain(*color):
        return np.broadcast_to(np.array(color, dtype=np.uint8), (8, 8, 3))

    colors = ((9, 9, 9), (200, 200, 200), (220, 225, 220), (200, 110, 150), (150, 120, 190))
    stains = [data.stain_of(plain(*color)) for color in colors]
    assert stains == ["fluorescence", "bright field", "white", "pink", "purple"]


def test_images_and_objects_are_written(data, tmp_path, monkeypatch):
    from PIL import Image

    folder = tmp_path / "stage1" / ("a" * 64)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    Image.fromarray(np.full((6, 70, 4), 7, dtype=np.uint8)).save(folder / "images" / "a.png")
    for number in range(2):
        mask = np.zeros((6, 70), dtype=np.uint8)
        mask[number : number + 2, 30:36] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    table = tmp_path / "split.csv"
    table.write_text(f"id,model,part,group,stain,height,width\n{'a' * 16},nuclei,train,a,fluorescence,6,70\n")
    monkeypatch.setattr(data, "SPLIT", table)
    data.prepare(tmp_path / "stage1", tmp_path / "out")
    written = Path(tmp_path / "out" / "nuclei" / "instances" / f"{'a' * 16}.png")
    objects = np.asarray(Image.open(written))
    assert objects[:4, 32].tolist() == [1, 2, 2, 0]
    assert np.asarray(Image.open(written.parents[1] / "images" / written.name)).shape == (6, 70)

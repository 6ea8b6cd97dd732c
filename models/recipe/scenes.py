"""Scenes for a detector: CIFAR-10 pictures of several sizes on a background, with the box of each.

`python scenes.py OUT` writes OUT/train.json, val.json and test.json in COCO form and their pictures (160x160, JPEG).
`python scenes.py ../scenes/data --scenes 256 0 500` wrote those that the repository carries, the first of their splits.
Nothing but the seed decides what is drawn. Objects and backgrounds of train and val are of the 50,000 training images,
of which val has the last 5,000; those of test are of the 10,000 test images. No image is in two splits.

A scene is made so that edges alone do not find objects: the background is an image as well, blown up and blurred, and
there are plain patches and blurred images that are no objects.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import data
from box_data import Sample, sample, write_coco

SIDE = 160
OBJECTS = (3, 9)  # that a scene is meant to have, fewer where there is no room
SIDES = (16.0, 72.0)  # of an object: root of its area in pixels
STRETCH = 0.3  # largest logarithm of the ratio of width to height, either way
APART = 0.15  # part of the smaller one that two objects may share
TRIES = 20
DISTRACTORS = 3  # at most
HELD_BACK = 5_000  # training images that only val has
SEED = 20261128
COUNTS = {"train": 8_000, "val": 500, "test": 500}
QUALITY = 88


def stretched(random: np.random.Generator, low: float, high: float) -> tuple[int, int]:
    """Width and height of something between `low` and `high` pixels large, small ones as often as large ones."""
    side = np.exp(random.uniform(np.log(low), np.log(high)))
    ratio = np.exp(random.uniform(-STRETCH, STRETCH) / 2)
    return round(side * ratio), round(side / ratio)


def background(random: np.random.Generator, image: np.ndarray) -> Image.Image:
    """An image blown up to the scene, blurred, of less contrast."""
    picture = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(random.uniform(3, 8))), np.float64)
    pixels = pixels.mean() + (pixels - pixels.mean()) * random.uniform(0.4, 1.0) + random.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shared(corners: np.ndarray, others: list[np.ndarray]) -> float:
    """Largest common area with another box, as a part of the smaller of the two."""
    most = 0.0
    for other in others:
        edges = np.minimum(corners[2:], other[2:]) - np.maximum(corners[:2], other[:2])
        areas = [np.prod(box[2:] - box[:2]) for box in (corners, other)]
        most = max(most, np.prod(edges.clip(0)) / min(areas))
    return most


def scene(random: np.random.Generator, images: np.ndarray, labels: np.ndarray):
    """One picture, the corners xyxy of its objects in pixels, and their classes."""
    picture = background(random, images[random.integers(len(images))])
    for _ in range(random.integers(DISTRACTORS + 1)):
        size = stretched(random, *SIDES)
        place = tuple(int(random.integers(-edge // 2, SIDE - edge // 2)) for edge in size)
        patch = Image.fromarray(images[random.integers(len(images))]).resize(size, Image.Resampling.BICUBIC)
        blur = 0.2 * max(size) if random.random() < 0.5 else max(size)
        picture.paste(patch.filter(ImageFilter.GaussianBlur(blur)), place)
    corners: list[np.ndarray] = []
    classes = []
    for _ in range(random.integers(OBJECTS[0], OBJECTS[1] + 1)):
        for _ in range(TRIES):
            size = np.array(stretched(random, *SIDES))
            place = random.integers(0, SIDE - size + 1)
            box = np.concatenate((place, place + size)).astype(float)
            if shared(box, corners) <= APART:
                break
        else:
            continue  # no room is left
        index = random.integers(len(images))
        patch = Image.fromarray(images[index])
        if random.random() < 0.5:
            patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture.paste(patch.resize(tuple(size.tolist()), Image.Resampling.BICUBIC), tuple(place.tolist()))
        corners.append(box)
        classes.append(int(labels[index]))
    return picture, corners, classes


def write(out: Path, split: str, count: int, images: np.ndarray, labels: np.ndarray) -> None:
    random = np.random.default_rng([SEED, list(COUNTS).index(split)])
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    for number in range(count):
        picture, corners, classes = scene(random, images, labels)
        file = folder / f"{split}-{number:05}.jpg"
        picture.save(file, quality=QUALITY, optimize=True)
        samples.append(sample(file, (SIDE, SIDE), corners, classes))
        if (number + 1) % 500 == 0:
            print(f"{split}: {number + 1} of {count} scenes", flush=True)
    write_coco(out / f"{split}.json", list(data.CLASSES), samples)
    print(f"{split}: {count} scenes, {sum(len(one.classes) for one in samples)} objects")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, nargs=3, default=list(COUNTS.values()), metavar=("TRAIN", "VAL", "TEST"))
    arguments = parser.parse_args()
    images, labels, test_images, test_labels = data.load()
    parts = {
        "train": (images[:-HELD_BACK], labels[:-HELD_BACK]),
        "val": (images[-HELD_BACK:], labels[-HELD_BACK:]),
        "test": (test_images, test_labels),
    }
    for (split, part), count in zip(parts.items(), arguments.scenes):
        if count:
            write(arguments.out, split, count, *part)


if __name__ == "__main__":
    main()

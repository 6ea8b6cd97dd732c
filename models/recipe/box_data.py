"""Pictures with boxes: Pascal VOC folders and COCO files in, batches for training and for scoring out.

`python box_data.py blood-cells VOC OUT` wrote models/blood-cells/data from BCCD (github.com/Shenggan, MIT):
pictures at half size, and train.json, val.json, test.json in COCO form, split as given there.
`python box_data.py voc VOC SPLIT OUT.json` turns a split of any VOC folder into a COCO file.

Pictures are stretched to the network's input, whatever their shape: a box keeps its place in units of the picture.
"""

import argparse
import json
import shutil
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

BLOOD_CELLS = Path(__file__).resolve().parent.parent / "blood-cells" / "data"
BORDER = 0.25  # of the picture, mean colour, so that training can zoom out
SMALLEST = 3.0  # pixels of the input: what is left of a box after cropping must not be thinner
VISIBLE = 0.4  # part of a box's area that must be left


@dataclass
class Sample:
    """One picture: file, size in pixels, boxes [T, 4] xyxy in units of the picture, classes [T]."""

    file: Path
    size: tuple[int, int]
    boxes: np.ndarray
    classes: np.ndarray


def sample(file: Path, size, corners, classes) -> Sample:
    """Corners in pixels; boxes are clipped to the picture and those without area dropped."""
    boxes = np.array(corners, np.float64).reshape(-1, 4) / (*size, *size)
    boxes = boxes.clip(0, 1)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return Sample(file, tuple(size), boxes[kept], np.array(classes, np.int64)[kept])


def read_coco(file: Path, pictures: Path | None = None) -> tuple[list[str], list[Sample]]:
    """Names of the classes and the samples of a COCO file; pictures lie in `pictures` or beside the file."""
    content = json.loads(file.read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    index = {category["id"]: i for i, category in enumerate(categories)}
    of_image = {image["id"]: ([], []) for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation.get("iscrowd"):
            continue
        x, y, width, height = annotation["bbox"]
        boxes, classes = of_image[annotation["image_id"]]
        boxes.append((x, y, x + width, y + height))
        classes.append(index[annotation["category_id"]])
    folder = pictures or file.parent
    samples = [
        sample(folder / image["file_name"], (image["width"], image["height"]), *of_image[image["id"]])
        for image in content["images"]
    ]
    return [category["name"] for category in categories], samples


def read_voc(folder: Path, split: str, names: list[str] | None = None) -> tuple[list[str], list[Sample]]:
    """The same from a VOC folder. VOC counts pixels from one, both corners inside the box."""
    stems = (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    roots = [xml.etree.ElementTree.parse(folder / "Annotations" / f"{stem}.xml").getroot() for stem in stems]
    if names is None:
        names = sorted({item.findtext("name") for root in roots for item in root.iter("object")})
    samples = []
    for stem, root in zip(stems, roots):
        size = tuple(int(root.findtext(f"size/{side}")) for side in ("width", "height"))
        corners, classes = [], []
        for item in root.iter("object"):
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
            corners.append((x0 - 1, y0 - 1, x1, y1))
            classes.append(names.index(item.findtext("name")))
        samples.append(sample(folder / "JPEGImages" / f"{stem}.jpg", size, corners, classes))
    return names, samples


def write_coco(file: Path, names: list[str], samples: list[Sample], size=None) -> None:
    """`size`: of the pictures if they are stored at another one; paths become relative to the file."""
    images, annotations = [], []
    for number, one in enumerate(samples, 1):
        width, height = size or one.size
        name = one.file.relative_to(file.parent).as_posix() if one.file.is_relative_to(file.parent) else one.file.name
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for box, label in zip(one.boxes, one.classes):
            x0, y0, x1, y1 = (round(float(value), 2) for value in box * (width, height, width, height))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                    "area": round((x1 - x0) * (y1 - y0), 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    # One record a line: a change of one box is a change of one line.
    parts = (("images", images), ("annotations", annotations), ("categories", categories))
    lines = [f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for key, rows in parts]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


class Pictures:
    """Decoded pictures in memory with a border of their mean colour, and their boxes."""

    def __init__(self, samples: list[Sample], side: int):
        self.samples, self.side = samples, side
        self.padded = []
        for one in samples:
            picture = np.asarray(Image.open(one.file).convert("RGB"))
            height, width = picture.shape[:2]
            border = (round(height * BORDER), round(width * BORDER))
            canvas = np.empty((height + 2 * border[0], width + 2 * border[1], 3), np.uint8)
            canvas[:] = picture.mean((0, 1))
            canvas[border[0] : border[0] + height, border[1] : border[1] + width] = picture
            self.padded.append(Image.fromarray(canvas))

    def __len__(self) -> int:
        return len(self.samples)

    def window(self, index: int, low, high) -> np.ndarray:
        """The part between the corners low and high (x, y in units of the picture), side x side x 3 u8."""
        picture = self.padded[index]
        unit = np.array(picture.size) / (1 + 2 * BORDER)
        box = (*((np.array(low) + BORDER) * unit), *((np.array(high) + BORDER) * unit))
        box = np.clip(box, 0, (*picture.size, *picture.size))
        return np.asarray(picture.resize((self.side, self.side), Image.Resampling.BILINEAR, box=tuple(box)))

    def whole(self, index: int):
        """The picture as the detector will see it, boxes [T, 4] cxcywh in pixels of the input, classes."""
        one = self.samples[index]
        return self.window(index, (0, 0), (1, 1)), centred(one.boxes) * self.side, one.classes

    def augmented(self, index: int, random: np.random.Generator, upright: bool = False):
        """A random window (0.6 to 1.3 of each side), mirrored at random (`upright`: top stays top), in another light."""
        one = self.samples[index]
        scale = random.uniform(0.6, 1.3)
        sides = np.minimum(scale * np.exp(random.uniform(-0.1, 0.1, 2)), 1 + 2 * BORDER)
        slack = 1 - sides  # negative: the window is larger than the picture
        low = np.clip(random.uniform(0, 1, 2) * slack, -BORDER, 1 + BORDER - sides)
        pixels = self.window(index, low, low + sides)
        boxes = (one.boxes - (*low, *low)) / (*sides, *sides)
        clipped = boxes.clip(0, 1)
        edges = clipped[:, 2:] - clipped[:, :2]
        left = edges.prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
        kept = (left >= VISIBLE) & (edges * self.side >= SMALLEST).all(1)
        clipped, classes = clipped[kept], one.classes[kept]
        if random.random() < 0.5:
            pixels, clipped = pixels[:, ::-1], clipped[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (1, 0, 1, 0)
        if random.random() < 0.5 and not upright:
            pixels, clipped = pixels[::-1], clipped[:, [0, 3, 2, 1]] * (1, -1, 1, -1) + (0, 1, 0, 1)
        gain = random.uniform(0.85, 1.15) * random.uniform(0.95, 1.05, 3)
        pixels = (pixels * gain + random.uniform(-12, 12)).clip(0, 255).astype(np.uint8)
        return pixels, centred(clipped) * self.side, classes


def centred(corners: np.ndarray) -> np.ndarray:
    """xyxy -> cxcywh."""
    return np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), 1)


def blood_cells(voc: Path, out: Path) -> None:
    """BCCD at half size. Quality 80 keeps all 364 pictures below 3 MB."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(voc / "LICENSE", out / "LICENSE")
    for split in ("train", "val", "test"):
        names, samples = read_voc(voc, split, ["RBC", "WBC", "Platelets"])
        for one in samples:
            picture = Image.open(one.file).convert("RGB").resize((320, 240), Image.Resampling.BOX)
            one.file = out / "pictures" / one.file.name
            picture.save(one.file, quality=80, optimize=True)
        write_coco(out / f"{split}.json", names, samples, (320, 240))
        print(f"{split}: {len(samples)} pictures, {sum(len(one.classes) for one in samples)} boxes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cells = commands.add_parser("blood-cells", help="write the data that the repository carries")
    cells.add_argument("voc", type=Path)
    cells.add_argument("out", type=Path, nargs="?", default=BLOOD_CELLS)
    voc = commands.add_parser("voc", help="a split of a VOC folder as a COCO file")
    voc.add_argument("voc", type=Path)
    voc.add_argument("split")
    voc.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "blood-cells":
        blood_cells(arguments.voc, arguments.out)
    else:
        write_coco(arguments.out, *read_voc(arguments.voc, arguments.split))


if __name__ == "__main__":
    main()

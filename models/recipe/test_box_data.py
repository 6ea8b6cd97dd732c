"""The data loader and the measure. pycocotools, where installed, is the judge of average precision."""

import json

import numpy as np
import pytest

from average_precision import Boxes, average_precision, recall
from box_data import BLOOD_CELLS, Pictures, centred, read_coco, read_voc, sample, write_coco


def test_the_repository_carries_the_whole_set():
    counts = {}
    for split in ("train", "val", "test"):
        names, samples = read_coco(BLOOD_CELLS / f"{split}.json")
        assert names == ["RBC", "WBC", "Platelets"]
        counts[split] = len(samples)
        assert all(one.file.exists() and len(one.classes) > 0 for one in samples)
    assert counts == {"train": 205, "val": 87, "test": 72}
    files = [one.file for split in counts for one in read_coco(BLOOD_CELLS / f"{split}.json")[1]]
    assert len(set(files)) == 364


def test_voc_and_coco_say_the_same(tmp_path):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    box = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    boxes = box.format("dog", 11, 21, 50, 40) + box.format("cat", 1, 1, 100, 80) + box.format("cat", 0, 0, 0, 0)
    (tmp_path / "Annotations" / "a.xml").write_text(
        f"<annotation><size><width>100</width><height>80</height></size>{boxes}</annotation>"
    )
    names, voc = read_voc(tmp_path, "val")
    write_coco(tmp_path / "val.json", names, voc)
    again, coco = read_coco(tmp_path / "val.json")
    assert names == again == ["cat", "dog"]
    np.testing.assert_allclose(voc[0].boxes, [(0.1, 0.25, 0.5, 0.5), (0, 0, 1, 1)])
    np.testing.assert_allclose(coco[0].boxes, voc[0].boxes)
    assert coco[0].classes.tolist() == voc[0].classes.tolist() == [1, 0]


def test_augmentation_moves_pixels_and_boxes_alike(tmp_path):
    # A dark rectangle on white: wherever it lands, its box surrounds the dark pixels.
    from PIL import Image

    picture = np.full((240, 320, 3), 255, np.uint8)
    picture[60:120, 100:200] = 0
    Image.fromarray(picture).save(tmp_path / "a.png")
    pictures = Pictures([sample(tmp_path / "a.png", (320, 240), [(100, 60, 200, 120)], [0])], 160)
    random = np.random.default_rng(1)
    whole = 0
    for _ in range(40):
        pixels, boxes, classes = pictures.augmented(0, random)
        if len(classes) == 0:
            continue
        dark = pixels[..., 1] < 100
        rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
        edges = np.array([(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)], float)
        np.testing.assert_allclose(centred(edges), boxes, atol=1.6)
        whole += 1
    assert whole > 20


def test_upright_pictures_keep_their_top(tmp_path):
    from PIL import Image

    # Dark above, light below.
    picture = np.repeat(np.linspace(0, 255, 240).astype(np.uint8), 320).reshape(240, 320, 1).repeat(3, 2)
    Image.fromarray(picture).save(tmp_path / "a.png")
    pictures = Pictures([sample(tmp_path / "a.png", (320, 240), [(100, 60, 200, 120)], [0])], 160)
    random = np.random.default_rng(1)

    def falls(upright: bool) -> list[bool]:
        found = (pictures.augmented(0, random, upright)[0][60:100].mean((1, 2)) for _ in range(20))
        return [rows[-1] < rows[0] for rows in found]

    assert not any(falls(upright=True)) and any(falls(upright=False))


def random_case(random):
    """Detections and truths of a few pictures, in a form both measures can take."""
    truths, detections = [], []
    for _ in range(12):
        count = random.integers(0, 8)
        corner = random.uniform(0, 100, (count, 2))
        boxes = np.concatenate((corner, corner + random.uniform(8, 50, (count, 2))), 1)
        truths.append(Boxes(boxes, random.integers(0, 3, count)))
        copies = np.repeat(boxes, 2, 0) + random.normal(0, 4, (2 * count, 4))
        noise = random.uniform(0, 100, (5, 2))
        found = np.concatenate((copies, np.concatenate((noise, noise + 20), 1)))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        classes = np.concatenate((np.repeat(truths[-1].classes, 2), random.integers(0, 3, 5)))
        detections.append(Boxes(found, classes, random.uniform(0, 1, len(found))))
    return detections, truths


def judged(folder, detections, truths, classes: int):
    """Average precisions by pycocotools: [classes, thresholds]."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for image, (found, truth) in enumerate(zip(detections, truths), 1):
        for box, label in zip(truth.boxes, truth.classes):
            size = box[2:] - box[:2]
            row = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label) + 1, "iscrowd": 0}
            annotations.append(row | {"bbox": [*box[:2], *size], "area": float(size.prod())})
        for box, label, score in zip(found.boxes, found.classes, found.scores):
            row = {"image_id": image, "category_id": int(label) + 1, "score": float(score)}
            results.append(row | {"bbox": [*box[:2], *(box[2:] - box[:2])]})
    content = {"images": [{"id": i + 1} for i in range(len(truths))], "annotations": annotations, "info": {}}
    content["categories"] = [{"id": i + 1, "name": str(i)} for i in range(classes)]
    (folder / "truth.json").write_text(json.dumps(content))
    theirs = coco.COCO(folder / "truth.json")
    judge = cocoeval.COCOeval(theirs, theirs.loadRes(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    # [thresholds, recall levels, classes, area ranges, detections at most]; -1 where there is no truth.
    precision = judge.eval["precision"][:, :, :, 0, -1].mean(1).T
    return np.where(precision < 0, np.nan, precision)


def test_average_precision_agrees_with_pycocotools(tmp_path):
    for seed in range(4):
        detections, truths = random_case(np.random.default_rng(seed))
        theirs = judged(tmp_path, detections, truths, 3)
        np.testing.assert_allclose(average_precision(detections, truths, 3), theirs, atol=1e-9)


def case_of_the_compiler():
    """The pictures that the test of stitch/src/detection/average_precision.rs draws."""
    state = 1

    def below(bound: int) -> int:
        nonlocal state
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        return (state >> 33) % bound

    detections, truths = [], []
    for _ in range(30):
        found, truth = [], []
        for _ in range(below(8)):
            left, top, across, down = (below(bound) for bound in (100, 100, 60, 60))
            label, corners = below(3), (left, top, left + 8 + across, top + 8 + down)
            truth.append((*corners, label))
            for _ in range(below(3)):
                found.append((*(corner + below(9) - 4 for corner in corners), label, below(50)))
        for _ in range(below(6)):
            left, top, label = below(100), below(100), below(4)
            found.append((left, top, left + 20, top + 20, label, below(40)))
        found, truth = np.array(found, float).reshape(-1, 6), np.array(truth, float).reshape(-1, 5)
        detections.append(Boxes(found[:, :4], found[:, 4].astype(int), found[:, 5]))
        truths.append(Boxes(truth[:, :4], truth[:, 4].astype(int)))
    return detections, truths


def test_the_compiler_is_judged_by_these_numbers(tmp_path):
    detections, truths = case_of_the_compiler()
    ours = average_precision(detections, truths, 4)
    np.testing.assert_allclose(ours, judged(tmp_path, detections, truths, 4), atol=1e-9)
    expected = [
        (0.211489753627, 0.097825729417, 0.000990099010),
        (0.448041146104, 0.222155976362, 0),
        (0.378656643136, 0.109253614875, 0),
    ]
    np.testing.assert_allclose(ours[:3, (0, 5, 9)], expected, atol=1e-9)
    assert np.isnan(ours[3]).all()


def test_perfect_and_absent_detections():
    truth = [Boxes(np.array([(0.0, 0, 10, 10)]), np.array([1]))]
    perfect = [Boxes(truth[0].boxes, truth[0].classes, np.array([0.5]))]
    assert average_precision(perfect, truth, 2)[1].tolist() == [1] * 10
    nothing = [Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))]
    assert average_precision(nothing, truth, 2)[1].tolist() == [0] * 10
    assert recall([truth[0].boxes], truth) == (1, 1)
    assert recall([np.zeros((0, 4))], truth) == (0, 0)

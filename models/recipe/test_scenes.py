"""Scenes: what is in them, that a seed decides, and that splits share no image."""

import numpy as np

import scenes
from box_data import read_coco


def drawn(out, monkeypatch, counts):
    random = np.random.default_rng(5)
    images = random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 10
    monkeypatch.setattr(scenes, "HELD_BACK", 10)
    monkeypatch.setattr(scenes.data, "load", lambda: (images, labels, images, labels))
    monkeypatch.setattr("sys.argv", ["scenes.py", str(out), "--scenes", *map(str, counts)])
    scenes.main()


def test_scenes_hold_what_their_boxes_say(tmp_path, monkeypatch):
    drawn(tmp_path / "once", monkeypatch, (4, 2, 2))
    names, samples = read_coco(tmp_path / "once" / "train.json")
    assert len(names) == 10 and len(samples) == 4
    for one in samples:
        assert 0 < len(one.classes) <= scenes.OBJECTS[1]
        corners = one.boxes * scenes.SIDE
        assert (corners >= 0).all() and (corners <= scenes.SIDE).all()
        sides = np.sqrt(np.prod(corners[:, 2:] - corners[:, :2], axis=1))
        assert (sides > scenes.SIDES[0] - 1).all() and (sides < scenes.SIDES[1] + 1).all()
        for index, box in enumerate(corners):
            assert scenes.shared(box, list(corners[:index])) <= scenes.APART


def test_fewer_scenes_are_the_first_of_more(tmp_path, monkeypatch):
    drawn(tmp_path / "more", monkeypatch, (4, 2, 2))
    drawn(tmp_path / "fewer", monkeypatch, (2, 0, 2))
    for file in (tmp_path / "fewer" / "pictures").iterdir():
        assert file.read_bytes() == (tmp_path / "more" / "pictures" / file.name).read_bytes()
    assert not (tmp_path / "fewer" / "val.json").exists()


def test_splits_share_no_image(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(scenes, "HELD_BACK", 10)
    # Each image has one colour.
    colours = [np.full((count, 32, 32, 3), 1, np.uint8) * np.arange(count)[:, None, None, None] for count in (40, 20)]
    colours[1] += 40
    labels = [np.zeros(len(images), np.int64) for images in colours]
    monkeypatch.setattr(scenes.data, "load", lambda: (colours[0], labels[0], colours[1], labels[1]))

    def note(out, split, count, images, labels):
        seen[split] = set(images[:, 0, 0, 0].tolist())

    monkeypatch.setattr(scenes, "write", note)
    monkeypatch.setattr("sys.argv", ["scenes.py", str(tmp_path)])
    scenes.main()
    assert seen == {"train": set(range(30)), "val": set(range(30, 40)), "test": set(range(40, 60))}


def test_common_area_is_a_part_of_the_smaller_box():
    large, small = np.array([0.0, 0, 10, 10]), np.array([5.0, 5, 9, 15])
    assert scenes.shared(small, [large]) == 20 / 40
    assert scenes.shared(small, []) == 0

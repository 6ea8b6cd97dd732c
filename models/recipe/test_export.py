"""An exported head, run by an independent program, is the head that was exported."""

import json
import tomllib
import zlib
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import head_numpy
from box_data import Pictures, read_coco, sample, write_coco
from detector import MEAN, SIDE, STD, Detector, normalise
from export_detector import Laterals, export, family, head_tensors, path_name, ranges
from pyramid import ALONE, STITCHED, STRIDES


def stirred(kind: str, seed: int, configs=ALONE) -> Detector:
    """A head whose every parameter matters: nothing stays at the zero or one that it starts with."""
    torch.manual_seed(seed)
    net = Detector(kind, configs=configs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for mlp in () if kind == "dense" else (net.head.generator.base_mlp, net.head.generator.probe_mlp):
            bias = mlp[-1].bias.view(-1, 5)
            bias[:, :2] += torch.randn(len(bias), 2)
            bias[:, 2:4] -= 2  # small, so that some are probed
            bias[:, 4] += torch.randn(len(bias))
        for _ in range(2):
            net.train()
            maps = net.maps(list(zip(ALONE, torch.randn(4, 3, SIDE, SIDE).chunk(2))))  # statistics of the batch-norms
            if kind == "dense":
                net.head(maps)
    return net.eval()


@pytest.mark.parametrize("kind", ["generator", "asag", "asag-no-probing"])
def test_the_exported_head_is_the_trained_one(kind, tmp_path):
    for seed in (1,):
        net = stirred(kind, seed)
        metadata = {"head": kind, "geometry": asdict(net.geometry), "side": SIDE}
        save_file(head_tensors(net), tmp_path / "head.safetensors", {k: json.dumps(v) for k, v in metadata.items()})
        image = torch.randn(1, 3, SIDE, SIDE)
        with torch.no_grad():
            laterals = net.neck.lateral(net.family(image, ALONE[1]))
            folded = Laterals(net, ALONE[1]).eval()(image)
            anchors, outputs = net.head(net.neck(laterals), (SIDE, SIDE), None, net.probing)
        for lateral, other in zip(laterals, folded):
            torch.testing.assert_close(lateral, other, rtol=1e-3, atol=1e-4)
        head = head_numpy.Head(*head_numpy.read(tmp_path / "head.safetensors"))
        logits, boxes = head.run({stride: lateral[0].numpy() for stride, lateral in zip(STRIDES, laterals)})
        np.testing.assert_allclose(head.seen["anchors"], anchors.boxes[0].numpy(), atol=1e-2)
        if kind == "asag":
            assert head.seen["corners"] == [tuple(corner) for corner in anchors.probes[0].corners.tolist()]
            assert len(head.seen["corners"]) > 1
        np.testing.assert_allclose(logits, outputs[-1][0][0].numpy(), atol=5e-3)
        np.testing.assert_allclose(boxes, outputs[-1][1][0].numpy(), rtol=1e-3, atol=5e-2)


def test_the_exported_dense_head_is_the_trained_one(tmp_path):
    net = stirred("dense", 1)
    metadata = {"head": "dense", "geometry": asdict(net.geometry), "side": SIDE}
    save_file(head_tensors(net), tmp_path / "head.safetensors", {k: json.dumps(v) for k, v in metadata.items()})
    with torch.no_grad():
        laterals = net.neck.lateral(net.family(torch.randn(1, 3, SIDE, SIDE), ALONE[0]))
        expected = net.head(net.neck(laterals))
    head = head_numpy.Head(*head_numpy.read(tmp_path / "head.safetensors"))
    logits, boxes = head.run({stride: lateral[0].numpy() for stride, lateral in zip(STRIDES, laterals)})
    np.testing.assert_allclose(logits, expected[0][0].numpy(), atol=5e-3)
    np.testing.assert_allclose(boxes, expected[1][0].numpy(), rtol=2e-3, atol=5e-2)


def test_the_file_says_what_it_holds():
    assert len(MEAN) == len(STD) == 3
    asag, less = head_tensors(Detector("asag")), head_tensors(Detector("asag-no-probing"))
    assert set(asag) - set(less) == {name for name in asag if "8." in name and "generator" in name} | {
        name for name in asag if name.startswith("generator.probe")
    }
    dense = head_tensors(Detector("dense").eval())
    assert dense["dense.predict.weight"].shape == (7, 64) and dense["dense8.0.0.weight"].shape == (64, 3, 3)


def noise(folder, count: int):
    """A data set of noise."""
    random = np.random.default_rng(1)
    samples = []
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number}.png")
        samples.append(sample(folder / f"{number}.png", (40, 40), [(10, 10, 20, 20)], [0]))
    for split in ("train", "test"):
        write_coco(folder / f"{split}.json", ["a", "b", "c"], samples)


@pytest.fixture
def exported(tmp_path):
    """A detector with stitches, and the folder that it was exported to."""
    noise(tmp_path, 3)
    net = stirred("asag", 1, ALONE + STITCHED)
    row = {"classes": ["a", "b", "c"], "epochs": 1, "seed": 1}
    row["test"] = {config.name: {"ap50": index / 8} for index, config in enumerate(net.configs)}
    export(net, row, tmp_path, tmp_path / "cells", calibrate=2)
    return net, tmp_path / "cells"


STITCH_NAMES = ["small.3>large.3", "large.3>small.3", "small.5>large.5", "large.5>small.5"]


def test_the_description_names_everything_by_path(exported):
    net, folder = exported
    assert [path_name(config) for config in net.configs] == ["small", "large", *STITCH_NAMES]
    spec = tomllib.loads((folder / "family.toml").read_text())
    assert spec["name"] == "cells" and spec["labels"] == ["a", "b", "c"]
    assert spec["input"]["mean"] == list(MEAN) and spec["input"]["height"] == SIDE
    assert spec["stitch"]["only"] == STITCH_NAMES and spec["stitch"]["learned"] == "learned.safetensors"
    files = [*spec["data"].values(), spec["detector"]["head"], *(anchor["file"] for anchor in spec["anchor"])]
    assert all((folder / file).is_file() for file in files)
    assert "limits" not in spec
    assert tomllib.loads(family(net, {"epochs": 1, "seed": 1, "classes": []}, folder, folder, "line"))["limits"] == {
        "keep": "line"
    }
    ap50 = head_numpy.read(folder / "head.safetensors")[1]["float_ap50"]
    assert ap50 == dict(zip(["small", "large", *STITCH_NAMES], np.arange(6) / 8))


def test_stitches_go_with_the_files_of_their_anchors(exported):
    net, folder = exported
    learned = load_file(folder / "learned.safetensors")
    files = b"".join((folder / f"{name}.onnx").read_bytes() for name in ("small", "large"))
    assert learned.pop("anchors").tolist() == [zlib.crc32(files)]
    assert set(learned) == {f"{name}/0/{part}" for name in STITCH_NAMES for part in ("weights", "bias")}
    module = net.family.stitches["small-1_0-large"]
    map_ = torch.randn(24, 5, 5)
    weights, bias = (learned[f"small.3>large.3/0/{part}"] for part in ("weights", "bias"))
    assert weights.shape == (32, 1, 1, 24)
    found = torch.einsum("oc,chw->ohw", weights[:, 0, 0], map_) + bias[:, None, None]
    torch.testing.assert_close(found, module(map_[None])[0])


def test_ranges_are_those_of_the_trained_head(exported):
    """Recorded by hooks in the PyTorch modules, which share no code with the program that ranges come from."""
    net, folder = exported
    tensors, _ = head_numpy.read(folder / "head.safetensors")
    found = {name.removeprefix("range."): extent for name, extent in tensors.items() if name.startswith("range.")}
    relation, stage, generator = net.head.relation, net.head.stages[0], net.head.generator
    modules = {
        "smooth8.1": net.neck.smooth[0][1],
        "smooth32.0": net.neck.smooth[2][0],
        "compress16.1": generator.compress[0][2],
        "base.1": generator.base_mlp[3],
        "base.2": generator.base_mlp[-1],
        "relation.content": relation.content,
        "relation.attention_norm": relation.attention_norm,
        "relation.ffn.0": relation.ffn[1],
        "relation.boxes.0.norm": relation.boxes[2],
        "stage.attention.out": stage.attention.out,
        "stage.offsets": stage.offsets,
        "stage.matrices": stage.mixing.generator,
        "stage.mixing_norm": stage.mixing_norm,
        "stage.classes.1": stage.classes[-1],
    }
    expected = {}
    for name, module in modules.items():

        def widen(module, inputs, output, name=name):
            low, high = expected.get(name, (np.inf, -np.inf))
            expected[name] = (min(low, float(output.min())), max(high, float(output.max())))

        module.register_forward_hook(widen)
    pictures = Pictures(read_coco(folder.parent / "train.json")[1][:2], SIDE)
    for index in range(2):
        for config in net.configs:
            net.find(normalise(pictures.whole(index)[0][None]), config)
    for name, extent in expected.items():
        np.testing.assert_allclose(found[name], extent, rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("asks", [True, False])
def test_what_reads_patches_has_ranges_whether_a_patch_is_asked_for_or_not(asks, tmp_path):
    noise(tmp_path, 1)
    net = stirred("asag", 1)
    if not asks:
        with torch.no_grad():
            net.head.generator.base_mlp[-1].bias.view(-1, 5)[:, 4] = 100
    tensors = head_tensors(net)
    metadata = {"head": "asag", "geometry": asdict(net.geometry), "side": SIDE}
    found = ranges(net, tensors, metadata, read_coco(tmp_path / "train.json")[1])
    names = ["compress8.0", "compress8.1", "norm8", "probe.0", "probe.1", "probe.2"]
    assert all(found[f"range.{name}"][0] < found[f"range.{name}"][1] for name in names)
    assert found["range.compress8.0"][0] == 0 and found["range.probe.1"][0] == 0  # behind a ReLU

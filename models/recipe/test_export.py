"""An exported head, run by an independent program, is the head that was exported."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import head_numpy
from detector import MEAN, SIDE, STD, Detector
from export_detector import Laterals, head_tensors
from pyramid import ALONE, STRIDES


def stirred(kind: str, seed: int) -> Detector:
    """A head whose every parameter matters: nothing stays at the zero or one that it starts with."""
    torch.manual_seed(seed)
    net = Detector(kind)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for mlp in (net.head.generator.base_mlp, net.head.generator.probe_mlp):
            bias = mlp[-1].bias.view(-1, 5)
            bias[:, :2] += torch.randn(len(bias), 2)
            bias[:, 2:4] -= 2  # small, so that some are probed
            bias[:, 4] += torch.randn(len(bias))
        for _ in range(2):
            net.train()
            net.maps(torch.randn(4, 3, SIDE, SIDE), list(ALONE))  # statistics of the batch-norms
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


def test_the_file_says_what_it_holds():
    assert len(MEAN) == len(STD) == 3
    asag, less = head_tensors(Detector("asag")), head_tensors(Detector("asag-no-probing"))
    assert set(asag) - set(less) == {name for name in asag if "8." in name and "generator" in name} | {
        name for name in asag if name.startswith("generator.probe")
    }
    dense = head_tensors(Detector("dense").eval())
    assert dense["dense.predict.weight"].shape == (7, 64) and dense["dense.0.0.weight"].shape == (64, 3, 3)

"""Export trained anchors to ONNX: `python export.py OUT`; writes OUT/<anchor>.onnx and the table OUT/anchors.md.

The medium anchor keeps its batch-norm nodes, so that the importer's folding is used on a real network.
"""

import argparse
import json
from pathlib import Path

import torch

from net import ANCHORS, Net
from train import RUNS

KEEP_BATCH_NORM = {"medium"}


def export(name: str, out: Path) -> None:
    net = Net(ANCHORS[name])
    net.load_state_dict(torch.load(RUNS / f"{name}.final.pt"))
    net.eval()
    keep = name in KEEP_BATCH_NORM
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, 32, 32),),
        out / f"{name}.onnx",
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=["logits"],
        do_constant_folding=not keep,
        training=torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    rows = ["| anchor | MACs | parameters | top-1, 10,000 test images | epochs | seed |", "|---|---:|---:|---:|---:|---:|"]
    for name in ANCHORS:
        if not (RUNS / f"{name}.final.pt").exists():
            print(f"{name}: not trained yet, skipped")
            continue
        export(name, out)
        row = json.loads((RUNS / f"{name}.json").read_text())
        cells = f"{row['macs']:,} | {row['parameters']:,} | {row['top1']:.2%} | {row['epochs']} | {row['seed']}"
        rows.append(f"| {name} | {cells} |")
    table = "\n".join(rows) + "\n"
    (out / "anchors.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()

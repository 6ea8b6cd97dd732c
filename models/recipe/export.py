"""Export trained anchors to ONNX: `python export.py OUT`; writes OUT/<anchor>.onnx and the table OUT/anchors.json.

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
    rows = []
    for name in ANCHORS:
        if not (RUNS / f"{name}.final.pt").exists():
            print(f"{name}: not trained yet, skipped")
            continue
        export(name, out)
        row = json.loads((RUNS / f"{name}.json").read_text())
        rows.append({key: row[key] for key in ("anchor", "macs", "parameters", "top1", "epochs", "seed")})
        print(f"| {name} | {row['macs']:,} | {row['parameters']:,} | {row['top1'] * 100:.2f} % |")
    (out / "anchors.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Export public architectures with random weights: `python structures.py [OUT] [--only NAME] [--exporter dynamo] [--opset 20]`.

For tests of structure, not of accuracy: OUT (default `cache/structures`) gets NAME.onnx per architecture and
FAMILY.toml per family, which `stitchnet inspect` reads. Nothing that this script writes is committed.

Weights come from a seed. Biases, tables and batch statistics, which an untrained network has at 0 and 1, are moved by
noise too, so that a reader that drops one computes something else.
"""

import argparse
import warnings
from pathlib import Path

import timm
import torch

import net

SIDE = 224
RESNET20 = net.Anchor("resnet20", (3, 3, 3), (16, 32, 64))  # He et al. 2016, section 4.2, for 32x32 pictures
RESNET8 = net.Anchor("resnet8", (1, 1, 1), (16, 32, 64))  # MLPerf Tiny, image classification
SIDES = {"resnet20": 32, "resnet8": 32, "mobilenetv1-025": 96}

ARCHITECTURES = {
    "deit-ti": "deit_tiny_patch16_224",
    "deit-s": "deit_small_patch16_224",
    "deit-b": "deit_base_patch16_224",
    "swin-t": "swin_tiny_patch4_window7_224",
    "swin-s": "swin_small_patch4_window7_224",
    "swin-b": "swin_base_patch4_window7_224",
    "resnet18": "resnet18",
    "resnet20": RESNET20,
    "resnet8": RESNET8,
    "mobilenetv1-025": None,
    "resnet50": "resnet50",
    "levit-192": "levit_192",
    "levit-256": "levit_256",
    "mobilenetv2-100": "mobilenetv2_100",
    "mobilenetv2-140": "mobilenetv2_140",
    "efficientnet-lite0": "efficientnet_lite0",
    "efficientnet-lite1": "efficientnet_lite1",
}

FAMILIES = {
    "deit": ("deit-ti", "deit-s", "deit-b"),
    "swin": ("swin-t", "swin-s", "swin-b"),
    "resnet": ("resnet18", "resnet50"),
    "levit": ("levit-192", "levit-256"),
    "resnet-swin": ("resnet18", "swin-t"),
    "mobilenetv2": ("mobilenetv2-100", "mobilenetv2-140"),
    "efficientnet-lite": ("efficientnet-lite0", "efficientnet-lite1"),
}


def mobilenet_v1() -> torch.nn.Module:
    """MobileNetV1 of a quarter of the width for two classes, as in MLPerf Tiny's visual wake words."""

    def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[torch.nn.Module]:
        layer = torch.nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        return [layer, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]

    layers, width = convolution(3, 8, 3, 2), 8
    for outputs, stride in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]:
        layers += [*convolution(width, width, 3, stride, width), *convolution(width, outputs, 1)]
        width = outputs
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 2))


def network(name: str, seed: int) -> torch.nn.Module:
    """The architecture with weights from `seed`."""
    torch.manual_seed(seed)
    described = ARCHITECTURES[name]
    if described is None:
        made = mobilenet_v1()
    elif isinstance(described, net.Anchor):
        made = net.Net(described)
    else:
        made = timm.create_model(described, pretrained=False)
    with torch.no_grad():
        for key, value in made.state_dict().items():
            if key.endswith("running_var"):
                value.mul_(torch.empty_like(value).uniform_(0.7, 1.4))
            elif value.is_floating_point() and "mask" not in key:
                value.add_(torch.randn_like(value) * 0.02)
    return made.eval()


def export(name: str, out: Path, seed: int, dynamo: bool, opset: int) -> Path:
    """Writes OUT/NAME.onnx."""
    path = out / f"{name}.onnx"
    options = {"external_data": False} if dynamo else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(name, seed),
            (torch.zeros(1, 3, *[SIDES.get(name, SIDE)] * 2),),
            path,
            opset_version=opset,
            dynamo=dynamo,
            input_names=["image"],
            output_names=["logits"],
            **options,
        )
    return path


def family(name: str, out: Path) -> None:
    """Writes OUT/NAME.toml. The folders of images that it names do not exist: `inspect` opens none."""
    labels = ", ".join(f'"class {label}"' for label in range(1000))
    anchors = "".join(f'\n[[anchor]]\nname = "{anchor}"\nfile = "{anchor}.onnx"\n' for anchor in FAMILIES[name])
    (out / f"{name}.toml").write_text(
        f'name = "{name}"\nlabels = [{labels}]\n\n[input]\nheight = {SIDE}\nwidth = {SIDE}\nchannels = 3\n'
        f"mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n\n"
        f'[data]\ncalibration = "calibration"\ntest = "test"\n{anchors}'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "cache" / "structures")
    parser.add_argument("--only", choices=[*ARCHITECTURES, *FAMILIES], help="one architecture or family")
    parser.add_argument("--exporter", choices=["torchscript", "dynamo"], default="torchscript")
    parser.add_argument("--opset", type=int, default=17, help="17 to 20 are read")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = FAMILIES.get(arguments.only, [arguments.only] if arguments.only else ARCHITECTURES)
    for name in names:
        path = export(name, arguments.out, arguments.seed, arguments.exporter == "dynamo", arguments.opset)
        print(f"{path}: {path.stat().st_size:,} bytes", flush=True)
    for name in FAMILIES:
        family(name, arguments.out)


if __name__ == "__main__":
    main()

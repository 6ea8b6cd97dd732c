"""Images of one network, for peers.py and tiny.py: calibrated on enlarged pictures of CIFAR-10, without scores."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "models" / "recipe"
CIFAR = ROOT / "models" / "cifar-cnn" / "data" / "calibration"
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def pictures(side: int, count: int) -> np.ndarray:
    """[count, side, side, 3] u8."""
    sheet = Image.open(CIFAR / "sheet-00.png").convert("RGB")
    tiles = [sheet.crop((x, y, x + 32, y + 32)) for y in range(0, sheet.height, 32) for x in range(0, sheet.width, 32)]
    return np.stack([np.asarray(tile.resize((side, side))) for tile in tiles[:count]])


def exported(name: str, folder: Path) -> Path:
    """The float network of this name in structures.py, exported once."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, RECIPE / "structures.py", folder, "--only", name], check=True)
    return path


def image(stitchnet: Path, folder: Path, name: str, onnx: Path, side: int, classes: int, count: int, *more: str) -> Path:
    """The image of a network, calibrated on `count` pictures, with `more` lines in its description.

    Made anew if the description is another one, or if the compiler or the network is newer.
    """
    path, family, sheets = folder / f"{name}.snet", folder / f"{name}.toml", folder / f"pictures-{side}"
    labels = ", ".join(f'"{label}"' for label in range(classes))
    lines = [
        f'name = "{name}"', f"labels = [{labels}]", *more,
        "[input]", f"height = {side}", f"width = {side}", "channels = 3", f"mean = {MEAN}", f"std = {STD}",
        "[data]", f'calibration = "{sheets}"', f'test = "{sheets}"',
        "[[anchor]]", f'name = "{name}"', f'file = "{onnx}"',
    ]
    description = "\n".join(lines) + "\n"
    newer = path.exists() and path.stat().st_mtime > max(file.stat().st_mtime for file in (stitchnet, onnx))
    if newer and family.exists() and family.read_text() == description:
        return path
    sheets.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(side, count)):
        Image.fromarray(picture).save(sheets / f"{number:02}.png")
    (sheets / "labels.txt").write_text("0\n" * count)
    family.write_text(description)
    subprocess.run([stitchnet, "compile", family, "--unscored", "-o", path], check=True)
    return path

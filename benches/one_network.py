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
    """The image of a network, calibrated on `count` pictures, with `more` lines in its description; made anew if the compiler or the network is newer."""
    path = folder / f"{name}.snet"
    if path.exists() and path.stat().st_mtime > max(file.stat().st_mtime for file in (stitchnet, onnx)):
        return path
    sheets = folder / f"pictures-{side}"
    sheets.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(side, count)):
        Image.fromarray(picture).save(sheets / f"{number:02}.png")
    (sheets / "labels.txt").write_text("0\n" * count)
    labels = ", ".join(f'"{label}"' for label in range(classes))
    family = folder / f"{name}.toml"
    family.write_text(
        f'name = "{name}"\nlabels = [{labels}]\n{"".join(line + chr(10) for line in more)}\n[input]\nheight = {side}\nwidth = {side}\nchannels = 3\n'
        f'mean = {MEAN}\nstd = {STD}\n\n[data]\ncalibration = "{sheets}"\ntest = "{sheets}"\n\n'
        f'[[anchor]]\nname = "{name}"\nfile = "{onnx}"\n'
    )
    subprocess.run([stitchnet, "compile", family, "--unscored", "-o", path], check=True)
    return path

"""Whole networks of MLPerf Tiny on a Cortex-M4 in QEMU: `python benches/tiny.py [resnet8 | mobilenetv1-025]`.

Exports the network with random weights (models/recipe/structures.py), compiles it, and runs its image on the emulated
board, where outputs are compared with the host's. Prints instructions and arena beside those of TFLite Micro with CMSIS-NN.

Needs models/recipe/requirements-structures.txt, and target/release/stitchnet.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "models" / "recipe"
CACHE = RECIPE / "cache" / "tiny"
CALIBRATION = ROOT / "models" / "cifar-cnn" / "data" / "calibration"
PICTURES = 16

NETWORKS = {"resnet8": (32, 10, 29_676_378, 54_996), "mobilenetv1-025": (96, 2, 24_406_890, 100_708)}
"""Side, classes, and the peer's instructions and bytes of arena: TFLM 90b983c2, CMSIS-NN 99f736a6, GCC 15.3.1 -Ofast."""


def image(name: str) -> Path:
    """A family of this one network."""
    from PIL import Image

    side, classes, *_ = NETWORKS[name]
    pictures = CACHE / f"pictures-{side}"
    pictures.mkdir(parents=True, exist_ok=True)
    sheet = Image.open(CALIBRATION / "sheet-00.png").convert("RGB")
    for number in range(PICTURES):
        left = 32 * number % sheet.width
        tile = sheet.crop((left, 0, left + 32, 32)).resize((side, side))
        tile.save(pictures / f"{number:02}.png")
    (pictures / "labels.txt").write_text("0\n" * PICTURES)
    subprocess.run([sys.executable, RECIPE / "structures.py", CACHE, "--only", name], check=True)
    labels = ", ".join(f'"{label}"' for label in range(classes))
    family = CACHE / f"{name}.toml"
    family.write_text(
        f'name = "{name}"\nlabels = [{labels}]\n\n[input]\nheight = {side}\nwidth = {side}\nchannels = 3\n'
        f"mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n\n"
        f'[data]\ncalibration = "{pictures}"\ntest = "{pictures}"\n\n[[anchor]]\nname = "{name}"\nfile = "{name}.onnx"\n'
    )
    path = CACHE / f"{name}.snet"
    stitchnet = ROOT / "target" / "release" / "stitchnet"
    subprocess.run([stitchnet, "compile", family, "--unscored", "-o", path], check=True)
    return path


def main() -> None:
    for name in sys.argv[1:] or NETWORKS:
        command = ["cargo", "xtask", "qemu", "--image", image(name)]
        log = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout
        instructions = int(re.search(r"^config 0: instructions (\d+) dsp", log, re.MULTILINE)[1])
        arena = int(re.search(r"^RAM: arena (\d+) bytes", log, re.MULTILINE)[1])
        *_, peer_instructions, peer_arena = NETWORKS[name]
        print(f"{name}: {instructions:,} instructions, {instructions / peer_instructions:.2f} of {peer_instructions:,}; "
              f"arena {arena:,} bytes, {arena / peer_arena:.2f} of {peer_arena:,}")


if __name__ == "__main__":
    main()

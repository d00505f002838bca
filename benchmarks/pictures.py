"""Make the pictures of the README and the documentation from the folder of a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from aime_gym.data import load_trajectories

#: Bytes that a picture may take in the repository.
LIMIT = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what `aime-gym compare` wrote, with a video")
    parser.add_argument("--width", type=int, default=480, help="of the animation, in pixels")
    parser.add_argument("--every", type=int, default=3, help="take one of so many frames")
    parser.add_argument("--frames", type=int, default=40, help="of the animation, at most")
    parser.add_argument("--out", type=Path, default=Path("docs/assets"))
    options = parser.parse_args()
    (video,) = options.folder.glob("*.mp4")
    recorded = load_trajectories(video)[0].observations
    frames = [Image.fromarray(frame) for frame in recorded[:: options.every][: options.frames]]
    size = options.width, round(frames[0].height * options.width / frames[0].width)
    frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    # One palette for all frames: what does not move then stays the same, and takes no space.
    palette = frames[-1].quantize(64, method=Image.Quantize.MEDIANCUT)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    options.out.mkdir(parents=True, exist_ok=True)
    animation = options.out / "demo.gif"
    pictures[0].save(animation, save_all=True, append_images=pictures[1:], duration=100, loop=0, optimize=True)
    figure = options.out / "demo.png"
    with Image.open(options.folder / "returns.png") as returns:
        returns.convert("RGB").quantize(64).save(figure, optimize=True)
    for path in (animation, figure):
        taken = path.stat().st_size
        print(f"{path}: {taken} bytes{'' if taken <= LIMIT else f', more than {LIMIT}'}")


if __name__ == "__main__":
    main()

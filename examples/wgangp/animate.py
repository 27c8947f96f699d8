# SPDX-License-Identifier: Apache-2.0
"""Makes a GIF of a run's samples: `python animate.py RUN/samples --output run.gif`."""

import argparse
import os
from os import path as osp

from PIL import Image

from support.errors import fail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", help="a run's folder samples/, which holds iteration_N.png")
    parser.add_argument("--output", required=True, help="the GIF to write")
    parser.add_argument("--width", type=int, default=400, help="pixels; 400 by default")
    parser.add_argument("--milliseconds", type=int, default=200, help="per picture; 200 by default")
    options = parser.parse_args()
    if options.width < 1 or not 20 <= options.milliseconds <= 60000:
        fail("--width must be at least 1, --milliseconds from 20 to 60,000.")
    try:
        names = sorted(n for n in os.listdir(options.samples) if n.endswith(".png"))
        names.sort(key=len)  # An iteration with more digits comes later.
        if not names:
            fail(f"{options.samples} holds no PNG files: is it the samples/ of a run?")
        frames = []
        for name in names:
            with Image.open(osp.join(options.samples, name)) as picture:
                size = options.width, max(1, options.width * picture.height // picture.width)
                # Each frame has its own palette. GIFs store dithered colours badly.
                small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
                frames.append(small.quantize(64, dither=Image.Dither.NONE))
        durations = [options.milliseconds] * (len(frames) - 1) + [
            min(10 * options.milliseconds, 60000)
        ]
        more = {"save_all": True, "append_images": frames[1:], "loop": 0}
        frames[0].save(options.output, "GIF", duration=durations, **more)
    except OSError as error:
        fail(str(error))
    print(f"Wrote {options.output}: {len(frames)} pictures, {osp.getsize(options.output):,} bytes")


if __name__ == "__main__":
    main()

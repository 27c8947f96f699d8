# SPDX-License-Identifier: Apache-2.0
"""Writes a page about a run, or one that compares runs: `python report.py RUN RUN ...`."""

import argparse

from pages import frames
from pages import page
from support import launch
from support.errors import UserError
from support.errors import fail
from support.errors import printable


def main() -> None:
    launch.escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the output folder of a run")
    parser.add_argument(
        "--output",
        help="the page to write (by default report.html, in the folder of a single run), or a GIF "
        "of a single run's pictures: FILE.gif",
    )
    options = parser.parse_args()
    path = options.output or page.default_path(options.runs)
    try:
        if path.endswith(".gif"):
            write_animation(options.runs, path)
        else:
            page.write(options.runs, path)
    except (UserError, OSError) as error:
        fail(str(error))
    except ImportError as error:
        fail(f"the page needs the package {error.name}: pip install {error.name}.")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        fail(f"a file of these runs is damaged: {type(error).__name__}: {error}.")
    print(f"Wrote {printable(path)}")


def write_animation(runs, path: str) -> None:
    pictures = frames.find_pictures(runs[0])
    if len(runs) > 1 or not pictures:
        fail(f"{runs[-1]}: a GIF shows the samples/iteration_N.png of one run.")
    frames.save_animation(pictures, path)


if __name__ == "__main__":
    main()

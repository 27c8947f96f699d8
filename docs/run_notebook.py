# SPDX-License-Identifier: Apache-2.0
"""Runs the notebook from top to bottom and keeps its outputs, small: `python docs/run_notebook.py`.

It takes two to three minutes on two cores. Pictures are kept with 128 colours, and the log
without what differs from machine to machine.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Optional

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "examples" / "wgangp" / "wgangp_tutorial.ipynb"


def run(folder: Path, settings: Optional[str] = None) -> nbformat.NotebookNode:
    """Runs all cells of the notebook in a kernel.

    Args:
        folder: The working directory.
        settings: Code in place of the cell with the tag "parameters"; None for the cell's own.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if settings is not None and "parameters" in cell.metadata.get("tags", ()):
            cell.source = settings
    client = NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def shrink(picture: str) -> str:
    """Reduces a picture to 128 colours; both are PNG files in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    file = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def tidy(log: str) -> str:
    """Removes speed and time, and the lines by which a slow training says that it is alive."""
    log = re.sub(r"^\[(?!1/|\d*00/)\d+/.*\n", "", log, flags=re.M)
    return re.sub(r", [\d.]+ it/s, .* left$", "", log, flags=re.M)


def main() -> None:
    notebook = run(NOTEBOOK.parent)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = shrink(data["image/png"])
            elif output.output_type == "stream":
                output.text = tidy(output.text)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this run
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The notebook: it runs from top to bottom, and the outputs that it keeps are small and clean."""

import re

import nbformat
import pytest
import run_notebook
from helpers import ROOT

SETTINGS = """
data, objective, folder = "8gaussians", "wgan_gp", {folder!r}
overrides = ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8", "TRAIN.batch_size=16"]
overrides += ["TRAIN.epochs=3", "TRAIN.iters_per_epoch=2", "TRAIN.eval_num_samples=50"]
"""
PICTURES = ("samples", "curve", "weights", "landscape")  # the cells that show one


def outputs(notebook):
    """All outputs with the names of their cells."""
    return [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", ())]


def shown(notebook):
    """The names of the cells that show a picture."""
    found = [(name, output.get("data", {})) for name, output in outputs(notebook)]
    return tuple(name for name, data in found if "image/png" in data)


def printed(notebook):
    """The text that the cells print, by stream."""
    streams = {"stdout": "", "stderr": ""}
    for _, output in outputs(notebook):
        if output.output_type == "stream":
            streams[output.name] += output.text
    return streams


def test_the_notebook_runs_from_top_to_bottom_under_a_notebooks_backend(tmp_path, monkeypatch):
    """From the repository's top; its outputs were made in examples/wgangp."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = run_notebook.run(ROOT, SETTINGS.format(folder=str(tmp_path)))
    assert shown(notebook) == PICTURES
    assert printed(notebook)["stderr"] == ""
    assert [path.name for path in tmp_path.glob("notebook-*/report.html")] == ["report.html"]


@pytest.fixture(scope="module")
def kept():
    notebook = nbformat.read(run_notebook.NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_the_notebook_keeps_its_outputs(kept):
    assert shown(kept) == PICTURES
    codes = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert "modes 8" in printed(kept)["stdout"]


def test_the_notebooks_outputs_are_small_and_of_no_machine(kept):
    assert run_notebook.NOTEBOOK.stat().st_size < 300_000
    text = printed(kept)
    assert text["stderr"] == "" and len(text["stdout"].splitlines()) < 30
    for part in (*text.values(), *(cell.source for cell in kept.cells)):
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users|usr)\b|[A-Z]:\\|Warning", part)


def test_the_notebooks_links_lead_to_files(kept):
    links = re.findall(r"\]\(([^)]+)\)", "\n".join(cell.source for cell in kept.cells))
    assert links
    for link in links:
        assert (run_notebook.NOTEBOOK.parent / link).is_file(), link

# SPDX-License-Identifier: Apache-2.0
"""The packages of the suite: who imports whom, how long functions are, how files begin."""

import ast

import import_graph
import pytest
from helpers import ROOT

GRAPH = import_graph.read_graph()
RANKS = {package: rank for rank, layer in enumerate(import_graph.LAYERS) for package in layer}


def test_imports_point_downwards():
    pairs = import_graph.find_package_imports(GRAPH)
    assert len(pairs) > len(RANKS)
    assert {package for pair in pairs for package in pair} == set(RANKS)
    for package, imported in pairs - {("training", "measures")}:
        assert RANKS[package] < RANKS[imported], f"{package} imports {imported}"


def test_functions_py_is_imported_by_high_packages_only():
    importing = {import_graph.find_package(name) for name in GRAPH if "functions" in GRAPH[name]}
    assert importing <= {"scripts", "modes", "training", "measures"} and "training" in importing


def test_functions_have_at_most_60_lines():
    functions = import_graph.list_functions()
    assert len(functions) > 100
    assert [function for function in functions if function.lines > 60] == []


def test_only_scripts_and_modes_see_the_whole_configuration():
    """Deeper functions get the values or the one section that they need."""
    named = set()
    for module, path in import_graph.list_modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arguments):
                names = {argument.arg for argument in (*node.args, *node.kwonlyargs)}
                named |= {module} if "cfg" in names else set()
    scripts = {name for name in named if import_graph.find_package(name) == "scripts"}
    readers = {f"support.{name}" for name in ("jobs", "paths", "settings", "command_line")}
    collected = {"modes.experiment", "training.run_settings"}
    assert scripts and named <= scripts | readers | collected


@pytest.mark.parametrize("folder", ["examples/wgangp", "benchmarks", "tests", "docs"])
def test_files_begin_with_the_licence(folder):
    paths = [*(ROOT / folder).rglob("*.py")]
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")  # That of a package may be empty.
        assert not text or text.startswith("# SPDX-License-Identifier: Apache-2.0\n"), path


def test_the_picture_of_the_import_graph_is_current(monkeypatch, tmp_path):
    import_graph.main(["--check"])
    picture = tmp_path / "picture.svg"
    monkeypatch.setattr(import_graph, "PICTURE", picture)
    for text in (None, "<svg></svg>"):
        if text is not None:
            picture.write_text(text)
        with pytest.raises(SystemExit, match="is not current"):
            import_graph.main(["--check"])
    import_graph.main([])
    import_graph.main(["--check"])


def make_suite(folder, sources):
    """Writes the sources of a suite, by their paths without suffix; returns its folder."""
    for name, source in sources.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return folder


def test_imports_of_all_forms_are_found(tmp_path):
    suite = make_suite(
        tmp_path,
        {
            "data/streams": "import numpy as np\nimport kernels.tape as tape",
            "kernels/tape": "def use():\n    from data import streams\n    import functions",
            "kernels/__init__": "",
            "functions": "from data.streams import Stream\nfrom kernels import no, tape",
            "wgangp_toy": "import functions\nfrom os import path",
        },
    )
    graph = import_graph.read_graph(suite)
    assert graph == {
        "data.streams": {"kernels.tape"},
        "kernels.tape": {"data.streams", "functions"},
        "functions": {"data.streams", "kernels.tape"},
        "wgangp_toy": {"functions"},
    }
    assert import_graph.find_package_imports(graph) == {
        ("data", "kernels"),
        ("kernels", "data"),
        ("kernels", "functions"),
        ("functions", "data"),
        ("functions", "kernels"),
        ("scripts", "functions"),
    }


def test_longest_functions_are_listed_first(tmp_path, capsys):
    suite = make_suite(
        tmp_path,
        {
            "data/streams": "def short(): pass\nclass A:\n  def long(self):\n    a = 1\n\n    a",
            "functions": "def middle():\n    pass",
        },
    )
    functions = import_graph.list_functions(suite)
    assert [(f.lines, f.path.name, f.number, f.name) for f in functions] == [
        (4, "streams.py", 3, "long"),
        (2, "functions.py", 1, "middle"),
        (1, "streams.py", 1, "short"),
    ]
    import_graph.main(["--longest", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    lengths = [int(line.split()[0]) for line in lines]
    assert lengths == sorted(lengths, reverse=True)

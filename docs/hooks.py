# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs: the site gets KaTeX and fonts of package.json, and loads nothing else."""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

MODULES = Path(__file__).resolve().parent.parent / "node_modules"
KATEX = ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js", "fonts/*.woff2")
FONTS = ("roboto/files/roboto-latin-*-normal.woff2", "roboto-mono/files/*-latin-400-normal.woff2")


def on_files(files, config):
    """Adds KaTeX and the fonts of assets/site.css under assets/."""
    sources = {}
    for folder, patterns, target in (
        (MODULES / "katex" / "dist", KATEX, "assets/katex"),
        (MODULES / "@fontsource", FONTS, "assets/fonts"),
    ):
        for pattern in patterns:
            found = sorted(folder.glob(pattern))
            if not found:
                raise PluginError(f"{folder / pattern} is missing: run `make docs`, or `npm ci`")
            for path in found:
                name = path.relative_to(folder) if target.endswith("katex") else path.name
                sources[f"{target}/{name}"] = path
    for uri, path in sources.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_post_page(output, page, config):
    """Removes relative links to other languages from a page's head.

    Search engines don't read relative links, and Material would request a sitemap next to each of
    them. The menu keeps its links.
    """
    return re.sub(r'<link rel="alternate"[^>]*>', "", output)

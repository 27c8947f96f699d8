# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs: the site gets KaTeX, fonts and weights that ship, and loads nothing else.

KaTeX and the fonts come with package.json.
"""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "node_modules"
WEIGHTS = "examples/wgangp/weights/"  # below ROOT
KATEX = ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js", "fonts/*.woff2")
FONTS = ("roboto/files/roboto-latin-*-normal.woff2", "roboto-mono/files/*-latin-400-normal.woff2")


def on_files(files, config):
    """Adds KaTeX, the fonts of assets/site.css and the weights that ship under assets/."""
    sources = {f"assets/weights/{path.name}": path for path in (ROOT / WEIGHTS).glob("*.pdparams")}
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


def on_page_markdown(markdown, page, config, files):
    """Turns links to weights in the repository into links to the site's copies."""
    return re.sub(rf"\]\((?:\.\./)((?:\.\./)+){WEIGHTS}", r"](\1assets/weights/", markdown)


def on_post_page(output, page, config):
    """Removes relative links to other languages from a page's head.

    Search engines don't read relative links, and Material would request a sitemap next to each of
    them. The menu keeps its links.
    """
    return re.sub(r'<link rel="alternate"[^>]*>', "", output)

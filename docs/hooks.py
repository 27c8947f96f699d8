# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""mkdocs: adds to the site what package.json brings, so that pages load nothing from elsewhere."""

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
    """Leaves out relative links to other languages in the head, which no search engine reads.

    Material would ask for a sitemap beside each of them. The menu's own links stay.
    """
    return re.sub(r'<link rel="alternate"[^>]*>', "", output)

# SPDX-License-Identifier: Apache-2.0
"""What tests share besides fixtures."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "examples" / "wgangp"
sys.path.insert(0, str(SCRIPTS))
GOLDEN = ROOT / "tests" / "golden"
# Real data are used where they are found; see the fixture `shared`.
REAL_DATA = Path(os.environ.get("WGANGP_TEST_DATA", ROOT.parent / "shared" / "data"))

"""What MkDocs asks while it builds the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# a page that is a file at the top of the repository
_WHOLE = re.compile(r'^--8<-- "(\w+\.md)"$', re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put whole files in place of their marks; what they link to in ``docs/`` is a neighbour here."""
    return _WHOLE.sub(lambda mark: (ROOT / mark[1]).read_text(encoding="utf-8").replace("](docs/", "]("), markdown)

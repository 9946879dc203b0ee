"""What every interactive page has in common: Bokeh, found or asked for, and one HTML file that needs no network."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from ignite_lr.core.arguments import Text, check_path

__all__ = ["bokeh_models", "write_page"]


def bokeh_models() -> tuple[Any, Any]:
    """``bokeh.models`` and ``bokeh.plotting.figure``.

    Raises:
        ModuleNotFoundError: without Bokeh; says what to install.
    """
    try:
        # untyped: its annotations do not know what its constructors take
        return importlib.import_module("bokeh.models"), importlib.import_module("bokeh.plotting").figure
    except ImportError as error:
        raise ModuleNotFoundError(
            "an HTML page requires bokeh to be installed: pip install bokeh",
            name="bokeh",
        ) from error


def write_page(content: Any, path: str | os.PathLike[str], title: str) -> Path:
    """Write models of Bokeh as one HTML file with Bokeh inside, readable on a phone.

    Args:
        content: what the page shows.
        path: the file.
        title: of the page.

    Returns:
        the path.

    Raises:
        TypeError: if ``path`` is no path, or ``title`` no string.
        ValueError: if no file can be called so.
    """
    target = check_path(path)
    Text().check("title", title)
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    text = file_html(content, INLINE, title=title)
    if 'name="viewport"' not in text:
        viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
        text = text.replace("<head>", f"<head>\n    {viewport}", 1)
    # half of a pair of surrogates, in a title or a name, is no text that a file can hold
    target.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target

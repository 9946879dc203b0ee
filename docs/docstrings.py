"""Bring the docstrings of the package into the form that mkdocstrings renders."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

# :meth:`suggestion` and :class:`~ignite_lr.GradNormClipper`: links for Sphinx
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?(?:[\w.]*\.)?(\w+)`")
# Google style knows both, griffe only the plural
_EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class Docstrings(Extension):
    """Reads ``Example:`` as a section, and roles as code."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = _ROLE.sub(r"`\1`", text)

"""Names that every logger can take: what it cannot is replaced by a function of the tag alone.

So two tags never become one, and none changes its name at a resume or beside a newcomer. A name that was changed ends
in a mark, ``-`` and twelve hexadecimal digits of the tag's SHA-256, and so does one that looked as if it had been.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

__all__ = ["Names", "Rule"]

_MARK = re.compile(r"-[0-9a-f]{12}\Z")


@dataclass(frozen=True)
class Rule:
    """What a logger takes in a name.

    Args:
        illegal: a pattern of what it does not.
        longest: the largest number of characters, if there is one.
        paths: whether it takes names for paths, with no part that is empty, ``.`` or ``..``.
        taken: names that it needs for something else.
    """

    illegal: str = r"[\x00-\x1f\x7f\ud800-\udfff]"
    longest: int | None = None
    paths: bool = False
    taken: tuple[str, ...] = ()

    def fitting(self, tag: str) -> str:
        r"""The name for this tag: the tag itself, where it can be.

        Example:
            >>> rule = Rule(illegal=r"[^-\w./]")
            >>> rule.fitting("lr/a_b"), rule.fitting("lr/a:b")
            ('lr/a_b', 'lr/a_b-fdf73088ffde')
        """
        name = re.sub(self.illegal, "_", tag)
        if self.paths:
            name = "/".join(part if part.strip(".") or len(part) > 2 else "_" for part in name.split("/"))
        fits = self.longest is None or len(name) <= self.longest
        if name == tag and fits and name not in self.taken and not _MARK.search(name):
            return name
        if self.longest is not None:
            name = name[: self.longest - 13]
        return f"{name}-{hashlib.sha256(tag.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


class Names(dict[str, str]):
    """The names of tags, each worked out when it is first asked for."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, tag: str) -> str:
        self[tag] = name = self._rule.fitting(tag)
        return name

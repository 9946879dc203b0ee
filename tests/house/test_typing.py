"""The types that the package gives to its users: a strict checker finds no fault with a correct program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "typing" / "user_script.py"


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    # a user has a configuration of his own, not that of this repository
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nstrict = true\n"
        "# Ignite re-exports its names without saying so\n[mypy-ignite.*]\nimplicit_reexport = true\n"
        "# installed, as users have it\n[mypy-ignite_lr.*]\nfollow_imports = silent\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--config-file={config}", f"--cache-dir={tmp_path}", str(SCRIPT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout

"""The tests on the oldest and the newest versions that are supported: ``nox``, or ``nox -s "tests(oldest)"``.

A Python that is not installed is left out, and nox says so.
"""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False

# name -> Python, torch, ignite
CORNERS = {
    "oldest": ("3.10", "2.6.0", "0.5.2"),
    "python-3.11": ("3.11", "2.13.0", "0.5.5"),
    "old-torch": ("3.12", "2.6.0", "0.5.5"),
    "old-ignite": ("3.12", "2.13.0", "0.5.2"),
    "newest": ("3.13", "2.13.0", "0.5.5"),
}


@nox.session(venv_backend="venv")
@nox.parametrize(("python", "torch", "ignite"), [nox.param(*versions, id=name) for name, versions in CORNERS.items()])
def tests(session: nox.Session, torch: str, ignite: str) -> None:
    """Run the tests with exactly these versions, with all their dependencies as new as they come."""
    session.install(f"torch=={torch}")  # alone and exact, which brings the CPU build where there is one
    session.install(f"torch=={torch}", f"pytorch-ignite=={ignite}", ".[test]")
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "loadfile", *session.posargs)

"""Studies that are really run, once a session, with the embedded model."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clca_utils import runner
from clca_utils.files import ROOT

RUN = Path("smoke/german/smollm2-135m/seed-1")


@pytest.fixture(scope="session")
def results() -> Iterator[Path]:
    """Return a results folder inside the repository, so that paths stay relative; it goes again."""
    (ROOT / "results").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=ROOT / "results", prefix=".test-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def smoke(results: Path) -> Path:
    """Return the run folder of the smoke study, run by the runner as `make study` does."""
    runner.run("smoke", results)
    return results / RUN


def artefacts(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every artefact below a folder.

    Executed notebooks and manifests are left out, which hold times, and locks and logs.
    """
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix != ".ipynb"
        and path.name != "manifest.json"
        and path.parent.name not in (".locks", ".logs")
    }

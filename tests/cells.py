"""A notebook's cells, run in this process, and notebooks that stand in for others."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import yaml

from clca_utils.files import ROOT
from clca_utils.planning import NOTEBOOKS


def run_cells(name: str, **parameters: object) -> None:
    """Run the code of a notebook with other parameters than its own."""
    shell: dict[str, object] = {"__name__": "__main__"}
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, name, "exec"), shell)
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= shell.keys()
                shell |= parameters
    plt.close("all")


def write_notebook(path: Path, *sources: str) -> None:
    """Write a notebook of code cells, the first tagged as parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python"
    }  # fmt: skip
    nbformat.write(notebook, path)


def copied(home: Path, study: dict[str, object]) -> Path:
    """Make a copy of the repository without notebooks, with a study `tiny` of its own."""
    heavy = shutil.ignore_patterns("__pycache__", "warmup")
    shutil.copytree(ROOT / "clca_utils", home / "clca_utils", ignore=heavy)
    for name in ("params", "workflow"):
        shutil.copytree(ROOT / name, home / name)
    model = {"name": "smollm2-135m", "source": "embedded"}
    (home / "params/models/smollm2-135m.yaml").write_text(yaml.safe_dump(model))
    (home / "params/tiny.yaml").write_text(yaml.safe_dump(study))
    return home

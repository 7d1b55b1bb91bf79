"""A notebook's cells, run in this process."""

import matplotlib.pyplot as plt
import nbformat

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

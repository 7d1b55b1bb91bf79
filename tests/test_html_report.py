"""The report in one file: nothing missing, nothing fetched, nothing of a file becomes markup."""

import base64
import io
import json
import re
import shutil
import subprocess
from datetime import datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin
from test_cli import ask

from clca_utils import html_report
from clca_utils.files import ROOT, StudyError, write_json, write_text
from clca_utils.html_report import write_report

REFERENCE = ROOT / "results" / "reference"
STUDIES = ["demo", "controls"]
CANARY = "<img src=x onerror=alert(1)>&\"'"
VOID = {"meta", "img", "br", "link", "hr"}
FETCHING = {"src", "srcset", "poster", "data", "action", "background", "formaction", "ping"}
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "google-chrome", "chrome"])), None)


class Page(HTMLParser):
    """A parsed report: its tags with attributes, its text, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.open, self.text = [], [], ""
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return each shipped study's folder, where its report lies in a copy, and the report."""
    found = {}
    for name in STUDIES:
        study = tmp_path_factory.mktemp("results") / name
        shutil.copytree(REFERENCE / name, study)
        found[name] = study, Page(write_report(study))
    return found


def filled(study):
    """Return the study's tables that have a row; the report leaves the others out."""
    return [path for path in (study / "tables").glob("*.csv") if path.read_text().count("\n") > 1]


def tiny(study, culture="german", name="tiny", **words):
    """Write the least folder that makes a report: one run, one table, one figure."""
    run = study / culture / "small" / "seed-1"
    write_json(run / "metrics" / "01_scenario_adaptation.json", {"scenarios": 1})
    record = {
        "key": "k", "notebook": "notebooks/01.ipynb", "commit": "c" * 40, "inputs": {},
        "parameters": {"run_dir": str(run), "seed": 1, "rewriter": words.get("value", "lexicon")},
        "outputs": {}, "seconds": 1.5, "finished": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    made = {"study": name, "commit": "c" * 40, "dirty": True, "python": words.get("value", "3.11")}
    stages = {"01_scenario_adaptation": record}
    write_json(run / "manifest.json", made | {"stages": stages})
    table = pd.DataFrame({"who": [words.get("value", "all")], "share": [1 / 3], "count": [2.0]})
    write_text(study / "tables" / "extra.csv", table.to_csv(index=False))
    (study / "figures").mkdir(exist_ok=True)
    told = PngImagePlugin.PngInfo()
    told.add_itxt("Description", words.get("caption", ""))
    Image.new("RGB", (4, 3), "red").save(study / "figures" / "study.png", pnginfo=told)
    return run


@pytest.mark.parametrize("name", STUDIES)
def test_every_figure_of_the_study_is_in_the_file(pages, name):
    study, page = pages[name]
    drawn = sorted((study / "figures").rglob("*.png"))
    images = page.all("img")
    assert len(images) == len(drawn) > 10
    sizes = set()
    for image in images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()
            assert picture.size == (int(image["width"]), int(image["height"]))
            sizes.add(picture.size)
        assert len(image["alt"]) > 20
    assert sizes == {Image.open(path).size for path in drawn}


def test_a_figure_made_lighter_still_looks_the_same():
    path = REFERENCE / "demo" / "figures" / "heat_map.png"
    shown = html_report.shown_figure(path)
    assert len(shown.picture) < path.stat().st_size / 2
    light = base64.b64decode(shown.picture.partition(",")[2])
    before, after = (
        np.asarray(Image.open(one).convert("RGB"), dtype=float) for one in (path, io.BytesIO(light))
    )
    assert np.abs(before - after).mean() < 1


@pytest.mark.parametrize("name", STUDIES)
def test_nothing_is_fetched(pages, name):
    _, page = pages[name]
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"} == set()
    fetched = [v for _, found in page.tags for k, v in found.items() if k in FETCHING]
    assert fetched
    assert [value[:20] for value in fetched if not value.startswith("data:image/png")] == []
    assert [key for _, found in page.tags for key in found if key.startswith("on")] == []
    assert re.findall(r"@import|url\(|https?://|[\"'(]//", page.source) == []
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.mark.parametrize("name", STUDIES)
def test_links_lead_to_files_from_where_the_report_is(pages, name):
    study, page = pages[name]
    links = [anchor["href"] for anchor in page.all("a")]
    files = [unquote(link) for link in links if not link.startswith("#")]
    assert [link for link in files if not (study / link).is_file()] == []
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= targets
    there = {str(path.relative_to(study)) for path in study.rglob("*.ipynb")}
    there |= {str(path.relative_to(study)) for path in filled(study)}
    there |= {str(path.relative_to(study)) for path in study.rglob("manifest.json")}
    assert there <= set(files)


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_is_well_formed_and_says_what_it_is(pages, name):
    study, page = pages[name]
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert [m for m in page.all("meta") if m.get("name") == "viewport"]
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == headings.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))
    assert len(page.all("caption")) == len(page.all("table")) > 3
    assert len(page.all("figcaption")) == len(page.all("figure")) == len(page.all("img"))
    for table in filled(study):
        assert f"{html_report._words(table.stem)}." in page.text
    for heading in page.all("th"):
        assert heading["scope"] in {"col", "row"}


def test_it_tells_what_notebook_06_tells(pages):
    study, page = pages["controls"]
    assert "0 of 30 sets of answers are surely closer to the people than guessing" in page.text
    assert "german, smollm2-135m: after training not distinguishable from untrained" in page.text
    assert "closer to the people of Germany or further away" in page.text
    summary = pd.read_csv(study / "tables" / "summary.csv")
    assert f"{summary['before'][0]:.4f}" in page.text
    assert "Asked as 4 synthetic respondents of Japan." in pages["demo"][1].text


def test_it_tells_how_it_came_about(pages):
    study, page = pages["demo"]
    made = json.loads((study / "manifest.json").read_text())
    run = json.loads((study / "japanese/smollm2-135m/seed-1/manifest.json").read_text())
    assert made["commit"] in page.text
    assert f"torch {made['packages']['torch']}" in page.text
    stage = run["stages"]["04_fine_tuning"]
    assert f"{stage['seconds']:.1f}" in page.text
    for digest in stage["inputs"].values():
        assert digest[:16] in page.text
    ended = [one["finished"] for found in (made, run) for one in found["stages"].values()]
    last = datetime.fromisoformat(max(ended))
    assert f"{last.day} {last:%B %Y, %H:%M} UTC" in page.text


@pytest.mark.parametrize("name", STUDIES)
def test_the_same_folder_gives_the_same_bytes_and_they_can_be_mailed(pages, name, tmp_path):
    study, page = pages[name]
    assert len(page.source.encode()) < 5e6
    shutil.copytree(study, tmp_path / "elsewhere" / name, ignore=shutil.ignore_patterns("report.*"))
    assert write_report(tmp_path / "elsewhere" / name).read_text(encoding="utf-8") == page.source


def test_what_a_file_says_never_becomes_markup(tmp_path):
    run = tiny(
        tmp_path / "</title><script>alert(1)<" / "s", culture="<b onclick=alert(1)>",
        name="</h1><script>alert(1)</script>", value=CANARY, caption=f"Show {CANARY}",
    )  # fmt: skip
    write_text(run / "05_<i>.ipynb", "{}")
    page = Page(write_report(run.parents[2]))
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "i"}
    assert len(page.all("img")) == 1
    assert [key for _, found in page.tags for key in found if key.startswith("on")] == []
    # the name in title and heading; parameter, Python, cell, caption and alternative text
    assert page.text.count("</h1><script>alert(1)</script>") == 2
    assert page.text.count(CANARY) == 4
    assert CANARY in page.all("img")[0]["alt"]
    assert [a for a in page.all("a") if not a["href"].startswith("#")]
    assert "<b onclick=alert(1)>, small, seed 1" in page.text


def test_no_folder_of_the_machine_is_told(tmp_path):
    run = tiny(tmp_path / "study", value=f"{tmp_path}/my data/wave7.csv")
    tables = tmp_path / "study" / "tables"
    told = f"from {tmp_path}/wave7.csv, C:\\Users\\me\\x.csv; file:///home/me/y.csv (/tmp)"
    write_text(tables / "extra.csv", pd.DataFrame({"a/b": [told, "1 / 2"]}).to_csv(index=False))
    page = Page(write_report(tmp_path / "study"))
    assert str(tmp_path) not in page.source
    assert not re.search(r"[\s\"'(>](/home|/root|/tmp|file:|[A-Z]:\\)", page.source)
    assert "…/wave7.csv" in page.text
    assert "from …/wave7.csv, …/x.csv; …/y.csv (…/tmp)" in page.text
    assert "a/b" in page.text
    assert "1 / 2" in page.text
    assert run.is_dir()


def test_a_figure_says_its_own_caption_and_its_name_what_it_is_called(tmp_path):
    tiny(tmp_path, caption="The people's ümläut. And more.")
    folder = tmp_path / "figures"
    for name in ("map_values", "heat_map_new_zealand", "my_own"):
        Image.new("RGBA", (4, 3), (0, 0, 0, 0)).save(folder / f"{name}.png")
    own = html_report.shown_figure(folder / "study.png")
    assert own.caption == "The people's ümläut. And more."
    assert own.alternative == "Distance to the people, run by run. The people's ümläut."
    titles = {name: html_report.shown_figure(folder / f"{name}.png").title
              for name in ("map_values", "heat_map_new_zealand", "my_own")}  # fmt: skip
    assert titles == {
        "map_values": "On the cultural map: values",
        "heat_map_new_zealand": "Every measure: new zealand",
        "my_own": "My own",
    }
    assert html_report.shown_figure(folder / "my_own.png").alternative == "My own."


def test_every_shipped_figure_has_a_title():
    names = {path.stem for path in REFERENCE.rglob("figures/**/*.png")}
    assert len(names) > 10
    for name in names:
        assert html_report._key(name) in html_report.TITLES


def test_numbers_are_rounded_and_what_is_missing_stays_empty(tmp_path):
    tiny(tmp_path)
    table = pd.DataFrame({"country": ["NA", ""], "p": [0.123456, None], "tiny": [-2e-7, 0.5],
                          "n": [3.0, None], "good": [True, False]})  # fmt: skip
    write_text(tmp_path / "tables" / "extra.csv", table.to_csv(index=False))
    (found,) = html_report.study_tables(tmp_path / "tables", tmp_path)
    assert found.rows == [
        ("country", "p", "tiny", "n", "good"),
        ("NA", "0.1235", "-2.0e-07", "3", "True"),
        ("", "", "0.5000", "", "False"),
    ]


def test_a_wide_table_is_turned_and_a_long_one_cut(tmp_path, monkeypatch):
    wide = pd.DataFrame({f"m_{i}": [i, i] for i in range(30)})
    write_text(tmp_path / "runs.csv", wide.to_csv(index=False))
    write_text(tmp_path / "empty.csv", "a,b\n")
    (found,) = html_report.study_tables(tmp_path, tmp_path)
    assert found.rows[0] == ("m 0", "0", "0")
    assert len(found.rows) == 30
    assert found.note == ""
    monkeypatch.setattr(html_report, "CELLS", 31)
    (found,) = html_report.study_tables(tmp_path, tmp_path)
    assert found.rows[1] == ("m 1", "1")
    assert found.note == "The first 1 of 2 rows."


def test_a_big_grid_keeps_the_first_seeds_figures_and_links_to_the_rest(tmp_path, monkeypatch):
    runs = [
        tiny(tmp_path / "s", culture=culture).parent / seed
        for culture in ("german", "japanese")
        for seed in ("seed-1", "seed-2")
    ]
    for number, run in enumerate(runs):
        write_json(run / "metrics" / "01.json", {})
        (run / "figures").mkdir()
        noise = np.random.default_rng(number).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(noise).save(run / "figures" / "loss.png")
    one = len(html_report.shown_figure(runs[0] / "figures" / "loss.png").picture)
    monkeypatch.setattr(html_report, "FIGURE_BYTES", int(2.5 * one))
    page = Page(write_report(tmp_path / "s"))
    assert len(page.all("img")) == 1 + 2
    links = [anchor["href"] for anchor in page.all("a") if anchor["href"].endswith(".png")]
    assert links == [f"{c}/small/seed-2/figures/loss.png" for c in ("german", "japanese")]
    assert page.text.count("figures are left out") == 2


def test_what_notebook_06_draws_anew_takes_the_place_of_a_runs_own(tmp_path):
    run = tiny(tmp_path)
    anew = tmp_path / "figures" / run.relative_to(tmp_path)
    for folder, names in ((run / "figures", ["loss", "intents"]), (anew, ["loss", "distance"])):
        folder.mkdir(parents=True)
        for name in [*names, ".half"]:
            Image.new("RGB", (2, 2)).save(folder / f"{name}.png")
    found = html_report.run_pictures(tmp_path, run)
    expected = [anew / "distance.png", run / "figures" / "intents.png", anew / "loss.png"]
    assert found == expected


def test_a_study_on_its_way_has_a_report_too(tmp_path):
    run = tmp_path / "s" / "german" / "small" / "seed-1"
    write_json(run / "metrics" / "01_scenario_adaptation.json", {"scenarios": 1})
    page = Page(write_report(tmp_path / "s"))
    assert "Nothing yet" in page.text
    assert page.all("img") == []
    assert "Study s" in page.text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("figures/study.png", "no picture", "study.png is not a picture"),
        ("tables/extra.csv", "", "extra.csv is not a CSV table"),
        ("tables/crossing.csv", "a\n1\n", "crossing.csv lacks what this version reads in it"),
        ("manifest.json", '{"stages": [], "packages": 3}', "manifest.json: stages: "),
        ("manifest.json", '{"stages": {}, "packages": 3}', "manifest.json: packages: "),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(tmp_path, name, content, told):
    tiny(tmp_path)
    write_text(tmp_path / name, content)
    with pytest.raises(StudyError, match=re.escape(told)):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_where_it_is_told(tmp_path):
    tiny(tmp_path / "s")
    answer = ask("report", tmp_path / "s")
    assert answer.exit_code == 0
    assert "report.html: 0.0 MB" in answer.stdout
    assert ask("report", tmp_path / "s", "--out", tmp_path / "r" / "x.html").exit_code == 0
    page = Page(tmp_path / "r" / "x.html")
    assert "extra.csv" in page.text
    # a link from outside the study would tell where the study is
    assert all(a["href"].startswith("#") for a in page.all("a"))
    for folder, told in ((tmp_path / "none", "does not exist"), (tmp_path / "r", "holds no run")):
        answer = ask("report", folder)
        assert answer.exit_code == 1
        assert told in answer.stderr
    answer = ask("report", tmp_path / "s", "--out", tmp_path)
    assert "is a folder: give --out a file" in answer.stderr


MEASURE = """<iframe id="page" src="report.html" style="border:0;width:390px;height:844px"></iframe>
<pre id="measured"></pre>
<script>
addEventListener("load", () => {
  const page = document.getElementById("page").contentWindow, found = page.document;
  const over = () => found.documentElement.scrollWidth - found.documentElement.clientWidth;
  const folded = over();
  found.querySelectorAll("details").forEach(one => one.open = true);
  const images = [...found.images];
  document.getElementById("measured").textContent = JSON.stringify({
    width: page.innerWidth, folded, unfolded: over(), images: images.length,
    empty: images.filter(one => !one.naturalWidth).length,
    requests: page.performance.getEntriesByType("resource").map(one => one.name)
      .filter(name => !name.startsWith("data:")),
    folds: found.querySelectorAll("details").length,
  });
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is on the path")
@pytest.mark.parametrize("name", [*STUDIES, "canary"])
def test_in_a_browser_all_is_there_and_nothing_runs_over_a_phones_edge(pages, name, tmp_path):
    if name == "canary":
        run = tiny(tmp_path / "s", culture="c" * 200, name="n" * 300, value="v" * 500)
        folder, images = tmp_path, 1
        shutil.copy(write_report(run.parents[2]), folder / "report.html")
    else:
        folder, images = pages[name][0], len(pages[name][1].all("img"))
    write_text(folder / "measure.html", MEASURE)
    told = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000",
            "--dump-dom", (folder / "measure.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    measured = json.loads(re.search(r'<pre id="measured">(.*?)</pre>', told, re.S)[1])
    assert measured["width"] == 390
    assert measured["folded"] == measured["unfolded"] == 0
    assert measured["images"] == images
    assert measured["empty"] == 0
    assert measured["requests"] == []
    assert measured["folds"] > 1

"""The parameter file: every slip is named, and what is right is read as it stands."""

import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clca_utils import culture, embedded, params
from clca_utils.files import ROOT, StudyError
from clca_utils.params import SECTIONS, load_study, parameters, read_model

CULTURE = {
    "name": "german",
    "country": "Germany",
    "iso3": "DEU",
    "language": "German",
    "locale": "de_DE",
    "currency": "EUR",
    "units_per_dollar": 0.9,
    "hofstede": {},
    "sources": {},
    "lexicon": {slot: ["word"] for slot in culture.Lexicon.model_fields},
    "customs": [],
}
MINIMAL = {"study": "tiny", "cultures": ["german"], "models": ["small"]}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a writer of study files, among two cultures and two models."""
    for attribute in ("cultures", "models", "recipes", "variants"):
        (tmp_path / attribute).mkdir()
    for name in ("german", "japanese"):
        text = yaml.safe_dump(CULTURE | {"name": name})
        (tmp_path / "cultures" / f"{name}.yaml").write_text(text)
    (tmp_path / "models" / "small.yaml").write_text("name: small\nsource: embedded\n")
    (tmp_path / "models" / "large.yaml").write_text(
        "name: large\nsource: org/large\nfine_tuning: {epochs: 3, lora_rank: 4}\n"
    )
    monkeypatch.setattr(culture, "FOLDER", tmp_path / "cultures")
    monkeypatch.setattr(params, "MODELS", tmp_path / "models")
    monkeypatch.setattr(params, "RECIPES", tmp_path / "recipes")
    (tmp_path / "variants" / "clca.yaml").write_text("about: the method\n")
    monkeypatch.setattr(params, "VARIANTS", tmp_path / "variants")
    monkeypatch.setattr(params, "STUDIES", tmp_path)

    def writer(content: object = None, **changes: object) -> Path:
        text = content if isinstance(content, str) else yaml.safe_dump(MINIMAL | changes)
        (tmp_path / "tiny.yaml").write_text(text)
        return tmp_path / "tiny.yaml"

    return writer


def refusal(path) -> str:
    with pytest.raises(StudyError) as error:
        load_study(path)
    return str(error.value)


def test_what_is_not_given_is_at_its_default(write):
    study = load_study(write())
    assert (study.name, study.seeds, study.simulator) == ("tiny", [1], "")
    for section, schema in SECTIONS.items():
        assert getattr(study, section) == schema()


def test_the_defaults_are_those_agreed_with_the_notebooks():
    assert {name: schema().model_dump() for name, schema in SECTIONS.items()} == {
        "scenario_adaptation": {"split": "learn", "n_scenarios": 3, "rewriter": "lexicon"},
        "dialogue_simulation": {
            "samples": 1,
            "max_turns": 3,
            "max_new_tokens": 32,
            "temperature": 0.8,
            "top_p": 0.95,
            "decoding": "prefilled",
            "partner": "",
            "candidates": 1,
            "examples": 0,
            "batch_size": 8,
            "judges": "proven",
            "gold": 1,
            "reject_confidence": 0.9,
        },
        "intent_extraction": {
            "max_new_tokens": 20,
            "cultural_threshold": 0.5,
            "batch_size": 16,
            "gold": 1,
        },
        "fine_tuning": {
            "learn_from": "simulated",
            "tasks": {"imitation": 1.0, "intent": 1.0},
            "epochs": 1,
            "learning_rate": 2.0e-4,
            "lora_rank": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.05,
            "target_modules": "all-linear",
            "modules_to_save": [],
            "precision": "auto",
            "batch_size": 4,
            "gradient_accumulation": 2,
            "recompute": True,
            "processes": 1,
            "launch": "",
            "batching": "by_length",
            "max_length": 1024,
            "checkpoint_steps": 10,
        },
        "held_out": {
            "cultures": ["german", "japanese"],
            "conversations": 1,
            "texts": 2,
            "questions": 4,
            "replies": 1,
            "max_new_tokens": 32,
            "judge": "",
            "batch_size": 4,
        },
        "wvs_analysis": {
            "survey": "",
            "items": "",
            "item_set": "values",
            "prompt": "nationality",
            "n_respondents": 4,
            "weighted": True,
            "method": "weigh",
            "temperature": 1.0,
            "orders": "all",
            "checks": ["paraphrase"],
            "cultures": ["british", "chinese", "german", "japanese", "mexican"],
            "batch_size": 4,
        },
        "paper_figures": {"run_figures": "first"},
    }


def test_a_study_is_found_by_its_bare_name(write):
    write()
    assert load_study("tiny").name == "tiny"
    assert "did you mean 'tiny'?" in refusal("tinny")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"scenario_adaptation": {"n_scenarois": 4}},
            "scenario_adaptation has no parameter 'n_scenarois'; did you mean 'n_scenarios'?",
        ),
        ({"fine_tunning": {}}, "there is no key 'fine_tunning'; did you mean 'fine_tuning'?"),
        ({"name": "x"}, "there is no key 'name'; known are: cultures, "),
        ({"study": "Tiny Study"}, "study should be small letters, digits and hyphens"),
        ({"study": 3}, "study should be text, found 3."),
        ({"cultures": []}, "cultures should name at least one"),
        ({"cultures": "german"}, "cultures should be a list, as in [one, two], found 'german'."),
        ({"cultures": ["germann"]}, "There is no culture 'germann' in params/cultures; did you"),
        ({"cultures": ["german", "german"]}, "cultures 'german' is given twice"),
        ({"cultures": ["x/absent.yaml"]}, "The culture file x/absent.yaml does not exist"),
        ({"models": ["smal"]}, "There is no model 'smal' in params/models; did you mean 'small'?"),
        ({"models": ["zzz"]}, "There is no model 'zzz' in params/models; known are: large, small."),
        ({"models": ["./nowhere/model"]}, "The model folder ./nowhere/model does not exist"),
        ({"models": ["small", "small"]}, "models 'small' is given twice"),
        ({"models": ["o/m", "o-m"]}, "or shares the folder 'o-m'"),
        ({"simulator": "largo"}, "There is no model 'largo' in params/models; did you mean"),
        ({"seeds": []}, "seeds should name at least one"),
        ({"seeds": [1, 1]}, "seeds 1 is given twice"),
        ({"seeds": [-1]}, "seeds.0 should be greater than or equal to 0, found -1."),
        ({"seeds": 1}, "seeds should be a list, as in [one, two], found 1."),
        (
            {"paper_figures": {"dpi": 3}},
            "paper_figures has no parameter 'dpi'; known are: run_figures",
        ),
        ({"fine_tuning": None}, "fine_tuning should hold 'parameter: value' lines, found None."),
        ({"fine_tuning": [1]}, "fine_tuning should hold 'parameter: value' lines, found [1]."),
        ({"wvs_analysis": {"survey": "no.csv"}}, "wvs_analysis.survey names no file"),
        ({"wvs_analysis": {"items": "no.yaml"}}, "wvs_analysis.items names no file"),
        (
            {"wvs_analysis": {"cultures": ["german", "japanes"]}},
            "wvs_analysis.cultures.1 names no culture (There is no culture 'japanes' in "
            "params/cultures; did you mean 'japanese'?), found 'japanes'.",
        ),
        (
            {"wvs_analysis": {"checks": ["retests"]}},
            "wvs_analysis.checks.0 should be 'paraphrase', 'retest', 'prompts' or 'cultures', "
            "found 'retests'.",
        ),
        (
            {"wvs_analysis": {"checks": "retest"}},
            "wvs_analysis.checks should be a list, as in [one, two], found 'retest'.",
        ),
    ],
)
def test_a_slip_is_told_in_a_sentence(write, changes, sentence):
    path = write(**changes)
    lines = refusal(path).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert any(sentence in line for line in lines), lines


@pytest.mark.parametrize(
    ("section", "name", "values"),
    [
        ("scenario_adaptation", "split", ["train", "", None, ["learn"]]),
        ("scenario_adaptation", "n_scenarios", [0, -3, 2.5, "4", True, None, [4], 109]),
        ("scenario_adaptation", "rewriter", ["gpt", "", 1, None]),
        ("dialogue_simulation", "samples", [0, 1.5]),
        ("dialogue_simulation", "max_turns", [1, 101, "ten"]),
        ("dialogue_simulation", "max_new_tokens", [0, 5000]),
        ("dialogue_simulation", "temperature", [-0.1, 6, float("nan"), float("inf"), "hot", True]),
        ("dialogue_simulation", "top_p", [0, 1.1]),
        ("dialogue_simulation", "decoding", ["constrained"]),
        ("dialogue_simulation", "partner", ["smol", "absent/folder/", None, 3]),
        ("dialogue_simulation", "candidates", [0, 65, 1.5]),
        ("dialogue_simulation", "examples", [-1, 9, "2"]),
        ("dialogue_simulation", "batch_size", [0]),
        ("dialogue_simulation", "judges", ["nobody", "", None, ["form"]]),
        ("dialogue_simulation", "gold", [-1, 2.5, "2", None]),
        ("dialogue_simulation", "reject_confidence", [-0.1, 1.1]),
        ("intent_extraction", "max_new_tokens", [0]),
        ("intent_extraction", "cultural_threshold", [-1, 2]),
        ("intent_extraction", "batch_size", [0]),
        ("intent_extraction", "gold", [-1, 2.5, "2", None]),
        ("fine_tuning", "learn_from", ["gold", "", None, ["both"]]),
        ("fine_tuning", "tasks", [{}, {"imitate": 1}, "intent", ["intent"], {"intent": 0}]),
        ("fine_tuning", "tasks", [{"intent": -1}, {"intent": 101}, {"intent": "often"}]),
        ("fine_tuning", "epochs", [0, 1.0]),
        ("fine_tuning", "learning_rate", [0, -1e-4, 2, "fast", "nan", "1e5", True]),
        ("fine_tuning", "lora_rank", [0]),
        ("fine_tuning", "lora_alpha", [0]),
        ("fine_tuning", "lora_dropout", [-0.1, 1]),
        ("fine_tuning", "target_modules", ["", "q-proj", "q_proj,,v_proj", "lm_head", ["q_proj"]]),
        ("fine_tuning", "modules_to_save", ["lm_head", [1]]),
        ("fine_tuning", "precision", ["fp16", "8bit", "", 32, None]),
        ("fine_tuning", "batch_size", [0]),
        ("fine_tuning", "gradient_accumulation", [0]),
        ("fine_tuning", "recompute", ["yes", 1, None]),
        ("fine_tuning", "processes", [0, 1.5, "2", None]),
        ("fine_tuning", "launch", ["absent.yaml", None, 3]),
        ("fine_tuning", "batching", ["length", "", None, True]),
        ("fine_tuning", "max_length", [0]),
        ("fine_tuning", "checkpoint_steps", [0]),
        (
            "held_out",
            "cultures",
            [["germann"], "german", ["german", "german"], ["absent.yaml"], [1], None],
        ),
        ("held_out", "conversations", [0, 1.5]),
        ("held_out", "texts", [0, 25]),
        ("held_out", "questions", [0, 61]),
        ("held_out", "replies", [-1, "2"]),
        ("held_out", "max_new_tokens", [0, 5000]),
        ("held_out", "judge", ["smol", "absent/folder/", None, 3]),
        ("held_out", "batch_size", [0]),
        ("wvs_analysis", "survey", ["absent.csv", None]),
        ("wvs_analysis", "items", ["absent.yaml", None, 3]),
        ("wvs_analysis", "item_set", ["value", "", None, ["values"]]),
        ("wvs_analysis", "prompt", ["nobody", "", None, ["persona"]]),
        ("wvs_analysis", "n_respondents", [-1, 0, 2.5, "4", True]),
        ("wvs_analysis", "weighted", ["yes", 1, None]),
        ("wvs_analysis", "method", ["write", "", None]),
        ("wvs_analysis", "temperature", [-0.1, 6, float("nan"), float("inf"), "hot", True]),
        ("wvs_analysis", "orders", ["some"]),
        ("wvs_analysis", "checks", [["retests"], "retest", ["retest", "retest"], [1], None]),
        (
            "wvs_analysis",
            "cultures",
            [["germann"], "german", ["german", "german"], ["absent.yaml"], [1], None],
        ),
        ("wvs_analysis", "batch_size", [0]),
        ("paper_figures", "run_figures", ["none", "", None, ["all"]]),
    ],
)
def test_an_impossible_value_names_its_field(write, section, name, values):
    assert name in SECTIONS[section].model_fields
    for value in values:
        told = refusal(write(**{section: {name: value}}))
        assert f": {section}.{name}" in told, (value, told)
        assert "found" in told


def test_every_parameter_has_an_impossible_value_that_is_tested():
    (mark,) = [m for m in test_an_impossible_value_names_its_field.pytestmark if m.args]
    tested = {(section, name) for section, name, _ in mark.args[1]}
    assert tested == {(s, name) for s, schema in SECTIONS.items() for name in schema.model_fields}


def test_a_recipe_stands_behind_the_model_and_the_study(write, tmp_path):
    (tmp_path / "recipes" / "long.yaml").write_text("epochs: 9\nlora_rank: 2\nlora_alpha: 4\n")
    (tmp_path / "recipes" / "short.yaml").write_text("epochs: 2\n")
    (tmp_path / "models" / "own.yaml").write_text(
        "name: own\nsource: org/own\nrecipe: long\nfine_tuning: {lora_rank: 3}\n"
    )

    def trained(model: str, **study: object) -> tuple[int, int, float]:
        read = load_study(write(models=[model], **study))
        found = params.parameters(read, "fine_tuning", model)
        return found["epochs"], found["lora_rank"], found["lora_alpha"]

    assert trained("own") == (9, 3, 4)
    assert trained("own", fine_tuning={"epochs": 1}) == (1, 3, 4)
    assert trained("own", recipe="short") == (2, 3, 16)
    assert trained("small", recipe="long") == (9, 2, 4)
    assert trained("small") == (1, 8, 16)


def test_a_variant_stands_before_the_study(write, tmp_path):
    (tmp_path / "variants" / "longer.yaml").write_text(
        "about: trains longer\nfine_tuning: {epochs: 5}\n"
    )
    read = load_study(write(variants=["clca", "longer"], fine_tuning={"epochs": 2, "lora_rank": 3}))
    found = [parameters(read, "fine_tuning", "large", name) for name in read.variants]
    assert [(one["epochs"], one["lora_rank"]) for one in found] == [(2, 3), (5, 3)]
    assert (
        parameters(read, "wvs_analysis", "large", "longer")
        == SECTIONS["wvs_analysis"]().model_dump()
    )
    assert [params.read_variant(name).acts for name in read.variants] == [False, False]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fine_tuning: {epochs: 5}\n", "the key 'about' is missing"),
        ("about: x\nfine_tuning: {epochs: 0}\n", "epochs should be greater than or equal to 1"),
        ("about: x\nfinetuning: {}\n", "there is no key 'finetuning'; did you mean 'fine_tuning'?"),
        ("about: x\nlearnt_from: others\n", "needs an adapter"),
        (
            "about: x\nadapter: clca\nfine_tuning: {epochs: 5}\n",
            "trains nothing of its own, so fine_tuning has no place in it",
        ),
        ("about: x\nadapter: authored\n", "tests the adapter of 'authored'; add that one."),
        ("about: x\nadapter: clca\nlearnt_from: others\n", "needs a second culture"),
    ],
)
def test_a_variant_that_does_not_fit_is_told(write, tmp_path, text, sentence):
    assert "variants.0 names no variant (There is no variant 'odd' in" in refusal(
        write(variants=["odd"])
    )
    (tmp_path / "variants" / "odd.yaml").write_text(text)
    assert sentence in refusal(write(variants=["clca", "odd"]))


@pytest.mark.parametrize("name", [path.stem for path in params.VARIANTS.glob("*.yaml")])
def test_a_shipped_variant_says_what_it_is_and_changes_something(name):
    variant = params.read_variant(name)
    assert variant.about
    assert (name == params.CLCA) == (variant.model_fields_set == {"about"})


def test_the_embedded_model_trains_as_did_best_on_held_out_conversations():
    tried = pd.read_csv(ROOT / "results/reference/recipes/recipes.csv").set_index("recipe")
    best = tried.filter(regex="imitation|intent").mean(axis=1).idxmin()
    found = params.parameters(load_study("demo"), "fine_tuning", "smollm2-135m")
    examples = found["batch_size"] * found["gradient_accumulation"]
    assert best == f"{examples} a step, lr {found['learning_rate']:.1e}".replace("e-0", "e-")
    assert tried.loc[best, "text"] < tried.loc["untrained", "text"]  # and forgot no plain text


def test_a_recipe_that_is_unknown_or_does_not_fit_is_told(write, tmp_path):
    (tmp_path / "recipes" / "long.yaml").write_text("epochs: 0\n")
    assert "recipe names no recipe (There is no recipe 'lng'" in refusal(write(recipe="lng"))
    assert "did you mean 'long'?" in refusal(write(recipe="lng"))
    told = refusal(write(recipe="long"))
    assert "long.yaml: epochs should be greater than or equal to 1, found 0" in told
    (tmp_path / "recipes" / "long.yaml").write_text("epoch: 1\n")
    assert "there is no key 'epoch'; did you mean 'epochs'?" in refusal(write(recipe="long"))


def test_a_served_model_plays_but_does_not_learn(write, tmp_path):
    served = "name: far\nserver: {url: 'http://localhost:1/v1', model: m}\n"
    (tmp_path / "models" / "far.yaml").write_text(served)
    assert load_study(write(simulator="far")).simulator == "far"
    assert load_study(write(dialogue_simulation={"partner": "far"}))
    told = refusal(write(models=["far"]))
    assert "models: 'far' is served elsewhere; name it as the simulator" in told


def test_a_country_that_was_not_surveyed_is_told_before_any_work(write, tmp_path):
    text = yaml.safe_dump(CULTURE | {"name": "italian", "iso3": "ITA"})
    (tmp_path / "cultures" / "italian.yaml").write_text(text)
    told = refusal(write(cultures=["german", "italian"]))
    assert "cultures, italian: The survey has no answers of the people of ITA" in told
    rows = "qid,country,option,share,n,tier\nQ7,ITA,1,0.4,,test\nQ7,ITA,2,0.6,,test\n"
    (tmp_path / "mine.csv").write_text(rows)
    mine = {"survey": str(tmp_path / "mine.csv")}
    assert load_study(write(cultures=["italian"], wvs_analysis=mine)).cultures == ["italian"]
    assert "no answers of the people of DEU" in refusal(write(wvs_analysis=mine))


def test_a_fault_in_the_survey_file_names_the_parameter(write, tmp_path):
    (tmp_path / "mine.csv").write_text("qid,country,option,share\n")
    told = refusal(write(wvs_analysis={"survey": str(tmp_path / "mine.csv")}))
    assert f": wvs_analysis.survey: {tmp_path}/mine.csv, n: the column is missing" in told
    (tmp_path / "mine.csv").write_text("qid,country\n")
    told = refusal(write(wvs_analysis={"survey": str(tmp_path / "mine.csv")}))
    assert f": wvs_analysis.survey: {tmp_path}/mine.csv isn't a file of people's answers" in told


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("items: [{qid: Q1, question: Why, options: [aye, nay]}]", "Q1, options: found 2 of them"),
        ("items: []", "items: List should have at least 1 item"),
        ("items: [{", "isn't YAML"),
    ],
)
def test_a_fault_in_the_items_file_names_the_parameter(write, tmp_path, text, problem):
    (tmp_path / "official.yaml").write_text(text)
    told = refusal(write(wvs_analysis={"items": str(tmp_path / "official.yaml")}))
    assert f": wvs_analysis.items: {tmp_path}/official.yaml" in told
    assert problem in told
    assert len(told.splitlines()) == 1


def test_official_wording_is_taken(write, tmp_path):
    (tmp_path / "official.yaml").write_text("items: [{qid: Q1, question: Why}]")
    given = {"items": str(tmp_path / "official.yaml"), "item_set": "all"}
    assert load_study(write(wvs_analysis=given)).wvs_analysis.items == given["items"]


def test_a_language_that_respondents_do_not_speak_is_told_before_any_work(write, tmp_path):
    text = yaml.safe_dump(CULTURE | {"name": "swedish", "locale": "sv_SE"})
    (tmp_path / "cultures" / "swedish.yaml").write_text(text)
    both = ["german", "swedish"]
    told = refusal(write(cultures=both, wvs_analysis={"prompt": "native"}))
    assert "cultures, swedish: Respondents can't be described in the language 'sv'" in told
    assert "choose another prompt than 'native'" in told
    assert len(told.splitlines()) == 1
    load_study(write(cultures=both, wvs_analysis={"prompt": "persona"}))


@pytest.fixture
def bench(tmp_path):
    """Return a made-up folder in the form of WorldValuesBench."""
    folder = tmp_path / "bench"
    folder.mkdir()
    about = "D_INTERVIEW\tB_COUNTRY\tQ260\n1\tGermany\tMale\n2\tJapan\tFemale\n"
    (folder / "full_demographic_qa.tsv").write_text(about)
    (folder / "full_value_qa.tsv").write_text("D_INTERVIEW\tQ1\tQ7\n1\t1\t2\n2\t3\t-1\n")
    choices = {"B_COUNTRY_ALPHA": {"DEU": "Germany", "JPN": "Japan"}, "Q260": {"1": "Male"}}
    codebook = {name: {"choices": codes} for name, codes in choices.items()}
    (folder / "codebook.json").write_text(json.dumps(codebook))
    return folder


def test_the_survey_may_be_a_folder_or_a_file_of_single_people(write, tmp_path, bench):
    given = {"survey": str(bench)}
    assert load_study(write(wvs_analysis=given)).wvs_analysis.survey == str(bench)
    (tmp_path / "wvs.csv").write_text("D_INTERVIEW;B_COUNTRY_ALPHA;Q1\n1;DEU;2\n")
    load_study(write(wvs_analysis={"survey": str(tmp_path / "wvs.csv")}))


def test_a_folder_that_holds_no_survey_is_told(write, tmp_path, bench):
    (tmp_path / "empty").mkdir()
    told = refusal(write(wvs_analysis={"survey": str(tmp_path / "empty")}))
    assert f": wvs_analysis.survey: {tmp_path}/empty holds no people's answers" in told
    (bench / "codebook.json").unlink()
    told = refusal(write(wvs_analysis={"survey": str(bench)}))
    assert f": wvs_analysis.survey: {bench} has no codebook.json" in told


def test_beside_microdata_the_shipped_aggregates_stand_for_other_countries(write, bench, tmp_path):
    text = yaml.safe_dump(CULTURE | {"name": "mexican", "iso3": "MEX"})
    (tmp_path / "cultures" / "mexican.yaml").write_text(text)
    study = load_study(write(cultures=["german", "mexican"], wvs_analysis={"survey": str(bench)}))
    assert study.cultures == ["german", "mexican"]


@pytest.mark.parametrize("item_set", ["map", "all"])
def test_a_country_is_known_by_the_items_that_are_asked(write, tmp_path, item_set):
    (tmp_path / "mine.csv").write_text(
        "qid,country,option,share,n,tier\nQ57,DEU,1,0.4,,test\nQ57,DEU,2,0.6,,test\n"
    )
    mine = {"survey": str(tmp_path / "mine.csv"), "item_set": item_set}
    assert load_study(write(wvs_analysis=mine)).wvs_analysis.item_set == item_set


def test_the_cultures_to_tell_apart_may_be_files_or_none(write, tmp_path):
    path = tmp_path / "mine" / "italian.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(CULTURE | {"name": "italian", "iso3": "ITA"}))
    for names in ([], ["german", str(path)]):
        study = load_study(write(wvs_analysis={"cultures": names, "checks": []}))
        assert study.wvs_analysis.cultures == names


def test_the_parameters_of_a_notebook_alone_are_checked_too():
    cell = {"split": "all", "n_scenarios": 4, "rewriter": "lexicon", "other": object()}
    params.check("scenario_adaptation", cell)
    with pytest.raises(StudyError) as error:
        params.check("scenario_adaptation", cell | {"n_scenarios": 0, "rewriter": "chta"})
    first, second = str(error.value).splitlines()
    assert first == "parameters: n_scenarios should be greater than or equal to 1, found 0."
    assert second.startswith("parameters: rewriter should be 'lexicon', 'chat' or 'none', found")


def test_all_problems_are_told_at_once(write):
    path = write(
        cultures=["germann"],
        models=["smal"],
        sceds=[1],
        fine_tuning={"epochs": 0, "lora_rnk": 4},
    )
    lines = refusal(path).splitlines()
    assert len(lines) == 5
    assert [word for word in ("germann", "smal'", "sceds", "epochs", "lora_rnk")
            if not any(word in line for line in lines)] == []  # fmt: skip


def test_what_must_be_given_is_named(write):
    told = refusal(write("seeds: [1]\n"))
    for key in ("study", "cultures", "models"):
        assert f"the key '{key}' is missing; add it." in told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("study: tiny\ncultures: [german\nmodels: x\n", ", line 3: "),
        ("study: tiny\n\tcultures: 1\n", ", line 2: "),
        ("study: a\nstudy: b\n", "the key 'study' is given twice"),
        ("study: a\nfine_tuning:\n  epochs: 1\n  epochs: 2\n", "the key 'epochs' is given twice"),
        ("", "holds no 'key: value' lines"),
        ("# only a comment\n", "holds no 'key: value' lines"),
        ("- study\n- tiny\n", "holds no 'key: value' lines"),
        ("just words\n", "holds no 'key: value' lines"),
        ("study: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
        ("1: 2\n", "1"),
    ],
)
def test_a_file_that_is_no_study_is_refused(write, text, sentence):
    path = write(text)
    told = refusal(path)
    assert told.startswith(str(path))
    assert sentence in told


def test_a_missing_file_or_a_folder_is_refused(write, tmp_path):
    assert "does not exist" in refusal(tmp_path / "absent.yaml")
    assert "does not exist" in refusal(tmp_path)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["study", "cultures", "models", "seeds",
                                                       *SECTIONS, "epochs", "x", ""]), inner,
                                      max_size=4), max_leaves=12))  # fmt: skip
def test_no_yaml_content_ends_in_a_traceback(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(content))
        try:
            study = load_study(path)
        except StudyError as error:
            assert str(error).startswith(str(path))
        else:
            assert study.name == content["study"]


def test_an_exponent_without_a_point_is_a_number_although_yaml_reads_text(write):
    assert yaml.safe_load("1e-4") == "1e-4"
    text = yaml.safe_dump(MINIMAL) + "fine_tuning: {learning_rate: 1e-4}\n"
    assert load_study(write(text)).fine_tuning.learning_rate == 1e-4


def test_study_file_wins_over_model_file_over_default(write):
    study = load_study(
        write(models=["small", "large"], fine_tuning={"epochs": 7, "max_length": 64})
    )
    small, large = (parameters(study, "fine_tuning", name) for name in ("small", "large"))
    assert (small["epochs"], small["lora_rank"], small["max_length"]) == (7, 8, 64)
    assert (large["epochs"], large["lora_rank"], large["max_length"]) == (7, 4, 64)
    assert large["batch_size"] == 4
    untouched = load_study(write(models=["large"]))
    assert parameters(untouched, "fine_tuning", "large")["epochs"] == 3
    assert list(large) == list(SECTIONS["fine_tuning"].model_fields)


@pytest.mark.parametrize(("split", "most"), [("learn", 108), ("held-out", 27), ("all", 135)])
def test_there_are_no_more_scenarios_than_the_split_has(write, split, most):
    section = {"split": split, "n_scenarios": most}
    assert load_study(write(scenario_adaptation=section)).scenario_adaptation.n_scenarios == most
    told = refusal(write(scenario_adaptation=section | {"n_scenarios": most + 1}))
    assert told.endswith(
        f"scenario_adaptation.n_scenarios should be at most {most}, the number of seed scenarios "
        f"(split {split}), found {most + 1}."
    )


def test_an_unknown_split_is_told_alone(write):
    told = refusal(write(scenario_adaptation={"split": "test", "n_scenarios": 120}))
    assert len(told.splitlines()) == 1
    assert "scenario_adaptation.split should be 'learn', 'held-out' or 'all', found" in told


def test_a_hub_id_or_a_folder_needs_no_file(write, tmp_path):
    (tmp_path / "weights").mkdir()
    assert "holds no config.json" in refusal(write(models=[str(tmp_path / "weights")]))
    (tmp_path / "weights" / "config.json").write_text("{}")
    for name in ("org/model-1.5", str(tmp_path / "weights")):
        assert read_model(name).source == name
        study = load_study(write(models=[name]))
        assert parameters(study, "fine_tuning", name) == SECTIONS["fine_tuning"]().model_dump()
        assert params.model_source(name) == name


def test_the_embedded_model_is_prepared_when_it_is_asked_for(write, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "prepare", lambda: tmp_path / "unpacked")
    assert params.model_source("small") == str(tmp_path / "unpacked")
    assert params.model_source("large") == "org/large"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: small\n", "needs a source, or a server in its place"),
        ("name: small\nsource: a/b\nserver: {url: http://x/v1}\n", "server.model"),
        ("name: small\nsource: a/b\nwarmup: absent\n", "warmup names no file"),
        ("name: other\nsource: a/b\n", "name is 'other'; call it 'small'"),
        (
            "name: small\nsource: a/b\nfine_tuning: {rank: 4}\n",
            "fine_tuning has no parameter 'rank'",
        ),
        ("name: small\nsource: a/b\nfine_tuning: {epochs: x}\n", "fine_tuning.epochs should be"),
        ("name: small\nsauce: a/b\n", "did you mean 'source'?"),
    ],
)
def test_a_slip_in_a_model_file_names_that_file(write, tmp_path, text, sentence):
    path = write()
    (tmp_path / "models" / "small.yaml").write_text(text)
    told = refusal(path)
    assert str(tmp_path / "models" / "small.yaml") in told
    assert sentence in told


def test_a_culture_file_that_does_not_fit_is_named(write, tmp_path):
    (tmp_path / "cultures" / "german.yaml").write_text("name: german\n")
    assert "german.yaml" in refusal(write())


def test_folder_names_are_one_level_and_legible():
    assert params.folder_name("params/cultures/swiss german.yaml") == "swiss-german"
    assert params.folder_name("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen-Qwen2.5-0.5B-Instruct"
    assert params.folder_name("../models/mine/") == "models-mine"
    assert params.folder_name("..") == "here"


@given(st.text(min_size=1))
def test_a_folder_name_never_leaves_its_folder(name):
    folder = params.folder_name(name)
    assert folder not in ("", ".", "..")
    assert "/" not in folder


SHIPPED = sorted(file.stem for file in (ROOT / "params" / "models").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_models_are_read(name):
    model = read_model(name)
    assert model.server or model.source == "embedded" or params.HUB_ID.fullmatch(model.source)


def test_the_papers_models_train_as_the_paper_prints():
    content = yaml.safe_load((ROOT / "params" / "paper.yaml").read_text())
    study = load_study("paper")
    others = {content["simulator"], "smollm2-135m", "local-server"}
    assert set(content["models"]) | others == set(SHIPPED)
    for name in content["models"]:
        own = params.FineTuning(**params.parameters(study, "fine_tuning", name))
        assert own.batch_size * own.gradient_accumulation == 8
        assert (own.lora_rank, own.target_modules, own.max_length) == (4, "q_proj,v_proj", 2048)
        assert own.epochs == (1 if "qwen" in name else 3)
        assert own.learning_rate == (5e-5 if "mistral" in name else 1e-4)


@pytest.mark.parametrize("name", ["smoke", "demo", "paper"])
def test_the_shipped_studies_fit(name):
    study = load_study(name)
    assert study.name == name
    if name == "smoke":
        assert (
            study.model_dump()
            == params.Study(
                study="smoke", cultures=["german"], models=["smollm2-135m"]
            ).model_dump()
        )
        for section in SECTIONS:
            assert set(getattr(study, section).model_fields_set) == set(
                SECTIONS[section].model_fields
            )

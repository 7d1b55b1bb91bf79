"""The survey's items: those that ship are whole, and a user's wording takes their place."""

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.files import StudyError
from clca_utils.items import MAP_ITEMS, SurveyItem, languages, load_items

OURS = load_items("all")
BY_QID = {item.qid: item for item in OURS}


def test_the_44_items_without_q42():
    items = load_items()
    assert [item.qid for item in items] == [f"Q{n}" for n in range(1, 46) if n != 42]
    assert len({item.question for item in items}) == 44
    assert all(item.question.endswith("?") for item in items)


def test_all_items_are_the_values_and_those_of_the_map():
    values, of_map = load_items("values"), load_items("map")
    assert {item.qid for item in of_map} == set(MAP_ITEMS)
    assert {item.qid for item in OURS} == {item.qid for item in values} | set(MAP_ITEMS)
    assert len(OURS) == len({item.qid for item in OURS}) == 53


def test_another_language_has_the_same_items_and_no_english():
    for language in languages()[1:]:
        items = load_items("all", language)
        assert [(item.qid, item.topic) for item in items] == [(i.qid, i.topic) for i in OURS]
        assert not {i.question for i in items} & {i.question for i in OURS}
        assert not {i.paraphrase for i in items} & {i.question for i in OURS}


def test_a_language_that_does_not_ship_is_refused_with_those_that_do():
    with pytest.raises(StudyError, match=r"'fr' \(they do in en, de, es, ja, zh\)"):
        load_items(language="fr")


@given(st.integers(2, 26))
def test_labels_are_one_character_each_so_that_none_begins_another(count):
    item = SurveyItem(qid="Q1", topic="t", question="?", options=["x"] * count)
    assert len(set(item.labels)) == len(item.labels) == count
    assert {len(label) for label in item.labels} == {1}
    assert (
        "".join(item.labels)
        == ("123456789" if count < 10 else "ABCDEFGHIJKLMNOPQRSTUVWXYZ")[:count]
    )


@pytest.mark.parametrize(
    "wrong",
    [{"options": ["one"]}, {"options": ["a"] * 27}, {"options": ["a", ""]}, {"qid": "42"}],
    ids=["one option", "27 options", "empty option", "no Q"],
)
def test_an_item_has_a_name_and_2_to_26_options(wrong):
    with pytest.raises(ValueError, match="validation error"):
        SurveyItem(**{"qid": "Q1", "topic": "t", "question": "?", "options": ["a", "b"]} | wrong)


def written(tmp_path, *items, name="items.yaml", **more):
    path = tmp_path / name
    path.write_text(yaml.safe_dump({"items": list(items), **more}, allow_unicode=True), "utf-8")
    return path


JA_NEIN = {"qid": "Q7", "question": "Ja oder nein?", "options": ["ja", "nein"]}


def test_a_users_wording_replaces_ours_item_by_item(tmp_path):
    items = load_items("all", path=written(tmp_path, JA_NEIN))
    found = {item.qid: item for item in items}
    assert [item.qid for item in items] == [item.qid for item in OURS]
    assert found["Q7"].question == "Ja oder nein?"
    assert found["Q7"].options == ["ja", "nein"]
    assert found["Q7"].topic == BY_QID["Q7"].topic
    assert [item for item in items if item.qid != "Q7"] == [i for i in OURS if i.qid != "Q7"]


def test_our_wording_becomes_the_paraphrase_where_the_user_has_none(tmp_path):
    own = JA_NEIN | {"qid": "Q8", "paraphrase": "Nein oder ja?"}
    items = load_items(path=written(tmp_path, JA_NEIN, own))
    paraphrases = {item.qid: item.paraphrase for item in items}
    assert paraphrases["Q7"] == BY_QID["Q7"].question
    assert paraphrases["Q8"] == "Nein oder ja?"
    assert paraphrases["Q9"] == BY_QID["Q9"].paraphrase


def test_a_question_without_options_keeps_ours_in_the_language_asked(tmp_path):
    path = written(tmp_path, {"qid": "Q7", "question": "Hm?"})
    german = {item.qid: item for item in load_items(language="de")}
    (found,) = (item for item in load_items(language="de", path=path) if item.qid == "Q7")
    assert (found.question, found.options) == ("Hm?", german["Q7"].options)
    assert found.paraphrase == german["Q7"].question


def test_the_shipped_files_can_themselves_be_brought(tmp_path):
    from clca_utils.files import DATA

    brought = load_items("all", path=DATA / "items" / "de.yaml")
    german = load_items("all", "de")
    assert [(i.question, i.options) for i in brought] == [(i.question, i.options) for i in german]


@pytest.mark.parametrize("options", [["ja"], ["ja", "nein", "weiß nicht"]])
def test_another_number_of_options_is_refused(tmp_path, options):
    path = written(tmp_path, JA_NEIN | {"options": options})
    with pytest.raises(StudyError) as error:
        load_items(path=path)
    assert f"{path}, Q7, options: found {len(options)}" in str(error.value)
    assert "1 to 2" in str(error.value)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([JA_NEIN, JA_NEIN], "qid: Q7 stands there twice"),
        ([{"qid": "Q7"}], "items.0.question: the key is missing"),
        ([JA_NEIN | {"labels": []}], "items.0.labels: there is no such key"),
        ([JA_NEIN | {"options": [True, False]}], "items.0.options.0"),
        ([JA_NEIN | {"question": ""}], "items.0.question"),
        ([], "items: List should have at least 1 item"),
    ],
    ids=["twice", "no question", "unknown key", "bare yes and no", "empty question", "no item"],
)
def test_a_wrong_item_is_named(tmp_path, items, told):
    path = written(tmp_path, *items)
    with pytest.raises(StudyError) as error:
        load_items(path=path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("items.yaml", b"items: [", "isn't YAML"),
        ("items.yaml", b"items: {caf\xe9", "isn't YAML"),
        ("items.yaml", b"- Q1\n", "the whole record"),
        ("question_metadata.json", b'{"Q1": ', "isn't JSON"),
        ("question_metadata.json", b"[]", "no question of use_case 'value'"),
        ("question_metadata.json", b'{"Q1": {"use_case": "demographic"}}', "no question"),
    ],
)
def test_a_file_of_another_form_is_told(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        load_items(path=path)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(StudyError, match=r"none\.yaml is missing"):
        load_items(path=tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="is a folder: name the file of items in it"):
        load_items(path=tmp_path)


def entry(question, last, use_case="value"):
    """As in WorldValuesBench's question_metadata.json; the words here are made up."""
    return {
        "question": question, "category": "c", "use_case": use_case,
        "answer_scale_min": 1 if last else "", "answer_scale_max": last,
        "answer_data_type": "ordinal" if last else "non_ordinal",
    }  # fmt: skip


METADATA = {
    "A_YEAR": entry("Which year?", "", "demographic"),
    "Q1": entry("On a scale of 1 to 4, 1 meaning 'A lot' and 4 meaning 'No', do you like tea?", 4),
    "Q2": entry("Do you like milk?", 4),
    "Q164": entry("On a scale of 1 to 10, 1 meaning 'No' and 10 meaning 'Yes', why God?", 10),
    "Q182": entry("Ten labelled steps?", 10),
    "Q260": entry("Which sex?", 2, "demographic"),
    "Q999": entry("Unknown?", 2),
}
CODEBOOK = {
    "A_YEAR": {"description": "year"},
    "Q1": {"choices": {"1": "A lot", "2": "Some", "3": "Little", "4": "No", "-1": "Don't know"}},
    "Q164": {"choices": {"1": "No", "10": "Yes"}},
    "Q182": {"choices": {str(n): f"step {n}" for n in range(-2, 11)}},
}


def benched(tmp_path, codebook=CODEBOOK, metadata=METADATA):
    path = tmp_path / "question_metadata.json"
    path.write_text(json.dumps(metadata), "utf-8")
    if codebook is not None:
        text = codebook if isinstance(codebook, str) else json.dumps(codebook)
        (tmp_path / "codebook.json").write_text(text, "utf-8")
    return path


def test_worldvaluesbench_words_the_items_and_its_codebook_the_options(tmp_path):
    items = {item.qid: item for item in load_items("all", path=benched(tmp_path))}
    assert list(items) == list(BY_QID)
    assert items["Q1"].options == ["A lot", "Some", "Little", "No"]
    assert items["Q2"].question == "Do you like milk?"
    assert items["Q2"].options == BY_QID["Q2"].options
    assert items["Q164"].options == BY_QID["Q164"].options
    assert items["Q182"].options == [f"step {n}" for n in range(1, 11)]
    assert items["Q3"] == BY_QID["Q3"]
    assert items["Q1"].paraphrase == BY_QID["Q1"].question


def test_worldvaluesbench_questions_do_not_say_what_a_number_means(tmp_path):
    """In a rotated order 1 means something else."""
    items = {item.qid: item for item in load_items("all", path=benched(tmp_path))}
    assert items["Q1"].question == "Do you like tea?"
    assert items["Q164"].question == "Why God?"
    assert not any(re.search(r"\d meaning", item.question) for item in items.values())


def test_worldvaluesbenchs_english_is_not_asked_in_another_language(tmp_path):
    path = benched(tmp_path)
    with pytest.raises(StudyError, match="holds WorldValuesBench's English wording") as error:
        load_items(language="de", path=path)
    assert str(path) in str(error.value)
    assert "'de'" in str(error.value)
    found = {item.qid: item for item in load_items(language="de", path=written(tmp_path, JA_NEIN))}
    assert found["Q7"].question == "Ja oder nein?"


def test_without_a_codebook_the_options_are_ours(tmp_path):
    items = {item.qid: item for item in load_items("all", path=benched(tmp_path, codebook=None))}
    assert items["Q1"].question == "Do you like tea?"
    assert all(items[qid].options == BY_QID[qid].options for qid in BY_QID)


@pytest.mark.parametrize("codebook", ["{", "[]", '{"Q1": []}', '{"Q1": {"choices": 4}}'])
def test_a_damaged_codebook_is_named_itself(tmp_path, codebook):
    with pytest.raises(StudyError, match=r"codebook\.json isn't WorldValuesBench's codebook"):
        load_items(path=benched(tmp_path, codebook))


def test_another_scale_than_the_items_is_refused(tmp_path):
    labels = {"Q7": {"choices": {str(n): f"o{n}" for n in range(1, 6)}}}
    path = benched(tmp_path, labels, {"Q7": entry("Five?", 5)})
    with pytest.raises(StudyError, match="Q7, options: found 5 of them"):
        load_items(path=path)

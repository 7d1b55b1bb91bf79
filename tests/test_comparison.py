"""A model beside a people: known answers give known distances, and tables read back the same."""

import itertools
import math
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp, softmax

from clca_utils.comparison import (
    PLACES,
    Comparison,
    against_uniform,
    compare,
    line_up,
    metrics_of,
    places,
    read_comparison,
    with_lines,
    write_comparison,
)
from clca_utils.cultural_map import FEATURES
from clca_utils.culture import load_culture
from clca_utils.files import StudyError, write_text
from clca_utils.items import MAP_ITEMS, load_items
from clca_utils.measures import MEASURES
from clca_utils.references import LINES, line_summary
from clca_utils.shares import READINGS
from clca_utils.survey import LOW_TRUST, Survey, country_shares, load_marginals
from clca_utils.uncertainty import change_table, crossed_interval, interval, paired_change

ITEMS = load_items()
BY_QID = {item.qid: item for item in load_items("all")}
MARGINALS = load_marginals()
NAMES = [field.name for field in fields(Comparison)]
ROW = ["variant", "condition", "respondent", "qid", "order", "option", "position", "logprob",
       "blank", "status"]  # fmt: skip


def answers(iso3: str, belief, variant: str = "before", blank=None) -> pd.DataFrame:
    """Answer all items of a country in all orders, as one respondent.

    `belief(p, order)` gives each option's share, `blank(count)` that of each position without
    content; by default the answers are as if written, and have none.
    """
    rows = []
    for qid, p in country_shares(MARGINALS, iso3, ITEMS).items():
        for order in range(len(p)):
            with np.errstate(divide="ignore"):
                logprobs = np.log(belief(p, order))
            blanks = np.zeros(len(p)) if blank is None else np.log(blank(len(p)))
            status = "answered" if blank is None else "weighed"
            for option, logprob in enumerate(logprobs):
                place = (option - order) % len(p)
                rows.append((variant, "main", 0, qid, order, option + 1, place + 1, logprob,
                             blanks[place], status))  # fmt: skip
    return pd.DataFrame(rows, columns=ROW)


def says_one(p, order):
    """Put all on the option shown first."""
    return np.eye(len(p))[order]


def compared(culture: str, frame: pd.DataFrame, marginals=MARGINALS) -> Comparison:
    home = load_culture(culture)
    as_whom = f"a person living in {home.country}"
    return compare(frame, home, Survey(marginals), ITEMS, seed=1, asked_as=as_whom)


@pytest.fixture(scope="module")
def german():
    """Compare a model that answers as the people with one that always says 1."""
    both = [answers("DEU", lambda p, _: p), answers("DEU", says_one, "after")]
    return compared("german", pd.concat(both))


def rows(seen: Comparison, variant: str, reading: str) -> pd.DataFrame:
    table = seen.items[(seen.items["variant"] == variant) & (seen.items["reading"] == reading)]
    return table.set_index("qid")


@pytest.mark.parametrize("reading", ["fixed order", "rotated"])
def test_a_model_that_answers_as_the_people_is_at_no_distance(german, reading):
    table = rows(german, "before", reading)
    assert len(table) == 44
    for name in ("js_distance", "kl_people_model", "kl_model_people", "total_variation"):
        assert table[name].abs().max() < 1e-7


@pytest.mark.parametrize(
    ("reading", "line"), [("fixed order", "always option 1"), ("rotated", "uniform")]
)
def test_a_model_that_always_says_1_is_on_a_line(german, reading, line):
    measured = rows(german, "after", reading)
    lines = german.references[german.references["line"] == line].set_index("qid")
    for name in MEASURES:
        assert measured[name].to_numpy() == pytest.approx(lines[name][measured.index].to_numpy())
    summary = line_summary(german.references).set_index("line")
    if line in summary.index:
        assert measured["js_distance"].mean() == pytest.approx(summary.loc[line, "js_distance"])
    assert measured["js_distance"].mean() > 0.3


def test_a_model_that_always_says_1_fills_the_first_position(german):
    table = german.positions[german.positions["variant"] == "after"]
    first = table["position"] == 1
    assert table["share"][first].tolist() == pytest.approx([1] * first.sum())
    assert table["share"][~first].abs().max() == 0


def test_only_calibration_sees_through_a_liking_for_a_label():
    """It multiplies every belief by what the label is liked, as an empty question shows."""

    def liking(count):
        return softmax(-np.arange(count))

    def biased(p, order):
        wanted = (p + 1e-9) * np.roll(liking(len(p)), order)
        return 0.8 * wanted / wanted.sum()

    seen = compared("german", answers("DEU", biased, blank=liking))
    far = seen.items.groupby("reading")["js_distance"].mean()
    assert list(dict.fromkeys(seen.items["reading"])) == list(READINGS)
    assert far["calibrated"] == pytest.approx(0, abs=1e-4)
    assert far["rotated"] > 0.02
    assert far["fixed order"] > far["rotated"]
    assert set(seen.main["reading"]) == {"calibrated"}
    # the shares kept are those of the main reading
    kept = seen.model_shares.groupby("qid")["share"].apply(list)
    for qid, p in seen.people.items():
        assert kept[qid] == pytest.approx(p.tolist(), abs=1e-6)


def test_an_order_asked_alone_is_called_fixed():
    asked = answers("DEU", lambda p, _: p)
    alone = compared("german", asked[asked["order"] == 0])
    assert set(alone.items["reading"]) == {"fixed order"}
    assert_frame_equal(alone.main, alone.items)


def test_other_conditions_than_the_main_one_do_not_count(german):
    mine = [answers("DEU", lambda p, _: p), answers("DEU", says_one, "after")]
    other = answers("DEU", says_one).assign(condition="paraphrase")
    seen = compared("german", pd.concat([*mine, other]))
    for name in NAMES:
        assert_frame_equal(getattr(seen, name), getattr(german, name))


def test_people_and_model_are_told_apart(german):
    assert (german.country, german.iso3) == ("Germany", "DEU")
    wanted = country_shares(MARGINALS, "DEU", ITEMS)
    assert {qid: p.tolist() for qid, p in german.people.items()} == {
        qid: p.tolist() for qid, p in wanted.items()
    }
    assert set(german.model_shares["variant"]) == {"before", "after"}
    assert german.note == (
        "DEU: 44 of 44 items compared (tier A, n 1391 to 1527). Asked as a person living in "
        "Germany."
    )


def test_the_tables_read_back_the_same(german, tmp_path):
    write_comparison(german, tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {f"{n}.csv" for n in NAMES}
    back = read_comparison(tmp_path / "tables")
    for name in NAMES:
        written = getattr(german, name).reset_index(drop=True)
        assert_frame_equal(getattr(back, name), written, rtol=0, atol=1e-15)
    assert (back.country, back.note, back.tiers) == (german.country, german.note, german.tiers)
    # what an earlier comparison left there goes, and nothing else
    for old in ("check_prompts.csv", "items.csv", "notes.txt"):
        write_text(tmp_path / "again" / old, "old")
    write_comparison(back, tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "notes.txt",
        *(f"{name}.csv" for name in NAMES),
    }
    for name in NAMES:
        first, second = (tmp_path / folder / f"{name}.csv" for folder in ("tables", "again"))
        assert first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def british():
    return compared("british", answers("GBR", lambda p, _: p))


def test_low_trust_and_missing_items_are_noted(british, tmp_path):
    assert british.note.startswith(
        "GBR: 15 of 44 items compared (tier C2, D, n not published); all of them of low trust "
        "(tiers C2 and D); "
    )
    assert "left out: no data (29 items)" in british.note
    assert british.items["qid"].nunique() == len(british.people) == 15
    assert {british.tiers[qid] for qid in british.people} <= set(LOW_TRUST)
    assert {british.tiers[item.qid] for item in ITEMS if item.qid not in british.people} == {""}
    write_comparison(british, tmp_path)
    assert read_comparison(tmp_path).note == british.note


def test_missing_tiers_read_back_as_they_were(british, tmp_path):
    write_comparison(british, tmp_path)
    assert_frame_equal(read_comparison(tmp_path).coverage, british.coverage)


def test_a_country_without_data_is_told():
    others = MARGINALS[MARGINALS["country"] != "DEU"]
    with pytest.raises(StudyError, match="no answers of the people of DEU"):
        compared("german", answers("DEU", lambda p, _: p), others)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_table_is_named(german, tmp_path, name):
    write_comparison(german, tmp_path)
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(StudyError, match=rf"{name}\.csv is missing: run 05_wvs_analysis first"):
        read_comparison(tmp_path)


def test_the_line_up_stands_on_its_two_ends(german):
    table = line_up(german)
    assert list(table.index[:2]) == ["model before", "model after"]
    assert len(table) == 2 + len(LINES)
    assert list(table) == [*MEASURES, "score"]
    assert table.loc["uniform", "score"] == 0
    assert table.loc["human floor", "score"] == 1
    # after, it always says 1, which over all orders is guessing evenly
    assert table.loc["model after", "score"] == pytest.approx(0, abs=1e-9)
    # the people's very shares are nearer than a sample of them could be
    assert table.loc["model before", "score"] > 1
    assert table.loc["majority", "score"] < 0
    (nearest,) = [name for name in table.index if name.startswith("nearest other country (")]
    assert 0 < table.loc[nearest, "score"] < 1
    js = table["js_distance"]
    ends = js["uniform"] - js["human floor"]
    assert table["score"].tolist() == pytest.approx(((js["uniform"] - js) / ends).tolist())


@pytest.mark.parametrize("by", ["measure", "topic"])
def test_changes_stand_beside_the_lines_of_the_same_items(german, by):
    table = with_lines(change_table(german.items, by, seed=1), german)
    assert list(table.columns[:6]) == [by, "items", "before", "after", "uniform", "human_floor"]
    topics = {item.qid: item.topic for item in ITEMS}
    for row in table.to_dict("records"):
        for line, column in (("uniform", "uniform"), ("human floor", "human_floor")):
            mine = german.references[german.references["line"] == line]
            if by == "topic":
                mine = mine[[topics[qid] == row["topic"] for qid in mine["qid"]]]
            expected = float(np.mean(mine[row.get("measure", "js_distance")]))
            assert row[column] == pytest.approx(expected)
        # a model that always says 1 lies, averaged over rotations, on the uniform line
        assert row["after"] == pytest.approx(row["uniform"])


def test_guessing_evenly_is_told_from_knowing_the_people():
    even_answer = answers("DEU", lambda p, _: np.full(len(p), 1 / len(p)))
    both = [even_answer, answers("DEU", lambda p, _: (p + 1 / len(p)) / 2, "after")]
    seen = compared("german", pd.concat(both))
    table = against_uniform(seen, seed=3).set_index("variant")
    assert list(table.index) == ["before", "after"]
    assert table["items"].tolist() == [44, 44]
    # who guesses evenly is where guessing evenly is
    guessing = table.loc["before", ["change", "low", "high"]].astype(float)
    assert guessing.tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert table.loc["before", "verdict"] == "not distinguishable"
    guess, mine = zip(
        *(
            (
                jensenshannon(np.full(len(p), 1 / len(p)), p, base=2),
                jensenshannon((p + 1 / len(p)) / 2, p, base=2),
            )
            for p in seen.people.values()
        ),
        strict=True,
    )
    after = table.loc["after"]
    assert after["change"] == pytest.approx(np.mean(np.subtract(mine, guess)))
    assert after["low"] < after["change"] < after["high"] < 0
    assert after["p_value"] < 0.001
    assert after["verdict"] == "better"


def test_a_model_further_off_than_guessing_is_worse_than_it():
    wrong = answers("DEU", lambda p, _: np.eye(len(p))[int(np.argmin(p))])
    (row,) = against_uniform(compared("german", wrong), seed=3).to_dict("records")
    assert row["change"] > 0.2
    assert row["verdict"] == "worse"


# Every number of the metrics file, once more, in plain loops and by other libraries.

SMALL = [BY_QID[qid] for qid in ("Q1", "Q7", "Q33", "Q43")]
COUNTRIES = ["DEU", "JPN", "MEX", "NLD"]
KNOWN = MARGINALS[MARGINALS["country"].isin(COUNTRIES)].copy()
KNOWN.loc[(KNOWN["country"] == "DEU") & (KNOWN["qid"] == "Q7"), "tier"] = "D"
OWN = pd.DataFrame(
    {
        "respondent": [11, 12], "country": "DEU", "weight": 1.0,
        "Q1": [1.0, 2.0], "Q7": [1.0, 1.0], "Q33": [2.0, 5.0], "Q43": [3.0, np.nan],
    }
)  # fmt: skip
MICRO = Survey(KNOWN, OWN)


def weighed() -> pd.DataFrame:
    """Let two respondents answer all in every order, by chance, and leave some mass outside."""
    rng, found = np.random.default_rng(7), []
    for variant, person, item in itertools.product(("before", "after"), (11, 12), SMALL):
        count = len(item.options)
        blanks = np.log(rng.dirichlet(np.ones(count)))
        for order in range(count):
            logs = np.log(rng.dirichlet(np.ones(count)) * rng.uniform(0.5, 1))
            for place in range(count):
                option = (place + order) % count + 1
                row = (variant, "main", person, item.qid, order, option, place + 1)
                found.append((*row, logs[place], blanks[place], "weighed"))
    return pd.DataFrame(found, columns=ROW)


def measures_by_hand(model, people, outside=0.0) -> dict[str, float]:
    count = len(people)
    smooth = [[(x + 1e-3) / (1 + count * 1e-3) for x in shares] for shares in (model, people)]
    at = [i / (count - 1) for i in range(count)]
    logits = [*(x * (1 - outside) for x in model), outside]
    pairs = list(itertools.product(enumerate(model), enumerate(people)))
    return {
        "js_distance": jensenshannon(model, people, base=2),
        "kl_people_model": stats.entropy(smooth[1], smooth[0]),
        "kl_model_people": stats.entropy(smooth[0], smooth[1]),
        "wasserstein_1": stats.wasserstein_distance(at, at, model, people),
        "total_variation": 1 - sum(map(min, model, people)),
        "accuracy": sum(x * y for (i, x), (j, y) in pairs if i == j),
        "closeness": sum(x * y * (1 - abs(at[i] - at[j])) for (i, x), (j, y) in pairs),
        "kl_release": sum(
            y * (math.log(y) - logits[i] + logsumexp(logits)) for i, y in enumerate(people) if y
        ),
    }


def person_by_hand(frame, variant, person, qid, reading) -> list[float]:
    mine = frame[(frame["variant"] == variant) & (frame["respondent"] == person)]
    mine = mine[mine["qid"] == qid].sort_values("option")
    if reading == "fixed order":
        mine = mine[mine["order"] == 0]
    calibrated = reading == "calibrated"
    found = [
        softmax(one["logprob"] - calibrated * one["blank"]) for _, one in mine.groupby("order")
    ]
    return list(np.mean(found, axis=0))


QIDS = [item.qid for item in SMALL]
PEOPLES = {country: country_shares(KNOWN, country, SMALL) for country in COUNTRIES}
PEOPLE = PEOPLES["DEU"]


def mean_by_hand(shares_of, outside=None) -> dict[str, float]:
    found = [
        measures_by_hand(shares_of(q), PEOPLE[q], outside[q] if outside else 0.0) for q in QIDS
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in MEASURES}


def distances_by_hand(shares_of) -> list[float]:
    return [jensenshannon(shares_of(q), PEOPLE[q], base=2) for q in QIDS]


def variant_by_hand(frame, variant) -> tuple[dict[str, float], list[float]]:
    """Return the metrics of one variant, and its distances item by item."""
    outside = {}
    for qid in QIDS:
        asked = frame[(frame["variant"] == variant) & (frame["qid"] == qid)]
        masses = asked.groupby(["respondent", "order"])["logprob"]
        outside[qid] = float(np.mean([1 - sum(map(math.exp, row)) for _, row in masses]))
    expected = {f"outside_{variant}": np.mean(list(outside.values())), f"respondents_{variant}": 2}
    for reading, ending in (("fixed order", "_fixed_order"), ("rotated", "_rotated"),
                            ("calibrated", "")):  # fmt: skip
        one, other = (
            {q: person_by_hand(frame, variant, person, q, reading) for q in QIDS}
            for person in (11, 12)
        )
        shares = {q: np.mean([one[q], other[q]], axis=0) for q in QIDS}
        found = mean_by_hand(shares.get, outside)
        expected |= {f"{name}_{variant}{ending}": value for name, value in found.items()}
    # from here on of the last, the main one
    distances = distances_by_hand(shares.get)
    _, low, high = interval(distances, seed=3)
    expected |= {f"js_distance_{variant}_low": low, f"js_distance_{variant}_high": high}
    # two respondents can be resampled in three ways, each far likelier than 2.5 %
    three = [np.mean(distances), *(np.mean(distances_by_hand(x.get)) for x in (one, other))]
    expected[f"js_distance_{variant}_respondents_low"] = max(2 * three[0] - max(three), 0)
    expected[f"js_distance_{variant}_respondents_high"] = min(2 * three[0] - min(three), 1)
    long = [
        (variant, person, qid, option, share)
        for person, table in ((11, one), (12, other))
        for qid in QIDS
        for option, share in enumerate(table[qid], start=1)
    ]
    columns = ["variant", "respondent", "qid", "option", "share"]
    _, low, high = crossed_interval(pd.DataFrame(long, columns=columns), PEOPLE, seed=3)
    expected |= {f"js_distance_{variant}_crossed_low": low}
    expected |= {f"js_distance_{variant}_crossed_high": high}
    means = [
        [np.dot(row[q], np.arange(len(row[q]))) / (len(row[q]) - 1) for q in QIDS]
        for row in (shares, PEOPLE)
    ]
    expected[f"spearman_{variant}"] = stats.spearmanr(*means).statistic
    return expected | own_by_hand(variant, one, other), distances


def own_by_hand(variant, one, other) -> dict[str, float]:
    right, near = [], []
    for shares, (_, own) in zip((one, other), OWN.iterrows(), strict=True):
        told = [(shares[q], int(own[q]) - 1) for q in QIDS if own[q] == own[q]]
        right.append(np.mean([row[code] for row, code in told]))
        steps = [(1 - np.abs(np.arange(len(row)) - code) / (len(row) - 1)) for row, code in told]
        near.append(np.mean([np.dot(row, s) for (row, _), s in zip(told, steps, strict=True)]))
    return {f"own_accuracy_{variant}": np.mean(right), f"own_closeness_{variant}": np.mean(near)}


def lines_by_hand() -> dict[str, dict[str, float]]:
    def constant(option):
        return lambda q: np.eye(len(PEOPLE[q]))[min(option, len(PEOPLE[q]) - 1)]

    def nearest(found):
        return min(found, key=lambda one: one["js_distance"])

    constants = [mean_by_hand(constant(option)) for option in range(5)]
    whole = [c for c in COUNTRIES[1:] if all(qid in PEOPLES[c] for qid in QIDS)]
    assert whole == ["JPN", "MEX"]  # the Dutch were not asked all
    others = [mean_by_hand(PEOPLES[c].get) for c in whole]
    return {
        "uniform": mean_by_hand(lambda q: [1 / len(PEOPLE[q])] * len(PEOPLE[q])),
        "majority": mean_by_hand(lambda q: np.eye(len(PEOPLE[q]))[np.argmax(PEOPLE[q])]),
        "option_1": constants[0],
        "best_constant": nearest(constants),
        "nearest_country": nearest(others),
        "mean_country": {m: np.mean([found[m] for found in others]) for m in MEASURES},
    }


def metrics_by_hand(frame: pd.DataFrame) -> dict[str, float]:
    """Return what `metrics_of` should, but for the human floor."""
    lines, floor = lines_by_hand(), floor_by_hand()["js_distance"]
    uniform = lines["uniform"]["js_distance"]
    expected = {f"{m}_{line}": x for line, found in lines.items() for m, x in found.items()}
    expected |= {"items": 4.0, "low_trust_items": 1.0, "synthetic_respondents": 0.0}
    by_item = {}
    for variant in ("before", "after"):
        found, by_item[variant] = variant_by_hand(frame, variant)
        score = (uniform - found[f"js_distance_{variant}"]) / (uniform - floor)
        expected |= found | {f"normalised_score_{variant}": score}
    differences = np.subtract(by_item["after"], by_item["before"])
    change = paired_change(by_item["before"], by_item["after"], seed=3)
    # all 16 ways of swapping before and after; both directions count
    sums = np.array(list(itertools.product((1, -1), repeat=4))) @ differences
    more = np.mean(sums >= differences.sum() - 1e-12)
    less = np.mean(sums <= differences.sum() + 1e-12)
    return expected | {
        "change": differences.mean(),
        "change_low": change.low,
        "change_high": change.high,
        "p_value": min(1, 2 * min(more, less)),
    }


def floor_by_hand() -> dict[str, float]:
    """Measure halves of two people: each is one of them. One gave no answer to Q43: it has none."""
    found = []
    for qid in ("Q1", "Q7", "Q33"):
        one, other = (np.eye(len(BY_QID[qid].options))[int(code) - 1] for code in OWN[qid])
        found.append(measures_by_hand(one, other))
    # its halves are samples of the country's shares instead, half of n people each
    mine = KNOWN[(KNOWN["country"] == "DEU") & (KNOWN["qid"] == "Q43")].sort_values("option")
    half = int(mine["n"].iloc[0]) // 2
    rng = np.random.default_rng(0)
    p = mine["share"] / mine["share"].sum()
    drawn = [rng.multinomial(half, p, 2) / half for _ in range(2000)]
    sampled = [measures_by_hand(*pair) for pair in drawn]
    found.append({m: np.mean([one[m] for one in sampled]) for m in MEASURES})
    return {m: float(np.mean([one[m] for one in found])) for m in MEASURES}


def test_every_metric_is_what_plain_loops_find():
    frame = weighed()
    home = load_culture("german")
    seen = compare(frame, home, MICRO, SMALL, seed=3, asked_as="someone")
    metrics = metrics_of(seen, frame, MICRO, seed=3)
    floor = {name: metrics.pop(f"{name}_human_floor") for name in MEASURES}
    assert floor == pytest.approx(floor_by_hand(), abs=2e-3)
    expected = metrics_by_hand(frame)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        # the floor is drawn, and the scores rest on it
        tolerance = 0.02 if name.startswith("normalised") else 1e-9
        assert metrics[name] == pytest.approx(value, abs=tolerance), name


def test_without_microdata_nothing_is_said_of_anyones_own_answers():
    frame, survey = weighed(), Survey(KNOWN)
    seen = compare(frame, load_culture("german"), survey, SMALL, seed=3, asked_as="someone")
    metrics = metrics_of(seen, frame, survey, seed=3)
    assert not [name for name in metrics if name.startswith("own_")]
    assert 0 < metrics["js_distance_human_floor"] < 0.05


def test_made_up_respondents_are_counted():
    frame, survey = weighed(), Survey(KNOWN)
    whom = "2 synthetic respondents"
    seen = compare(frame, load_culture("german"), survey, SMALL, seed=3, asked_as=whom)
    assert metrics_of(seen, frame, survey, seed=3)["synthetic_respondents"] == 2


def test_one_respondent_has_no_interval_over_respondents():
    frame = weighed()
    frame = frame[frame["respondent"] == 11]
    seen = compare(frame, load_culture("german"), MICRO, SMALL, seed=3, asked_as="someone")
    metrics = metrics_of(seen, frame, MICRO, seed=3)
    assert metrics["respondents_before"] == 1
    assert not [name for name in metrics if "_respondents_" in name or "_crossed_" in name]
    assert not [name for name in metrics if name.startswith(("refused", "unparsable"))]


def written(item, choices, variant="before", person=11) -> pd.DataFrame:
    """Return written answers to one item, one per order: a code, "refused" or "unparsable"."""
    count, found = len(item.options), []
    for order, choice in enumerate(choices):
        status = choice if isinstance(choice, str) else "answered"
        for place in range(count):
            option = (place + order) % count + 1
            logprob = 0.0 if option == choice else -math.inf
            row = (variant, "main", person, item.qid, order, option, place + 1, logprob, 0.0)
            found.append((*row, status))
    return pd.DataFrame(found, columns=ROW)


def test_written_answers_that_are_none_are_counted_and_never_an_option():
    frame = pd.concat(
        [
            written(SMALL[0], [1, "refused", 2, "unparsable"]),
            written(SMALL[1], [1, "refused"]),
            written(SMALL[0], [1, 1, 1, 1], "after"),
            written(SMALL[1], [2, 2], "after"),
        ]
    )
    survey = Survey(KNOWN)
    seen = compare(frame, load_culture("german"), survey, SMALL[:2], seed=3, asked_as="someone")
    metrics = metrics_of(seen, frame, survey, seed=3)
    assert metrics["refused_before"] == pytest.approx(2 / 6)
    assert metrics["unparsable_before"] == pytest.approx(1 / 6)
    assert metrics["refused_after"] == metrics["unparsable_after"] == metrics["outside_after"] == 0
    assert metrics["outside_before"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    shares = seen.model_shares[seen.model_shares["variant"] == "before"]
    assert shares["share"].tolist() == [0.5, 0.5, 0, 0, 1, 0]
    assert set(seen.items["reading"]) == {"fixed order", "rotated"}


def test_a_model_whose_answers_can_never_be_read_is_told_in_a_sentence():
    frame = pd.concat(
        [written(SMALL[0], ["refused", "unparsable"]), written(SMALL[0], [1, 2], "after")]
    )
    german = load_culture("german")
    with pytest.raises(StudyError, match="no answer of the model before could be read"):
        compare(frame, german, Survey(KNOWN), SMALL[:1], seed=3, asked_as="someone")


# Places on the maps.


def world(items, countries, seed=0) -> pd.DataFrame:
    """Return made-up shares of some countries' people."""
    rng = np.random.default_rng(seed)
    found = [
        (item.qid, country, option, share, 100.0, "A")
        for country in countries
        for item in items
        for option, share in enumerate(rng.dirichlet(np.ones(len(item.options))), start=1)
    ]
    return pd.DataFrame(found, columns=["qid", "country", "option", "share", "n", "tier"])


WORLD = world(BY_QID.values(), ["AAA", "BBB", "CCC", "DDD", "EEE"])
EVERY = list(BY_QID.values())


def as_model(before, after) -> pd.DataFrame:
    found = [
        (variant, qid, option, share)
        for variant, shares in (("before", before), ("after", after))
        for qid, row in shares.items()
        for option, share in enumerate(row, start=1)
    ]
    return pd.DataFrame(found, columns=["variant", "qid", "option", "share"])


def even(items) -> dict[str, list[float]]:
    return {item.qid: [1 / len(item.options)] * len(item.options) for item in items}


MODEL = as_model(even(EVERY), country_shares(WORLD, "CCC", EVERY))


@pytest.mark.parametrize("name", ["values", "inglehart-welzel"])
def test_a_model_lies_where_a_people_that_answers_alike_lies(name):
    table = places(MODEL, WORLD, EVERY)
    assert list(table) == PLACES
    mine = table[table["map"] == name].set_index("label")
    assert mine["kind"].value_counts().to_dict() == {
        "country": 5, "before": 1, "after": 1, "uniform": 1,
    }  # fmt: skip
    spots = mine[["x", "y"]].astype(float)
    assert spots.loc["after"].tolist() == pytest.approx(spots.loc["CCC"].tolist())
    assert spots.loc["before"].tolist() == pytest.approx(spots.loc["uniform"].tolist())
    # countries lie around the middle, one deviation away in each direction
    countries = spots[mine["kind"] == "country"]
    assert countries.mean().tolist() == pytest.approx([0, 0], abs=1e-9)
    assert countries.std(ddof=0).tolist() == pytest.approx([1, 1])
    assert (mine["known"] == 1).all()
    assert mine["tier"].to_dict() == dict.fromkeys(["AAA", "BBB", "CCC", "DDD", "EEE"], "A") | {
        "before": "", "after": "", "uniform": "",
    }  # fmt: skip
    if name == "inglehart-welzel":
        assert mine["x_title"].iloc[0].startswith("self-expression (")
        assert mine["y_title"].iloc[0].startswith("secular-rational (")


def test_the_first_map_is_of_the_values_alone():
    changed = WORLD.copy()
    others = changed["qid"].isin(["Q46", "Q164"])
    changed.loc[others, "share"] = world(EVERY, sorted(set(WORLD["country"])), 1)["share"][others]
    both = [places(MODEL, marginals, EVERY) for marginals in (WORLD, changed)]
    one, other = (table[table["map"] == "values"] for table in both)
    assert_frame_equal(one, other)
    one, other = (table[table["map"] == "inglehart-welzel"] for table in both)
    assert not np.allclose(one[["x", "y"]].astype(float), other[["x", "y"]].astype(float))


def without(qid):
    return [item for item in EVERY if item.qid != qid]


@pytest.mark.parametrize(
    ("marginals", "items"),
    [
        pytest.param(WORLD, ITEMS, id="only the values were asked"),
        *(pytest.param(WORLD, without(qid), id=f"{qid} was not asked") for qid in MAP_ITEMS[5:8]),
        pytest.param(MARGINALS, EVERY, id="the shipped aggregates lack the other items"),
        pytest.param(
            WORLD[(WORLD["qid"] != "Q254") | WORLD["country"].isin(["AAA", "BBB"])],
            EVERY,
            id="two countries have them all",
        ),
    ],
)
def test_inglehart_and_welzels_map_needs_all_its_items(marginals, items):
    table = places(MODEL[MODEL["qid"].isin([item.qid for item in items])], marginals, items)
    assert set(table["map"]) == {"values"}
    assert {"before", "after", "uniform"} <= set(table["kind"])


def test_a_country_without_all_items_is_not_on_inglehart_and_welzels_map():
    lacks = (WORLD["qid"] == "Q254") & (WORLD["country"] == "EEE")
    table = places(MODEL, WORLD[~lacks], EVERY)
    on_map = table[table["kind"] == "country"].groupby("map")["label"].agg(set)
    assert on_map["inglehart-welzel"] == {"AAA", "BBB", "CCC", "DDD"}
    assert on_map["values"] == {"AAA", "BBB", "CCC", "DDD", "EEE"}
    assert len(FEATURES) == 10


def test_the_items_of_the_map_alone_draw_its_map_alone():
    items = load_items("map")
    table = places(MODEL[MODEL["qid"].isin(MAP_ITEMS)], WORLD, items)
    assert set(table["map"]) == {"inglehart-welzel"}
    five = [item for item in ITEMS if item.qid in MAP_ITEMS]
    assert len(five) == 5
    assert places(MODEL[MODEL["qid"].isin([x.qid for x in five])], WORLD, five).empty


def test_shipped_aggregates_of_low_trust_are_marked_on_the_map():
    table = places(MODEL, MARGINALS, ITEMS).set_index("label")
    assert table.loc["GBR", "tier"] in LOW_TRUST
    assert table.loc["GBR", "known"] < 0.5
    assert table.loc["DEU", "tier"] not in LOW_TRUST
    assert (table["kind"] == "country").sum() > 50


@pytest.mark.parametrize("countries", [["DEU"], ["DEU", "JPN"]])
def test_a_survey_of_too_few_countries_has_no_map(countries, tmp_path):
    few = MARGINALS[MARGINALS["country"].isin(countries)]
    seen = compared("german", answers("DEU", lambda p, _: p), few)
    assert seen.places.empty
    assert list(seen.places) == PLACES
    write_comparison(seen, tmp_path)
    assert read_comparison(tmp_path).places.empty
    names = [name.split(" (")[0] for name in line_up(seen).index]
    assert ("nearest other country" in names) == (len(countries) == 2)


def test_a_single_item_has_no_map():
    asked = answers("DEU", lambda p, _: p)
    home = load_culture("german")
    seen = compare(
        asked[asked["qid"] == "Q1"], home, Survey(MARGINALS), ITEMS[:1], seed=1, asked_as="x"
    )
    assert seen.places.empty

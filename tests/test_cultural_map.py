"""The cultural map: its axes are principal components, its features those of the survey."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils import cultural_map
from clca_utils.cultural_map import (
    FEATURES,
    fit_map,
    inglehart_welzel,
    item_means,
    map_items,
    project,
    respondent_indices,
)
from clca_utils.files import StudyError
from clca_utils.items import MAP_ITEMS, load_items
from clca_utils.survey import country_shares, load_marginals

ITEMS = load_items()
SECULAR = ["importance of God", "autonomy", "abortion", "national pride", "respect for authority"]
EXPRESSIVE = ["post-materialism", "happiness", "homosexuality", "petition", "trust"]


def world(count=40, features=6, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 2)) @ rng.normal(size=(2, features))
    values += rng.normal(scale=0.3, size=values.shape)
    names = [f"f{number}" for number in range(features)]
    return pd.DataFrame(values, [f"C{number}" for number in range(count)], names)


def two_factors(count=60, seed=0):
    """Return countries whose ten features come from a secular and an expressive factor."""
    rng = np.random.default_rng(seed)
    signs = dict.fromkeys(FEATURES, 1) | {
        "importance of God": -1, "national pride": -1, "respect for authority": -1
    }  # fmt: skip
    factors = rng.normal(size=(count, 2))
    table = pd.DataFrame(
        {
            name: signs[name] * factors[:, int(name in EXPRESSIVE)]
            + rng.normal(scale=0.5, size=count)
            for name in FEATURES
        }
    )
    return table, factors


def test_the_axes_are_the_principal_components_of_the_correlations():
    vectors = world()
    found = fit_map(vectors)
    values, axes = np.linalg.eigh(np.corrcoef(vectors.to_numpy(), rowvar=False))
    assert found.explained.to_numpy() == pytest.approx(values[::-1][:2] / 6)
    for axis, expected in zip(found.loadings, axes.T[::-1], strict=False):
        loadings = found.loadings[axis].to_numpy()
        assert abs(loadings @ expected) == pytest.approx(np.linalg.norm(loadings))
        assert loadings[np.abs(loadings).argmax()] > 0
    assert found.left_out == ()
    assert found.title("first component").startswith("first component (")


def test_loadings_are_correlations_and_places_are_standardised():
    vectors = world()
    found = fit_map(vectors)
    places = project(found, vectors)
    assert (places.pop("known") == 1).all()
    assert places.mean().to_numpy() == pytest.approx(0, abs=1e-9)
    assert np.cov(places.to_numpy(), rowvar=False, ddof=0) == pytest.approx(np.eye(2), abs=1e-9)
    for axis in places:
        for feature in vectors:
            expected = np.corrcoef(places[axis], vectors[feature])[0, 1]
            assert found.loadings.loc[feature, axis] == pytest.approx(expected)


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=6), st.floats(-5, 5))
def test_units_of_the_features_do_not_matter(units, shift):
    vectors = world()
    found, other = fit_map(vectors), fit_map(vectors * units + shift)
    assert other.loadings.to_numpy() == pytest.approx(found.loadings.to_numpy(), abs=1e-6)
    places = project(other, vectors * units + shift)
    assert places.to_numpy() == pytest.approx(project(found, vectors).to_numpy(), abs=1e-6)


@given(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), st.integers(2, 6), st.randoms())
def test_what_lies_on_the_map_is_placed_exactly_by_any_two_features(place, count, random):
    found = fit_map(world())
    exact = found.center + found.scale * (found.loadings @ np.array(place))
    hidden = random.sample(list(exact.index), 6 - count)
    row = project(found, exact.drop(hidden).to_frame("x").T).loc["x"]
    assert row.iloc[:2].to_numpy() == pytest.approx(np.array(place), abs=1e-6)
    assert row["known"] == pytest.approx(count / 6)


def test_what_has_too_few_features_has_no_place():
    found = fit_map(world(features=10))
    some = world(features=10).iloc[[0]].assign(**dict.fromkeys([f"f{n}" for n in range(8)], np.nan))
    assert project(found, some).iloc[0, :2].isna().all()
    assert project(found, some, least=0.2).iloc[0, :2].notna().all()
    one = some.assign(f8=np.nan)
    assert project(found, one, least=0).iloc[0, :2].isna().all()


def test_gaps_leave_out_poor_countries_first_and_then_features():
    vectors = world(features=20)
    vectors.loc["C0", ["f0", "f1", "f2"]] = np.nan  # 85 % known: left out
    vectors.loc["C1", "f3"] = np.nan  # 95 % known: costs everyone f3
    vectors["f4"] = 0.5
    found = fit_map(vectors)
    assert found.left_out == ("C0", "f3", "f4")
    kept = vectors.drop(index="C0").drop(columns=["f3", "f4"])
    assert found.center.to_numpy() == pytest.approx(kept.mean().to_numpy())
    assert found.scale.to_numpy() == pytest.approx(np.std(kept.to_numpy(), axis=0))
    assert project(found, vectors).loc["C0", "known"] == pytest.approx(15 / 18)


@pytest.mark.parametrize(
    ("vectors", "found"),
    [
        (world().iloc[:2], "2 countries and 6 features"),
        (world().iloc[:, :1], "40 countries and 1 features"),
        (world() * np.nan, "0 countries"),
    ],
)
def test_too_little_data_is_told(vectors, found):
    with pytest.raises(StudyError, match=rf"needs 3 countries .* found {found}"):
        fit_map(vectors)


def varimax(loadings):
    """Return Kaiser's criterion: the variance of the squared loadings, summed over axes."""
    return (np.asarray(loadings) ** 2).var(axis=0).sum()


@pytest.mark.parametrize("seed", range(4))
def test_the_map_of_inglehart_and_welzel_is_rotated_and_oriented(seed):
    vectors, factors = two_factors(seed=seed)
    found = inglehart_welzel(vectors)
    assert list(found.loadings) == ["self-expression", "secular-rational"]
    plain = fit_map(vectors).loadings.to_numpy()
    best = max(
        varimax(plain @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for angle in np.linspace(0, np.pi / 2, 500)
    )
    assert varimax(found.loadings) == pytest.approx(best, rel=1e-4)
    assert found.loadings.loc["importance of God", "secular-rational"] < -0.8
    assert found.loadings.loc[["happiness", "homosexuality"], "self-expression"].min() > 0.8
    assert found.loadings.loc[SECULAR, "self-expression"].abs().max() < 0.3
    # rotated or not, two axes explain the same
    assert found.explained.sum() == pytest.approx(fit_map(vectors).explained.sum())
    places = project(found, vectors)
    for number, axis in enumerate(("secular-rational", "self-expression")):
        assert np.corrcoef(places[axis], factors[:, number])[0, 1] > 0.95


def test_a_country_without_all_ten_features_does_not_draw_the_axes():
    vectors, _ = two_factors()
    gap = vectors.astype(float).copy()
    gap.loc[0, "petition"] = np.nan
    found = inglehart_welzel(gap)
    pd.testing.assert_frame_equal(found.loadings, inglehart_welzel(vectors.drop(index=0)).loadings)
    assert found.left_out == ("0",)
    with pytest.raises(StudyError, match="needs 3 countries"):
        inglehart_welzel(vectors.drop(columns="petition"))


def test_item_means_run_from_the_first_option_to_the_last():
    shares = {"Q1": np.array([0.5, 0.25, 0.25, 0]), "Q7": np.array([0.2, 0.8]), "Q99": np.ones(1)}
    assert item_means(shares, ITEMS) == pytest.approx({"Q1": 0.25, "Q7": 0.8})


@given(st.sampled_from(["Q1", "Q7", "Q33", "Q43"]), st.randoms())
def test_reversing_the_options_reverses_the_mean(qid, random):
    count = next(len(item.options) for item in ITEMS if item.qid == qid)
    shares = np.array([random.random() + 0.01 for _ in range(count)])
    shares /= shares.sum()
    there, back = (item_means({qid: p}, ITEMS)[qid] for p in (shares, shares[::-1]))
    assert 0 <= there <= 1
    assert there + back == pytest.approx(1)


def test_the_ten_features_by_hand():
    shares = {
        "Q46": np.array([1.0, 0, 0, 0]),  # very happy
        "Q57": np.array([0.3, 0.7]),
        "Q45": np.array([0.5, 0.5, 0]),
        "Q209": np.array([0, 1.0, 0]),  # might sign
        "Q254": np.array([0, 0, 0, 1.0]),  # not at all proud
        "Q164": np.eye(10)[9],
        "Q182": np.eye(10)[0],
        "Q184": np.full(10, 0.1),
        "Q154": np.array([0.4, 0.3, 0.2, 0.1]),
        "Q155": np.array([0.1, 0.2, 0.3, 0.4]),
        "Q8": np.array([0.9, 0.1]),
        "Q14": np.array([0.4, 0.6]),
        "Q15": np.array([0.2, 0.8]),
        "Q17": np.array([0.3, 0.7]),
    }
    assert set(shares) == set(MAP_ITEMS)
    found = map_items(shares)
    assert set(found) == set(FEATURES)
    assert found == pytest.approx(
        {
            "happiness": 1, "trust": 0.3, "respect for authority": 0.75, "petition": 0.5,
            "national pride": 0, "importance of God": 1, "homosexuality": 0, "abortion": 0.5,
            "post-materialism": 1 + 0.3 + 0.1 + 0.2 + 0.4, "autonomy": 0.9 + 0.4 - 0.2 - 0.3,
        }
    )  # fmt: skip
    for qid in ("Q155", "Q8", "Q254"):
        missing = set(found) - set(map_items({q: p for q, p in shares.items() if q != qid}))
        assert missing == {
            "Q155": {"post-materialism"}, "Q8": {"autonomy"}, "Q254": {"national pride"}
        }[qid]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "index"),
    [(1, 3, 1), (3, 1, 1), (2, 4, 3), (4, 2, 3), (1, 2, 2), (4, 3, 2)],
)
def test_the_index_of_post_materialism(first, second, index):
    answers = pd.DataFrame({"Q154": [first], "Q155": [second]})
    assert respondent_indices(answers) == {"post-materialism": index}
    shares = {"Q154": np.eye(4)[first - 1], "Q155": np.eye(4)[second - 1]}
    assert map_items(shares)["post-materialism"] == index


def test_the_index_of_autonomy_runs_from_duty_to_self_reliance():
    """The survey's own example: +2 if both Independence and Determination are mentioned."""
    names = ["Q8", "Q14", "Q15", "Q17"]
    for codes, index in (([1, 1, 2, 2], 2), ([2, 2, 1, 1], -2), ([1, 1, 1, 1], 0)):
        assert respondent_indices(pd.DataFrame([codes], columns=names)) == {"autonomy": index}


def respondents(count=300, seed=1):
    rng = np.random.default_rng(seed)
    choices = np.array([rng.permutation(4)[:2] + 1 for _ in range(count)], dtype=float)
    table = pd.DataFrame(choices, columns=["Q154", "Q155"])
    for qid in ("Q8", "Q14", "Q15", "Q17"):
        table[qid] = rng.integers(1, 3, count).astype(float)
    return table, pd.Series(rng.uniform(0.2, 3, count))


def test_shares_and_respondents_agree_where_everyone_answered():
    answers, weights = respondents()
    shares = {
        qid: np.array([weights[answers[qid] == code].sum() for code in range(1, last + 1)])
        / weights.sum()
        for qid, last in zip(answers, (4, 4, 2, 2, 2, 2), strict=True)
    }
    assert respondent_indices(answers, weights) == pytest.approx(map_items(shares))


def test_who_answered_half_of_an_index_does_not_count():
    answers, weights = respondents(4)
    answers.loc[0, "Q155"] = answers.loc[1, "Q17"] = np.nan
    for keep, index in (([1, 2, 3], "post-materialism"), ([0, 2, 3], "autonomy")):
        alone = respondent_indices(answers.loc[keep], weights[keep])[index]
        assert respondent_indices(answers, weights)[index] == pytest.approx(alone)
    assert respondent_indices(answers.assign(Q154=np.nan)).keys() == {"autonomy"}
    assert respondent_indices(answers[["Q8"]]) == {}


def test_the_real_countries_lie_where_one_knows_them_to():
    """Neighbours in the shipped data: Japan with Korea, Egypt with Jordan, Germany with neither."""
    marginals = load_marginals()
    vectors = pd.DataFrame.from_dict(
        {
            country: item_means(country_shares(marginals, country, ITEMS), ITEMS)
            for country in sorted(marginals["country"].unique())
        },
        orient="index",
    )
    found = cultural_map.fit_map(vectors)
    assert {"GBR", "NLD", "CHN", "Q36"} <= set(found.left_out)
    places = project(found, vectors)
    assert places.loc["NLD"].isna().sum() == 2  # 4 items are too few

    def apart(one, other):
        return np.linalg.norm(places.loc[one].iloc[:2] - places.loc[other].iloc[:2])

    assert apart("JPN", "KOR") < apart("JPN", "DEU")
    assert apart("EGY", "JOR") < apart("EGY", "DEU")
    assert apart("GBR", "NIR") < apart("GBR", "MEX")
    assert apart("CHN", "VNM") < apart("CHN", "USA")

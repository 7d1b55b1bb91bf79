"""What an adapter changed, computed from a table: perplexities, changes, the own culture's lead."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.files import StudyError, write_text
from clca_utils.held_out import (
    COLUMNS,
    changes,
    exam_metrics,
    own_advantage,
    perplexities,
    read_examined,
)


def exam(own: list[float], others: list[float]) -> pd.DataFrame:
    """Return an exam of a German adapter, whose surprise changed by so many nats a token."""
    rows = []
    for culture, some in (("German", own), ("Japanese", others)):
        for number, change in enumerate(some):
            for view in (0, 1):
                name = f"{culture}-{number}/{view}"
                rows += [("before", "imitation", culture, name, 10, 30.0, None)]
                rows += [("after", "imitation", culture, name, 10, 30.0 + 10 * change, None)]
    for variant, nats in (("before", 20.0), ("after", 22.0)):
        rows.append((variant, "text", "", "text-01", 10, nats, None))
    for variant, right in (("before", [True, False]), ("after", [True, True])):
        rows += [(variant, "question", "", f"q{i}", 0, math.nan, r) for i, r in enumerate(right)]
    table = pd.DataFrame(rows, columns=["variant", *COLUMNS]).assign(learnt="German")
    return table.astype({"right": "boolean"})


def test_the_table_comes_back_from_its_file(tmp_path):
    found = exam([-0.5, -0.3], [-0.1, 0.1])
    write_text(tmp_path / "held_out.csv", found.to_csv(index=False))
    back = read_examined(tmp_path)
    pd.testing.assert_frame_equal(back[found.columns], found)
    with pytest.raises(StudyError, match="run 04b_held_out first"):
        read_examined(tmp_path / "absent")


def test_perplexity_is_exp_of_the_mean_surprise_at_a_token():
    table = perplexities(exam([-0.5], [0.0]))
    assert table.loc[("imitation", "German")].tolist() == pytest.approx([math.e**3, math.e**2.5])
    assert table.loc[("text", "")].tolist() == pytest.approx([math.e**2, math.e**2.2])
    assert "question" not in table.index.get_level_values("task")


def test_the_own_cultures_lead_is_the_difference_of_the_changes():
    gap = own_advantage(exam([-0.5, -0.3], [-0.1, 0.1]), 1)
    assert gap.mean == pytest.approx(-0.4)
    assert gap.low <= gap.mean <= gap.high
    assert own_advantage(exam([-0.2] * 4, [-0.2] * 3), 1).mean == pytest.approx(0)
    alone = own_advantage(exam([-0.5], [0.0, 0.1]), 1)
    assert alone.mean == pytest.approx(-0.55)
    assert math.isnan(alone.low)
    assert math.isnan(own_advantage(exam([-0.5], []), 1).mean)


@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=8),
    st.lists(st.floats(-2, 2), min_size=2, max_size=8),
)
def test_the_lead_changes_its_sign_with_the_sides(own, others):
    one, other = own_advantage(exam(own, others), 3), own_advantage(exam(others, own), 3)
    assert one.mean == pytest.approx(-other.mean, abs=1e-9)
    assert one.low - 1e-9 <= one.mean <= one.high + 1e-9


def test_metrics_are_named_by_task_side_and_variant():
    metrics = exam_metrics(exam([-0.5, -0.3], [-0.1, 0.1]), 1)
    assert metrics["perplexity_imitation_own_before"] == pytest.approx(math.e**3)
    assert metrics["perplexity_imitation_own_after"] == pytest.approx(math.e**2.6)
    assert metrics["perplexity_imitation_others_after"] == pytest.approx(math.e**3)
    assert metrics["perplexity_text_after"] == pytest.approx(math.e**2.2)
    assert (metrics["questions_right_before"], metrics["questions_right_after"]) == (0.5, 1.0)
    assert metrics["own_advantage"] == pytest.approx(-0.4)
    assert all(isinstance(value, float) for value in metrics.values())


def test_changes_are_a_row_per_example():
    table = changes(exam([-0.5], [0.25]))
    assert set(table) == {"learnt", "task", "culture", "id", "change"}
    turns = table[table["task"] == "imitation"].set_index("id")["change"]
    assert turns.to_dict() == pytest.approx(
        {"German-0/0": -0.5, "German-0/1": -0.5, "Japanese-0/0": 0.25, "Japanese-0/1": 0.25}
    )
    assert np.isfinite(table["change"]).all()

"""What the models learnt from: how many scenes, conversations and turns there are, by culture."""

import pandas as pd

from clca_utils.diversity import PAPER
from clca_utils.study_tables import method_rows

MEASURED = {
    "scenarios": "scenarios",
    "dialogues": "dialogues",
    "kept dialogues": "dialogues_kept",
    "turns": "turns_per_dialogue",
    "words per spoken turn": "words_per_spoken_turn",
    "cultural intents": "cultural_share",
}
"""As told, and as named in the metrics of stages 01 to 03."""

PAPERS = {
    "kept dialogues": "conversations",
    "kept share": "kept",
    "turns": "turns",
    "words per spoken turn": "words_per_turn",
    "cultural intents": "cultural",
}
"""The measures of `paper_dialogues.csv` that say the same, or nearly so."""

READ = "read from the paper"


def statistics_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return what was acted and kept by culture and player, beside what the paper reports.

    Args:
        found: What `study_tables.study_table` returns.

    Returns:
        One row per culture and player (the model that acted), means over the seeds: source ("this
        study"), culture, player, seeds; the measures of `MEASURED` and the share of dialogues that
        was kept; turns are one person's, per dialogue. Two last rows hold the lowest and highest
        number over the paper's five cultures, their source "read from the paper"; its turns hold
        what both people do. Empty where no model acted.
    """
    columns = ["culture", "model", "seed", *MEASURED.values()]
    acted = method_rows(found.reindex(columns=columns)).dropna(subset="dialogues")
    if acted.empty:
        return pd.DataFrame(columns=["source", "culture", "player", "seeds", *MEASURED])
    groups = acted.groupby(["culture", "model"])
    table = groups[list(MEASURED.values())].mean().set_axis(list(MEASURED), axis="columns")
    table.insert(0, "seeds", groups.size())
    share = table["kept dialogues"] / table["dialogues"]
    table.insert(list(table).index("kept dialogues") + 1, "kept share", share)
    table = table.reset_index().rename(columns={"model": "player"})
    table.insert(0, "source", "this study")
    return pd.concat([table, _papers()], ignore_index=True)[list(table)]


def _papers() -> pd.DataFrame:
    """Return the paper's lowest and highest numbers as two rows."""
    paper = pd.read_csv(PAPER, index_col="measure")
    numbers = {name: paper.loc[measure] for name, measure in PAPERS.items()}
    return pd.DataFrame(
        [
            {"source": READ, "culture": f"{words} of five", "player": "llama-3.1-70b"}
            | {name: row[end] for name, row in numbers.items()}
            for end, words in (("low", "lowest"), ("high", "highest"))
        ]
    )

"""How good an annotator is: its intents beside those that an author gave the same turns.

Two questions. Does it write what the author wrote? Sentences can agree in other words, so they are
compared by meaning, beside two baselines that any useful annotator must pass: another turn's intent
of the same speaker (which shares names and topic), and the line itself in place of an intent. And
does it tell cultural intents from generic ones? Its confidence is compared by the area under the
ROC curve, which no threshold moves, beside 0.5, chance.

The author is an AI model and one of several there could be: agreement says how alike two annotators
are, not who is right.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
)

from clca_utils.authored import Authored, authored_cultures, load_authored
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, told
from clca_utils.gold import auc_interval
from clca_utils.intent import Intent
from clca_utils.similarity import embed
from clca_utils.uncertainty import Interval, interval


def load_gold(culture: str, count: int) -> Authored:
    """Return the first authored conversations on a culture's held-out scenarios.

    Args:
        culture: By name or path.
        count: How many; all there are if there are fewer.

    Returns:
        Nothing in it for a culture without such conversations.
    """
    name = load_culture(culture).name.lower()
    if name not in authored_cultures():
        return Authored([], [], [])
    scenarios, dialogues, intents = load_authored(name, "held-out")
    chosen = dialogues[:count]
    ids, acted = {one.id for one in chosen}, {one.scenario_id for one in chosen}
    return Authored(
        [one for one in scenarios if one.id in acted],
        chosen,
        [one for one in intents if one.dialogue_id in ids],
    )


def agreement_table(
    dialogues: Sequence[Dialogue], gold: Sequence[Intent], predicted: Sequence[Intent]
) -> pd.DataFrame:
    """Compare intents turn by turn.

    Args:
        dialogues: The conversations.
        gold: The author's intents of all their turns.
        predicted: The annotator's, of the same turns.

    Returns:
        One row per turn: dialogue, turn (from 1), speaker, line, gold and predicted (the texts),
        gold_cultural, predicted_cultural and confidence; and cosines of meaning: `same_turn` (gold
        and predicted), `other_turns` (predicted and the gold of the speaker's other turns, on
        average: what pairing them at random would give), `line_itself` (gold and the line). They
        are NaN where nothing readable was predicted, `other_turns` also where the speaker has no
        other turn.

    Raises:
        ValueError: Turns of one are missing in another.
    """
    lines = {(one.id, turn.index): told(turn) for one in dialogues for turn in one.turns}
    golden, guessed = ({(one.dialogue_id, one.turn): one for one in x} for x in (gold, predicted))
    if not set(lines) == set(golden) == set(guessed):
        raise ValueError("gold and predicted intents are not of the turns of these dialogues")
    rows = [(golden[key], guessed[key], line) for key, line in lines.items()]
    table = pd.DataFrame(
        {
            "dialogue": [one.dialogue_id for one, _, _ in rows],
            "turn": [one.turn + 1 for one, _, _ in rows],
            "speaker": [one.speaker for one, _, _ in rows],
            "line": [line for _, _, line in rows],
            "gold": [one.intent for one, _, _ in rows],
            "predicted": [one.intent for _, one, _ in rows],
            "gold_cultural": [one.cultural for one, _, _ in rows],
            "predicted_cultural": [one.cultural for _, one, _ in rows],
            "confidence": [one.confidence for _, one, _ in rows],
        }
    )
    authored, written, said = (embed(list(table[name])) for name in ("gold", "predicted", "line"))
    cosines = written @ authored.T
    same = np.diag(cosines)
    groups = table.groupby(["dialogue", "speaker"]).ngroup().to_numpy()
    mates = (groups[:, None] == groups[None, :]) & ~np.eye(len(table), dtype=bool)
    others = np.where(mates, cosines, 0).sum(axis=1) / np.where(mates.any(1), mates.sum(1), np.nan)
    table = table.assign(same_turn=same, other_turns=others, line_itself=(said * authored).sum(1))
    table.loc[table["predicted"] == "", ["same_turn", "other_turns", "line_itself"]] = np.nan
    return table


def intent_agreement(table: pd.DataFrame, seed: int) -> dict[str, float]:
    """Return how far an annotator agrees with the author.

    Args:
        table: What `agreement_table` returns.
        seed: Of the bootstrap.

    Returns:
        `turns`; `readable`, the share of them with a readable intent; the mean cosines
        `same_turn`, `other_turns` and `line_itself` of those; `gain`, same_turn - other_turns, with
        `gain_low` and `gain_high`. Of cultural against generic intents: `gold_cultural` and
        `predicted_cultural` (shares), `precision`, `recall`, `f1`, `balanced_accuracy`, `accuracy`
        beside `majority_accuracy` (of calling all turns what most are), and `auc` of the confidence
        with `auc_low` and `auc_high`. What can't be measured is NaN. Both intervals resample turns
        as if they were independent; those of one conversation are not quite, so they are rather too
        narrow.
    """
    shown = table[table["predicted"] != ""]
    gains = (shown["same_turn"] - shown["other_turns"]).dropna()
    gain = interval(gains, seed) if len(gains) else Interval(*[float("nan")] * 3)
    truth, guess = table["gold_cultural"].astype(bool), table["predicted_cultural"].astype(bool)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, guess, average="binary", zero_division=0
    )
    both_kinds = truth.nunique() == 2
    balanced = balanced_accuracy_score(truth, guess) if both_kinds else float("nan")
    each = {"source": table.index, "bad": truth, "p_bad": table["confidence"]}
    auc = auc_interval(pd.DataFrame(each), seed)
    return {
        "turns": float(len(table)),
        "readable": len(shown) / len(table),
        **{name: float(shown[name].mean()) for name in ("same_turn", "other_turns", "line_itself")},
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gold_cultural": float(truth.mean()),
        "predicted_cultural": float(guess.mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "balanced_accuracy": float(balanced),
        "accuracy": float(accuracy_score(truth, guess)),
        "majority_accuracy": float(max(truth.mean(), 1 - truth.mean())),
        "auc": auc.mean,
        "auc_low": auc.low,
        "auc_high": auc.high,
    }


def verdict(agreement: dict[str, float]) -> str:
    """Say in two sentences how good an annotator is.

    Args:
        agreement: What `intent_agreement` returns.
    """
    gain, low, high = (agreement[name] for name in ("gain", "gain_low", "gain_high"))
    if np.isnan(gain):
        text = "No intent could be compared with the author's."
    else:
        how = "nearer" if low > 0 else "no nearer"
        text = (
            f"The annotator's intents are {how} to the author's of the same turn than to those of "
            f"other turns ({gain:+.2f}, 95 % interval {low:+.2f} to {high:+.2f})."
        )
    auc, low, high = (agreement[name] for name in ("auc", "auc_low", "auc_high"))
    if np.isnan(low):
        return f"{text} There are too few turns of both kinds to say whether it tells them apart."
    if low > 0.5:
        quality = "better than chance"
    else:
        quality = "worse than chance" if high < 0.5 else "no better than chance"
    return (
        f"{text} It tells cultural from generic intents {quality} (AUC {auc:.2f}, 95 % interval "
        f"{low:.2f} to {high:.2f}; chance is 0.50)."
    )

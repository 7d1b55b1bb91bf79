"""Notebooks 04 to 05 on a tiny random model of every family, with the family's chat template.

Their cells are run in this process: what starting a kernel costs, each family would pay twice.
"""

import numpy as np
import pandas as pd
import pytest
from cells import run_cells
from families import FAMILIES

from clca_utils.embedded import prepare
from clca_utils.files import ROOT, read_json
from clca_utils.transformers_model import load_tokenizer

SHARES = "qid,country,option,share,n,tier\nQ7,DEU,1,0.4,500,made up\nQ7,DEU,2,0.6,500,made up\n"


@pytest.fixture(scope="module")
def data(results, write_conversation):
    """Return a folder as stages 01 to 03 leave it, with one conversation."""
    folder = results / "families"
    write_conversation(folder)
    (folder / "shares.csv").write_text(SHARES)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_and_is_asked(data, name):
    model, run = data / f"{name} model".replace(" ", "-"), data / name.replace(" ", "-")
    own = FAMILIES[name].tokenizer(load_tokenizer(prepare()))
    own.save_pretrained(model)
    FAMILIES[name].weights(own).save_pretrained(model)
    given = {"culture": "german", "model": str(model.relative_to(ROOT))}
    given["run_dir"] = str(run.relative_to(ROOT))
    told = {"data_dir": str(data.relative_to(ROOT)), "batch_size": 1}
    run_cells("04_fine_tuning", **given, **told, learning_rate=0.02, epochs=2)
    few = {"cultures": ["german"], "texts": 1, "questions": 2, "replies": 1}
    run_cells("04b_held_out", **given, **few)
    shares = str((data / "shares.csv").relative_to(ROOT))
    asked = {"survey": shares, "orders": "first", "checks": ["paraphrase"]}
    run_cells("05_wvs_analysis", **given, **asked)

    learnt = read_json(run / "metrics/04_fine_tuning.json")
    assert learnt["examples"] == 3
    assert 0 < learnt["tokens_learnt"] < learnt["tokens"]
    assert learnt["loss_last"] < learnt["loss_first"]
    assert (run / "adapter/adapter_model.safetensors").stat().st_size > 1000
    examined = read_json(run / "metrics/04b_held_out.json")
    assert examined["perplexity_intent_own_after"] != examined["perplexity_intent_own_before"]
    assert examined["replies"] == 1
    found = read_json(run / "metrics/05_wvs_analysis.json")
    answers = pd.read_parquet(run / "answers.parquet")
    assert np.isfinite(answers["logprob"]).all()
    assert found["js_distance_before"] != found["js_distance_after"]

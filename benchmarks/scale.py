"""What a study costs on paper: tokens that are counted, GPU hours and storage by stated formulas.

    python benchmarks/scale.py

The study's own functions build every prompt; a model that only counts answers them. The tables go
to results/reference/scale/tables and into docs/scale.md, which says what they mean.
"""

import re
import sys
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measuring import markdown
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from clca_utils.adaptation import adapt_all
from clca_utils.appropriateness import moments, preferences, replies_of
from clca_utils.asking import Questionnaire, item_prompt, weigh_items, write_items
from clca_utils.authored import load_authored
from clca_utils.chat_model import Conversation
from clca_utils.checks import check_forms
from clca_utils.culture import load_culture
from clca_utils.dialogue import Sampling, simulate
from clca_utils.exam import answered_right, held_out_rows, text_rows
from clca_utils.examples import build_examples, tokenize
from clca_utils.files import ROOT, write_text
from clca_utils.general import load_passages, load_questions
from clca_utils.intent import extract
from clca_utils.items import load_items
from clca_utils.judging import judge_in_two_stages
from clca_utils.params import Study, load_study, model_source, parameters
from clca_utils.prefix_tree import Tokens, shared_length
from clca_utils.respondents import respondents
from clca_utils.rewriting import rewrite_of, rewrite_prompt
from clca_utils.scenario import load_seeds
from clca_utils.server_model import TOP
from clca_utils.survey import load_survey
from clca_utils.transformers_model import load_model, load_tokenizer, render

TABLES = ROOT / "results" / "reference" / "scale" / "tables"
DOCUMENT = ROOT / "docs" / "scale.md"
RUN = ROOT / "results" / "reference" / "demo" / "japanese" / "smollm2-135m" / "seed-1"

# Assumptions. The paper's own numbers (arXiv 2504.02953):
TURNS, WORDS, KEPT = 7, 76, 0.24
# An H100 SXM: dense peaks in FLOP/s, as NVIDIA's data sheet has them; what part is reached is ours.
PEAKS = {"bf16": 989e12, "fp8": 1979e12, "fp32": 67e12}
READING, WRITING, TRAINING = 0.40, 0.10, 0.40
# vLLM keeps what prompts begin with in blocks of so many tokens.
BLOCK = 16
# The large grid.
CULTURES, MODELS, SEEDS = 100, 20, 3
# How much is counted, per culture of the paper's grid.
SCENES, PEOPLE = 2, 2
COUNTS = ("requests", "read", "fresh", "written")


class Shape(NamedTuple):
    """A model's shape, from its config.json on the hub."""

    layers: int
    hidden: int
    keys: int
    inner: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Weights of embedding, head, attention and feed-forward layers."""
        ends = self.vocabulary * self.hidden * (1 if self.tied else 2)
        attention = 2 * self.hidden * (self.hidden + self.keys)
        return ends + self.layers * (attention + 3 * self.hidden * self.inner)

    def adapter(self, rank: int, *, paper: bool) -> int:
        """Bytes of a LoRA adapter in fp32.

        Args:
            rank: Of the adapter.
            paper: On q_proj and v_proj, with embedding and head; else on all linear layers.
        """
        query, value = 2 * self.hidden, self.hidden + self.keys
        if paper:
            ends = 2 * self.vocabulary * self.hidden
            return 4 * (self.layers * rank * (query + value) + ends)
        inner = 3 * (self.hidden + self.inner)
        return 4 * self.layers * rank * (2 * query + 2 * value + inner)


SHAPES = {
    "llama-3.1-70b": Shape(80, 8192, 1024, 28672, 128256, tied=False),
    "llama-3.1-8b": Shape(32, 4096, 1024, 14336, 128256, tied=False),
    "llama-3.2-3b": Shape(28, 3072, 1024, 8192, 128256, tied=True),
    "llama-3.2-1b": Shape(16, 2048, 512, 8192, 128256, tied=True),
    "qwen2.5-7b": Shape(28, 3584, 512, 18944, 152064, tied=False),
    "qwen2.5-1.5b": Shape(28, 1536, 256, 8960, 151936, tied=True),
    "qwen2.5-0.5b": Shape(24, 896, 128, 4864, 151936, tied=True),
    "mistral-7b-v0.3": Shape(32, 4096, 1024, 14336, 32768, tied=False),
}

TENSORRT = "TensorRT-LLM 1.0, docs/source/performance/perf-overview.md"
LAMBDA = "Lambda, vLLM 0.5.4, LambdaLabsML/vllm-benchmark, benchmark_v0.md"
PUBLIC = [
    # model, GPUs, format, tokens read and written per request, written a second, source
    ("llama-3.1-8b", 1, "fp8", 2048, 128, 3450, TENSORRT),
    ("llama-3.1-70b", 2, "fp8", 2048, 128, 762, TENSORRT),
    ("llama-3.1-8b", 1, "fp8", 128, 2048, 22714, TENSORRT),
    ("llama-3.1-70b", 2, "fp8", 128, 2048, 6651, TENSORRT),
    ("llama-3.1-70b", 2, "fp8", 0, 1, 1727.69, LAMBDA),
    ("mistral-7b-v0.3", 1, "bf16", 0, 1, 3281.19, LAMBDA),
]
"""Published rates on H100s; of Lambda's the length of the prompts isn't told, so 0."""


class Counter:
    """A chat model that only counts: what it would read, and what it says of a script.

    Args:
        tokenizer: Whose tokens are counted.
        replies: What it says, again and again.
    """

    name = "counter"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, replies: Sequence[str] = ("",)) -> None:
        self.tokenizer = tokenizer
        self.replies = cycle(replies)
        self.seen: list[Tokens] = []
        self.requests = self.read = self.fresh = self.written = 0

    def tokens(self, text: str) -> Tokens:
        """Return the tokens of a text."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def ask(self, conversation: Conversation, reply: str = "", most: int = 0) -> None:
        """Count one request; what an earlier one began with alike is not read again."""
        prompt, said = self.tokens(render(self.tokenizer, conversation)), self.tokens(reply)[:most]
        place = bisect_left(self.seen, prompt)
        near = self.seen[max(place - 1, 0) : place + 1]
        shared = max((shared_length(one, prompt) for one in near), default=0)
        insort(self.seen, prompt + said)
        self.requests += 1
        self.read += len(prompt)
        self.fresh += len(prompt) - shared // BLOCK * BLOCK
        self.written += len(said)

    def generate(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, **_: object
    ) -> list[str]:
        """Say the next replies."""
        said = [next(self.replies) for _ in conversations]
        for conversation, reply in zip(conversations, said, strict=True):
            self.ask(conversation, reply, max_new_tokens)
        return said

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Find all options alike."""
        for conversation in conversations:
            self.ask(conversation, "1", 1)
        return [np.zeros(len(some)) for some in options]

    def row(self, stage: str, unit: str, units: int) -> dict[str, Any]:
        """Return what was counted, per unit."""
        counted = {"requests": self.requests, "read": self.read, "fresh": self.fresh,
                   "written": self.written}  # fmt: skip
        per = {name: round(value / units, 1) for name, value in counted.items()}
        return {"stage": stage, "unit": unit, "counted": units, **per}


def counted(study: Study) -> pd.DataFrame:
    """Return the tokens of each stage per unit, counted on a few units of each culture."""
    tokenizer = load_tokenizer(model_source("smollm2-135m"))
    authored = load_authored("german", "learn")
    words = cycle(" ".join(turn.text for talk in authored.dialogues for turn in talk.turns).split())
    lines = [" ".join(next(words) for _ in range(WORDS)) for _ in range(40)]
    speech = [f"ACTION: speak\nOUTPUT: {line}" for line in lines]
    wishes = [one.intent.split(" wants to ")[-1] for one in authored.intents]
    rewriter, judge, annotator = (Counter(tokenizer, wishes) for _ in range(3))
    player, rows = Counter(tokenizer, speech), []
    learnt, known, asked = 0, [], Counter(tokenizer)
    items, cultures = load_items("values"), [load_culture(name) for name in study.cultures]
    sampling = Sampling(
        max_turns=TURNS, max_new_tokens=160, temperature=0.8, top_p=0.95, decoding="free"
    )
    for culture in cultures:
        scenes = adapt_all(load_seeds("learn")[:SCENES], culture, seed=1)
        for scene in scenes:
            rewriter.ask(rewrite_prompt(scene), rewrite_of(scene).model_dump_json(), 1000)
        played = simulate((player, player), [(one, 0) for one in scenes], 1, sampling, live=SCENES)
        talks = [talk for _, talk in sorted(played, key=lambda pair: pair[0])]
        cases = list(zip(scenes, talks, strict=True))
        judge_in_two_stages(judge, cases, 1)
        turns = [(scene, talk, turn) for scene, talk in cases for turn in talk.turns]
        intents = extract(annotator, turns, seed=1, max_new_tokens=60, cultural_threshold=0.5)
        examples = build_examples(scenes, talks, intents, {"imitation": 1, "intent": 1}, 1)
        learnt += sum(len(tokenize(tokenizer, one.messages, 2048)["input_ids"]) for one in examples)
        people = respondents(culture, "persona", count=PEOPLE, seed=1)
        form = Questionnaire("main", people, items)
        for person in people:
            list(weigh_items(asked, person, form))
        known += talks
    rows += [
        rewriter.row("01 scenes rewritten", "scene", len(known)),
        player.row("02 dialogues acted", "dialogue", len(known)),
        judge.row("02 dialogues judged", "dialogue", len(known)),
        annotator.row("03 intents", "dialogue kept", len(known)),
    ]
    training = round(learnt / len(known), 1)
    rows += [{"stage": "04 training", "unit": "dialogue kept, once", "counted": len(known),
              "requests": 0, "read": training, "fresh": training, "written": 0}]  # fmt: skip
    rows += [exam(study, tokenizer, lines), asked.row("05 survey", "respondent", 10)]
    return pd.DataFrame([*rows, checked(study, tokenizer)])


def exam(study: Study, tokenizer: PreTrainedTokenizerBase, lines: Sequence[str]) -> dict[str, Any]:
    """Return what stage 04b reads and writes to examine one model, the judge's part left out."""
    given, counter = study.held_out, Counter(tokenizer, lines)
    answered_right(counter, load_questions(given.questions))  # type: ignore[arg-type]
    for culture in study.cultures:
        some = moments(culture, given.replies, 1)
        said = replies_of(counter, some, 1, given.max_new_tokens)
        preferences(counter, some, said, said)
    known = [*held_out_rows(tokenizer, study.cultures, given.conversations),
             *text_rows(tokenizer, load_passages(given.texts))]  # fmt: skip
    plain = sum(len(row["input_ids"]) for *_, row in known)
    counter.read, counter.fresh = counter.read + plain, counter.fresh + plain
    return counter.row("04b exam", "model", 1)


def checked(study: Study, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what the validity checks of stage 05 read and write, for one model."""
    culture, items = load_culture("german"), load_items("values")
    people = respondents(culture, "persona", count=PEOPLE, seed=1)
    counter = Counter(tokenizer, ["2. Rather"])
    forms = check_forms(
        Questionnaire("main", people, items), "persona", culture=culture,
        survey=load_survey("", items), checks=study.wvs_analysis.checks,
        others=[load_culture(name) for name in study.wvs_analysis.cultures],
    )  # fmt: skip
    for form in forms:
        put = weigh_items if form.method == "weigh" else write_items
        for person in form.respondents:
            list(put(counter, person, form))
    return counter.row("05 checks", "model", 1)


def hours(shape: Shape, fresh: float, written: float) -> float:
    """Return H100 hours to read and write tokens in bf16: 2 FLOP a weight and token."""
    work = fresh / READING + written / WRITING
    return 2 * shape.parameters * work / PEAKS["bf16"] / 3600


def training_hours(shape: Shape, tokens: float) -> float:
    """Return H100 hours to learn from tokens in bf16.

    6 FLOP a weight and token: forward, again where activations are recomputed, and backward to the
    activations; the weights themselves have no gradient.
    """
    return 6 * shape.parameters * tokens / (PEAKS["bf16"] * TRAINING) / 3600


def grid(study: Study, tokens: pd.DataFrame, *, large: bool) -> pd.DataFrame:
    """Return a grid's tokens and hours by stage; the large one has the same models on average."""
    per = tokens.set_index("stage")
    cultures = CULTURES if large else len(study.cultures)
    seeds = SEEDS if large else len(study.seeds)
    times = MODELS / len(study.models) if large else 1.0
    scenes = study.scenario_adaptation.n_scenarios * cultures * seeds
    talks = scenes * study.dialogue_simulation.samples
    people = study.wvs_analysis.n_respondents * 2 * cultures * seeds
    units = {"01 scenes rewritten": scenes, "02 dialogues acted": talks,
             "02 dialogues judged": talks, "03 intents": talks * KEPT}  # fmt: skip
    rows = []
    for stage, count in units.items():
        requests, read, fresh, written = (per.loc[stage, name] * count for name in COUNTS)
        rows += [(stage, "simulator", count, requests, read, fresh, written,
                  hours(SHAPES[study.simulator], fresh, written))]  # fmt: skip
    runs = cultures * seeds
    for stage, each in (("04 training", talks * KEPT), ("04b exam", runs + 1),
                        ("05 survey", people), ("05 checks", 2 * runs)):  # fmt: skip
        total = np.zeros(6)
        for model in study.models:
            epochs = parameters(study, "fine_tuning", model)["epochs"]
            count = times * each * (epochs if stage == "04 training" else 1)
            requests, read, fresh, written = (per.loc[stage, name] * count for name in COUNTS)
            shape = SHAPES[model]
            cost = (training_hours(shape, fresh) if stage == "04 training"
                    else hours(shape, fresh, written))  # fmt: skip
            total += [count, requests, read, fresh, written, cost]
        rows += [(stage, "each model", *total)]
    table = pd.DataFrame(rows, columns=["stage", "by", "units", *COUNTS, "H100 hours"])
    table[list(COUNTS)] /= 1e6
    whole = table[["units", *COUNTS, "H100 hours"]].sum().drop("units")
    table = pd.concat([table, pd.DataFrame([{"stage": "all", "by": "", **whole}])])
    table = table.rename(columns={name: f"{name} (millions)" for name in COUNTS})
    return table.round(dict.fromkeys(table.columns[2:], 1)).reset_index(drop=True)


def models(study: Study) -> pd.DataFrame:
    """Return each model's size and its adapter's, by the formulas of `Shape`."""
    rows = []
    for name in [study.simulator, *study.models]:
        shape = SHAPES[name]
        rows += [{
            "model": name,
            "parameters (billions)": round(shape.parameters / 1e9, 2),
            "weights in bf16 (GB)": round(2 * shape.parameters / 1e9, 1),
            "adapter, default (MB)": round(shape.adapter(8, paper=False) / 1e6, 1),
            "adapter, paper (GB)": round(shape.adapter(4, paper=True) / 1e9, 2),
        }]  # fmt: skip
    return pd.DataFrame(rows)


def storage(study: Study) -> pd.DataFrame:
    """Return what is kept of a grid, in GB: measured per run, adapters by formula."""
    answers = pd.read_parquet(RUN / "answers.parquet", columns=["qid"])
    size = (RUN / "answers.parquet").stat().st_size / len(answers)
    form = Questionnaire("main", [], load_items("values"))
    rows = 2 * study.wvs_analysis.n_respondents * sum(len(one.options) for one, _ in form.asked())
    apart = ("answers.parquet", "adapter")
    kept = [one for one in RUN.rglob("*") if one.relative_to(RUN).parts[0] not in apart]
    rest = sum(one.stat().st_size for one in kept if one.is_file())
    found = []
    for name, cultures, seeds, times in (
        ("paper", len(study.cultures), len(study.seeds), 1.0),
        ("large", CULTURES, SEEDS, MODELS / len(study.models)),
    ):
        runs = cultures * seeds * times * len(study.models)
        shapes = [SHAPES[model] for model in study.models]
        of = {paper: sum(one.adapter(4 if paper else 8, paper=paper) for one in shapes)
              for paper in (False, True)}  # fmt: skip
        found += [{
            "grid": name,
            "runs": int(runs),
            "rows of answers per run (millions)": round(rows / 1e6, 2),
            "answers (GB)": round(runs * rows * size / 1e9, 1),
            "notebooks, figures, tables (GB)": round(runs * rest / 1e9, 1),
            "adapters, default (GB)": round(of[False] * cultures * seeds * times / 1e9, 1),
            "adapters, paper (GB)": round(of[True] * cultures * seeds * times / 1e9, 1),
        }]  # fmt: skip
    return pd.DataFrame(found)


def survey(study: Study, tokens: pd.DataFrame) -> pd.DataFrame:
    """Return what stage 05's main question costs for one model before or after, in three ways."""
    per, people = tokens.set_index("stage").loc["05 survey"], study.wvs_analysis.n_respondents
    rows = []
    for name in study.models:
        shape = SHAPES[name]
        shared = hours(shape, per["fresh"] * people, per["written"] * people)
        anew = hours(shape, per["read"] * people, per["written"] * people)
        rows += [{
            "model": name,
            "served, prefixes shared (H100 hours)": round(shared, 2),
            "served, each prompt read whole": round(anew, 2),
            "in this process, fp32, shared": round(
                2 * shape.parameters * per["fresh"] * people / (PEAKS["fp32"] * READING) / 3600, 2
            ),
        }]  # fmt: skip
    return pd.DataFrame(rows)


def public() -> pd.DataFrame:
    """Return which part of the peak published rates come to, beside what is assumed."""
    rows = []
    for name, gpus, form, read, written, rate, source in PUBLIC:
        tokens = rate * (read + written) / written / gpus
        part = 2 * SHAPES[name].parameters * tokens / PEAKS[form]
        rows += [{"model": name, "GPUs": gpus, "format": form, "read": read or "?",
                  "written": written if read else "?", "written a second": rate,
                  "part of the peak": round(part, 3), "source": source}]  # fmt: skip
    return pd.DataFrame(rows)


@torch.inference_mode()
def likeliest() -> pd.DataFrame:
    """Return which part of the options' probability a server's `TOP` likeliest tokens miss."""
    model = load_model("smollm2-135m", exact=True)
    (person,) = respondents(load_culture("german"), "persona", count=1, seed=1)
    labels, missing, lost, outside = 0, 0, [], []
    for item in load_items("values"):
        text = render(model.tokenizer, item_prompt(person, item, 0))
        ids = model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        shares = torch.softmax(model.weights(input_ids=ids).logits[0, -1].double(), -1)
        wanted = [model.tokenizer(label)["input_ids"][0] for label in item.labels]
        top = set(shares.topk(TOP).indices.tolist())
        out = [one for one in wanted if one not in top]
        labels, missing = labels + len(wanted), missing + len(out)
        lost += [float(shares[out].sum() / shares[wanted].sum())]
        outside += [1 - float(shares[wanted].sum())]
    return pd.DataFrame([{
        "tokens told": TOP, "prompts": len(lost), "options": labels, "options missing": missing,
        "mean share missing": round(float(np.mean(lost)), 4),
        "largest": round(max(lost), 4),
        "mean probability on no option": round(float(np.mean(outside)), 4),
    }])  # fmt: skip


def priced(study: Study, tokens: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield what follows from the tokens, by the name of its table."""
    yield "paper", grid(study, tokens, large=False)
    yield "large", grid(study, tokens, large=True)
    yield "survey", survey(study, tokens)
    yield "models", models(study)
    yield "storage", storage(study)
    yield "public", public()


def filled(document: str, tables: Path) -> str:
    """Return a document with each `<!-- name -->` block holding the table of that name."""

    def block(match: re.Match[str]) -> str:
        table = pd.read_csv(tables / f"{match[1]}.csv", keep_default_na=False)
        return f"<!-- {match[1]} -->\n{markdown(table)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", block, document, flags=re.DOTALL)


def main() -> int:
    """Count, compute, and write tables and document."""
    study = load_study("paper")
    tokens = counted(study)
    for name, table in (("tokens", tokens), ("top", likeliest()), *priced(study, tokens)):
        write_text(TABLES / f"{name}.csv", table.to_csv(index=False))
    write_text(DOCUMENT, filled(DOCUMENT.read_text(encoding="utf-8"), TABLES))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How many survey items are answered per second: the published way, lm-evaluation-harness, ours.

One item in one order of its options, asked as one respondent, is one prompt. Three ways answer the
same prompts in turn, in one process on the same weights:

- generate: one prompt after the other, transformers writes 8 tokens greedily (the published code);
- harness: lm-evaluation-harness weighs the options' labels by its log-likelihood requests;
- study: `weigh_items`, a whole respondent per call, as stage 05 does.

The script fails if the log-probabilities of harness and study differ; of speed it only tells.
"""

import argparse
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from measuring import machine, machine_told, seconds, shown_spread, spread

from clca_utils.asking import Questionnaire, item_prompt, weigh_items
from clca_utils.chat_model import Conversation
from clca_utils.culture import load_culture
from clca_utils.files import write_json, write_text
from clca_utils.items import load_items
from clca_utils.respondents import FIELDS, Household, persona_words, respondents
from clca_utils.transformers_model import TransformersModel, load_model, render

MODEL, CULTURE, SEED = "smollm2-135m", "german", 20

NEW_TOKENS = 8
"""Length of a generated answer."""

LOGPROB = 4
"""Place of the log-probability in a row of the study's table."""

TOLERANCE = 1e-4
"""How far two log-probabilities of the same option may be apart."""

BUSY = "Don't quote this run: its rounds disagree, so something else kept the machine busy"

GOALS = {"generate": 15, "harness": 2}
"""How many times as fast as each of the other ways the study wants to be."""


class Prompt(NamedTuple):
    """One item in one order, asked as one respondent."""

    conversation: Conversation
    labels: list[str]


def questionnaire(count: int) -> Questionnaire:
    """Return the study's questions to respondents who told all that the survey asks of them.

    Their answers are drawn without regard to each other: no survey data may come with the study,
    and only the length of the personas matters here.
    """
    rng, words, culture = random.Random(SEED), persona_words("en"), load_culture(CULTURE)
    codes: dict[str, Sequence[object]] = {"age": range(18, 81), "region": ["Bavaria", "Saxony"]}
    for field in FIELDS:
        known = getattr(words, field)
        if field not in codes:
            codes[field] = range(1, 7) if isinstance(known, Household) else list(known)
    people = pd.DataFrame(
        [
            {"respondent": number, "country": culture.iso3, "weight": 1.0}
            | {field: rng.choice(codes[field]) for field in FIELDS}
            for number in range(count)
        ]
    )
    asked = respondents(culture, "persona", count=count, seed=SEED, people=people)
    return Questionnaire("main", asked, load_items())


def prompts_of(form: Questionnaire) -> list[list[Prompt]]:
    """Return, for each respondent, all items in all rotated orders."""
    return [
        [Prompt(item_prompt(person, item, order), item.labels) for item, order in form.asked()]
        for person in form.respondents
    ]


class Harness(HFLM):  # type: ignore[misc]
    """lm-evaluation-harness around a loaded model, its prompts split where ours are.

    The harness itself moves white space that ends a prompt to the option. The same tokens then pass
    through the model, but the line break after "assistant" counts towards the option's probability.
    """

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        head = self.tok_encode(context)
        return head, self.tok_encode(context + continuation)[len(head) :]


def harness_of(model: TransformersModel, batch_size: int) -> Harness:
    """Return the harness around the study's own weights; it shares a forward between options."""
    return Harness(
        pretrained=model.weights,
        tokenizer=model.tokenizer,
        backend="causal",
        batch_size=batch_size,
        logits_cache=True,
    )


def generate(model: TransformersModel, prompts: Sequence[Prompt]) -> list[int]:
    """Answer one prompt after the other, as the published code does.

    Returns:
        How many tokens each answer has.
    """
    lengths = []
    for prompt in prompts:
        inputs = model.tokenizer(
            render(model.tokenizer, prompt.conversation),
            add_special_tokens=False,
            return_tensors="pt",
        ).to(model.weights.device)
        output = model.weights.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=model.tokenizer.pad_token_id,
        )
        new = output[0, inputs["input_ids"].shape[1] :]
        model.tokenizer.decode(new, skip_special_tokens=True)
        lengths.append(len(new))
    return lengths


def weigh_by_harness(harness: Harness, prompts: Sequence[Prompt]) -> list[list[float]]:
    """Return the log-probability of each label of each prompt, by log-likelihood requests."""
    texts = [render(harness.tokenizer, prompt.conversation) for prompt in prompts]
    pairs = [
        (text, label)
        for text, prompt in zip(texts, prompts, strict=True)
        for label in prompt.labels
    ]
    answers = harness.loglikelihood(
        [
            Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
            for number, pair in enumerate(pairs)
        ],
        disable_tqdm=True,
    )
    logprobs = iter(logprob for logprob, _ in answers)
    return [[next(logprobs) for _ in prompt.labels] for prompt in prompts]


def weigh_by_study(model: TransformersModel, form: Questionnaire) -> list[list[list[float]]]:
    """Return, per respondent and prompt, the log-probability of each label.

    The study also asks questions without content; they cost it time and count as no item.
    """
    answers = []
    for person in form.respondents:
        rows = iter([cast(float, row[LOGPROB]) for row in weigh_items(model, person, form)])
        answers.append([[next(rows) for _ in item.labels] for item, _ in form.asked()])
    return answers


def check_tokens(model: TransformersModel, harness: Harness, prompts: Sequence[Prompt]) -> None:
    """Make sure that all three ways put the same tokens before the model.

    Raises:
        AssertionError: The harness adds tokens of its own, or splits them elsewhere.
    """
    for prompt in prompts:
        text = render(model.tokenizer, prompt.conversation)
        head = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        for label in prompt.labels:
            whole = model.tokenizer(text + label, add_special_tokens=False)["input_ids"]
            found = harness._encode_pair(text, label)
            assert found == (head, whole[len(head) :]), f"other tokens in: {text}{label}"
            assert found[0] + found[1] == whole, f"the label merges with: {text}{label}"


def fastest_harness(
    model: TransformersModel, prompts: Sequence[Prompt], sizes: Sequence[int]
) -> Harness:
    """Return the harness with the batch size at which it weighs these prompts fastest."""
    rates = {}
    for size in sizes:
        took, _ = seconds(weigh_by_harness, harness_of(model, size), prompts)
        rates[size] = len(prompts) / took
        print(f"harness in batches of {size}: {rates[size]:.1f} prompts per second", flush=True)
    return harness_of(model, max(rates, key=lambda size: rates[size]))


class Round(NamedTuple):
    """One round of the three ways, in prompts per second."""

    generate: float
    harness: float
    study: float
    new_tokens: float
    """Mean length of the generated answers."""
    difference: float
    """Largest difference between two log-probabilities of the same option."""


def play_round(
    model: TransformersModel,
    harness: Harness,
    form: Questionnaire,
    *,
    generated: int,
    weighed: int,
    rng: random.Random,
) -> Round:
    """Time the three ways one after the other on the same respondents.

    The first two take every prompt as it comes, so a random sample of all tells their rate; the
    third takes respondents whole.

    Args:
        model: What answers.
        harness: The harness around it.
        form: What is asked, of the respondents of this round.
        generated: How many prompts are sampled to generate answers to.
        weighed: How many are sampled for the harness.
        rng: Draws the samples.
    """
    people = prompts_of(form)
    every = [(row, column) for row, prompts in enumerate(people) for column in range(len(prompts))]
    first, second = (sorted(rng.sample(every, min(n, len(every)))) for n in (generated, weighed))
    sampled = [people[row][column] for row, column in second]
    check_tokens(model, harness, sampled)
    took_first, lengths = seconds(generate, model, [people[row][column] for row, column in first])
    took_second, theirs = seconds(weigh_by_harness, harness, sampled)
    took_third, ours = seconds(weigh_by_study, model, form)
    differences = [
        abs(one - other)
        for (row, column), answer in zip(second, theirs, strict=True)
        for one, other in zip(answer, ours[row][column], strict=True)
    ]
    return Round(
        generate=len(first) / took_first,
        harness=len(second) / took_second,
        study=len(every) / took_third,
        new_tokens=sum(lengths) / len(lengths),
        difference=max(differences),
    )


def unsteady(result: dict[str, Any]) -> list[str]:
    """Return the ways whose fastest round was half as fast again as their slowest, or more."""
    rates = result["prompts_per_second"]
    return [way for way, rate in rates.items() if rate["greatest"] >= 1.5 * rate["least"]]


def summary(played: Sequence[Round]) -> dict[str, Any]:
    """Return rates, ratios within rounds, and whether these reach the goals."""
    ratios = {way: spread([one.study / getattr(one, way) for one in played]) for way in GOALS}
    return {
        "prompts_per_second": {
            way: spread([getattr(one, way) for one in played]) for way in (*GOALS, "study")
        },
        "times_as_fast": ratios,
        "goal_reached": {way: ratios[way]["median"] >= goal for way, goal in GOALS.items()},
        "largest_difference": max(one.difference for one in played),
        "new_tokens": sum(one.new_tokens for one in played) / len(played),
    }


def table(result: dict[str, Any]) -> str:
    """Write a result as markdown."""
    names = {
        "generate": f"one at a time, up to {NEW_TOKENS} new tokens ({result['new_tokens']:.1f})",
        "harness": f"lm-evaluation-harness, batches of {result['harness_batch']}",
        "study": "this study, a respondent at a time",
    }
    lines = ["| way | items per second | study is faster by | goal |", "|---|---|---|---|"]
    for way, name in names.items():
        rate = shown_spread(result["prompts_per_second"][way], "{:.1f}")
        ratio = shown_spread(result["times_as_fast"][way], "{:.1f}x") if way in GOALS else ""
        goal = f"{GOALS[way]}x" if way in GOALS else ""
        lines.append(f"| {name} | {rate} | {ratio} | {goal} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {result['rounds']} rounds, least to greatest in brackets; together "
            f"{result['respondents']} respondents of {result['prompts_each']} prompts. An item is "
            "one question in one order of its options, asked as one respondent. Log-probabilities "
            f"of harness and study differ by {result['largest_difference']:.1e} at most.",
            "",
            f"{result['model']} in fp32; {machine_told(result['machine'])}",
            "",
            *([f"{BUSY} ({', '.join(unsteady(result))}).", ""] if unsteady(result) else []),
        ]
    )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--respondents", type=int, default=50, help="asked in all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--generated", type=int, default=12, help="prompts a round, one at a time")
    parser.add_argument("--weighed", type=int, default=160, help="prompts a round, by the harness")
    parser.add_argument("--batch-size", type=int, default=4, help="the study's own")
    parser.add_argument(
        "--harness-batches", type=int, nargs="+", default=[4, 8, 16, 32], help="fastest is used"
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def main() -> int:
    """Time the three ways, write what was found, and return the exit status."""
    asked = options()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that is loaded
    host = machine(("torch", "transformers", "lm-eval"))
    model = load_model(MODEL, batch_size=asked.batch_size, exact=True)
    form = questionnaire(asked.respondents)
    rng = random.Random(SEED)
    trial = rng.sample([prompt for prompts in prompts_of(form) for prompt in prompts], 64)
    # what is done once is done before the first round
    weigh_by_study(model, form._replace(respondents=form.respondents[:1]))
    generate(model, trial[:1])
    harness = fastest_harness(model, trial, asked.harness_batches)
    size = -(-asked.respondents // asked.rounds)
    played = []
    for start in range(0, asked.respondents, size):
        some = form._replace(respondents=form.respondents[start : start + size])
        played.append(
            play_round(
                model, harness, some, generated=asked.generated, weighed=asked.weighed, rng=rng
            )
        )
        print(f"round {len(played)}: {played[-1]}", flush=True)
    result = {
        **summary(played),
        "goals": GOALS,
        "model": MODEL,
        "respondents": len(form.respondents),
        "prompts_each": len(form.asked()),
        "study_batch": asked.batch_size,
        "harness_batch": harness.batch_size,
        "rounds": len(played),
        "machine": host,
        "each_round": [one._asdict() for one in played],
    }
    write_json(asked.out / "asking.json", result)
    write_text(asked.out / "asking.md", table(result))
    print("", table(result), sep="\n")
    for way, goal in GOALS.items():
        found = result["times_as_fast"][way]["median"]
        print(f"{goal} times as fast as {way}: {'yes' if found >= goal else 'no'}, {found:.1f}")
    if result["largest_difference"] > TOLERANCE:
        print(f"Log-probabilities differ by more than {TOLERANCE}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

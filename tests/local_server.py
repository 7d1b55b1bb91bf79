"""A server of the embedded model that really answers: the part of vLLM's HTTP API the study uses.

It is no vLLM: requests are computed one at a time. What it takes, refuses and returns follows vLLM
0.33 (`entrypoints/openai`, `entrypoints/serve/lora`): base and adapters are asked by name, adapters
come by `--lora-modules` or, with `--runtime-lora`, by POST /v1/load_lora_adapter.
"""

import argparse
import os
from itertools import count
from threading import Lock
from typing import Any

import torch
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from peft import PeftModel

from clca_utils.embedded import prepare
from clca_utils.transformers_model import load_tokenizer, load_weights

BASE = "base"


class Served:
    """The model, its adapters by the names they are asked by, and one request at a time."""

    def __init__(self, adapters: dict[str, str], die_after: int) -> None:
        self.tokenizer = load_tokenizer(prepare())
        self.weights: Any = load_weights(prepare()).eval()
        self.known: dict[str, str] = {}  # torch's names of modules hold no dots
        self.die_after, self.asked, self.lock = die_after, count(1), Lock()
        for name, path in adapters.items():
            self.load(name, path)

    def load(self, name: str, path: str) -> None:
        inner = f"adapter{len(self.known)}"
        if self.known:
            self.weights.load_adapter(path, inner)
        else:
            self.weights = PeftModel.from_pretrained(self.weights, path, inner).eval()
        self.known[name] = inner

    def on(self, name: str, work, *args):
        """Do some work with the base, or with an adapter that is put on it for that long."""
        with self.lock, torch.inference_mode():
            if next(self.asked) == self.die_after:
                os._exit(1)
            if name != BASE:
                self.weights.set_adapter(self.known[name])
            elif self.known:
                with self.weights.disable_adapter():
                    return work(*args)
            return work(*args)

    def write(self, tokens: list[int], body: dict[str, Any]) -> tuple[str, int]:
        torch.manual_seed(body.get("seed") or 0)
        warm = body.get("temperature", 1.0) > 0
        how = (
            {"temperature": body["temperature"], "top_p": body["top_p"], "top_k": 0} if warm else {}
        )
        prompt = torch.tensor([tokens])
        written = self.weights.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=warm,
            max_new_tokens=body["max_tokens"], min_new_tokens=body.get("min_tokens", 0), **how,
        )[0, len(tokens) :]  # fmt: skip
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        return text.split(body["stop"])[0] if body.get("stop") else text, len(written)

    def weigh(self, tokens: list[int]) -> torch.Tensor:
        logits = self.weights(input_ids=torch.tensor([tokens]), logits_to_keep=1).logits[0, -1]
        return torch.log_softmax(logits.float(), -1)


def refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "code": status}}, status)


def app_of(served: Served, runtime_lora: bool) -> FastAPI:
    app, router = FastAPI(), APIRouter(prefix="/v1")

    @app.get("/health")
    def health():
        return {}

    @router.get("/models")
    def models():
        return {"data": [{"id": name} for name in (BASE, *served.known)]}

    @router.post("/completions")
    def completions(body: dict[str, Any]):
        if body["model"] not in (BASE, *served.known):
            return refusal(404, f"The model `{body['model']}` does not exist.")
        tokens, weights, text, length = body["prompt"], None, "", 1
        if body.get("logprobs"):
            found = served.on(body["model"], served.weigh, tokens)
            ids = body.get("logprob_token_ids") or found.topk(body["logprobs"]).indices.tolist()
            by_id = body.get("return_tokens_as_token_ids")
            names = [f"token_id:{i}" if by_id else served.tokenizer.decode([i]) for i in ids]
            weights = {"top_logprobs": [dict(zip(names, found[ids].tolist(), strict=True))]}
        else:
            text, length = served.on(body["model"], served.write, tokens, body)
        usage = {"prompt_tokens": len(tokens), "completion_tokens": length}
        return {"choices": [{"text": text, "logprobs": weights}], "usage": usage}

    @router.post("/chat/completions")
    def chat(body: dict[str, Any]):
        begun = body.get("continue_final_message", False)
        tokens = served.tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=not begun, continue_final_message=begun
        )["input_ids"]
        logprobs = body.get("top_logprobs") if body.get("logprobs") else None
        told = completions(body | {"prompt": tokens, "logprobs": logprobs})
        if isinstance(told, JSONResponse):
            return told
        (choice,) = told["choices"]
        if choice["logprobs"]:
            (place,) = choice["logprobs"]["top_logprobs"]
            top = [{"token": name, "logprob": value} for name, value in place.items()]
            choice["logprobs"] = {"content": [{"top_logprobs": top}]}
        return told | {"choices": [choice | {"message": {"content": choice["text"]}}]}

    def load_lora_adapter(body: dict[str, Any]):
        with served.lock:
            if body["lora_name"] in served.known:
                return refusal(400, "The lora adapter has already been loaded.")
            try:
                served.load(body["lora_name"], body["lora_path"])
            except (OSError, ValueError) as error:
                return refusal(404, f"No adapter found: {error}")
        return "Success"

    if runtime_lora:
        router.post("/load_lora_adapter")(load_lora_adapter)
    app.include_router(router)
    return app


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("port", type=int)
    options.add_argument("--runtime-lora", action="store_true")
    options.add_argument("--lora-modules", nargs="*", default=[], metavar="NAME=PATH")
    options.add_argument("--die-after", type=int, default=0, help="requests, in the midst of one")
    asked = options.parse_args()
    adapters = dict(one.split("=", 1) for one in asked.lora_modules)
    app = app_of(Served(adapters, asked.die_after), asked.runtime_lora)
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning")

"""What the benchmarks share: times, their spread over rounds, and the machine they ran on."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any, ParamSpec, TypeVar

import pandas as pd
import torch

from clca_utils.limits import multiplication_rate

P = ParamSpec("P")
T = TypeVar("T")


def seconds(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[float, T]:
    """Return how long a call took, and its result."""
    start = time.perf_counter()
    result = work(*args, **kwargs)
    return time.perf_counter() - start, result


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of some rounds and their extremes."""
    return {"median": median(values), "least": min(values), "greatest": max(values)}


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Return what the times depend on beside the code; `packages` are those that do the work."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "platform": platform.platform(),
        "fp32_gflops": round(multiplication_rate()),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in packages},
    }


def markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown, numbers to three decimals, what is missing as nothing."""
    told = table.round(3).astype(object).fillna("").astype(str)
    rows = [[*told], ["---"] * len(told.columns), *told.to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine_told(host: dict[str, Any]) -> str:
    """Say in a sentence what `machine` found."""
    versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
    return (
        f"{host['cores']} cores ({host['instructions']}), torch on {host['threads']} of them, "
        f"{host['fp32_gflops']} GFLOP/s in fp32 matrix products, load {host['load_before']} "
        f"before; {versions}."
    )


def shown_spread(values: dict[str, float], form: str) -> str:
    """Write a median and its extremes."""
    middle, least, greatest = (form.format(values[key]) for key in ("median", "least", "greatest"))
    return f"{middle} ({least} to {greatest})"

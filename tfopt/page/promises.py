"""What was asked for, and what was delivered: a list of promises, each kept or not.

What a stage was asked for is known by the names of its fields, so that a stage of somebody else
counts as well.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from tfopt import budget, pareto
from tfopt.evaluate import agrees
from tfopt.limits import Budget
from tfopt.page.numbers import bits
from tfopt.report import integers, name_of, operators
from tfopt.stages.sparsify import POINT, USUAL

_LOOKED_UP = ("GATHER", "EMBEDDING_LOOKUP")
_LOST = 0.99


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that was asked for: by whom, what, how much, what came of it, and if that is it.

    `reason` says what is behind the difference, where it is known.
    """

    who: str
    what: str
    asked: str
    delivered: str
    kept: bool
    reason: str = ""


def promises(content: dict) -> list[dict]:
    """Return what the experiment of report.json's `content` asked for, and whether it is there."""
    found, rows = [], content["rows"]
    facts = {stage["name"]: stage for stage in content["stages"]}
    for asked in content["experiment"].get("stages", []):
        if asked["name"] not in facts:
            found.append(Promise(asked["name"], "stage", "to be done", "not reached", False))
            continue
        mine = pareto.best([row for row in rows if row["stage"] == asked["name"]])
        for fields, promise in _KINDS:
            if all(field in asked for field in fields):
                found += promise(asked, facts[asked["name"]], mine)
    return [
        asdict(each)
        for each in [*found, *_use(rows), *_agreement(content, rows), *_budget(content, rows)]
    ]


def _sparsity(asked: dict, facts: dict, row: dict | None) -> Iterator[Promise]:
    pattern = asked["pattern"]
    wanted, given = asked["sparsity"], facts["after"]["sparsity"]
    by_pattern = "zeros" in pattern and "of" in pattern
    text = f"{pattern['zeros']} of {pattern['of']}" if by_pattern else ""
    if wanted is None and not by_pattern:
        wanted = USUAL
    if wanted is not None:
        text = f"{wanted:.2%}" + (f", {text}" if text else "")
    tolerance = POINT + 1 / max(_size(facts), 1)
    kept, delivered, reason = wanted is None or abs(given - wanted) <= tolerance, f"{given:.2%}", ""
    if row:
        delivered += f", {row['sparsity']:.2%} in {name_of(row)}"
        zeros = sum(kernel["zeros"] for kernel in row["kernels"])
        if zeros < _LOST * sum(kernel["zeros"] for kernel in facts["after"]["kernels"]):
            kept, reason = False, f"{name_of(row)} has fewer zeros than the model it was made of"
    yield Promise(asked["name"], "zeros in all kernels", text, delivered, kept, reason)


def _size(facts: dict) -> int:
    return sum(math.prod(kernel["shape"]) for kernel in facts["after"]["kernels"])


def _clusters(asked: dict, facts: dict, row: dict | None) -> Iterator[Promise]:
    del row
    each = "distinct" if asked.get("per_channel") else "distinct_total"
    values = [k.get(each, k["distinct"]) for k in facts["after"]["kernels"]]
    shared = [value for value in values if value <= asked["clusters"]]
    what = "values in a channel" if asked.get("per_channel") else "values in a kernel"
    delivered = f"{max(shared, default=0)} in {len(shared)} of {len(values)} kernels"
    reason = "" if len(shared) == len(values) else "the others are left out or too small to share"
    limit = f"at most {asked['clusters']}"
    yield Promise(asked["name"], what, limit, delivered, bool(shared), reason)


def _cost(what: str, noun: str) -> Callable[[dict, dict, dict | None], Iterator[Promise]]:
    def promise(asked: dict, facts: dict, row: dict | None) -> Iterator[Promise]:
        del row
        wanted, whole, left = asked[what], facts["before"][what], facts["after"][what]
        if not wanted:
            return
        limit = wanted * whole if wanted <= 1 else wanted
        share = f"{wanted:.0%}, " if wanted <= 1 else ""
        delivered = f"{left:,} ({left / max(whole, 1):.0%} of {whole:,})"
        yield Promise(asked["name"], noun, f"at most {share}{limit:,.0f}", delivered, left <= limit)

    return promise


def _quantized(asked: dict, facts: dict, row: dict | None) -> Iterator[Promise]:
    if row is None:
        yield Promise(asked["name"], "integer file", "one", "none", False)
        return
    name, excepted = asked["name"], bool(asked.get("layers"))
    but = f", but for {len(asked['layers'])} exceptions" if excepted else ""
    kernels = [k for k in row["kernels"] if k["operator"] not in _LOOKED_UP]
    wide = [k["name"] for k in kernels if bits(k["dtype"]) > asked["weights"]]
    delivered = f"{len(kernels) - len(wide)} of {len(kernels)} kernels in {name_of(row)}"
    reason = _floats(facts) or (f"wider: {', '.join(wide[:5])}" if wide else "")
    kept = excepted or not wide
    limit = f"at most {asked['weights']}{but}"
    yield Promise(name, "bits of kernels", limit, delivered, kept, "" if kept else reason)
    count, whole = integers(row), operators(row)
    delivered = f"{count} of {whole} operators in {name_of(row)}"
    kept = excepted or count == whole
    reason = "" if kept else _floats(facts) or f"float: {', '.join(row['float_ops'][:5])}"
    limit = f"{asked['activations']} bits{but}"
    yield Promise(name, "integer activations", limit, delivered, kept, reason)


def _floats(facts: dict) -> str:
    left = facts.get("left_float") or {}
    return "; ".join(f"{layer} stays float: {why}" for layer, why in list(left.items())[:3])


_KINDS = (
    (("sparsity", "pattern"), _sparsity),
    (("clusters",), _clusters),
    (("params", "score"), _cost("params", "parameters")),
    (("macs", "score"), _cost("macs", "multiply-accumulates")),
    (("weights", "activations"), _quantized),
)


def _agreement(content: dict, rows: list[dict]) -> Iterator[Promise]:
    least = content["experiment"].get("min_agreement")
    if least is not None and rows:
        worst = min(rows, key=lambda row: row["agreement"])
        kept = all(agrees(row["agreement"], row["examples"], least) for row in rows)
        delivered = f"{worst['agreement']:.2%} or more ({name_of(worst)})"
        yield Promise("all files", "agreement with Keras", f"at least {least:.0%}", delivered, kept)


def _use(rows: list[dict]) -> Iterator[Promise]:
    """Yield what nobody writes down: that files know more than the most frequent class."""
    for row in rows:
        if row["is_chance"]:
            least, given = f"above {row['chance']:.2%}", f"{row['accuracy']:.2%} ({name_of(row)})"
            reason = "that is what naming one class always has"
            yield Promise(row["stage"], "accuracy", least, given, False, reason)


def _budget(content: dict, rows: list[dict]) -> Iterator[Promise]:
    """Yield the limits that one artifact of the last stage shall meet, for the nearest of them."""
    limits = content["experiment"].get("budget") or {}
    asked = Budget(**{what: limits.get(what, 0) for what in budget.FIGURES})
    nearest = min(budget.last_stage(rows), key=lambda row: budget.share(asked, row), default=None)
    if not asked or nearest is None:
        return
    refused = nearest.get("micro_refused", "")
    for what, figure in budget.FIGURES.items():
        if limit := getattr(asked, what):
            given = nearest.get(figure)
            over = limit if given is None else given - limit
            reason = refused or ("it can't be planned" if given is None else f"{over:,} too many")
            delivered = f"{given:,} ({name_of(nearest)})" if given is not None else "unknown"
            kept = over <= 0 and not refused
            most = f"at most {limit:,}"
            yield Promise(
                "budget", f"bytes of {what}", most, delivered, kept, "" if kept else reason
            )

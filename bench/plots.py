"""The plots of docs/speed.md."""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

OURS, OTHER, GOAL = "#1f6f8b", "#b8b8b8", "#c1440e"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw the results in `found` into `folder`."""
    plt.rcParams.update(STYLE)
    if any(c["ratios"] and c["goal"] != "reported" for c in found["comparisons"]):
        _draw_ratios(found["comparisons"], folder / "speed-ratios.png")
    if found["offered_load"]:
        _draw_offered_load(found["offered_load"], folder / "speed-offered-load.png")


def _draw_ratios(comparisons: list[dict[str, Any]], file: Path) -> None:
    """Draw each ratio as a share of its goal: 1 is the goal, more is better."""
    shown = [c for c in reversed(comparisons) if c["goal"] != "reported"]
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(shown) + 1.1))
    for y, c in enumerate(shown):
        shares = [_share_of_goal(c["goal"], value) for value in c["ratios"] or c["ours"]]
        axes.barh(y, median(shares), color=OURS if c["is_reached"] else OTHER, height=0.6)
        axes.plot([min(shares), max(shares)], [y, y], color="black", linewidth=1)
        axes.text(max(*shares, 1) + 0.03, y, _figures(c), va="center", fontsize=9)
    axes.axvline(1, color=GOAL, linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{c['number']}  {c['label']}" for c in shown])
    axes.set_xlabel("share of the goal that is reached (line: goal; black: lowest to highest round)")
    axes.set_xlim(0, 1.25 * max(1, *(_share_of_goal(c["goal"], median(c["ratios"] or c["ours"])) for c in shown)))
    figure.savefig(file)
    plt.close(figure)


def _share_of_goal(goal: str, value: float) -> float:
    sign, number = goal.split()
    return value / float(number) if sign == "≥" else float(number) / value


def _figures(c: dict[str, Any]) -> str:
    value = f"{median(c['ratios']):.3g}" if c["ratios"] else f"{median(c['ours']):.3g} {c['unit']}"
    return f"{value} (goal {c['goal']})"


def _draw_offered_load(curve: list[dict[str, Any]], file: Path) -> None:
    figure, (rate, latency) = plt.subplots(2, 1, figsize=(8, 5.5), sharex=True, height_ratios=[1, 1.2])
    offered = [point["offered"] for point in curve]
    placed = [_answers(point, "201") for point in curve]
    refused = [_answers(point, "503") for point in curve]
    rate.plot(
        offered,
        [a["count"] / p["seconds"] for a, p in zip(placed, curve, strict=True)],
        "o-",
        color=OURS,
        label="placed (201)",
    )
    rate.plot(
        offered,
        [a["count"] / p["seconds"] for a, p in zip(refused, curve, strict=True)],
        "s-",
        color=GOAL,
        label="refused (503)",
    )
    rate.plot(offered, offered, ":", color=OTHER, label="offered")
    rate.set_title("Orders per second, by what became of them")
    rate.legend(frameon=False, fontsize=9)
    for name, line in (("p50_ms", "o-"), ("p99_ms", "o--")):
        label = "median" if name == "p50_ms" else "99 %"
        latency.plot(offered, [a[name] for a in placed], line, color=OURS, label=f"placed, {label}")
        seen = [(x, a[name]) for x, a in zip(offered, refused, strict=True) if a["count"]]
        latency.plot(
            [x for x, _ in seen], [y for _, y in seen], line.replace("o", "s"), color=GOAL, label=f"refused, {label}"
        )
    latency.set_yscale("log")
    latency.set_title("Latency in ms, from the moment at which the order was due (open loop)")
    latency.set_xlabel("offered orders per second")
    latency.legend(frameon=False, fontsize=9)
    for axes in (rate, latency):
        axes.axvline(curve[0]["offered"] / curve[0]["share"], color=OTHER, linewidth=1)
    rate.annotate(
        "capacity",
        (curve[0]["offered"] / curve[0]["share"], rate.get_ylim()[1]),
        fontsize=9,
        xytext=(4, -10),
        textcoords="offset points",
    )
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def _answers(point: dict[str, Any], status: str) -> dict[str, Any]:
    return dict(point["answers"].get(status, {"count": 0, "p50_ms": float("nan"), "p99_ms": float("nan")}))

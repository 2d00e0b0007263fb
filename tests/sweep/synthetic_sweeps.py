"""Folders of jobs as a sweep leaves them, with results as no model gave them."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

from es2_lightning.config.job_record import JobRecord, Status


def write_job(
    sweep: Path,
    number: int,
    *words: str,
    status: Status = "finished",
    error: str | None = None,
    seed: int = 0,
    layers: tuple[int, ...] = (3, 6),
    kl_weight: float = 1.0,
    dsr: float = 0.5,
    kept: float = 1.0,
    half_yield: float = 2.0,
    measured: bool = True,
) -> Path:
    """A job's folder; with results where it finished and was measured."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    settings = " ".join(word for word in words if not word.startswith("seed="))
    JobRecord(
        number=number,
        subdir=str(number),
        words=words,
        choices={"layers": "emergence_terminal"},
        hash=" ".join(words),
        settings_hash=settings,
        status=status,
        host=socket.gethostname(),
        pid=os.getpid(),
        began=time.time(),
        seconds=None if status == "running" else 12.5,
        error=error,
    ).write(folder)
    config = {"loss": {"kl_weight": kl_weight}, "seed": seed}
    (folder / "config.yaml").write_text(json.dumps(config))
    if status == "finished":
        (folder / "layers.json").write_text(json.dumps({"separated": layers, "depth": 6}))
        ends = [{"reason": "budget", "steps": 60}, {"reason": "kl_threshold", "steps": 7}]
        (folder / "stages.json").write_text(json.dumps(ends))
        if measured:
            (folder / "evaluation").mkdir()
            results = json.dumps(_results(dsr, kept, half_yield))
            (folder / "evaluation" / "results.json").write_text(results)
    return folder


def _results(dsr: float, kept: float, half_yield: float) -> dict[str, Any]:
    def row(
        attack: str, metric: str, base: Any, tuned: Any, judge: str = "exact"
    ) -> dict[str, Any]:
        sides = {"base": base, "tuned": tuned}
        return {
            "attack": attack,
            "metric": metric,
            "judge": judge,
            "layer": None,
            **{s: None if v is None else {"value": v, "n": 20} for s, v in sides.items()},
        }

    rows = [
        row("direct", "harmless_answered", 0.8, 0.8 * kept),
        row("direct", "looks_harmful_refused", 0.0, 0.1),
        row("direct", "harmless_kl_to_base", None, 0.02, judge=""),
        row("scav", "recovered", 1.0, 1 - dsr),
        # Another judge's figures are beside the point.
        row("scav", "recovered", 1.0, 0.123, judge="keyword"),
        row("scav_worst", "recovered", 1.0, 1 - dsr / 2),
        row("scav_worst", "relative_shift_at_base_budget_95", 0.95, 0.25),
        row(
            "scav_worst",
            "relative_shift_half_yield_ratio",
            None,
            "inf" if math.isinf(half_yield) else half_yield,
        ),
    ]
    judges = {"judges": {"exact": "a", "keyword": "b"}}
    return {
        "rows": rows,
        "effective": {"scav": True, "scav_worst": True},
        "measurements": {"base": judges, "tuned": judges},
    }

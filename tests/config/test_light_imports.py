"""`--help` and mistakes are answered without importing what takes seconds.

Which modules are there is asked in a process of its own, for each command once: times depend on
the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch", "transformers", "lightning", "peft", "sklearn", "scipy", "pandas", "datasets",
    "matplotlib", "wandb", "rich", "tqdm",
)  # fmt: skip
PROGRAM = f"""
import importlib, json, sys
from hydra.core.global_hydra import GlobalHydra

name, lines = json.loads(sys.argv[1])
main = importlib.import_module(name).main
for words in lines:
    sys.argv = [name, *words]
    GlobalHydra.instance().clear()
    print("Command:", *words, file=sys.stderr)
    try:
        main()
        status = 0
    except SystemExit as exited:
        status = exited.code
    heavy = [module for module in {HEAVY} if module in sys.modules]
    print("Answer:", json.dumps([status, heavy]), flush=True)
"""
LOOKS = [["--help"], ["--cfg", "job"]]
TYPO = [["seeed=1"]]
MODEL = [["model.name_or_path=./nowhere"], ["model.template_date=never"]]
MISTAKES = {
    "es2_lightning.train": [
        *LOOKS,
        *TYPO,
        *MODEL,
        ["layers=list", "layers.indices=[99]"],
        ["schedule.max_steps=null"],
        ["model.mode=full", "model.reference=adapter"],
        ["model.mode=qlora"],
        ["model.attn_implementation=flash_attention_2"],
        ["data=prompts", "data.source.harmful=no.txt", "data.source.harmless=no.txt"],
        ["+data.source.train_harmful=0"],
        ["loss.kl_positions=response", "data.use_responses=false"],
        ["+trainer.foo=1"],
        ["trainer.accumulate_grad_batches=0"],
        ["judge=[]"],
        ["+attack.scav.foo=1"],
        ["+capability.foo=1"],
        ["ckpt_path=nosuch.ckpt"],
        ["optimizer.lr=-1"],
        ["+optimizer.foo=1"],
        ["optimizer._target_=nosuch.Adam"],
        ["+callbacks.checkpoint.foo=1"],
        ["+logger.foo=1"],
        ["+method.foo=1"],
        ["-m", "loss.kl_weight=1,-1"],
        ["-m", "ckpt_path=last"],
        ["objectives=[dsr]"],
        ["sweep=optuna_pareto", "hydra.sweeper.search_space.loss.kl_weight.low=-1"],
    ],
    "es2_lightning.evaluate": [
        *LOOKS,
        *TYPO,
        *MODEL,
        ["run=nowhere"],
        ["adapter=nowhere"],
        ["run=a", "adapter=b"],
        ["evaluate=none"],
        ["+attack.scav.foo=1"],
        ["+judge.exact.foo=1"],
        ["+data.source.train_harmful=0"],
    ],
    "es2_lightning.probe": [
        *LOOKS,
        *TYPO,
        *MODEL,
        ["run=nowhere"],
        ["adapter=nowhere"],
        ["run=a", "adapter=b"],
        ["max_prompts=0"],
        ["+data.source.foo=1"],
    ],
    "es2_lightning.benchmark": [*LOOKS, *TYPO, *MODEL, ["+benchmark.foo=1"]],
    "es2_lightning.rank": [
        *LOOKS,
        *TYPO,
        *MODEL,
        ["run=nowhere"],
        ["adapter=nowhere"],
        ["run=a", "adapter=b"],
        ["lists=[no.jsonl]"],
        ["ranker=linear"],
        ["+ranker.foo=1"],
        ["ranker.dropout=1"],
        ["ranking.temperature=0"],
        ["ranking.list_size=1"],
        ["bad_lists=ignore"],
        ["+attack.scav.foo=1"],
        ["+data.source.train_harmful=0"],
    ],
    "es2_lightning.export": [
        *LOOKS,
        *TYPO,
        [],
        ["run=nowhere"],
        ["adapter=nowhere"],
        ["run=a", "adapter=b"],
    ],
    "es2_lightning.compare": [*LOOKS, *TYPO, [], ["runs=[nowhere]"], ["runs=[.]"]],
    "es2_lightning.sweep_report": [*LOOKS, *TYPO, [], ["dir=nowhere"], ["dir=."]],
    "es2_lightning.dashboard": [*LOOKS, *TYPO, ["project=a/b"], ["url=x"], ["attacks=[]"]],
    "es2_lightning.organism.__main__": [*LOOKS, *TYPO, ["seed=-1"], ["answering.steps=0"]],
}


@pytest.mark.parametrize("command", MISTAKES)
def test_nothing_heavy_is_imported(command: str, tmp_path: Path) -> None:
    lines = MISTAKES[command]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([command, lines])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [
        json.loads(line.removeprefix("Answer: "))
        for line in done.stdout.splitlines()
        if line.startswith("Answer: ")
    ]
    for words, answer in zip(lines, answers, strict=True):
        assert answer == [0 if words in LOOKS else 2, []], (words, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()

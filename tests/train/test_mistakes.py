"""Mistakes are told before any weights load: the key, the value, and what is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Train


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.kl_wieght=3"], "loss.kl_wieght is not a key. Did you mean loss.kl_weight?"),
        (["+loss.foo=1"], "loss.foo is not a key"),
        (["loss.kl_weight=-1"], "loss.kl_weight=-1 is not accepted. Accepted: a number ≥ 0"),
        (["loss.kl_weight=abc"], "loss.kl_weight=abc is not accepted"),
        (
            ["layers=list", "layers.indices=[99]"],
            "layer 99 is out of range; the model has 6 layers",
        ),
        (["layers=list"], "layers.indices is empty"),
        (["layers=[5]"], "layers=list layers.indices=[5]"),
        (["layers=all", "schedule.kl_threshold=[1,2]"], "there are 6 stages"),
        (["schedule.max_steps=null"], "give schedule.max_epochs or schedule.max_steps"),
        (["model=nosuch"], "model=hf model.name_or_path=nosuch"),
        (["model.name_or_path=./nowhere"], "no such folder"),
        (
            ["model.mode=full", "model.reference=adapter"],
            "Accepted with model.mode=full: model.reference=copy or cached",
        ),
        (["model=hf", "data=organism"], "model.name_or_path"),
        (["data=prompts"], "data.source.harmful has no value"),
        (
            ["data=prompts", "data.source.harmful=a.txt", "data.source.harmless=b.txt"],
            "no such file",
        ),
        (["+data.source.train_harmful=0"], "the train split has no harmful prompts"),
        (
            ["loss.kl_positions=response", "data.use_responses=false"],
            "Accepted: data.use_responses=true with it",
        ),
        (["trainer.max_epochs=3"], "Did you mean schedule.max_epochs?"),
        (["trainer.micro_batch=0"], "trainer"),
        (["judge=[]"], "loss.harmful_kl_weight needs a judge"),
        (["seed=-1"], "seed=-1 is not accepted"),
        (["ckpt_path=nosuch.ckpt"], "ckpt_path=nosuch.ckpt: no such file"),
        (["optimizer.lr=-1"], "optimizer.lr=-1 is not accepted. Accepted: a number ≥ 0"),
        (["optimizer.lr=abc"], "optimizer.lr=abc is not accepted"),
        (["+optimizer.betas=[2,2]"], "optimizer (lr=0.0005, weight_decay=0.01, betas=[2, 2])"),
        (["+trainer.foo=1"], "trainer.foo=1: lightning.Trainer takes no foo"),
        (["trainer.precision=33"], "trainer: Precision 33 is invalid"),
        (["+callbacks.display.foo=1"], "callbacks.display.foo=1"),
        (["+callbacks.mine._target_=nosuch.Mine"], "there is no module 'nosuch'"),
        (["+method.foo=1"], "method.foo=1"),
        (["+method.layers=[1]"], "the run hands it to the method"),
        (
            ["method=circuit_breakers", "method.alpha=-1"],
            "method.alpha=-1 is not accepted. Accepted: a number > 0",
        ),
        (["method=circuit_breakers", "method.retention_weight=true"], "Accepted: a number > 0"),
        (["method=circuit_breakers", "method.positions=last"], "Accepted: all | response"),
        (["method=stl", "estimate=true"], "Accepted: method=es2, or estimate=false"),
        (["layers=depths", "layers.depths=[2]"], "Accepted: shares of the depth"),
        (["+logger.csv.foo=1"], "logger.csv.foo=1: lightning.pytorch.loggers.CSVLogger takes no"),
        (["+logger.foo=1"], "logger.foo=1: foo is no logger. Accepted: logger.offline, or"),
        (["logger=wandb", "logger.wandb.tags=one"], "Accepted: a list, logger.wandb.tags=[one]"),
        (["logger.offline=maybe"], "logger.offline=maybe is not accepted. Accepted: true or false"),
        (["logger=[csv,wandbs]"], "logger has no choice wandbs. Did you mean wandb?"),
        (["+hydra.job.env_set.WANDB_API_KEY=abc"], "the value would be saved in the run's folder"),
        (["+hydra.job.env_set={WANDB_ENTITY: me}"], "hydra.job.env_set.WANDB_ENTITY: the value"),
        (["progress=loud"], "progress=loud is not accepted. Accepted: auto | bar | plain | none"),
        (["+optimizer.foo=1"], "optimizer.foo=1: torch.optim.AdamW takes no foo"),
        (["evaluate.harmful_prompts=-1"], "evaluate.harmful_prompts=-1"),
        (["evaluate.harmful_prompts=abc"], "harmful_prompts=abc"),
        (["+evaluate.foo=1"], "evaluate.foo=1"),
        (["+judge.exact.foo=1"], "judge.exact.foo=1"),
        (["+data.source.train_harmfull=1"], "Did you mean train_harmful?"),
        (
            [
                "data=prompts",
                "data.source.harmful=a",
                "data.source.harmless=b",
                "data.source.validation=2",
            ],
            "validation=2",
        ),
        (["+trainer.max_epochs=3"], "Accepted: schedule.max_epochs"),
        (["trainer.accumulate_grad_batches=-1"], "Accepted: a whole number ≥ 1"),
        (["ckpt_path=last"], "there is no run to resume"),
    ],
)
def test_a_mistake_is_a_sentence(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    train(*words, status=2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "outputs").exists()

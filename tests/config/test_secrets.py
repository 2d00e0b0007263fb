from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from es2_lightning.config.secrets import is_secret, refuse_secrets, resolved, save_resolved
from es2_lightning.errors import UserError


@pytest.mark.parametrize(
    "key", ["api_key", "wandb_api_key", "apikey", "token", "hf_token", "password", "client_secret"]
)
def test_secrets(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key", ["tokenizer", "max_new_tokens", "eos_token", "pad_token", "key", "last_token", "tokens"]
)
def test_no_secrets(key: str) -> None:
    assert not is_secret(key)


@dataclass
class Typed:
    lr: float = 1.0
    lrs: list[float] = field(default_factory=lambda: [1.0])
    anything: Any = None


def test_the_environment_stays_as_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LR", "0.5")
    monkeypatch.setenv("HIDDEN", "do not write me")
    config = OmegaConf.structured(Typed)
    config.lr = "${oc.env:LR}"
    config.anything = {
        "plain": "${oc.env:HIDDEN}",
        "by_reference": "${anything.plain}/x",
        "default": "${oc.env:NOT_SET,3}",
        "token": "abc",
        "sum": "${lrs}",
        "text": r"no \${interpolation}",
        "number_like": "1e-3",
    }
    assert config.lr == 0.5
    save_resolved(config, tmp_path / "new" / "config.yaml")
    saved = yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())
    assert saved == {
        "lr": "${oc.env:LR}",
        "lrs": [1.0],
        "anything": {
            "plain": "${oc.env:HIDDEN}",
            "by_reference": "${oc.env:HIDDEN}/x",
            "default": "${oc.env:NOT_SET,3}",
            "token": "***",
            "sum": [1.0],
            "text": "no ${interpolation}",
            "number_like": "1e-3",
        },
    }
    assert config.anything.plain == "do not write me"  # The resolver is itself again.


def test_missing_values_stay_missing() -> None:
    assert resolved(OmegaConf.create({"a": "???"})) == {"a": "???"}


def test_written_out_secrets_are_refused() -> None:
    with pytest.raises(UserError, match=r"logger\.0\.api_key looks like a secret"):
        refuse_secrets(OmegaConf.create({"logger": [{"api_key": "abc"}]}))
    refuse_secrets(OmegaConf.create({"api_key": "${oc.env:X}", "token": None, "password": ""}))

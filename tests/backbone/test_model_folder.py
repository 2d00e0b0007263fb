"""What config.json alone tells is what transformers tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, Gemma3Config, GPT2Config

from es2_lightning.backbone.model_folder import depth_of, read_config_json, text_part
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.backbone.structure import num_layers
from es2_lightning.errors import UserError

from ..tiny_models import ARCHITECTURES, Architecture, tiny_chat_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_depth_is_transformers(architecture: Architecture, tmp_path: Path) -> None:
    tiny_chat_model(architecture, num_hidden_layers=3).model.config.save_pretrained(tmp_path)
    found = read_config_json(ModelSettings(name_or_path=str(tmp_path)))
    assert found is not None
    assert depth_of(found) == num_layers(AutoConfig.from_pretrained(tmp_path)) == 3


def test_the_text_part_counts(tmp_path: Path) -> None:
    config = Gemma3Config(text_config={"num_hidden_layers": 5})
    config.save_pretrained(tmp_path)
    found = read_config_json(ModelSettings(name_or_path=str(tmp_path)))
    assert found is not None and depth_of(found) == num_layers(config) == 5
    assert text_part(found) == found["text_config"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"auto_map": {"AutoConfig": "theirs.Config"}, "num_hidden_layers": 3}'],
)
def test_what_cannot_be_told_is_left_to_transformers(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert read_config_json(ModelSettings(name_or_path=str(tmp_path))) is None


def test_a_depth_that_the_file_leaves_open() -> None:
    assert depth_of({"model_type": "llama"}) is None
    assert depth_of({"num_hidden_layers": 2, "n_layer": 3}) is None
    assert depth_of({"encoder": {}, "decoder": {"num_hidden_layers": 2}}) is None
    assert depth_of({"num_hidden_layers": "12"}) is None


def test_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    settings = ModelSettings(name_or_path="org/name")
    assert read_config_json(settings) is None
    commit = "0" * 40
    repository = tmp_path / "models--org--name"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    GPT2Config(n_layer=7).save_pretrained(repository / "snapshots" / commit)
    found = read_config_json(settings)
    assert found is not None and depth_of(found) == 7
    assert json.loads(json.dumps(found)) == found


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_config_json(ModelSettings(name_or_path="./nowhere"))

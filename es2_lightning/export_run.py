"""What the export command does: load, write, verify, describe, upload."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from es2_lightning.backbone.adapter_folder import CONFIG, WEIGHTS
from es2_lightning.backbone.adapters import between_libraries, load_adapter
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.devices import choose_device
from es2_lightning.backbone.export import (
    Proof,
    SampleLogits,
    compare_logits,
    export_merged,
    load_exported,
    require,
    require_same_prompts,
    sample_logits,
)
from es2_lightning.backbone.export_folder import CARD, MARK, whole_folder
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.hub_repository import check_owner, is_local, push, read_card
from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.reference import AdapterReference
from es2_lightning.config.export_schema import ExportConfig
from es2_lightning.config.exported_model import ExportedModel
from es2_lightning.config.run_record import RunRecord, read_record
from es2_lightning.errors import UserError
from es2_lightning.reports.model_card import CardFacts, Kind, model_card

log = logging.getLogger(__name__)
PACKAGES = ("es2-lightning", "torch", "transformers", "peft", "safetensors")
FOLDER_IN_CODE = "path/to/this/folder"


def export(config: ExportConfig, exported: ExportedModel) -> Path:
    """Write the export's folder, whole or not at all, and upload it where that was asked for.

    Returns:
        The folder.

    Raises:
        UserError: A model or adapter cannot be used, the export is not the tuned model, it cannot
            be written, or the Hub refuses it.
    """
    if config.push_to_hub is not None:
        check_owner(config.push_to_hub)
    kind: Kind = "merged" if config.merge else "adapter"
    if exported.full_model is not None:
        kind = "full"
    record = read_record(exported.run) if exported.run else RunRecord()
    log.info("Exporting: %s, %s", kind, exported.adapter or exported.full_model)

    chat_model, sample = None, None
    if kind != "adapter" or config.verify:
        chat_model, sample = _load(config, exported)
        record = _of_these_weights(record, chat_model)
    bytes_ = _bytes(config, exported, chat_model if kind != "adapter" else None)
    with whole_folder(exported.to, needs=bytes_, overwrite=config.overwrite) as folder:
        if kind == "adapter":
            _copy_adapter(exported, folder, base_model=config.base_model)
            proof = _prove_adapter(chat_model, sample, folder)
        else:
            assert chat_model is not None
            proof = _write_weights(config, exported, chat_model, sample, folder)
        said = _said(proof, exported, config)
        log.info("%s", said)
        facts = _facts(config, exported, record, kind=kind, verified=said)
        (folder / CARD).write_text(model_card(facts, mark=MARK), encoding="utf-8")
    log.info("The export: %s", exported.to)
    if config.push_to_hub is not None:
        address = push(exported.to, config.push_to_hub, private=config.private)
        log.info("Uploaded: %s", address)
    return exported.to


def _load(config: ExportConfig, exported: ExportedModel) -> tuple[ChatModel, SampleLogits | None]:
    """The tuned model, and what it and its base say to a few tokens."""
    device = choose_device(config.device)
    if exported.adapter is not None:
        tuned = load_chat_model(exported.model)
        tuned.model.to(device)
        load_adapter(tuned, exported.adapter)
        sample = sample_logits(tuned, AdapterReference(tuned)) if config.verify else None
        source = exported.model.name_or_path
    else:
        base = _base_logits(exported, device) if config.verify else None
        tuned = load_chat_model(exported.model, folder=exported.full_model)
        tuned.model.to(device)
        sample = replace(sample_logits(tuned, None), base=base) if config.verify else None
        source = str(exported.full_model)
    tuned.tokenizer = _untouched_tokenizer(exported, source)
    return tuned, sample


def _base_logits(exported: ExportedModel, device: torch.device) -> torch.Tensor | None:
    try:
        base = load_chat_model(exported.model)
    except UserError as error:
        log.warning("The base model cannot be had, so nothing is compared with it: %s", error)
        return None
    base.model.to(device)
    return sample_logits(base, None).tuned


def _untouched_tokenizer(exported: ExportedModel, source: str) -> Any:
    """As it was published: for training, it may have been given a padding token."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        source,
        revision=exported.model.revision if source == exported.model.name_or_path else None,
        trust_remote_code=exported.model.trust_remote_code,
    )


def _of_these_weights(record: RunRecord, chat_model: ChatModel) -> RunRecord:
    """The record without results that are of other weights."""
    measured = record.measured_weights
    if measured is None or measured == weights_fingerprint(chat_model.model):
        return record
    log.warning(
        "The run's evaluation is of other weights than these, so the card leaves it out. To have "
        "it there: python -m es2_lightning.evaluate run=… first"
    )
    return replace(record, results=None)


def _bytes(config: ExportConfig, exported: ExportedModel, chat_model: ChatModel | None) -> int:
    if chat_model is None:
        assert exported.adapter is not None
        return (exported.adapter / WEIGHTS).stat().st_size
    size = getattr(torch, config.dtype).itemsize if config.dtype else None
    return sum(p.numel() * (size or p.element_size()) for p in chat_model.model.parameters())


def _copy_adapter(exported: ExportedModel, folder: Path, *, base_model: str | None) -> None:
    assert exported.adapter is not None
    shutil.copyfile(exported.adapter / WEIGHTS, folder / WEIGHTS)
    adapter = _adapter_config(exported)
    if base_model is None:
        shutil.copyfile(exported.adapter / CONFIG, folder / CONFIG)
        return
    adapter["base_model_name_or_path"] = base_model
    text = json.dumps(adapter, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _adapter_config(exported: ExportedModel) -> dict[str, Any]:
    assert exported.adapter is not None
    found: dict[str, Any] = json.loads((exported.adapter / CONFIG).read_text("utf-8"))
    return found


def _prove_adapter(
    chat_model: ChatModel | None, sample: SampleLogits | None, folder: Path
) -> Proof | None:
    if chat_model is None or sample is None:
        return None
    from peft import PeftModel

    base = chat_model.model.unload()
    with between_libraries():
        loaded = PeftModel.from_pretrained(base, str(folder)).eval()
    return compare_logits(sample, loaded)


def _write_weights(
    config: ExportConfig,
    exported: ExportedModel,
    chat_model: ChatModel,
    sample: SampleLogits | None,
    folder: Path,
) -> Proof | None:
    device = chat_model.device
    export_merged(
        chat_model,
        folder,
        dtype=getattr(torch, config.dtype) if config.dtype else None,
        max_shard_size=config.max_shard_size,
        in_place=True,
    )
    chat_model.model = None  # Two models need not stand in memory at once.
    if sample is None:
        return None
    require_same_prompts(chat_model.tokenizer, folder)
    words: dict[str, Any] = {"trust_remote_code": exported.model.trust_remote_code}
    if exported.model.attn_implementation:
        words["attn_implementation"] = exported.model.attn_implementation
    return compare_logits(sample, load_exported(folder, **words).to(device))


def _said(proof: Proof | None, exported: ExportedModel, config: ExportConfig) -> str:
    """What the comparison found, in a sentence; raises where it is not the tuned model."""
    if proof is None:
        return "Not verified: verify=false."
    whole = config.merge or exported.full_model is not None
    if proof.change == 0 and proof.error == 0:
        log.warning("The tuned model's logits are the base model's: tuning had no effect.")
    elif whole:
        require(proof, exported.to, exactly="dtype=float32", unseen="verify=false")
    else:
        require(replace(proof, change=None), exported.to, exactly="", unseen="verify=false")
    by = "transformers alone loads it" if whole else "peft and transformers alone load it"
    if proof.error == 0:
        said = f"{by}; all {proof.logits} logits that were compared are exactly the tuned model's"
    else:
        said = f"{by}; no logit of {proof.logits} is off by more than {proof.error:.1e} of the "
        said += f"largest one (rounding explains {proof.allowed:g})"
    if proof.change is not None:
        said += f", and they differ from the base's by {proof.change:.2g} standard deviations"
    return f"{said}."


def _facts(
    config: ExportConfig, exported: ExportedModel, record: RunRecord, *, kind: Kind, verified: str
) -> CardFacts:
    run, name = exported.run, exported.model.name_or_path
    base_id = config.base_model or (None if is_local(name) else name)
    no_results = "It was not measured." if run else "It was exported without its run."
    if run and not record.results:
        no_results += " To measure it: `python -m es2_lightning.evaluate run=<its folder>`."
    return CardFacts(
        kind=kind,
        base=base_id or _name_of(Path(name).expanduser().absolute()),
        base_id=base_id,
        # A preset's commit says nothing of a folder that was given instead.
        revision=None if is_local(name) else exported.model.revision,
        base_card=read_card(name, exported.model.revision),
        address=config.push_to_hub or FOLDER_IN_CODE,
        dtype=config.dtype or exported.model.dtype,
        adapter=_adapter_config(exported) if exported.adapter else None,
        config=run.config if run else None,
        choices=record.choices,
        data_notes=record.data_notes,
        layers=run.layers if run else [],
        depth=record.depth,
        results=record.results,
        no_results=no_results,
        versions={n: v for n, v in record.versions.items() if n in PACKAGES},
        exported_with={package: metadata.version(package) for package in PACKAGES},
        verified=verified,
    )


def _name_of(folder: Path) -> str:
    """A folder's name for others; of the package's own models, where they stand in the package."""
    package = Path(__file__).resolve().parent
    if folder.is_relative_to(package):
        return str(folder.relative_to(package.parent))
    return folder.name

"""What is kept of an evaluation: nothing stale is taken over, and kills break nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.reference import AdapterReference
from es2_lightning.errors import UserError
from es2_lightning.evaluation.attacks.attack import Attacked, Generation, PreparedAttack, Target
from es2_lightning.evaluation.evaluator import Subject
from es2_lightning.evaluation.folder_lock import alone_in
from es2_lightning.evaluation.measurement import Measurement
from es2_lightning.prompts.prompt import Prompt, PromptSet

from ..tiny_models import tiny_chat_model, tiny_splits
from .small_evaluations import SIZES, small_evaluator, tiny_subject

ODD = "a\u2028b\x85c\x0cd é [bold] [/x]"
"""Line breaks that are none in JSONL, more than one byte, markup."""


class Seen:
    """An attack that keeps count of what it is run on."""

    def __init__(self, output: str = "w1") -> None:
        self.seen: list[str] = []
        self.output = output

    @contextmanager
    def prepare(self, target: Target) -> Iterator[PreparedAttack]:
        def run(prompts: Sequence[Prompt]) -> list[Attacked]:
            self.seen += [prompt.text for prompt in prompts]
            return [Attacked((Generation(self.output),)) for _ in prompts]

        yield PreparedAttack(run)


def attack(folder: Path, settings: dict[str, Any] | None = None, **changes: Any) -> int:
    """How many prompts had to be attacked."""
    seen = Seen(changes.pop("output", "w1"))
    evaluator = small_evaluator(
        folder,
        attacks={"a": seen},
        attack_settings={"a": settings or {}},
        settings=replace(SIZES, harmful_prompts=4, batch_size=2),
        **changes,
    )
    evaluator.measure(tiny_subject())
    return len(seen.seen)


def test_a_file_counts_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "templates, old.jsonl"
    file.write_text("one")
    settings = {"file": str(file), "more": [{"words": "no file"}]}
    assert attack(tmp_path, settings) == 4
    assert attack(tmp_path, settings) == 0
    file.write_text("two")
    assert attack(tmp_path, settings) == 4, "the same path with another content"
    file.write_text("one")
    assert attack(tmp_path, settings) == 0


@pytest.mark.parametrize("column", ["response", "target"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_comes_with_prompts_counts(tmp_path: Path, column: str, split: str) -> None:
    assert attack(tmp_path) == 4
    splits = tiny_splits()
    changed = [replace(p, **{column: "w39 w39"}) for p in getattr(splits, split).prompts]
    splits = replace(splits, **{split: PromptSet(tuple(changed))})
    assert attack(tmp_path, splits=splits) == 4
    assert attack(tmp_path, splits=splits) == 0


def test_odd_outputs_and_torn_characters_are_survived(tmp_path: Path) -> None:
    assert attack(tmp_path, output=ODD) == 4
    assert attack(tmp_path, output="never asked") == 0
    (part,) = (tmp_path / "parts").glob("base-a-*.jsonl")
    with part.open("ab") as file:
        file.write('{"prompt": ["é'.encode()[:-1])
    assert attack(tmp_path, output="never asked") == 0


def test_both_models_in_a_row_were_attacked_with_the_same_settings(tmp_path: Path) -> None:
    def both(settings: dict[str, Any] | None, *, killed: bool = False) -> list[Measurement]:
        evaluator = small_evaluator(
            tmp_path,
            attacks={"a": Seen()} if settings else {"direct": Seen()},
            attack_settings={"a": settings or {}},
            settings=replace(SIZES, harmful_prompts=4),
        )
        chat_model = tiny_chat_model()
        fingerprint = weights_fingerprint(chat_model.model)
        found = [evaluator.measure(Subject("base", chat_model, fingerprint))]
        if not killed:
            chat_model.model = get_peft_model(chat_model.model, LoraConfig(r=2)).eval()
            fingerprint = weights_fingerprint(chat_model.model)
            reference = AdapterReference(chat_model)
            found.append(evaluator.measure(Subject("tuned", chat_model, fingerprint, reference)))
        return found

    both({"coeff": 1})
    assert [list(m.attacks) for m in both(None)] == [["direct", "a"], ["direct", "a"]]
    both({"coeff": 2}, killed=True)
    base, tuned = both(None)
    assert "a" in base.attacks and "a" not in tuned.attacks, "it was made with another setting"


def test_an_adapters_scaling_and_buffers_tell_models_apart() -> None:
    def scaled(lora_alpha: int) -> str:
        model = get_peft_model(tiny_chat_model().model, LoraConfig(r=2, lora_alpha=lora_alpha))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.fill_(0.01)
        return weights_fingerprint(model)

    assert scaled(4) == scaled(4) != scaled(8)
    rope = [
        tiny_chat_model(rope_parameters={"rope_type": "default", "rope_theta": theta})
        for theta in (1e4, 1e4, 1e5)
    ]
    one, same, other = [weights_fingerprint(m.model) for m in rope]
    assert one == same != other
    model = tiny_chat_model().model
    plain = weights_fingerprint(model)
    assert weights_fingerprint(get_peft_model(model, LoraConfig(r=2)), adapter=False) == plain


def _hold(folder: Path, held: Any, done: Any) -> None:
    with alone_in(folder):
        held.set()
        done.wait(60)


def test_two_evaluations_do_not_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match="another evaluation is under way"), alone_in(tmp_path):
            pass
    finally:
        other.kill()
        other.join()
    with alone_in(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "evaluation").write_text("a file")
    with (
        pytest.raises(UserError, match="nothing can be written"),
        alone_in(tmp_path / "evaluation"),
    ):
        pass


def test_what_an_earlier_evaluation_measured_on_the_same_terms_is_taken_over(
    tmp_path: Path,
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert attack(first) == 4
    assert attack(second, {"other": 1}) == 4
    assert attack(third, earlier=[first, second, tmp_path / "nowhere"]) == 0
    # Whole, so that it goes on without the other folder; and nothing that was not asked for.
    (own,) = (third / "parts").glob("*-a-*.jsonl")
    assert own.read_bytes() == (first / "parts" / own.name).read_bytes()
    assert attack(third) == 0

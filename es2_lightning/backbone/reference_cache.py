"""The frozen reference's outputs, computed once for each row of tokens and looked up from then on.

Shape legend: E outputs: all output positions of all rows, in their order. D width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from es2_lightning.backbone.cache_fingerprint import cache_fingerprint
from es2_lightning.backbone.cache_rows import PASS_TOKENS, distinct, plan_passes, trimmed
from es2_lightning.backbone.chat_model import ChatModel, eval_mode
from es2_lightning.backbone.compatibility import check_cached_head
from es2_lightning.backbone.disk_store import DiskStore
from es2_lightning.backbone.held_outputs import Held, HeldHiddenStates, HeldStatistics, frozen_head
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.ranks import Ranks
from es2_lightning.backbone.reference import (
    AdapterReference,
    HiddenOutputs,
    ModelReference,
    OutputsOf,
    Reference,
    ReferenceOutputs,
)
from es2_lightning.backbone.row_store import Block, RowStore, memory_store, row_key
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.backbone.structure import causal_lm_of
from es2_lightning.backbone.token_rows import TokenRow

log = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True)
class CacheCost:
    """What it took to have some rows.

    Attributes:
        computed: Rows that were missing.
        found: Rows that were there.
        seconds: Of this process.
        num_outputs: Of all rows that are held.
        nbytes: Of all that is held.
        where: In memory, or the folder.
    """

    computed: int
    found: int
    seconds: float
    num_outputs: int
    nbytes: int
    where: str

    def __str__(self) -> str:
        return (
            f"{self.computed} rows computed in {self.seconds:.1f} s, {self.found} were there; "
            f"{self.num_outputs} positions, {self.nbytes / GIB:.3g} GiB, {self.where}"
        )


class CachedReference:
    """Looks outputs up, and computes those that are not there yet.

    Never in a checkpoint, never in train mode. What is held is on the host, and moved to the model
    for each batch.

    Args:
        live: What computes missing rows: the base model, as another kind of reference.
        store: Where they are held; it may hold some already.
        held: What of them.
        tuned: The model that is tuned, on whose device the outputs are wanted.
        load_base: Where all weights train, so that `live` is the reference only until they move:
            loads the base model again, for `chat_model`.
        pass_tokens: The most tokens in one pass of a build.
    """

    def __init__(
        self,
        live: Reference,
        store: RowStore,
        *,
        held: Held,
        tuned: ChatModel,
        load_base: Callable[[], ChatModel] | None = None,
        pass_tokens: int = PASS_TOKENS,
    ) -> None:
        self._live = live
        self._store = store
        self._held = held
        self._tuned = tuned
        self._load_base = load_base
        self._pass_tokens = pass_tokens
        self._sums = _sums(tuned) if load_base is not None else None

    def ensure(
        self,
        rows: Iterable[TokenRow],
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> CacheCost:
        """Compute what is missing of some rows, before training.

        Where several processes run, all call this with the same rows; each computes its share.
        The trainer's autocasting is the caller's to switch on.

        Args:
            rows: All that will be asked for; those without outputs are passed over.
            progress: Told what is done, how many rows of it, and of how many.

        Returns:
            What it took.

        Raises:
            UserError: The store's folder cannot be written to.
        """
        began = time.monotonic()
        keyed = distinct(rows)
        keys, wanted = list(keyed), list(keyed.values())
        ranks = Ranks.here()
        with self._store.building(ranks):
            missing = ranks.union(self._store.missing(keys))
            passes = plan_passes([wanted[i] for i in missing], tokens=self._pass_tokens)
            done = 0
            for first in range(0, len(passes), ranks.size):
                together = passes[first : first + ranks.size]
                # Where weights are sharded, a forward pass needs everybody: who has none left
                # repeats the last one.
                block = self._computed(together[min(ranks.rank, len(together) - 1)])
                if ranks.rank < len(together):
                    self._store.add(block)
                done += sum(map(len, together))
                if progress is not None:
                    progress("Reference cache", done, len(missing))
        # A folder that the processes do not share leaves each with its own part.
        alone = self._store.missing(keys)
        for some in plan_passes([wanted[i] for i in alone], tokens=self._pass_tokens):
            self._store.add(self._computed(some))
        return CacheCost(
            computed=len(missing),
            found=len(keys) - len(missing),
            seconds=time.monotonic() - began,
            num_outputs=self._store.num_outputs,
            nbytes=self._store.nbytes,
            where=self._store.where,
        )

    def outputs(self, rows: Sequence[TokenRow]) -> ReferenceOutputs:
        """Looked up; a row that `ensure` was not given is computed and held from then on."""
        wanted = [trimmed(row) for row in rows if row.output_positions]
        keys = [row_key(row) for row in wanted]
        if absent := self._store.missing(keys):
            late = list(distinct(wanted[i] for i in absent).values())
            log.debug("Reference cache: %d rows are computed late", len(late))
            self._store.add(self._computed(late))
        device = self._tuned.device
        gpu = device.type == "cuda"
        columns = self._store.gather(keys, pinned=gpu) if keys else self._held.empty()
        return self._held.outputs(
            {name: column.to(device, non_blocking=gpu) for name, column in columns.items()}
        )

    @contextmanager
    def chat_model(self) -> Iterator[ChatModel]:
        """The base model, in eval mode; once its own weights moved, loaded for the `with` alone."""
        if self._load_base is None or not self._moved:
            with self._live.chat_model() as base:
                yield base
            return
        base = self._load_base()
        base.model.to(self._tuned.device)
        with eval_mode(base.model):
            yield base

    def root(self) -> OutputsOf | None:
        """Of the reference that computes what is missing."""
        return self._live.root()

    @property
    def _moved(self) -> bool:
        """Whether the live reference is one no longer."""
        return self._sums is not None and self._sums != _sums(self._tuned)

    def _computed(self, rows: Sequence[TokenRow]) -> Block:
        if self._moved:
            raise RuntimeError(
                f"{len(rows)} rows are not in the reference cache, and the weights that would "
                "compute them have moved: `ensure` must be given all rows before training"
            )
        outputs = self._live.outputs(rows)
        assert isinstance(outputs, HiddenOutputs)
        columns = {name: c.cpu() for name, c in self._held.columns(outputs).items()}
        return Block(
            keys=tuple(row_key(row) for row in rows),
            lengths=tuple(len(row.output_positions) for row in rows),
            columns=columns,
        )


def _sums(chat_model: ChatModel) -> list[float]:
    """Of each parameter: they change whenever a weight does, whoever changes it."""
    with torch.no_grad():
        sums = [p.sum(dtype=torch.float64).cpu() for p in chat_model.model.parameters()]
    return [float(total) for total in sums]


def make_cached_reference(
    chat_model: ChatModel,
    settings: ModelSettings,
    *,
    packing: Packing,
    precision: str,
    load_base: Callable[[], ChatModel] | None = None,
) -> CachedReference:
    """The reference of `model.reference=cached`, over what was held before.

    Args:
        chat_model: What trains, with its fresh adapter, or with all its weights as they were
            loaded.
        settings: What a user set.
        packing: How its passes are laid out.
        precision: The trainer's, such as bf16-mixed, under which `ensure` runs.
        load_base: Where all weights train: what `chat_model` is once they moved; None: loaded again
            as the settings say.

    Raises:
        UserError: The cache's folder is of another model or settings, or cannot be written to; or
            the model's head is none that the cache can do with.
    """
    cache, model = settings.reference_cache, chat_model.model
    check_cached_head(settings, model)
    fingerprint = cache_fingerprint(
        chat_model, hold=cache.hold, dtype=cache.dtype, packing=packing, precision=precision
    )
    folder = None if cache.folder is None else Path(cache.folder).expanduser()
    store = memory_store(fingerprint) if folder is None else DiskStore(folder, fingerprint)
    causal_lm, head = causal_lm_of(model), frozen_head(model)
    if isinstance(head, LinearHead):
        width = head.weight_VD.shape[1]
    else:
        width = causal_lm.config.get_text_config(decoder=True).hidden_size
    held: Held = HeldStatistics(width=width)
    if cache.hold == "hidden_states":
        dtype = None if cache.dtype is None else getattr(torch, cache.dtype)
        held = HeldHiddenStates(head, width=width, computed=causal_lm.dtype, dtype=dtype)
    if settings.mode != "full":
        live = AdapterReference(chat_model, packing=packing)
        return CachedReference(live, store, held=held, tuned=chat_model)
    return CachedReference(
        ModelReference(chat_model, packing=packing),
        store,
        held=held,
        tuned=chat_model,
        load_base=load_base or partial(load_chat_model, settings),
    )

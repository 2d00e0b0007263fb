"""What to say when a model cannot be loaded, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from es2_lightning.errors import UserError

LAYOUT = "config.json, *.safetensors, tokenizer files"


def refuse_missing_folder(name_or_path: str) -> None:
    """Whether a name that can only be a folder's is one.

    Raises:
        UserError: The folder is not there.
    """
    local = Path(name_or_path).expanduser()
    if (local.is_absolute() or name_or_path.startswith((".", "~"))) and not local.is_dir():
        raise UserError(
            f"model.name_or_path={name_or_path}: no such folder; accepted are a Hub id or a local "
            f"folder in the Hub's layout ({LAYOUT})"
        )


@contextmanager
def explaining_load_errors(name_or_path: str) -> Iterator[None]:
    """Turn transformers' loading errors into a sentence that says what to do.

    Raises:
        UserError: The folder is not there, or transformers could not load the model.
    """
    refuse_missing_folder(name_or_path)
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model.name_or_path={name_or_path}: {reason}\n{_remedy(name_or_path, error)}"
        ) from error


def _remedy(name_or_path: str, error: BaseException) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    folder = f"model.name_or_path=/path/to/folder ({LAYOUT})"
    text = str(error)
    # A gated repository is a kind of missing one, so it is asked for first.
    if caused_by(GatedRepoError) or "gated repo" in text or "401" in text or "403" in text:
        return (
            f"the model is gated: accept its licence at huggingface.co/{name_or_path} and log in "
            f"with `hf auth login`, or give a local folder: {folder}"
        )
    if caused_by(RevisionNotFoundError):
        return (
            "model.revision names no commit, branch or tag of it: model.revision=null takes the "
            "newest"
        )
    if caused_by(RepositoryNotFoundError):
        return (
            "the Hub has no such model, or it is private: check the id, log in with `hf auth "
            f"login`, or give a local folder: {folder}"
        )
    if "attn_implementation" in text or "attention implementation" in text:
        return "accepted: model.attn_implementation=eager, or null for transformers' choice"
    if "safetensors" in text:
        return (
            "only safetensors are read, since pickled weights can run code. If you trust their "
            "source: model.use_safetensors=false"
        )
    if caused_by(LocalEntryNotFoundError, OfflineModeIsEnabled):
        return (
            "the Hub cannot be reached from here and the model was not downloaded earlier. Give a "
            f"local folder: {folder}, or, on a machine with a network, `hf download {name_or_path}`"
        )
    return (
        "give a Hub id that this machine can reach, or a local folder in the Hub's layout: "
        f"{folder}"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__

"""What types and ranges cannot say of a ranking's config; asked before any weights load."""

from __future__ import annotations

from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings_check import check_values
from es2_lightning.config import job
from es2_lightning.config.evaluated_run import check_model_given, take_over
from es2_lightning.config.evaluation_objects import build_attacks, build_judges
from es2_lightning.config.loaded_prompts import read_prompts
from es2_lightning.config.objects import build, check_words
from es2_lightning.config.rank_schema import RankConfig
from es2_lightning.errors import UserError
from es2_lightning.prompts.candidate_lists import read_lists

TEMPLATE = "es2_lightning.evaluation.attacks.template.Template"


def check_rank(config: RankConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A run, an adapter, a model or a file of lists that is not there, a run and an
            adapter at once, a bad list, a word or value that an attack, a judge or the ranker does
            not take, prompts that cannot be read, a class without prompts.
    """
    from es2_lightning.prompts.requirements import require_both_classes

    config = check_model_given(config)
    build(config.ranker, "ranker")
    check_values(config.model)
    refuse_missing_folder(config.model.name_or_path)
    if config.lists:
        for path in config.lists:
            read_lists(path, key="lists", bad_lists=config.bad_lists)  # type: ignore[arg-type]
        return
    for name, node in config.attack.items():
        check_words(node, f"attack.{name}")
    build_judges(config.judge)
    require_both_classes(read_prompts(config.data.source))


def check_built(config: RankConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A device that is not there, a layer that the model does not have, a model that
            cannot be loaded as was set, a value that an attack does not take, an attack under
            which no candidates are sampled.
    """
    if config.run is not None:
        config, _ = take_over(config, job.overrides())
    from es2_lightning.backbone.devices import choose_device

    choose_device(config.device)
    from es2_lightning.backbone.loading import read_depth

    depth = read_depth(config.model)
    layer = config.ranking.layer
    if layer is not None and resolve_layer(layer, depth, key="ranking.layer") == 0:
        raise UserError(
            "ranking.layer=0: the input embeddings say nothing of what stands before a token; "
            f"accepted are 1 … {depth}, or -1 … -{depth} from the end"
        )
    if config.lists:
        return
    from es2_lightning.evaluation.ranking.sources import check_source

    attacks = build_attacks(usable(config.attack))
    for name, attack in attacks.items():
        check_source(attack, name)
    if not attacks.keys() - {"direct"}:
        raise UserError(
            "attack: none of them makes the model answer harmful prompts, so no candidate would "
            "be unsafe. Accepted: some of attack=[prefill,template,scav]."
        )


def usable(attacks: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The attacks' nodes without a template attack that has no templates: none are shipped for
    other models than the organism."""
    return {
        name: node
        for name, node in attacks.items()
        if node.get("_target_") != TEMPLATE or node.get("file") is not None
    }

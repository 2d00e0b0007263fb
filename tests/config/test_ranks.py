"""What the launchers' environments say, and how ranks agree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from es2_lightning.config.devices import processes_of, shares
from es2_lightning.config.rank_agreement import RankAgreement
from es2_lightning.config.ranks import Rank, this_rank
from es2_lightning.errors import UserError

SRUN = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, None),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, Rank(3, 1, 4)),
        (SRUN, Rank(3, 1, 4)),
        # A batch script's own process, a terminal, one task.
        ({key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}, None),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, None),
        ({**SRUN, "SLURM_NTASKS": "1"}, None),
    ],
)
def test_which_rank_it_is(environment: dict[str, str], rank: Rank | None) -> None:
    assert this_rank(environment) == rank


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ({}, 1),
        ({"devices": 2}, 2),
        ({"devices": "2"}, 2),
        ({"devices": [0, 3]}, 2),
        ({"devices": "0,3,"}, 2),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
    ],
)
def test_a_process_for_each_device(words: dict[str, Any], count: int) -> None:
    assert processes_of(words) == count


@pytest.mark.parametrize("words", [{"devices": 0}, {"devices": "two"}, {"num_nodes": 2}])
def test_numbers_that_are_none(words: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Accepted"):
        processes_of(words)


def test_all_gpus_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [processes_of({"devices": devices}) for devices in ("auto", -1, "-1")] == [4, 4, 4]


def test_jobs_at_once_share_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 5)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert shares(2) == [["0", "1"], ["2", "3"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-3")
    assert shares(2) == [["7"], ["GPU-3"]]
    with pytest.raises(UserError, match="there are 2 GPUs"):
        shares(3)


def agreed(folder: Path, *configs: dict[str, Any]) -> list[Path | str]:
    """What each rank comes to: the run's folder, or its error."""

    def agree(number: int) -> Path | str:
        agreement = RankAgreement(Rank(number, number, len(configs)), folder)
        try:
            found = agreement.folder(Path("decided") if number == 0 else None)
            agreement.same_config(configs[number])
        except UserError as error:
            return str(error)
        return found

    with ThreadPoolExecutor(len(configs)) as pool:
        return list(pool.map(agree, range(len(configs))))


def test_ranks_agree(tmp_path: Path) -> None:
    config = {"loss": {"kl_weight": 0.5}, "layers": [1, 2], "ckpt_path": None}
    assert agreed(tmp_path, config, config, config) == [Path("decided")] * 3


def test_a_difference_is_told_on_each_rank_by_its_key(tmp_path: Path) -> None:
    config = {"loss": {"kl_weight": 0.5}, "layers": [1, 2]}
    other = {"loss": {"kl_weight": 0.25}, "layers": [1]}
    told = agreed(tmp_path, config, config, other)
    assert len(set(told)) == 1
    assert (
        "rank 2 has layers.1=nothing where rank 0 has 2, "
        "loss.kl_weight=0.25 where rank 0 has 0.5." in str(told[0])
    )

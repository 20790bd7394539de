"""Two processes are one: the same loss, gradients and batches; one that dies ends the run.

The processes are real, joined by gloo on the CPU. No GPU and no second machine took part.
"""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import two_processes
from two_processes import STEPS, pairs, trainer_of

from tgdt_mini import cli
from tgdt_mini.checkpoint import load_state, random_state
from tgdt_mini.commands import common as commands
from tgdt_mini.embedding import Embedding
from tgdt_mini.losses import cmc_loss
from tgdt_mini.scaling import distributed
from tgdt_mini.training_config import TrainingConfig


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def one(out):
    """A run in one process, and the same stopped after four of its twelve steps."""
    trainer_of(out / "begun by one").run(max_steps=4)
    trainer = trainer_of(out / "one")
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def two(out, one):
    return two_processes.start(two_processes.everything, out)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_two_processes_is_the_step_of_one(tmp_path, two, name):
    losses, gradients = two_processes.step(tmp_path, name)
    for other_losses, others in (each["steps"][name] for each in two):
        assert other_losses == pytest.approx(losses, rel=1e-5)
        assert all((others[key] is None) == (gradients[key] is None) for key in others)
        for key, part in gradients.items():
            if part is not None:
                far = float((torch.from_numpy(others[key]) - part).norm() / part.norm())
                assert far <= 1e-5, f"{key} differs by {far:.1e}"


def test_the_steps_compared_are_of_different_kinds(two):
    """Else the test above could pass by comparing one thing nine times."""
    steps = two[0]["steps"]
    # total, inter_global, inter_local, intra, inter_mixed, hard captions, steps
    losses = {name: steps[name][0] for name in STEPS}
    assert losses["staged, local"][1] == losses["staged, global"][2] == 0 != losses["joint, all"][1]
    assert len({round(row[0], 4) for row in losses.values()}) >= 7
    assert losses["hard captions"][5] > 0 and losses["fewer hard captions than processes"][5] > 0
    assert all(part is not None for part in steps["joint, all"][1].values())
    assert any(part is None for part in steps["staged, local"][1].values())


def test_ragged_shares_are_gathered_in_order_and_every_item_gets_its_gradient(two):
    images, captions, ids = pairs()
    leaves = [two_processes.part_of(each, slice(None)) for each in (images, captions)]
    known = cmc_loss(*leaves, ids).total
    known.backward()
    for rank, found in enumerate(each["gathered"] for each in two):
        assert found["total"] == pytest.approx(known.item(), rel=1e-12)
        parts = zip(found["images"], (torch.float64, torch.float64, torch.bool))
        got = Embedding(*(torch.tensor(part, dtype=kind) for part, kind in parts))
        assert torch.equal(got.mask, images.mask)
        assert torch.equal(got.global_token, images.global_token)
        assert torch.equal(got.local_tokens[got.mask], images.local_tokens[got.mask])
        mine = slice(0, 5) if rank == 0 else slice(5, 12)
        for leaf, gradients in zip(leaves, found["gradients"]):
            for whole, own in zip((leaf.global_token, leaf.local_tokens), gradients):
                own = torch.tensor(own, dtype=torch.float64)
                both = 2 * whole.grad[mine][:, : own.shape[1]]  # both processes have this loss
                torch.testing.assert_close(own, both, rtol=1e-9, atol=1e-12)


def test_the_common_trick_gives_one_over_the_number_of_processes(two):
    images, captions, _ = pairs()
    weight = torch.eye(8, dtype=torch.float64, requires_grad=True)
    whole = Embedding(images.global_token @ weight, images.local_tokens @ weight, images.mask)
    cmc_loss(whole, captions).total.backward()
    for found in two:
        ours, trick = (torch.tensor(part, dtype=torch.float64) for part in found["trick"])
        torch.testing.assert_close(ours, weight.grad)
        torch.testing.assert_close(trick, weight.grad / 2)


def assert_learns_the_same(history, known):
    assert len(history) == len(known)
    for row, expected in zip(history, known):
        assert row["loss"] == pytest.approx(expected["loss"], rel=2e-3)


def test_a_run_of_two_processes_reads_the_batches_and_learns_what_one_does(out, one, two):
    found = [each["whole"] for each in two]
    order = [rows.tolist() for epoch in range(4) for rows, _ in one.batches.of(epoch)]
    assert found[0]["rows"] == found[1]["rows"] == order
    assert_learns_the_same(found[0]["history"], one.history)
    one, other = (each["weights"] for each in found)
    assert all((part == other[name]).all() for name, part in one.items())
    assert {folder.name for folder in (out / "whole").iterdir()} == {"last", "best"}


def test_a_run_of_two_processes_is_taken_up_by_one(out, one, two):
    again = trainer_of(out / "half", seed=5).resume()
    assert again.step == 4
    assert_learns_the_same(again.run(max_steps=2), one.history[:2])


def test_a_run_of_one_process_is_taken_up_by_two(one, two):
    order = [rows.tolist() for rows, _ in one.batches.of(1)]
    for each in two:
        assert each["second half"]["rows"] == order[1:]
        assert_learns_the_same(each["second half"]["history"], one.history[:2])


def test_every_process_draws_dropout_of_its_own_and_keeps_its_place_in_it(out, two):
    drawn = [each["dropout"]["random"] for each in two]
    assert drawn[0] != drawn[1] and two[0]["start"]["random"] != two[1]["start"]["random"]
    trainer = trainer_of(out / "dropout", dropout=0.2)

    def taken_up(rank):
        load_state(out / "dropout" / "last", trainer.model, trainer.optimizer, trainer.scaler, rank)

    for rank in range(2):
        taken_up(rank)
        assert torch.rand(3).tolist() == drawn[rank]
    before = random_state("cpu")["random"]
    taken_up(2)
    assert torch.equal(random_state("cpu")["random"], before), "a third process has no state"


def test_all_processes_stop_after_the_step_in_which_one_was_told_to(out, two):
    assert [each["stopped"] for each in two] == [5, 5]
    assert trainer_of(out / "stopped").resume().step == 5


def test_a_batch_smaller_than_the_processes_is_an_error(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    trainer = SimpleNamespace(device="cpu", config=TrainingConfig(batch=2))
    with pytest.raises(ValueError, match="^batch is 2; 3 processes need one pair each at least$"):
        distributed.Processes(0).start(trainer)


def test_shares_are_even_and_leave_nothing_out(monkeypatch):
    for size in (1, 2, 3, 5):
        monkeypatch.setattr(distributed, "size", lambda size=size: size)
        for count in (0, 1, 4, 7, 10):
            parts = []
            for rank in range(size):
                monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
                parts.append(list(range(count))[distributed.share(count)])
            assert sum(parts, []) == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_in_one_process_everything_passes_through():
    images, captions, _ = pairs()
    assert (distributed.size(), distributed.rank(), distributed.share(5)) == (1, 0, slice(0, 5))
    kept = distributed.gather(images, captions)
    assert kept[0] is images and kept[1] is captions
    assert distributed.broadcast(lambda: 3) == 3 and distributed.all_gather(4) == [4]
    assert distributed.any_true(True) and not distributed.any_true(False)
    assert distributed.first_to_report()
    with distributed.joined("cpu") as device:
        assert device == torch.device("cpu") and distributed.size() == 1


def test_only_train_runs_on_several_processes(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["evaluate", "--out", str(tmp_path)]) == 2
    assert "only train runs on several processes" in capsys.readouterr().err


TORCHRUN = """
import datasets, torch._dynamo  # imported once: the two processes are forked from this one
from tgdt_mini.runs import scenes as experiments
from torch.distributed.run import main
main()
"""
RUN = """
import os, signal, sys
from tgdt_mini import cli
from tgdt_mini.commands import common as commands
from tgdt_mini.scaling import distributed
from tgdt_mini.training import Trainer

def step(trainer):
    if trainer.step == 7 and distributed.rank() == RANK:
        os.kill(os.getpid(), signal.SIGKILL)
    if trainer.step == 7 and "FILE":
        open("FILE", "w", encoding="utf-8").close()
    one_step(trainer)

one_step, Trainer._step = Trainer._step, step
commands.QUICK = {"epochs": 2, "train": 40, "other": 12}
sys.exit(cli.main())
"""
TRAIN = ["train", "--quick", "--batch", "8", "--device", "cpu", "--out"]


def torchrun(folder, rank=None, file=""):
    """The command in two processes; in the eighth step one is killed, or a file appears."""
    script = folder / "run.py"
    script.write_text(RUN.replace("RANK", str(rank)).replace("FILE", str(file)), encoding="utf-8")
    options = "--standalone --nproc-per-node 2 --start-method fork --run-path".split()
    command = [sys.executable, "-c", TORCHRUN, *options, str(script), *TRAIN, str(folder / "out")]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # a process that forks cannot use a GPU that its parent has seen
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def go_on_alone(folder, capsys, monkeypatch):
    monkeypatch.setattr(commands, "QUICK", {"epochs": 2, "train": 40, "other": 12})
    assert cli.main([*TRAIN, str(folder / "out"), "--resume"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run_with_one_message_and_the_checkpoint_stays_whole(
    tmp_path, rank, capsys, monkeypatch
):
    run = torchrun(tmp_path, rank)
    _, err = run.communicate(timeout=300)
    assert run.returncode != 0
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "one of the 2 processes" in said[0] and "--resume" in said[0], err
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == {"last", "best"}
    assert "going on after step 5 of 10" in go_on_alone(tmp_path, capsys, monkeypatch)


def test_ctrl_c_stops_all_processes_at_one_step_and_says_so_once(tmp_path, capsys, monkeypatch):
    file = tmp_path / "reached"
    run = torchrun(tmp_path, file=file)
    while not file.exists() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)  # as a terminal does: torchrun tells its processes
    _, err = run.communicate(timeout=300)
    (said,) = [line for line in err.splitlines() if line.startswith("stopped")]
    assert f"{tmp_path / 'out'}/last" in said and "--resume" in said
    out = go_on_alone(tmp_path, capsys, monkeypatch)
    assert any(f"going on after step {step} of 10" in out for step in (8, 9, 10))

"""What two gloo processes do in the tests of `scaling/distributed.py`.

`everything` runs in both and returns what each saw.
"""

import os
import signal
import socket
from dataclasses import replace

import torch
from helpers import random_embedding, tiny_config, token_set, tokenizer

from tgdt_mini.embedding import Embedding
from tgdt_mini.losses import cmc_loss
from tgdt_mini.model import TGDT
from tgdt_mini.runs.fit import interrupt_later
from tgdt_mini.scaling import distributed
from tgdt_mini.scenes.tokens import with_hard_captions
from tgdt_mini.scenes.words import lexicon
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

STEPS = {  # settings of a training step, and the epoch that it is taken from
    "joint, hardest": (dict(contrastive="hardest"), 0),
    "joint, all": (dict(contrastive="info_nce"), 0),
    "another optimizer": (dict(contrastive="info_nce", optimizer="muon", use_mixed=True), 0),
    "staged, local": (dict(schedule="staged", contrastive="mean"), 0),
    "staged, global": (dict(schedule="staged", contrastive="hardest"), 3),
    "an odd batch": (dict(contrastive="hardest", batch=7), 0),
    "hard captions": (dict(contrastive="info_nce", hard_captions=0.4), 0),
    "fewer hard captions than processes": (dict(contrastive="info_nce", hard_captions=0.13), 0),
    "chunks": (dict(contrastive="hardest", chunk=3), 0),
    "chunks of hard captions": (dict(contrastive="hardest", chunk=3, hard_captions=0.4), 0),
}


def start(work, *arguments):
    """[what work(*arguments) returned in process 0, in process 1], joined by gloo, or an error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forks = "forkserver" in torch.multiprocessing.get_all_start_methods()
    context = torch.multiprocessing.get_context("forkserver" if forks else "spawn")
    context.set_forkserver_preload(["datasets", "torch._dynamo", "tgdt_mini.training"])  # once
    given, answers = data(), []
    for rank in range(2):
        answer, place = context.Pipe(duplex=False)
        told = (rank, port, place, work, arguments, given)
        context.Process(target=_run, args=told, daemon=True).start()
        place.close()  # here, so that either side notices when the other has died
        answers.append(answer)
    found = []
    for rank, answer in enumerate(answers):
        assert answer.poll(300), "the processes wait for each other in different places"
        try:
            found.append(answer.recv())
        except EOFError:
            raise AssertionError(f"process {rank} died: is the order the same in both?") from None
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


def _run(rank, port, place, work, arguments, drawn):
    DRAWN.append(drawn)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    found = None
    try:
        with distributed.joined("cpu"):
            found = work(*arguments)
    except BaseException as error:
        found = error
    place.send(found)


DRAWN = []  # in a process that was started here: what `data` returned in the one that started it


def data():
    """Training set, validation set, tokenizer, and the model's configuration."""
    if DRAWN:
        return DRAWN[0]
    train = with_hard_captions(token_set("train", 24), tokenizer(), lexicon())
    return train, token_set("validation", 12), tokenizer(), tiny_config()


def trainer_of(out, seed=0, dropout=0.0, **settings):
    train, validation, words, sizes = data()
    settings = {"epochs": 4, "batch": 8, "clip": 1e9} | settings
    torch.manual_seed(seed)
    model = TGDT(replace(sizes, dropout=dropout))
    config = TrainingConfig(**settings)
    engine = distributed.Processes(config.chunk)
    return Trainer(model, train, validation, config, out, "cpu", words, False, engine=engine)


def step(out, name):
    """(losses, {parameter: gradient or None}) of one step."""
    settings, epoch = STEPS[name]
    trainer = trainer_of(out, **settings)
    trainer.step = epoch * trainer.steps_an_epoch
    trainer._step()
    gradients = {name: part.grad for name, part in trainer.model.named_parameters()}
    return trainer.sums.tolist(), gradients


def every_step(out):
    """What `step` returns for each of STEPS, as arrays: tensors end with their process."""

    def arrays(losses, gradients):
        parts = gradients.items()
        return losses, {key: None if part is None else part.numpy() for key, part in parts}

    return {name: arrays(*step(out, name)) for name in STEPS}


def pairs():
    """Twelve ragged image and caption embeddings in float64; some pairs show the same image."""
    images = random_embedding(1, 12, [3, 1, 4, 2, 5, 3, 2, 2, 6, 1, 3, 4])
    captions = random_embedding(2, 12, [2, 7, 3, 3, 1, 4, 5, 2, 2, 6, 8, 1])
    return images, captions, torch.tensor([0, 1, 2, 3, 0, 5, 6, 1, 8, 9, 2, 11])


def part_of(embedding, rows):
    """Rows of an embedding, without the padding that they do not need, as leaves."""
    longest = int(embedding.mask[rows].sum(1).max())
    return Embedding(
        embedding.global_token[rows].clone().requires_grad_(),
        embedding.local_tokens[rows, :longest].clone().requires_grad_(),
        embedding.mask[rows, :longest],
    )


def gathered():
    """Shares of 5 and 7 pairs: what each process gathered, its loss, its leaves' gradients."""
    images, captions, ids = pairs()
    mine = slice(0, 5) if distributed.rank() == 0 else slice(5, 12)
    leaves = [part_of(images, mine), part_of(captions, mine)]
    all_images, all_captions = distributed.gather(*leaves)
    total = cmc_loss(all_images, all_captions, ids).total
    total.backward()
    both = [(leaf.global_token, leaf.local_tokens) for leaf in leaves]
    return {
        "images": [part.tolist() for part in vars(all_images).values()],
        "total": total.item(),
        "gradients": [[part.grad.tolist() for part in parts] for parts in both],
    }


def common_trick():
    """Gradients of a weight, averaged: by our gather, by copies with one's own rows put back."""
    images, captions, _ = pairs()
    mine, found = distributed.share(12), []
    for ours in (True, False):
        weight = torch.eye(8, dtype=torch.float64, requires_grad=True)
        own = [part[mine] @ weight for part in (images.global_token, images.local_tokens)]
        if ours:
            whole = distributed.gather(Embedding(*own, images.mask[mine]))[0]
        else:
            copies = distributed.all_gather([part.tolist() for part in own])
            parts = [[torch.tensor(part, dtype=torch.float64) for part in copy] for copy in copies]
            parts[distributed.rank()] = own
            whole = Embedding(*(torch.cat(same) for same in zip(*parts)), images.mask)
        cmc_loss(whole, captions).total.backward()
        distributed.average_gradients([weight])
        found.append(weight.grad.tolist())
    return found


def a_run(out, max_steps=None, resume=False, **settings):
    """What a run leaves: history, image rows of each batch, weights, next random numbers."""
    # other weights: the first process's count
    trainer = trainer_of(out, seed=distributed.rank(), **settings)
    if resume:
        trainer.resume()
    seen, loss = [], trainer.loss

    def spy(images, captions, rows, epoch):
        seen.append(rows.tolist())
        return loss(images, captions, rows, epoch)

    trainer.loss = spy
    history = trainer.run(max_steps)
    weights = {name: part.numpy() for name, part in trainer.model.state_dict().items()}
    return {"history": history, "rows": seen, "weights": weights, "random": torch.rand(3).tolist()}


def stopped(out):
    """Where each process stopped when the second one alone was told to, in the fifth step."""
    trainer = trainer_of(out)
    one_step = trainer._step

    def stepping():
        if distributed.rank() == 1 and trainer.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        one_step()

    trainer._step = stepping
    with interrupt_later() as interrupts:
        trainer.stop = lambda: bool(interrupts)
        trainer.run()
    return trainer.step if trainer.stopped else "was not stopped"


def everything(out):
    """All of the above: to start two processes takes longer than what they do."""
    return {
        "steps": every_step(out / "steps"),
        "gathered": gathered(),
        "trick": common_trick(),
        "whole": a_run(out / "whole"),
        "first half": a_run(out / "half", 4),
        "second half": a_run(out / "begun by one", 2, resume=True),
        "start": a_run(out / "start", 0),
        "dropout": a_run(out / "dropout", 5, dropout=0.2),
        "stopped": stopped(out / "stopped"),
    }

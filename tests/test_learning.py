"""Going on amid an epoch, averaged weights, and when a training stops."""

import os
import signal
from typing import Any, cast

import pytest
import torch
from torch.utils.data import DataLoader

from tnet.scripts.best import Best, cross_entropy_of, gentler, score_of
from tnet.scripts.config import Config
from tnet.scripts.epochs import Epochs
from tnet.scripts.learning import Ongoing, average
from tnet.scripts.stopping import Stop, Stopped


def batches(skip: int = 0) -> Any:
    loader: DataLoader[Any] = DataLoader(cast(Any, range(10)), batch_size=3, collate_fn=list)
    ongoing = Ongoing(loader)
    if skip:
        ongoing.load_state_dict({"batches": skip})
    return ongoing


def test_the_rest_of_an_epoch_follows_then_whole_ones() -> None:
    ongoing = batches(skip=2)
    assert len(ongoing) == 4
    assert list(ongoing) == [[6, 7, 8], [9]]
    assert list(ongoing) == list(batches())


def test_the_state_is_what_was_handed_out() -> None:
    ongoing = batches()
    handed = iter(ongoing)
    next(handed)
    next(handed)
    assert ongoing.state_dict() == {"batches": 2}
    assert list(handed) == list(batches(skip=2))
    assert ongoing.state_dict() == {"batches": 0}  # an epoch's end is the beginning of the next


def test_skipped_images_are_not_opened() -> None:
    opened = []

    class Images:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            opened.append(index)
            return index

    ongoing: Any = Ongoing(DataLoader(cast(Any, Images()), batch_size=3, collate_fn=list))
    ongoing.load_state_dict({"batches": 3})
    assert list(ongoing) == [[9]]
    assert opened == [9]


def test_the_average_forgets_where_it_began() -> None:
    mean, now = torch.zeros(2), torch.ones(2)
    torch.testing.assert_close(average(0.99, mean, now, 0), torch.full((2,), 0.9))
    torch.testing.assert_close(average(0.99, mean, now, 10**6), torch.full((2,), 0.01))
    assert int(average(0.99, torch.tensor(3), torch.tensor(7), 5)) == 7


def test_the_better_score_wins_and_the_loss_breaks_ties() -> None:
    best = Best(1, score=0.8, loss=0.5)
    assert best.beaten(0.9, 2.0)
    assert not best.beaten(0.7, 0.1)
    assert best.beaten(0.8, 0.4)
    assert not best.beaten(0.8, 0.5)


def test_a_tie_is_told_with_what_broke_it() -> None:
    best = Best(3, score=0.8, loss=0.5)
    assert best.compared(0.9, 2.0) == " (best)"
    assert best.compared(0.7, 0.1) == ""
    assert best.compared(0.8, 0.4) == " (best: a tie with epoch 3, cross-entropy 0.4 below 0.5)"
    assert best.compared(0.8, 0.6) == " (a tie with epoch 3, cross-entropy 0.6 not below 0.5)"
    assert Best().compared(0.0, 9.0) == " (best)"
    # Where the loss alone decides there are no ties to break.
    assert Best(3, score=0.0, loss=0.5).compared(None, 0.4) == " (best)"


def test_what_says_which_epoch_is_best() -> None:
    values = {"val_balanced_accuracy": 0.7, "val_auroc": 0.9, "val_loss": 1.0}
    assert score_of(Config(), values, ranked=False) == 0.7
    assert score_of(Config(), values, ranked=True) == 0.9
    assert score_of(Config().changed({"monitor": "balanced_accuracy"}), values, ranked=True) == 0.7
    assert score_of(Config(), values | {"val_auroc": float("nan")}, ranked=True) is None
    assert score_of(Config().changed({"monitor": "loss"}), values, ranked=False) is None
    values |= {"val_main_ce": 0.25, "val_glimpse_ce": 0.5}
    assert cross_entropy_of(values) == 0.75


def test_gentler_rates_are_no_absurd_ones() -> None:
    assert gentler(Config().changed({"lr": 1e12})) == "--set lr=0.0005"
    assert gentler(Config().changed({"head_lr": 1e30})) == "--set head_lr=0.001"
    assert gentler(Config()) == "--set lr=0.0001 --set head_lr=0.0002"


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (3, "epoch 2/3, batch 4/5, loss 1.000, about 60 s left"),
        # Stopped after an epoch, whose last batch is still remembered.
        (5, "epoch 2/3, batch 1/5, loss 1.000, about 90 s left"),
    ],
)
def test_a_training_that_goes_on_counts_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch: int, said: str
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    epochs = Epochs(3, 5)
    epochs.begin(1, batch)
    now[0] = 10.0  # seconds that a batch takes
    epochs.step(1.0)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_request_and_handlers_come_back(number: int, code: int) -> None:
    stop, before = Stop(), signal.getsignal(number)
    with stop.listening():
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as caught:
            stop.check()
    assert caught.value.code == code
    assert signal.getsignal(number) is before

"""Going on amid an epoch, averaged weights, and when a training stops."""

import os
import signal
from typing import Any, cast

import pytest
import torch
from torch.utils.data import DataLoader

from tnet.scripts.keeping import Best
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

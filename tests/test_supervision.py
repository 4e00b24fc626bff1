"""Teaching with boxes, and group norms."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes import fake_model, quiet_trainer
from torch import Tensor

from tnet.adapters.array import open_array
from tnet.backbones.generic import TimmBackbone
from tnet.datasets.loading import batches
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.objective import Evidence, Rule, loss
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.supervision import found_boxes, glimpse_labels, location_loss
from tnet.task import Sample, Settings, Training
from tnet.trace import Trace
from tnet.traversal import traverse

PLAN = Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 2), Step(2, 2, 0.5, 1)))


def walked(plan: Plan = PLAN, images: int = 2) -> Trace:
    pictures = [
        open_array(np.random.default_rng(i).integers(0, 255, (64, 64, 1), dtype=np.uint8))
        for i in range(images)
    ]
    return traverse(fake_model(plan), pictures, plan)


def test_a_glimpse_is_labelled_by_what_it_shows() -> None:
    trace = walked()
    box = Region(3, 3, 2, 2)
    labels = glimpse_labels(trace, [(box,), ()], torch.tensor([2, 1]), absent=0)
    for visit, label in zip(trace.visits, labels.tolist(), strict=True):
        shows = visit.image == 0 and visit.region.contains(Region(4, 4, 1e-9, 1e-9))
        assert label == (2 if shows else 0)
    assert labels[0] == 2


def test_location_loss_is_the_cross_entropy_to_the_cells_with_boxes() -> None:
    trace = walked(dataclasses.replace(PLAN, steps=PLAN.steps[:1]), images=1)
    boxes = [(Region(1, 1, 2, 2), Region(5, 5, 2, 2), Region(40, 8, 2, 2))]
    log_p = trace.choices[0].logits_PN[0].log_softmax(0)
    wanted = -(2 * log_p[0] + log_p[1]) / 3
    torch.testing.assert_close(location_loss(trace, boxes), wanted)
    assert location_loss(trace, [()]) == 0


ONE_STEP = dataclasses.replace(PLAN, steps=(Step(4, 4, 0.25, 2),))


def taught(box: Region, plan: Plan = ONE_STEP) -> set[int]:
    """The cells that a box teaches: those whose logits its loss pulls up."""
    trace = walked(plan, images=1)
    choice = trace.choices[0]
    logits = torch.zeros_like(choice.logits_PN).requires_grad_()
    choice.logits_PN = logits
    location_loss(trace, [(box,)]).backward()
    assert logits.grad is not None
    return {cell for cell, slope in enumerate(logits.grad[0].tolist()) if slope < 0}


def test_all_cells_of_a_large_box_are_taught() -> None:
    # Cells are 16 px. The box covers rows 1 and 2 wholly, half of column 0, a third of column 3.
    assert taught(Region(8, 16, 45, 32)) == {4, 5, 6, 8, 9, 10}
    assert taught(Region(9, 16, 44, 32)) == {5, 6, 9, 10}


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        (Region(14, 2, 4, 4), {0, 1}),  # half of it in either
        (Region(13, 2, 4, 4), {0}),
        (Region(14, 14, 4, 4), {5}),  # a quarter in each of four: its centre decides
        (Region(20, 20, 4, 4), {5}),
    ],
    ids=str,
)
def test_a_small_box_teaches_where_it_lies(box: Region, cells: set[int]) -> None:
    assert taught(box) == cells


def test_cells_that_overlap_may_show_the_same_box() -> None:
    plan = dataclasses.replace(PLAN, steps=(Step(3, 3, 0.5, 2),))
    assert taught(Region(18, 20, 4, 4), plan) == {0, 1, 3, 4}


def test_a_glimpse_within_a_large_box_has_the_image_s_label() -> None:
    trace = walked(ONE_STEP, images=1)
    labels = glimpse_labels(trace, [(Region(0, 0, 64, 64),)], torch.tensor([2]), absent=0)
    assert labels.tolist() == [2, 2, 2]


def test_with_several_labels_a_glimpse_has_all_or_none() -> None:
    trace = walked(images=2)
    label = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    boxes = [(Region(3, 3, 2, 2),), ()]
    shows = glimpse_labels(trace, boxes, torch.tensor([1, 1]), absent=0)
    for absent, nothing in ((0, 0.0), (-100, -100.0)):
        got = glimpse_labels(trace, boxes, label, absent)
        for row, image, shown in zip(got, trace.image_G, shows, strict=True):
            wanted = label[image] if shown else torch.full((3,), nothing)
            torch.testing.assert_close(row, wanted)


def test_boxes_that_were_found_are_counted_level_by_level() -> None:
    trace = walked()
    level_one = [v.region for v in trace.visits if v.level == 1 and v.image == 0]
    level_two = [v.region for v in trace.visits if v.level == 2 and v.image == 0]

    def dot(region: Region) -> Region:
        return Region(region.x + region.width / 2 - 1, region.y + region.height / 2 - 1, 2, 2)

    boxes = [tuple(map(dot, level_two)), (Region(200, 200, 2, 2),)]
    assert found_boxes(trace, boxes).tolist() == [len(level_two), len(level_two)]
    beside = [dot(r) for r in level_one if not any(t.contains(dot(r)) for t in level_two)]
    assert found_boxes(trace, [beside, ()]).tolist()[0] == len(beside)
    assert found_boxes(trace, [(), ()]).tolist() == [0, 0]
    assert found_boxes(walked(Plan(view=(16, 16))), boxes).tolist() == []


def test_location_loss_moves_the_location_module_towards_the_box() -> None:
    torch.manual_seed(1)
    model = build("default", classes=["a", "b"], backbone="test_resnet", stride=8, norm="group")
    model.plan = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 1),))
    pictures = [open_array(np.full((64, 64, 3), 90, dtype=np.uint8))]
    adam = torch.optim.Adam(model.location.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        trace = traverse(model, pictures)
        value = location_loss(trace, [(Region(40, 40, 4, 4),)])
        losses.append(value.item())
        adam.zero_grad()
        value.backward()
        adam.step()
    assert losses[-1] < 0.5 * losses[0]


def test_glimpses_without_a_label_have_no_terms() -> None:
    logits: Tensor = torch.randn(3, 2)
    evidence = Evidence(
        torch.randn(1, 2),
        logits,
        torch.tensor([0.0, -1.0, -2.0]),
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([0, 1, 1]),
        label_G=torch.tensor([-100, 1, -100]),
    )
    rule = Rule(reinforce=0.0, main_ce=0.0)
    got = loss(evidence, torch.tensor([0]), torch.tensor(0.5), rule)
    wanted = torch.nn.functional.cross_entropy(logits[1:2], torch.tensor([1]))
    torch.testing.assert_close(got.total, wanted)


def test_a_fit_with_boxes_learns_from_them_alone() -> None:
    torch.manual_seed(0)
    model = build("default", classes=["none", "dot"], backbone="test_resnet", norm="group")
    model.plan = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 1),))
    pixels = np.full((64, 64, 3), 200, dtype=np.uint8)
    pixels[40:48, 40:48] = 30
    sample = Sample(open_array(pixels), 1, 0, (Region(40, 40, 8, 8),))
    settings = Settings(Rule(reinforce=0.0), supervise=1.0, absent=0, lr=3e-3, head_lr=3e-3)
    trainer = quiet_trainer(12)
    images = batches([sample], 1)
    trainer.fit(Training(model, settings), images, images)
    found = traverse(model.eval(), [sample.pyramid])
    assert found.visits[1].cell == 3


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "test_byobnet"])
def test_group_norms_take_the_place_of_batch_norms(name: str) -> None:
    backbone = TimmBackbone(name, stride=16, norm="group")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())
    views = torch.randn(3, 3, 64, 64)
    backbone.train()
    together = backbone(views)[1]
    alone = backbone(views[:1])[1]
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="norm must be"):
        TimmBackbone(name, norm="layer")  # type: ignore[arg-type]

"""The learning rules by name: what they stand for, and what goes before them."""

from typing import Any

import pytest

from tnet.aggregate import named_aggregate
from tnet.annealing import Anneal
from tnet.plan import Plan, Step
from tnet.scripts.config import Config
from tnet.scripts.rules import Learning, learning, parts_for

PLAN = Plan(view=(32, 32), steps=(Step(8, 8, 0.2, 6), Step(2, 2, 0.5, 1)))


def rule(aggregate: str = "attention", plan: Plan = PLAN, **values: Any) -> Learning:
    return learning(Config().changed(values), named_aggregate(aggregate, 8), plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("aggregate", ["attention", "maxout", "weighting"])
def test_what_weighs_glimpses_is_distilled(aggregate: str) -> None:
    made = rule(aggregate)
    assert made.name == "distilled"
    assert (made.distill, made.reinforce) == (1.0, 0.0)
    assert made.anneal == Anneal((24,), 0.7)
    assert made.said().startswith("distilled (main_ce 0.5, distill 1, entropy 0.001, 24 glimpses")


def test_a_frozen_backbone_explores_first_and_is_weighed_by_its_strongest_evidence() -> None:
    made = rule("maxout", freeze="backbone")
    assert (made.main_ce, made.distill, made.reinforce) == (1.0, 1.0, 0.0)
    assert made.anneal is not None
    assert (made.anneal.share, round(made.anneal.explore, 2)) == (0.95, 0.8)
    assert rule("maxout", freeze="backbone", explore=0).anneal == Anneal((24,), 0.95)
    shorter = rule("maxout", freeze="backbone", anneal_share=0.5).anneal
    assert shorter is not None
    assert (shorter.share, shorter.explore) == (0.5, 0.42)
    parts = {"aggregate": "maxout", "features": "standard", "position": "none"}
    frozen = Config().changed({"freeze": "backbone"})
    assert parts_for(frozen, "default") == {**parts, "location": "joint"}
    assert parts_for(frozen.changed({"rule": "released"}), "default") == {}


@pytest.mark.parametrize("aggregate", ["mean", "aff", "iaff"])
def test_what_does_not_keeps_the_released_rule(aggregate: str) -> None:
    made = rule(aggregate)
    assert made == Learning("released", 0.3, 0.1, 0.0, 0.0, None)
    assert made.said() == "released (main_ce 0.3, reinforce 0.1)"


def test_keys_go_before_the_rule() -> None:
    made = rule(reinforce=0.2, distill=0, main_ce=1, entropy=0.01, anneal="9,3", anneal_share=0.5)
    assert made == Learning("distilled", 1.0, 0.2, 0.0, 0.01, Anneal((9, 3), 0.5))
    assert rule(explore=0.4).anneal == Anneal((24,), 0.7, 0.4)
    assert "24 glimpses drawn at random for 40% and falling over 70%" in rule(explore=0.4).said()
    assert rule(rule="released").anneal is None
    assert rule(anneal=0).anneal is None
    assert rule("mean", rule="distilled").distill == 1.0


def test_a_walk_begins_with_no_more_glimpses_than_there_are_cells() -> None:
    few = Plan(view=(32, 32), steps=(Step(3, 3, 0.4, 5),))
    assert rule(plan=few).anneal == Anneal((9,), 0.7)
    assert rule(plan=Plan(view=(32, 32))).anneal is None


def test_of_all_tiles_only_the_bag_has_the_label() -> None:
    assert rule(model="tiles").main_ce == 1.0
    assert rule(model="tiles", main_ce=0.2).main_ce == 0.2


def test_the_rule_chooses_parts_of_the_default_recipe_alone() -> None:
    wanted = {"aggregate": "attention", "location": "joint"}
    assert parts_for(Config(), "default") == wanted
    assert parts_for(Config(model="random"), "default") == wanted
    for config in (Config(model="thumbnail"), Config(model="tiles"), Config(rule="released")):
        assert parts_for(config, "default") == {}
    assert parts_for(Config(), "official_fmow") == {}

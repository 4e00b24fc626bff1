"""What a training can be told: every key, its default, its bounds, and one line about it."""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "truth", "wholes", "named"]


@dataclass(frozen=True, slots=True)
class Key:
    """What a key takes.

    Attributes:
        kind: of value: "text", a "whole" number, a "number", a "truth", a list of "wholes", or
            "named" values (a mapping).
        about: one line.
        low, high: the least and the largest number.
        choices: the only texts.
        optional: it may be nothing, which leaves the choice to the program.
        free: it may differ when a training goes on.
    """

    kind: Kind
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    free: bool = False


def _key(default: Any, kind: Kind, about: str, **more: Any) -> Any:
    """Return a field of the configuration; a default of None makes it optional."""
    key = Key(kind, about, **{"optional": default is None} | more)
    return field(default=default, metadata={"key": key})


def _share(default: Any, about: str) -> Any:
    return _key(default, "number", about, low=0, high=1)


def _weight(default: Any, about: str) -> Any:
    return _key(default, "number", about, low=0)


def _count(default: Any, about: str, low: int = 1, **more: Any) -> Any:
    return _key(default, "whole", about, low=low, **more)


def _text(default: Any, about: str, *choices: str, **more: Any) -> Any:
    return _key(default, "text", about, choices=choices, **more)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys, in the order in which they are shown; :class:`tnet.scripts.config.Config`."""

    model: str = _text(
        "tnet",
        "what is trained: the walk, a plain network on a thumbnail, a walk at random, or all tiles",
        "tnet",
        "thumbnail",
        "random",
        "tiles",
    )
    recipe: str | None = _text(None, "recipe of the model; 'default', or that of `start`")
    backbone: str | None = _text(None, "timm architecture; the recipe's own")
    pretrained: str | None = _text(None, "file of weights for the backbone")
    start: str | None = _text(None, "run or model whose weights to start from (--from)")
    stride: int | None = _count(None, "pixels of a view per pixel of the location module's map")
    aggregate: str | None = _text(
        None,
        "glimpses become one feature by: mean, weighting, attention, maxout, aff, iaff; the rule's",
    )
    location: str | None = _text(
        None, "does the location module teach the backbone: detached, joint; the rule's"
    )
    features: str | None = _text(
        None, "features before anything is made of them: raw, or of one scale: standard"
    )
    scout: str | None = _text(None, "timm architecture of its own for the first look")
    scout_stride: int | None = _count(None, "pixels of the first look per pixel of the scout's map")
    norm: str = _text(
        "auto",
        "the backbone's batch norms: leave them, group norms instead",
        "auto",
        "batch",
        "group",
    )
    dropout: float | None = _share(None, "dropout before the classifier; the recipe's own")
    options: dict[str, Any] | None = _key(  # noqa: RUF009 - a field, as the others
        None, "named", "further options of the recipe: {name: value}"
    )

    glimpses: tuple[int, ...] | None = _key(
        None, "wholes", "glimpses of each view, level by level: 8,2,1", low=0
    )
    view: int | None = _count(None, "side of a view in pixels; the recipe's own, 224", high=4096)
    first_view: int | None = _count(
        None, "side of the first look in pixels; that of a view", high=4096
    )
    zoom: float = _key(8.0, "number", "most that one step enlarges", low=1.1, high=64)
    overlap: float = _key(
        0.33, "number", "share of a candidate that its neighbour shows too", low=0, high=0.9
    )
    finest: float = _key(
        1.0, "number", "image pixels per pixel of the finest view", low=0.01, high=1e6
    )
    finest_mpp: float | None = _key(
        None, "number", "the same in µm, for images that know their scale", low=1e-6
    )
    tiles: str = _text("native", "scale of the tiles of `model: tiles`: native, or µm per px")
    tiles_share: float = _key(
        1.0, "number", "share of these tiles that a step of training looks at", low=0.01, high=1
    )
    aspect: str | None = _text(
        None,
        "an image that is not as wide as a view: stretch it, or keep its shape",
        "stretch",
        "keep",
    )
    background: float | None = _key(
        0.02,
        "number",
        "least share of a candidate that is no background; none looks anywhere",
        low=0,
        high=1,
        optional=True,
    )
    snap: float = _key(
        0.0, "number", "how far regions may move to fit stored tiles", low=0, high=0.5
    )

    separator: str | None = _text(None, "between the labels of an image with several")
    mpp: float | None = _key(
        None, "number", "µm per px of all images, instead of the files'", low=1e-6
    )
    val: float = _key(
        0.1, "number", "share for validation where the table has no split", low=0.01, high=0.9
    )
    augment: str = _text(
        "auto",
        "how images are varied; auto is slide for slides, else light, and none for tiles",
        "auto",
        "none",
        "light",
        "slide",
        "scene",
        "strong",
    )
    vary: dict[str, Any] | None = _key(  # noqa: RUF009 - a field, as the others
        None, "named", "numbers of `augment` that differ: {shift: 0.1, flips: false}"
    )
    balanced: bool = _key(False, "truth", "draw images of rare classes as often as others")
    looks: str | None = _text(
        None,
        "file of what a frozen backbone saw, for several runs; the run's own `features`",
        free=True,
    )
    keep_open: int = _count(64, "images open at once", free=True)

    epochs: int = _count(30, "passes over the training images")
    batch: int = _count(8, "images at a time")
    accumulate: int = _count(1, "batches to a step of the optimizer")
    samples: int = _count(1, "walks of each image in a step")
    policy: str = _text(
        "categorical", "how cells are chosen while training", "categorical", "greedy", "uniform"
    )
    optimizer: str = _text("adamw", "adamw or sgd", "adamw", "sgd")
    lr: float = _weight(5e-4, "learning rate of the backbone")
    head_lr: float = _weight(1e-3, "learning rate of everything else")
    weight_decay: float = _weight(0.02, "of the optimizer")
    schedule: str = _text("cosine", "of the learning rates", "cosine", "step", "constant")
    warmup: float = _key(
        0.1, "number", "share of the training in which the learning rates rise", low=0, high=0.9
    )
    clip: float = _weight(1.0, "largest norm of the gradient; 0 cuts nothing")
    freeze: str = _text("auto", "what does not learn", "auto", "none", "backbone", "norms")
    ema: float = _key(
        0.99, "number", "decay of the averaged weights; 0 averages none", low=0, high=0.99999
    )
    monitor: str = _text(
        "auto",
        "what says which epoch is best; auto is auroc, or balanced_accuracy from three classes on",
        "auto",
        "loss",
        "accuracy",
        "balanced_accuracy",
        "auroc",
    )
    patience: int | None = _count(None, "epochs without progress before the training ends early")

    rule: str = _text(
        "auto",
        "the learning rule, whose numbers are those of the keys below that are not given",
        "auto",
        "distilled",
        "released",
    )
    main_ce: float | None = _share(
        None, "share of the whole walk's cross-entropy, against each glimpse's own; the rule's"
    )
    reinforce: float | None = _weight(None, "weight of REINFORCE; the rule's")
    main_reinforce: float = _share(
        0.3, "share of the whole walk's reward, against each glimpse's own"
    )
    cap: int | None = _count(None, "levels whose glimpses have terms of their own; all", low=0)
    reward: str = _text("hit", "what a walk earns", "hit", "probability")
    baseline: str = _text(
        "running", "what rewards are compared with", "running", "samples", "batch"
    )
    normalise: bool = _key(False, "truth", "divide advantages by their deviation")
    entropy: float | None = _weight(
        None, "weight of the bonus on the entropy of the choices; the rule's"
    )
    temperature: float = _key(
        1.0, "number", "of the choices when training begins; falls to 1", low=1, high=100
    )
    distill: float | None = _weight(
        None, "weight of teaching the location module the glimpses' weights; the rule's"
    )
    anneal: tuple[int, ...] | None = _key(
        None,
        "wholes",
        "glimpses to begin with, which fall to the plan's own; the rule's, and 0 is none more",
        low=0,
    )
    anneal_share: float | None = _key(
        None, "number", "share of the training after which they have; the rule's", low=0.01, high=1
    )
    explore: float | None = _key(
        None,
        "number",
        "share of the training, at its beginning, in which cells are drawn at random; the rule's",
        low=0,
        high=0.99,
    )
    contrastive: float = _weight(0.0, "weight of the contrastive term")
    margin: float = _key(0.4, "number", "cosine that it leaves alone", low=-1, high=1)
    label_smoothing: float = _key(0.0, "number", "of the cross-entropies", low=0, high=0.9)
    l2: float = _weight(0.0, "weight of the sum of squares of all weights")
    class_weights: str = _text("none", "how classes count", "none", "balanced")
    supervise: float = _weight(0.0, "weight of teaching the location module the boxes")
    absent: str | None = _text(None, "class of a glimpse that shows no box, with `supervise`")

    seed: int = _count(0, "of every draw", low=0, high=2**31 - 1)
    device: str = _text("auto", "where to train", "auto", "cpu", "cuda", free=True)
    precision: str = _text(
        "auto", "bf16 on a GPU, else 32", "auto", "32-true", "16-mixed", "bf16-mixed"
    )
    checkpoint_minutes: float = _key(
        10.0, "number", "time between checkpoints within an epoch", low=0, free=True
    )

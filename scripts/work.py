"""Image after image: open, walk, record. What goes wrong with one image is its failure alone."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tnet.errors import UsageError
from tnet.scripts.files import Files, OutputError
from tnet.scripts.output import Result, reason, result_of
from tnet.scripts.progress import Progress

if TYPE_CHECKING:
    from tnet.model import TNet
    from tnet.plan import Plan
    from tnet.pyramid import Pyramid
    from tnet.record import Walk
    from tnet.sampling import Policy
    from tnet.scripts.inputs import Source
    from tnet.scripts.prepare import Wishes


@dataclass(frozen=True)
class Work:
    """What is done with every image.

    Attributes:
        batch: how many images are walked over together.
        debug: whether the traceback of every failure is shown.
    """

    model: "TNet"
    plan: "Plan"
    wished: "Wishes"
    policy: "Policy | None"
    seed: int
    batch: int
    debug: bool

    def walk(self, pyramids: "list[Pyramid]") -> "list[Walk | Exception]":
        """Walk over images together; if that fails, one by one, so that only the culprit does.

        Raises:
            UsageError: if the plan or the policy makes no sense, for this image or any other.
        """
        from tnet.traversal import walk

        try:
            return list(walk(self.model, pyramids, self.plan, seed=self.seed, policy=self.policy))
        except UsageError:
            raise
        except Exception as error:
            if len(pyramids) == 1:
                return [error]
        return [self.walk([pyramid])[0] for pyramid in pyramids]


def classified(
    work: Work, paths: "list[Source]", files: Files | None, *, whole: bool
) -> "list[Result]":
    """Classify images, write down what came of each as soon as it is known, and return it.

    Args:
        work: what is done with them.
        paths: of the images.
        files: where the results go, if anywhere.
        whole: whether the results keep the probabilities of all classes and the notes, which for
            many images and classes take much memory.

    Raises:
        UsageError: if the plan or the policy makes no sense.
        OutputError: if a result cannot be written.
    """
    results: list[Result] = []
    with Progress(len(paths)) as progress:
        for start in range(0, len(paths), work.batch):
            together = paths[start : start + work.batch]
            progress.show(together)
            for result in _batch(work, together, files):
                if files is not None:
                    files.add(result)
                progress.advance(result)
                results.append(result if whole else replace(result, probabilities={}, notes=()))
    return results


def _batch(work: Work, paths: "list[Source]", files: Files | None) -> "Iterator[Result]":
    """Give the results of a few images that are walked together, in their order."""
    from tnet.adapters.remembering import Remembering
    from tnet.scripts.prepare import opened

    views = files is not None and files.extras.views
    pyramids: dict[Source, Pyramid] = {}
    outcomes: dict[Source, Walk | Exception] = {}
    with ExitStack() as stack:
        for path in paths:
            try:
                pyramid = opened(path, work.wished, work.model.expects)
            except Exception as error:
                outcomes[path] = error
            else:
                stack.callback(_close, pyramid)
                pyramids[path] = Remembering(pyramid) if views else pyramid
        outcomes.update(zip(pyramids, work.walk(list(pyramids.values())), strict=True))
        for path in paths:
            outcome = outcomes[path]
            if isinstance(outcome, Exception):
                yield _failed(work, path, outcome)
            else:
                yield _recorded(work, path, outcome, pyramids[path], files)


def _close(pyramid: "Pyramid") -> None:
    """Let go of a file; one that cannot be let go of has been read nevertheless."""
    with suppress(Exception):
        pyramid.close()


def _recorded(
    work: Work, path: "Source", walk: "Walk", pyramid: "Pyramid", files: Files | None
) -> Result:
    """Return the result of a walk, written down; of one that cannot be, a failure."""
    try:
        result = result_of(str(path), walk, pyramid.mpp)
        return result if files is None else files.write_walk(path, walk, pyramid, result)
    except OutputError:
        raise
    except Exception as error:
        return _failed(work, path, error, "cannot be recorded")


def _failed(work: Work, path: "Source", error: Exception, failed: str = "cannot be read") -> Result:
    if work.debug:
        traceback.print_exception(error)
    return Result(image=str(path), error=reason(str(path), error, failed))

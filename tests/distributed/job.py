"""What every process of a test's job runs: an influence over few tasks; the leading one writes what it found."""

import json
import sys
import warnings
from pathlib import Path

import torch

import tlxml_fast as tlx
import tlxml_fast.models
from tlxml_fast.distributed import World, joined

INVERSES = {
    "dense": (tlx.GaussNewton(), lambda: tlx.Dense(damping=0.05)),
    "hessian": (tlx.Hessian(), lambda: tlx.Dense(damping=0.05, negative="keep")),
    "woodbury": (tlx.Fisher(3), lambda: tlx.Woodbury(damping=0.05)),
    "cg": (
        tlx.GaussNewton(),
        lambda: tlx.CG(damping=0.05, tol=1e-12, preconditioner=tlx.Sketch(tlx.Fisher(2))),
    ),
    "nystrom": (tlx.GaussNewton(), lambda: tlx.Nystrom(rank=20, damping=0.05)),
    "compressed": (tlx.GaussNewton(), lambda: tlx.Dense(damping=0.05)),
}


def tasks(count: int, seed: int) -> tlx.TaskSet:
    """Tasks of two shapes, so that shards are ragged."""
    g = torch.Generator().manual_seed(seed)

    def one(i: int) -> tlx.Task:
        queries = 3 + i % 2
        x = torch.randn(4 + queries, 5, dtype=torch.float64, generator=g)
        y = torch.randint(0, 2, (queries,), generator=g)
        return tlx.Task(x[:4], torch.tensor([0, 1, 0, 1]), x[4:], y, name=f"{seed}-{i}")

    return tlx.TaskSet(one(i) for i in range(count))


def run(kind: str, count: int = 11, device: str = "cpu", store: Path | None = None) -> tlx.Scores:
    """Scores of 4 test tasks by so many training tasks."""
    curvature, inverse = INVERSES[kind]
    torch.manual_seed(0)
    learner = tlx.MAML(tlx.models.mlp(5, 4, 2, seed=0).double().to(device), inner_lr=0.1)
    compression = tlx.SJLT(16) if kind == "compressed" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tlx.InfluenceWarning)
        made = tlx.TaskInfluence(learner, curvature, inverse(), compression=compression, store=store)
        scores = made.fit(tasks(count, 0)).scores(tasks(4, 1))
        assert scores.values.shape == (4, count)
        streams_the_same(made, scores)
        if kind != "compressed":
            scores.info["meta"] = made.meta(count - 1).tolist()
    return scores


def streams_the_same(made: tlx.TaskInfluence, scores: tlx.Scores) -> None:
    """Tiles of every process's own columns, joined: the values, order and group sums of all."""
    streamed, near = made.stream_scores(tasks(4, 1)), {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(streamed.materialize().values, scores.values, **near)
    for k in {1, scores.values.shape[1]}:
        assert torch.equal(streamed.ranked(k).helpful.indices, scores.helpful(k).indices)
        assert torch.equal(streamed.ranked(k).harmful.indices, scores.harmful(k).indices)
    labels = [str(i % 2) for i in range(scores.values.shape[1])]
    torch.testing.assert_close(streamed.group(labels).values, scores.group(labels).values, **near)
    torch.testing.assert_close(streamed.extent().mean, scores.values.mean(1), **near)
    width = sum(tile.values.shape[1] for tile in streamed.tiles(2))
    assert sum(World.current().items([width])) == scores.values.shape[1]


def agree(kind: str, values: torch.Tensor, meta: list[float] | None, alone: tlx.Scores) -> None:
    """To rounding; what is compressed is kept in float32."""
    rtol = 1e-3 if kind == "compressed" else 1e-9
    torch.testing.assert_close(
        values, alone.values, rtol=rtol, atol=rtol * 1e-3, msg=lambda m: f"{kind}: {m}"
    )
    if meta is not None:
        torch.testing.assert_close(
            *(torch.tensor(m, dtype=torch.float64) for m in (meta, alone.info["meta"]))
        )


if __name__ == "__main__":
    kinds, out, count = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
    with joined() as world:
        found = {kind: run(kind, count) for kind in kinds}
        if world.leads:
            with open(out, "w") as file:
                json.dump({k: [s.values.tolist(), s.info.get("meta")] for k, s in found.items()}, file)

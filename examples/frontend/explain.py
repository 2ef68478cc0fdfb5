"""A front end of its own: explains tasks by whichever backend is asked for, and knows nothing of kernels.

python examples/frontend/explain.py [BACKEND]
"""

import sys

import tlxml_fast as tlx
from tlxml_fast import backend as backends


def explain(
    backend: backends.Backend, learner: tlx.MAML, train: tlx.TaskSet, test: tlx.TaskSet, k: int = 3
) -> None:
    """Print the k most helpful and harmful training tasks of every test task."""
    able = backend.capabilities()
    if learner.kind not in able.learners:
        raise SystemExit(f"{backend.name} explains {', '.join(able.learners)}, not {learner.kind}")
    values, certificate = backend.influence(learner, train, damping=1e-2).scores(test)
    print(f"{backend.name}: residuals up to {max(certificate.residuals):.1e}")
    for task, row in zip(test, values, strict=True):
        order = row.argsort().tolist()
        for kind, chosen in (("helped by", order[:k]), ("harmed by", order[::-1][:k])):
            print(f"  {task.label} {kind} " + ", ".join(f"{train[j].label} ({row[j]:+.3f})" for j in chosen))


def main() -> None:
    """A small MAML on scikit-learn's digits."""
    pool = tlx.data.digits("all")
    train = tlx.TaskSet(pool.sample(20, ways=3, shots=2, queries=4, seed=0))
    test = tlx.TaskSet(pool.sample(2, ways=3, shots=2, queries=4, seed=1))
    learner = tlx.MAML(tlx.models.mlp(64, 8, 3, seed=0), inner_lr=0.5)
    tlx.meta_train(learner, train, steps=60, batch_size=5, lr=1e-2, weight_decay=1e-3, progress=False)
    explain(backends.get(sys.argv[1] if len(sys.argv) > 1 else "compiled"), learner, train, test)


if __name__ == "__main__":
    main()

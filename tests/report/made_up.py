"""A made-up run: random tasks, scores in which tasks of a group help each other, and a run dictionary."""

from __future__ import annotations

import numpy as np
import torch

from tlxml_fast.scores import Scores, TaskAxis
from tlxml_fast.task import Task, TaskSet

DOT = (  # one pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNg"
    "AAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
GROUPS = ("Armenian", "Cyrillic", "Georgian", "Greek", "Latin")

RUN = {
    "data": {"source": "glyphs", "ways": 5, "shots": 5, "queries": 5, "train_tasks": 60, "seed": 0},
    "learner": {
        "name": "ProtoNet",
        "distance": "sqeuclidean",
        "module": "conv4(hidden=8)",
        "parameters": 1912,
    },
    "training": {
        "accuracy": 0.9312,
        "accuracy_interval": 0.0041,
        "steps": 2000,
        "losses": [2.5, 1.25, 0.75] * 10,
    },
    "influence": {
        "curvature": "GaussNewton",
        "inverse": "Dense(damping=0.001)",
        "damping": 1e-3,
        "delta": 0.0,
        "backend": {"ran": "reference", "why": "asked for by name"},
        "dtype": "float64",
        "norm": "batch",
        "grad_norm": 0.0123456,
        "median_confidence": 0.9471,
        "notes": ["joint forward: prototypes depend on the queries"],
    },
    "spectrum": {
        "eigenvalues": [10.0 ** (1 - i / 40) * (-1 if i % 17 == 16 else 1) for i in range(300)],
        "n_negative": 17,
        "condition_number": 2.98e7,
        "effective_rank": 41.7,
    },
    "seconds": {"training": 81.2, "curvature": 161.7, "scores": 4.4},
    "machine": {"threads": 2, "torch": "2.14.1", "pinned": None, "simd": ["avx2", "fma"]},
    "warnings": ["‖∇L(ω̂)‖ = 0.0123 is not small: the model may not have been trained to a stationary point"],
    "created": "a fine day",
    "command": "tlxml-fast demo --seed 0 --out runs/demo",
}


def random_tasks(count, prefix, seed, features=(1, 28, 28), ways=5, shots=5, queries=3, groups=GROUPS):
    """Tasks in which the examples of a class are noisy copies of one random pattern."""
    made = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        patterns = rng.random((ways, *features)) > 0.7

        def draw(per_class, rng=rng, patterns=patterns):
            x = patterns.repeat(per_class, 0) * rng.uniform(0.6, 1, (ways * per_class, *[1] * len(features)))
            return torch.tensor(x, dtype=torch.float32), torch.arange(ways).repeat_interleave(per_class)

        made.append(Task(*draw(shots), *draw(queries), name=f"{prefix} {i}", group=groups[i % len(groups)]))
    return TaskSet(made)


def made_up_scores(train, test, seed=0, target="loss"):
    """Noise in which training tasks lower the loss of test tasks of their own group a little."""
    own = np.array([[a == b for b in train.groups] for a in test.groups])
    noise = np.random.default_rng(seed).standard_t(4, size=own.shape)
    values = torch.tensor(0.02 * (noise - 1.2 * own) * (-1 if target == "margin" else 1))
    return Scores(
        values, TaskAxis.of(test), TaskAxis.of(train), torch.ones(len(train), dtype=torch.bool), target
    )

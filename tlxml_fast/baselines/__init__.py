"""What people would do without influence functions, as `Scores`: negative is helpful, as in I_perf.

Each is a function (learner, train_tasks, test_tasks, …) → Scores of test × train, so that whatever takes the scores of
`TaskInfluence` takes these. They rank; only `gradient_cosine` and `ascent` have anything to do with a change of loss.
"""

from .chance import random
from .cosine import gradient_cosine
from .magnitude import loss_magnitude
from .similarity import embedding_similarity
from .unlearning import ascent

__all__ = ["ascent", "embedding_similarity", "gradient_cosine", "loss_magnitude", "random"]

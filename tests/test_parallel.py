"""Tasks side by side give what one after another gives, in order, and leave torch's threads as they were."""

import threading

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast import models
from tlxml_fast.parallel import task_threads


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_that_many_threads(threads):
    meeting = threading.Barrier(threads)  # passes only if that many run at once

    def square(i: int) -> int:
        meeting.wait(timeout=30)
        assert torch.get_num_threads() == 1
        return i * i

    with task_threads() as each:
        assert list(each(square, range(6 * threads))) == [i * i for i in range(6 * threads)]
    assert torch.get_num_threads() == threads


def test_an_error_reaches_the_caller(threads):
    def fail(i: int) -> int:
        if i == 3:
            raise ValueError("task 3")
        return i

    with pytest.raises(ValueError, match="task 3"), task_threads() as each:
        list(each(fail, range(100)))
    assert torch.get_num_threads() == threads


def test_few_results_wait(threads):
    made = []
    with task_threads() as each:
        results = each(lambda i: made.append(i), range(1000))
        next(iter(results))
    assert len(made) <= 2 * threads


def test_training_and_influence_are_the_same_bits_for_any_number_of_threads():
    tasks = tlx.TaskSet(tlx.data.digits().sample(6, ways=3, shots=2, queries=2, seed=0))
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        learner = tlx.MAML(models.mlp(64, 5, 3, seed=0), 0.1, 2)
        tlx.meta_train(learner, tasks, steps=4, batch_size=3, progress=False)
        influence = tlx.TaskInfluence(learner, inverse=tlx.Dense(damping=0.1)).fit(tasks)
        results.append([*learner.parameters().values(), torch.cat([*influence._gradients.blocks])])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))

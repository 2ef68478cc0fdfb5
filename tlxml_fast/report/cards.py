"""The cards: each test task beside its most helpful and most harmful training tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..scores import Scores
from ..task import TaskSet
from .images import Detail, TaskPictures, task_pictures
from .text import percent, plural

BUDGET = 8_000_000  # characters in data URIs, which leaves the file under about ten million

# (test tasks, training tasks), from the most generous down; the first that fits the budget is used
LEVELS = (
    (Detail(48, 5, 5, shown=56), Detail(32, 5, 2)),
    (Detail(40, 5, 3, shown=56), Detail(28, 3, 1)),
    (Detail(32, 3, 2, shown=56), Detail(20, 2, 1)),
)


class Neighbour(NamedTuple):
    """One training task in a card; `width` is the length of its bar in percent."""

    train: int
    name: str
    group: str
    score: float
    width: float


@dataclass(frozen=True)
class Card:
    """A test task with its extremes, each side the strongest first."""

    test: int
    name: str
    group: str
    helpful: list[Neighbour]
    harmful: list[Neighbour]
    own_group: str  # how much of its own group is among the helpful; empty where there is none to find


class Gallery(NamedTuple):
    """The cards that fit, and every distinct picture they show, once."""

    cards: list[Card]
    test: dict[int, TaskPictures]
    train: dict[int, TaskPictures]
    test_detail: Detail
    train_detail: Detail


def make_cards(scores: Scores, k: int, positions: Sequence[int]) -> list[Card]:
    """A card for each test task at the positions given, in their order."""
    k = min(k, len(scores.train))
    sides = [scores.helpful(k), scores.harmful(k)]
    strongest = torch.stack([side.values.abs().amax(-1) for side in sides]).amax(0).tolist()
    cards = []
    for i in positions:
        neighbours = [
            [
                Neighbour(
                    j,
                    scores.train.names[j],
                    scores.train.groups[j],
                    value,
                    100 * abs(value) / (strongest[i] or 1),
                )
                for j, value in zip(side.indices[i].tolist(), side.values[i].tolist(), strict=True)
            ]
            for side in sides
        ]
        group = scores.test.groups[i]
        own = sum(neighbour.group == group for neighbour in neighbours[0])
        base = scores.train.groups.count(group) / len(scores.train)
        share = f"{own} of the {plural(k, 'most helpful task')} {'is' if own == 1 else 'are'} of its group"
        note = f"{share} ({percent(base)} of all training tasks are)" if group and base else ""
        cards.append(Card(i, scores.test.names[i], group, *neighbours, note))
    return cards


def make_gallery(
    cards: list[Card], train_tasks: TaskSet, test_tasks: TaskSet, budget: int = BUDGET
) -> Gallery:
    """Pictures for all cards, at the most generous level that fits; if none does, the last cards go."""
    for test_detail, train_detail in LEVELS:
        gallery = Gallery([], {}, {}, test_detail, train_detail)
        left = budget
        for card in cards:
            test = task_pictures(test_tasks[card.test], test_detail)
            train = {
                j: task_pictures(train_tasks[j], train_detail)
                for j in {neighbour.train for neighbour in card.helpful + card.harmful} - gallery.train.keys()
            }
            left -= test.size + sum(pictures.size for pictures in train.values())
            if left < 0:
                break
            gallery.cards.append(card)
            gallery.test[card.test] = test
            gallery.train.update(train)
        if left >= 0:
            break
    return gallery

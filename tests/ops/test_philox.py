import pytest
import torch

from tlxml_fast.ops.philox import philox, signs

# Random123's known answers for philox 4x32-10: counter, key, words.
KNOWN = [
    ([0x00000000] * 4, [0x00000000] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    low, high, j, stream = counter
    i = (
        torch.tensor(low | (high ^ 0x80000000) << 32) - 2**63
        if high >> 31
        else torch.tensor(low | high << 32)
    )
    assert philox(key[0] | key[1] << 32, stream, i, j).tolist() == words


def test_places_broadcast_and_do_not_depend_on_their_neighbours():
    i, j = torch.arange(2**32 - 3, 2**32 + 2), torch.arange(7)[:, None]
    together = philox(5, 1, i, j)
    assert together.shape == (7, 5, 4)
    assert torch.equal(philox(5, 1, i[3], j[6, 0]), together[6, 3])
    assert len(together.flatten().unique()) == together.numel()


def test_signs_are_the_bits_of_the_words():
    want = philox(9, 4, torch.tensor([1, 2]), 3)
    got = signs(9, 4, 128, 200, torch.tensor([3]), torch.float64)[0]
    for column in (0, 31, 32, 127, 128, 199):
        word = int(want[column // 128, column % 128 // 32])
        assert got[column] == (-1 if word >> column % 32 & 1 else 1)


def test_signs_are_fair_and_independent():
    x = signs(1, 4, 0, 4096, torch.arange(64), torch.float64)
    assert x.mean().abs() < 5 / x.numel() ** 0.5
    correlation = (x @ x.mT / 4096 - torch.eye(64, dtype=torch.float64)).abs().max()
    assert correlation < 6 / 4096**0.5

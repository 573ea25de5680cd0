"""Masks, positions and rows of sequences that grew by prompts, by hand."""

from __future__ import annotations

import pytest
import torch

from mmpt_bench.engine.prompts.masks import PromptRows, extend_mask, extend_positions

TWO = PromptRows(front=2)


def test_restarting_positions_without_a_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="restart"):
        extend_positions(torch.tensor([[0, 1, 0, 1]]), None, TWO, 0, 4)


def test_positions_stand_behind_the_prompts() -> None:
    mask = torch.tensor([[0, 1, 1]])
    assert extend_positions(None, mask, TWO, 0, 3).tolist() == [[0, 1, 2, 2, 3]]
    assert extend_positions(torch.tensor([[1, 0, 1]]), mask, TWO, 0, 3).tolist() == [[0, 1, 3, 2, 3]]
    assert extend_positions(torch.tensor([[5]]), None, TWO, 7, 1).tolist() == [[7]]


def test_rope_positions_of_three_axes_move_alike() -> None:
    positions = torch.arange(3).expand(3, 1, 3)
    assert extend_positions(positions, torch.ones(1, 3), TWO, 0, 3).shape == (3, 1, 5)


def test_mask_while_decoding_may_or_may_not_count_the_prompts() -> None:
    assert extend_mask(torch.ones(1, 4), TWO, 5, 1).shape == (1, 6)
    assert extend_mask(torch.ones(1, 6), TWO, 5, 1).shape == (1, 6)
    with pytest.raises(ValueError, match="does not cover"):
        extend_mask(torch.ones(1, 5), TWO, 5, 1)


def test_prompt_rows_of_a_mask_are_causal_and_visible_to_all() -> None:
    grown = extend_mask({"full": torch.zeros(1, 1, 2, 2, dtype=torch.bool)}, TWO, 0, 2)["full"][0, 0].int().tolist()
    assert grown == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_rows_before_the_image_are_counted_and_visible_where_they_stand() -> None:
    # Two sequences, the first with a token of padding; one textual prompt, and two rows before the image at 2 and 1.
    rows, mask = PromptRows(1, 2, (2, 1)), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    wanted = [[1, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]
    assert extend_mask(mask, rows, 0, 4).tolist() == wanted
    assert extend_positions(None, mask, rows, 0, 4).tolist() == [[0, 1, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]
    # While decoding the places are not known: the same columns, and the newest token after all others.
    longer, later = torch.cat([mask, mask[:, -1:]], dim=1), PromptRows(1, 2)
    assert extend_mask(longer, later, 7, 1).tolist() == [[*row, 1] for row in wanted]
    assert extend_positions(None, longer, later, 7, 1).tolist() == [[6], [7]]
    pairs = longer.bool()[:, None, None, :]
    assert extend_mask(pairs, later, 7, 1)[:, 0, 0].int().tolist() == [[*row, 1] for row in wanted]
    tokens = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])[..., None]
    grown = rows.put_in(tokens, [torch.full((2, 1, 1), 8)], torch.full((2, 2, 1), 9))
    assert grown[..., 0].tolist() == [[8, 0, 1, 9, 9, 2, 3], [8, 4, 9, 9, 5, 6, 7]]
    assert torch.equal(rows.cut_out(grown), tokens)


@pytest.mark.parametrize("both_ways", [False, True])
def test_rows_before_the_image_see_each_other_as_image_tokens_do(both_ways: bool) -> None:
    # A word, two image tokens, a word; the image tokens causal, or seeing each other both ways.
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[1, 2] = both_ways
    grown = extend_mask(mask[None, None], PromptRows(0, 1, (1,)), 0, 4)[0, 0].int().tolist()
    assert grown == [
        [1, 0, 0, 0, 0],
        [1, 1, int(both_ways), int(both_ways), 0],
        [1, 1, 1, int(both_ways), 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]

"""The decoder of tokens: what it may look at, what it counts, and how it nests."""

import pytest
import torch

from motivation import Pair
from motivation.models import GPT, create_model, create_pair
from motivation.models.gpt import ASK, PADDING, answer_layout, rotate
from motivation.pairing.tracing.example import example_input, takes_tokens
from motivation.tasks import Chains, PointerChase, TwoSourceChains
from motivation.training.ledger import forward_flops


def tokens(*shape, known=7):
    return torch.randint(known, shape, generator=torch.Generator().manual_seed(0))


def test_no_token_sees_a_later_one():
    """Whatever follows, the logits up to a token stay; and those from it on change."""
    network, given = GPT(2, 32, 7).eval(), tokens(3, 9)
    other = given.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 7
    with torch.no_grad():
        ours, theirs = network(given), network(other)
    assert ours.shape == (3, 7, 9)
    assert torch.allclose(ours[..., :5], theirs[..., :5], atol=1e-6)
    assert (ours[..., 5:] - theirs[..., 5:]).abs().amax((0, 1)).min() > 1e-4


def test_rotary_positions_are_relative():
    """Products of queries and keys depend on their distance, and the norms on nothing."""
    query, key = (torch.randn(1, 1, 1, 16, dtype=torch.double).expand(1, 1, 8, 16) for _ in range(2))
    products = (rotate(query) @ rotate(key).mT)[0, 0]
    for distance in range(-7, 8):
        diagonal = products.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1], atol=1e-5)
    assert torch.allclose(rotate(query).norm(dim=-1), query.norm(dim=-1), atol=1e-5)
    assert (products.diagonal(1)[0] - products.diagonal(2)[0]).abs() > 1e-3


def test_the_layout_of_answers_leaves_a_gap_and_hides_padding():
    """Prompts count from 0, answers from 256 on, whatever the padding between them; nothing but itself sees padding."""
    given = torch.tensor([[3, 4, PADDING, PADDING, ASK, 5, 6], [3, 4, 2, PADDING, ASK, 5, PADDING]])
    positions, seen = answer_layout(given)
    assert positions[0, [0, 1, 4, 5, 6]].tolist() == positions[1, [0, 1, 4, 5, 6]].tolist() == [0, 1, 256, 257, 258]
    assert seen.shape == (2, 1, 7, 7)
    assert seen[0, 0, 6].tolist() == [True, True, False, False, True, True, True]
    assert seen[0, 0].diagonal().all()
    assert not seen.triu(1).any()
    network = GPT(2, 32, 7, layout="answers").eval()
    with torch.no_grad():
        assert torch.allclose(network(given[:1])[..., [0, 1, 4, 5, 6]], network(given[:1, [0, 1, 4, 5, 6]]), atol=1e-5)
    with pytest.raises(ValueError, match="tokens is 257 wide: the layout of answers takes at most 256"):
        network(torch.zeros(1, 257, dtype=torch.long))


def test_all_tasks_have_the_ids_of_the_layout():
    for task in (Chains(), PointerChase(), TwoSourceChains()):
        assert task.vocabulary[PADDING] == "_"
        assert task.vocabulary[ASK] == "="


def test_names_say_depth_and_width():
    network = create_model("gpt_3x48", 11)
    assert (len(network.blocks), network.embedding.weight.shape, network.blocks[0].attn.num_heads) == (3, (11, 48), 3)
    assert create_model("gpt_1x48", 11, heads=1).blocks[0].attn.num_heads == 1
    # Embedding and head; a block's 12 matrices of width x width and two norms; the last norm.
    assert sum(p.numel() for p in network.parameters()) == 2 * 11 * 48 + 3 * (12 * 48**2 + 4 * 48) + 2 * 48


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 24}, "width=24: must be a multiple of 16"),
    ({"width": 48, "heads": 5}, "width=48: must be a multiple of 10, for heads of an even width"),
    ({"num_classes": 1}, "num_classes=1: must be at least 2"), ({"depth": 0}, "depth=0: must be at least 1")])
def test_impossible_decoders_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GPT(**{"depth": 1, "width": 32, "num_classes": 7} | options)


def test_flops_are_those_of_its_matrix_products():
    """2 per multiply-add: 12 width^2 a token and block, two products of attention, and the head."""
    depth, width, classes, length = 2, 32, 7, 9
    block = 12 * width**2 * length + 2 * length**2 * width
    assert forward_flops(GPT(depth, width, classes), (length,)) == 2 * (depth * block + classes * width * length)


@pytest.mark.parametrize("larger", ["gpt_4x32", "gpt_2x64", "gpt_3x64"])
@pytest.mark.parametrize("layout", ["columns", "answers"])
def test_any_deeper_or_wider_one_nests(larger, layout):
    """In depth alone all weights are shared and the first expansion changes no logit, at any length."""
    pair = create_pair("gpt_2x32", larger, 7, layout=layout).eval()
    deeper = larger.endswith("x32")
    assert not pair.weights_map.sliced if deeper else not pair.weights_map.aliased
    assert (pair.notes == ()) is deeper
    with torch.no_grad():
        for length in (1, 5, 40):
            given = tokens(2, length)
            assert torch.equal(pair.base(given), pair.motivated(given)) is deeper


def test_heads_of_another_width_are_noted():
    pair = create_pair("gpt_1x32", "gpt_1x64", 7, heads=2)
    assert any("attention head" in note for note in pair.notes)


def test_other_vocabularies_do_not_nest():
    with pytest.raises(ValueError, match=r"^embedding\.weight: .*7 in the base, 8 in the motivated network"):
        Pair(GPT(1, 32, 7), GPT(2, 32, 8))


def test_the_example_is_what_a_network_takes():
    """Images of any type, or tokens of the vocabulary, drawn or zero."""
    network = GPT(1, 32, 7)
    assert takes_tokens(network)
    assert not takes_tokens(create_model("resnet8", 10))
    drawn = example_input(network, (50,), 3, seed=0)
    assert (drawn.shape, drawn.dtype, drawn.unique().tolist()) == ((3, 50), torch.int64, list(range(7)))
    assert not example_input(network, (4,)).any()
    image = example_input(create_model("resnet8", 10), (3, 4, 4), dtype=torch.double, seed=0)
    assert torch.equal(image, torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double())
    assert example_input(network, (4,), device="meta").is_meta

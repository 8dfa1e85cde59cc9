"""LangChain's own standard tests of embeddings and vector stores."""

import pytest
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from dewey_embed.integrations.langchain import DeweyEmbeddings, DeweyVectorStore


class ReturnsDocuments(DeweyVectorStore):
    """A store that returns the documents of the passages found, as the tests compare them."""

    def similarity_search(self, query, k=4, **kwargs):
        passages = super().similarity_search(query, k, **kwargs)
        ids = dict.fromkeys(each.metadata["document_id"] for each in passages)
        return self.get_by_ids(list(ids))


class TestUnits(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return DeweyEmbeddings


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return DeweyEmbeddings


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, model, tmp_path):
        return ReturnsDocuments(tmp_path / "my.index", embedding=DeweyEmbeddings(model))

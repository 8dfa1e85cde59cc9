"""Whether a data set of the Hugging Face hub can be had: from its cache, or over the network.

Asked before a task is begun, for without a network the hub's clients retry for minutes.
"""

from __future__ import annotations

from functools import cache

TIMEOUT_S = 4.0


def why_not_on_hub(path: str) -> str | None:
    """Why a data set (`owner/name`) cannot be had, in a few words; `None` if it can."""
    reason = _why_unreachable()
    if reason is None or in_cache(path):
        return None
    return f"{path} is not in the Hugging Face cache, and {reason}"


def in_cache(path: str) -> bool:
    """Whether `datasets` has prepared this data set before, so that it opens without a network."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = path.partition("/")
    folder = config.HF_DATASETS_CACHE / f"{owner}___{camelcase_to_snakecase(name)}"
    return next(folder.glob("*/*/*/dataset_info.json"), None) is not None


@cache
def _why_unreachable() -> str | None:
    """Why the hub does not answer, asked once in a process; `None` if it does.

    If it does not, this process is in offline mode from then on: what is in the cache then opens
    at once, not after the clients' retries.
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

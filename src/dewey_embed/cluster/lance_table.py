"""A Lance dataset, here or on object storage, that many workers write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dewey_embed.storage import lance_options, looking, open_place

if TYPE_CHECKING:
    import pyarrow as pa

FRAGMENTS = 32
"""A dataset of so many fragments of a group each is written into larger ones when a run ends."""

ROWS_OF_FRAGMENT = 1 << 20


class LanceTable:
    """A Lance dataset: fragments that workers write, and an append that makes them visible."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _options(self) -> dict[str, str]:
        return lance_options(self.name)

    def dataset(self) -> Any:
        """The newest version."""
        import lance

        with looking(self.name):
            return lance.dataset(self.name, storage_options=self._options)

    def exists(self) -> bool:
        """Whether there is a dataset: a disk that fills while one is made leaves empty folders."""
        return bool(open_place(self.name).below("_versions").files())

    def create(self, schema: pa.Schema) -> None:
        """Write an empty dataset."""
        import lance

        with looking(self.name):
            lance.write_dataset(
                schema.empty_table(), self.name, mode="create", storage_options=self._options
            )

    def write(self, table: pa.Table) -> list[str]:
        """Write a fragment; what describes it, as JSON."""
        from lance_ray.fragment import write_fragment

        with looking(self.name):
            written = write_fragment(
                [table], self.name, schema=table.schema, storage_options=self._options
            )
        return [json.dumps(fragment.to_json()) for fragment, _ in written]

    def append(self, written: Sequence[str]) -> None:
        """Make fragments visible, in one version."""
        import lance

        fragments = [lance.FragmentMetadata.from_json(each) for each in written]
        with looking(self.name):
            lance.LanceDataset.commit(
                self.name,
                lance.LanceOperation.Append(fragments),
                read_version=self.dataset().version,
                storage_options=self._options,
            )

    def delete(self, column: str, prefixes: Sequence[str]) -> None:
        """Delete rows by how their digests begin, in a version for each 500."""
        for start in range(0, len(prefixes), 500):
            where = " OR ".join(
                f"{column} LIKE '{each}%'" for each in prefixes[start : start + 500]
            )
            with looking(self.name):
                self.dataset().delete(where)

    def delete_repeats(self, column: str, prefix: str, first: str) -> None:
        """Delete the rows of a document that was written again; `first` is true of its first."""
        own = f"{column} LIKE '{prefix}%'"
        with looking(self.name):
            dataset = self.dataset()
            found = dataset.to_table(columns=[], filter=f"{own} AND {first}", with_row_address=True)
            addresses = sorted(found["_rowaddr"].to_pylist())
            if len(addresses) > 1:
                dataset.delete(f"{own} AND _rowaddr >= {addresses[1]}")

    def compact(self) -> None:
        """Write many small fragments into larger ones, by the cluster."""
        from lance.optimize import CompactionOptions
        from lance_ray import compact_files

        if len(self.dataset().get_fragments()) >= FRAGMENTS:
            compact_files(
                self.name,
                compaction_options=CompactionOptions(target_rows_per_fragment=ROWS_OF_FRAGMENT),
                num_workers=1,
                storage_options=self._options,
            )

"""Reductions: closed forms, and what is refused."""

import itertools

import numpy as np
import pytest

from dewey_embed.errors import ConfigError, TargetsError
from dewey_embed.train.reduce import Reduction, fit_reduction, structure_kept


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors_in_a_plane(num_vectors=200, teacher_size=24, size=6, seed=0):
    """Unit vectors of K numbers that lie in a subspace of D dimensions, far from centred."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.normal(size=(teacher_size, size)))
    return unit((random.normal(size=(num_vectors, size)) + 1.0) @ basis.T)


def test_pca_keeps_a_subspace_of_its_size_exactly():
    vectors = vectors_in_a_plane()
    reduced = fit_reduction("pca", vectors, 6).apply(vectors)
    assert reduced.shape == (200, 6)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(reduced @ reduced.T, vectors @ vectors.T, atol=1e-5)
    assert structure_kept(vectors, reduced) == pytest.approx(1.0, abs=1e-5)


def test_pca_holds_for_vectors_it_was_not_fitted_on():
    vectors = vectors_in_a_plane(400)
    reduced = fit_reduction("pca", vectors[:100], 6).apply(vectors[100:])
    np.testing.assert_allclose(reduced @ reduced.T, vectors[100:] @ vectors[100:].T, atol=1e-5)


def test_pca_in_blocks_is_pca_at_once(monkeypatch):
    vectors = vectors_in_a_plane(size=24)
    whole = fit_reduction("pca", vectors, 5).components
    monkeypatch.setattr("dewey_embed.train.reduce.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(fit_reduction("pca", vectors, 5).components, whole, atol=1e-5)


def test_directions_are_orthonormal_and_greatest_first():
    vectors = vectors_in_a_plane(size=24)
    components = fit_reduction("pca", vectors, 8).components
    assert components.shape == (8, 24)
    np.testing.assert_allclose(components @ components.T, np.eye(8), atol=1e-5)
    power = ((vectors @ components.T) ** 2).sum(0)
    assert all(first >= second for first, second in itertools.pairwise(power))


def test_pca_changes_dot_products_least_among_all_that_were_tried():
    vectors = vectors_in_a_plane(size=24)
    random = np.random.default_rng(3)
    best = _lost(vectors, fit_reduction("pca", vectors, 8).components)
    centred = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2][:8]
    others = [np.linalg.qr(random.normal(size=(24, 8)))[0].T for _ in range(20)]
    assert all(best < _lost(vectors, other) for other in [*others, centred, np.eye(8, 24)])


def _lost(vectors, components):
    kept = vectors @ components.T
    return np.linalg.norm(vectors @ vectors.T - kept @ kept.T)


def test_signs_do_not_depend_on_the_order_of_texts():
    vectors = vectors_in_a_plane(size=24)
    forward = fit_reduction("pca", vectors, 5).components
    np.testing.assert_allclose(
        fit_reduction("pca", vectors[::-1], 5).components, forward, atol=1e-5
    )


def test_truncate_keeps_the_first_numbers_at_unit_length():
    vectors = vectors_in_a_plane()
    reduced = fit_reduction("truncate", vectors[:0], 10).apply(vectors)
    np.testing.assert_allclose(reduced, unit(vectors[:, :10]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1.0, atol=1e-6)


def test_none_keeps_everything():
    vectors = vectors_in_a_plane()
    np.testing.assert_allclose(fit_reduction("none", vectors[:0], 24).apply(vectors), vectors, 1e-6)


@pytest.mark.parametrize("kind", ["none", "truncate", "pca"])
def test_no_vectors_stay_none(kind):
    vectors = vectors_in_a_plane(size=24)
    assert fit_reduction(kind, vectors, 24).apply(vectors[:0]).shape == (0, 24)


@pytest.mark.parametrize(("kind", "size"), [("none", 24), ("truncate", 10), ("pca", 6)])
def test_a_stored_reduction_is_the_same(tmp_path, kind, size):
    vectors = vectors_in_a_plane()
    reduction = fit_reduction(kind, vectors, size)
    path = tmp_path / "targets" / "reduction.npz"
    reduction.save(path)
    reduction.save(path)
    loaded = Reduction.load(path)
    assert (loaded.kind, loaded.teacher_size, loaded.size) == (kind, 24, size)
    np.testing.assert_array_equal(loaded.apply(vectors), reduction.apply(vectors))
    assert list(path.parent.iterdir()) == [path]


def test_files_that_hold_no_reduction_are_refused(tmp_path):
    path = tmp_path / "reduction.npz"
    with pytest.raises(TargetsError, match=r"reduction\.npz: no reduction can be read"):
        Reduction.load(path)
    fit_reduction("pca", vectors_in_a_plane(), 6).save(path)
    whole = path.read_bytes()
    for content in (b"", b"x", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(TargetsError, match="make the targets anew"):
            Reduction.load(path)
    np.save(path.open("wb"), np.zeros(3))
    with pytest.raises(TargetsError, match="make the targets anew"):
        Reduction.load(path)
    np.savez(path.open("wb"), something=np.zeros(3))
    with pytest.raises(TargetsError, match="make the targets anew"):
        Reduction.load(path)


def test_what_does_not_fit_is_refused_with_a_remedy():
    vectors = vectors_in_a_plane()
    for kind in ("none", "truncate", "pca"):
        with pytest.raises(
            ConfigError, match=r"has 24 dimensions, the student 32.*vector_size to 24"
        ):
            fit_reduction(kind, vectors, 32)
    with pytest.raises(
        ConfigError,
        match=r"has 24 dimensions, the student 8: set teacher\.reduce to 'truncate' or 'pca'",
    ):
        fit_reduction("none", vectors, 8)
    with pytest.raises(
        ConfigError, match=r"at least as many texts, got 5; raise teacher\.pca_texts"
    ):
        fit_reduction("pca", vectors[:5], 6)
    with pytest.raises(ConfigError, match=r"\(200, 24\).*takes \(N, 32\)"):
        Reduction("truncate", 32, 8).apply(vectors)
    with pytest.raises(ConfigError, match="of vector 1 nothing is left in 2 of its 3"):
        Reduction("truncate", 3, 2).apply(np.eye(3, dtype=np.float32)[[0, 2]])


def test_kept_structure_is_a_correlation_of_pairs():
    vectors = vectors_in_a_plane(50)
    reduced = Reduction("truncate", 24, 4).apply(vectors)
    above = np.triu_indices(50, k=1)
    expected = np.corrcoef((vectors @ vectors.T)[above], (reduced @ reduced.T)[above])[0, 1]
    assert structure_kept(vectors, reduced) == pytest.approx(expected)
    assert structure_kept(vectors, reduced) < 0.99
    with pytest.raises(ValueError, match="50 vectors before and 49 after"):
        structure_kept(vectors, reduced[1:])


def test_kept_structure_takes_a_sample_of_many(monkeypatch):
    vectors = vectors_in_a_plane(50)
    reduced = Reduction("truncate", 24, 4).apply(vectors)
    monkeypatch.setattr("dewey_embed.train.reduce.SAMPLE_ROWS", 8)
    rows = np.linspace(0, 49, 8).astype(int)
    assert structure_kept(vectors, reduced) == structure_kept(vectors[rows], reduced[rows])

"""Whether a traced boundary is that of a partition: piece by piece, else as sets of points."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

SPECK = 1e-12  # of the extent: a piece no longer than this is none


def compared(b, p):
    """How a boundary differs from that of a partition of the same slice.

    Returns a dictionary: `spurious` pieces that the partition does not have, `missing` pieces
    that were not traced, `open`: components of those that are not whole closed curves (or from
    border to border), `closed`: whole ones, `length`: relative difference of the lengths of what
    both have, `distance`: between the ends of matching pieces, relative to the slice's extent.
    """
    extent = float(np.ptp(p.plane.corners, axis=0).max())
    mine, theirs = b.segments, p.boundary
    speck = (SPECK + 2 * b.meta["drift"]) * extent  # both ends are off by as much as it says itself
    if not len(mine) or not len(theirs):
        none = {"spurious": len(mine), "missing": len(theirs), "length": 0.0, "distance": 0.0}
        return none | components(theirs, np.zeros(len(theirs), bool), p, extent)
    _, which = cKDTree(theirs.mean(1)).query(mine.mean(1))
    forth = np.abs(mine - theirs[which]).max((1, 2))
    back = np.abs(mine - theirs[which][:, ::-1]).max((1, 2))
    ends = np.minimum(forth, back) / extent
    fits = (ends < 1e-9) & (b.segment_classes == p.boundary_classes[which]).all(1)
    taken = np.zeros(len(theirs), bool)
    taken[which[fits]] = True
    assert len(np.unique(which[fits])) == fits.sum(), "a piece was traced twice"
    own, other = lengths(mine[fits]), lengths(theirs[taken])
    found = {
        "spurious": int((~fits & (lengths(mine) > speck)).sum()),
        "missing": int((~taken & (lengths(theirs) > SPECK * extent)).sum()),
        "length": abs(own.sum() - other.sum()) / other.sum() if taken.any() else 0.0,
        "distance": float(ends[fits].max(initial=0.0)),
    }
    return found | components(theirs, taken, p, extent)


def components(segments, taken, p, extent):
    """Of the pieces that were not traced: which components touch what was, which are whole."""
    left = np.flatnonzero(~taken & (lengths(segments) > SPECK * extent))
    if not len(left):
        return {"open": 0, "closed": 0, "lost": 0.0}
    ends = segments.reshape(-1, 2)
    pairs = cKDTree(ends).query_pairs(1e-9 * extent, output_type="ndarray") // 2
    n = len(segments)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n))
    _, label = connected_components(graph, directed=False)
    lost = np.unique(label[left])
    partly = np.isin(lost, label[taken])
    return {
        "open": int(partly.sum()), "closed": int((~partly).sum()),
        "lost": float(lengths(segments[left]).sum()),
    }  # fmt: skip


def lengths(segments):
    return np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)

"""Literal float64 twins of the metrics of similarity, for matrices x [n, p] and y [n, q]."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import linalg, stats


def centred(x):
    return x - x.mean(0)


def hsic_u(k, m):
    """Song et al.'s estimator, term by term, of matrices whose diagonals are removed."""
    n = len(k)
    k, m = k.copy(), m.copy()
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (total - 2 * (one @ k @ m @ one) / (n - 2)) / (n * (n - 3))


def cka(x, y):
    k, m = x @ x.T, y @ y.T
    return hsic_u(k, m) / math.sqrt(hsic_u(k, k) * hsic_u(m, m))


def cka_biased(x, y):
    n = len(x)
    h = np.eye(n) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())


def cka_rbf(x, y):
    def kernel(z):
        d = np.array([[((a - b) ** 2).sum() for b in z] for a in z])
        below = d[np.tril_indices(len(z), -1)]
        return np.exp(-d / (2 * np.median(below)))

    k, m = kernel(x), kernel(y)
    return hsic_u(k, m) / math.sqrt(hsic_u(k, k) * hsic_u(m, m))


def procrustes(x, y):
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    t = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    return 1 - math.sqrt(max(0, 2 - 2 * t)) / 2


def _assigned(gain):
    """The best one-to-one assignment by trying all of them."""
    if gain.shape[0] > gain.shape[1]:
        gain = gain.T
    columns = itertools.permutations(range(gain.shape[1]), gain.shape[0])
    return max(sum(gain[i, j] for i, j in enumerate(c)) for c in columns)


def procrustes_permutations(x, y):
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return 1 - math.sqrt(max(0, 2 - 2 * _assigned(x.T @ y))) / 2


def procrustes_g_relu(x, y):
    a, b = (
        z / np.where(np.linalg.norm(z, axis=0) > 0, np.linalg.norm(z, axis=0), 1) for z in (x, y)
    )
    d2 = (a * a).sum() + (b * b).sum() - 2 * _assigned(a.T @ b)
    return 1 - math.sqrt(max(0, d2) / (4 * max(x.shape[1], y.shape[1])))


def procrustes_angular(x, y):
    x, y = centred(x), centred(y)
    t = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    return math.acos(min(1, t / (np.linalg.norm(x) * np.linalg.norm(y))))


def procrustes_size_and_shape(x, y):
    t = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    return math.sqrt(max(0, (x * x).sum() + (y * y).sum() - 2 * t))


def procrustes_one_sided(x, y):
    q, _ = linalg.orthogonal_procrustes(x, y)
    pad = q if x.shape[1] == y.shape[1] else None
    assert pad is not None
    return np.linalg.norm(x @ q - y) / np.linalg.norm(y)


def _canonical(x, y):
    qx, qy = np.linalg.qr(centred(x))[0], np.linalg.qr(centred(y))[0]
    return np.linalg.svd(qx.T @ qy, compute_uv=False)


def cca(x, y):
    return _canonical(x, y).mean()


def svcca(x, y, keep=0.99):
    def kept(z):
        u, s, _ = np.linalg.svd(centred(z), full_matrices=False)
        share = np.cumsum(s**2) / (s**2).sum()
        k = int(np.argmax(share >= keep - 1e-12)) + 1
        return u[:, :k] * s[:k]

    return _canonical(kept(x), kept(y)).mean()


def pwcca(x, y):
    qx, qy = np.linalg.qr(centred(x))[0], np.linalg.qr(centred(y))[0]
    u, s, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    h = qx @ u
    weights = np.abs(h.T @ centred(x)).sum(1)
    return (weights * s).sum() / weights.sum()


def linear_regression(x, y):
    a = np.linalg.lstsq(centred(y), centred(x), rcond=None)[0]
    left = centred(x) - centred(y) @ a
    return 1 - (left**2).sum() / (centred(x) ** 2).sum()


def eigenspace_overlap(x, y):
    u, v = (linalg.orth(z) for z in (x, y))
    return np.linalg.norm(u.T @ v) ** 2 / max(u.shape[1], v.shape[1])


def gulp(x, y, lam=0.01):
    x, y = (centred(z) / np.linalg.norm(centred(z)) for z in (x, y))
    sx, sy, sxy = x.T @ x, y.T @ y, x.T @ y
    rx, ry = (np.linalg.inv(s + lam * np.eye(len(s))) for s in (sx, sy))
    d2 = np.trace(rx @ sx @ rx @ sx) + np.trace(ry @ sy @ ry @ sy)
    return math.sqrt(max(0, d2 - 2 * np.trace(rx @ sxy @ ry @ sxy.T)))


def bures(x, y):
    k, m = centred(x) @ centred(x).T, centred(y) @ centred(y).T
    root = np.real(linalg.sqrtm(k))
    return np.trace(np.real(linalg.sqrtm(root @ m @ root))) / math.sqrt(np.trace(k) * np.trace(m))


def _pearson(x, y):
    return np.array([[np.corrcoef(a, b)[0, 1] for b in y.T] for a in x.T])


def hard_correlation(x, y):
    return _assigned(_pearson(x, y)) / min(x.shape[1], y.shape[1])


def soft_correlation(x, y):
    r = _pearson(x, y)
    return (r.max(0).mean() + r.max(1).mean()) / 2


def rsm_norm(x, y):
    return np.linalg.norm(x @ x.T - y @ y.T)


def magnitude(x, y):
    return abs(np.linalg.norm(x.mean(0)) - np.linalg.norm(y.mean(0)))


def _cosines(x):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    c = x @ x.T
    np.fill_diagonal(c, -np.inf)
    return c


def _nearest(x, k):
    return [list(np.argsort(-row, kind="stable")[:k]) for row in _cosines(x)]


def mutual_knn(x, y, k=10):
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(_nearest(x, k), _nearest(y, k))])


def jaccard(x, y, k=10):
    near = zip(_nearest(x, k), _nearest(y, k))
    return np.mean([len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in near])


def rank_similarity(x, y, k=10):
    values = []
    for a, b in zip(_nearest(x, k), _nearest(y, k)):
        common = set(a) & set(b)
        ranks = [(a.index(j) + 1, b.index(j) + 1) for j in common]
        top = sum(2 / ((1 + abs(r - s)) * (r + s)) for r, s in ranks)
        values.append(top / sum(1 / m for m in range(1, len(common) + 1)) if common else 0.0)
    return np.mean(values)


def second_order_cosine(x, y, k=10):
    values = []
    for i, (a, b) in enumerate(zip(_nearest(x, k), _nearest(y, k))):
        union = sorted(set(a) | set(b))
        u, v = _cosines(x)[i, union], _cosines(y)[i, union]
        values.append(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))
    return np.mean(values)


def cknna(x, y, k=10):
    def align(a, b, near_a, near_b):
        n = len(a)
        mask = np.zeros((n, n))
        for i in range(n):
            for j in set(near_a[i]) & set(near_b[i]):
                mask[i, j] = 1
        u, v = a.copy(), b.copy()
        np.fill_diagonal(u, 0)
        np.fill_diagonal(v, 0)
        u, v = u * mask, v * mask
        one = np.ones(n)
        total = np.trace(u @ v) + u.sum() * v.sum() / ((n - 1) * (n - 2))
        return total - 2 * (one @ u @ v @ one) / (n - 2)

    c, d, near, far = _cosines(x), _cosines(y), _nearest(x, k), _nearest(y, k)
    return align(c, d, near, far) / math.sqrt(align(c, c, near, near) * align(d, d, far, far))


def rsa(x, y):
    def list_of(z):
        return [np.corrcoef(z[i], z[j])[0, 1] for i in range(len(z)) for j in range(i)]

    return stats.spearmanr(list_of(x), list_of(y)).statistic


def rsa_euclidean_pearson(x, y):
    def list_of(z):
        return [np.linalg.norm(z[i] - z[j]) for i in range(len(z)) for j in range(i)]

    return stats.pearsonr(list_of(x), list_of(y)).statistic


def distance_correlation(x, y):
    def matrix(z):
        d = np.array([[np.linalg.norm(a - b) for b in z] for a in z])
        return d - d.mean(0) - d.mean(1)[:, None] + d.mean()

    a, b = matrix(x), matrix(y)
    return math.sqrt((a * b).mean() / math.sqrt((a * a).mean() * (b * b).mean()))


def uniformity(x, y, t=2.0):
    def of(z):
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        pairs = [((z[i] - z[j]) ** 2).sum() for i in range(len(z)) for j in range(i)]
        return math.log(np.mean(np.exp(-t * np.array(pairs))))

    return abs(of(x) - of(y))


def concentricity(x, y):
    def of(z):
        m = z.mean(0)
        return np.mean([r @ m / (np.linalg.norm(r) * np.linalg.norm(m)) for r in z])

    return abs(of(x) - of(y))


def linear_regression_held_out(x, y, folds):
    """Least squares with a constant on the other folds, by rows; against their mean."""
    left = total = 0.0
    for fold in range(folds):
        test = np.arange(len(x)) % folds == fold
        design = np.c_[y, np.ones(len(y))]
        weights = np.linalg.lstsq(design[~test], x[~test], rcond=None)[0]
        left += ((x[test] - design[test] @ weights) ** 2).sum()
        total += ((x[test] - x[~test].mean(0)) ** 2).sum()
    return 1 - left / total


TWINS = {
    "linear_regression(held_out=2)": lambda x, y: linear_regression_held_out(x, y, 2),
    "linear_regression(held_out=5, reverse=True)": lambda x, y: linear_regression_held_out(y, x, 5),
    "cka": cka,
    "cka(unbiased=False)": cka_biased,
    "cka(kernel=rbf)": cka_rbf,
    "procrustes": procrustes,
    "procrustes(modulo=permutations)": procrustes_permutations,
    "procrustes(modulo=G_relu)": procrustes_g_relu,
    "procrustes(form=angular)": procrustes_angular,
    "procrustes(form=size_and_shape)": procrustes_size_and_shape,
    "cca": cca,
    "svcca": svcca,
    "svcca(keep=0.8)": lambda x, y: svcca(x, y, 0.8),
    "pwcca": pwcca,
    "linear_regression": linear_regression,
    "linear_regression(reverse=True)": lambda x, y: linear_regression(y, x),
    "eigenspace_overlap": eigenspace_overlap,
    "gulp": gulp,
    "gulp(lam=1.0)": lambda x, y: gulp(x, y, 1.0),
    "bures": bures,
    "hard_correlation": hard_correlation,
    "soft_correlation": soft_correlation,
    "rsm_norm": rsm_norm,
    "magnitude": magnitude,
    "mutual_knn": mutual_knn,
    "mutual_knn(k=3)": lambda x, y: mutual_knn(x, y, 3),
    "jaccard": jaccard,
    "rank_similarity": rank_similarity,
    "second_order_cosine": second_order_cosine,
    "cknna": cknna,
    "rsa": rsa,
    "rsa(inner=euclidean, outer=pearson)": rsa_euclidean_pearson,
    "distance_correlation": distance_correlation,
    "uniformity": uniformity,
    "concentricity": concentricity,
}

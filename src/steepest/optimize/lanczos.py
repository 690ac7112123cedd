"""The largest eigenvalues of a symmetric matrix that is known by its products alone. Pure."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.stream import Stream
from .natural import Product


def lanczos(product: Product, like: Tensor, count: int, rng: Stream, *, steps: int | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues [k] of the largest size, in falling order of it, and their eigenvectors [n, k], for k = `count`.

    product  v -> A v, the same in every call; ValueError where it is not (dropout, for one)
    like     any vector of the matrix' size [n]
    steps    products taken, k .. n; None: 4 k + 20. With n of them the eigenvalues are exact

    Every new vector is made orthogonal to all before, so nothing is found twice. Lanczos, 1950; Paige, 1972
    """
    n = len(like)
    if not 1 <= count <= n:
        raise ValueError(f"a matrix of {n} rows has 1 to {n} eigenvectors, not {count}")
    steps = min(n, 4 * count + 20 if steps is None else steps)
    if steps < count:
        raise ValueError(f"{count} eigenvectors need at least as many products, not {steps}")
    generator = rng.torch(like.device)

    def unit(basis: list[Tensor], x: Tensor | None = None) -> Tensor:
        """x, or a random vector, made orthogonal to the basis and of length 1."""
        x = torch.randn(n, generator=generator, dtype=torch.float64, device=like.device) if x is None else x
        for _ in range(2):  # twice is enough: Kahan and Parlett
            for q in basis:
                x = x - (q @ x) * q
        return x / x.norm()

    basis, images = [unit([])], []
    for _ in range(steps):
        image = product(basis[-1].to(like.dtype)).double()
        images.append(image)
        rest = image - sum(((q @ image) * q for q in basis), torch.zeros_like(image))
        small = float(rest.norm()) <= 1e-10 * (1 + float(image.norm()))  # the space is closed: go on from a new direction
        if len(basis) < steps:
            basis.append(unit(basis) if small else unit(basis, rest))
    again = product(basis[0].to(like.dtype)).double()
    if not torch.allclose(again, images[0], rtol=1e-4, atol=1e-6 * (1 + float(again.norm()))):
        raise ValueError("the product of one vector differs between two calls: something random, such as dropout, is in the loss")
    q, small_matrix = torch.stack(basis, 1), torch.stack(basis, 1).T @ torch.stack(images, 1)
    values, vectors = torch.linalg.eigh((small_matrix + small_matrix.T) / 2)
    order = values.abs().argsort(descending=True)[:count]
    return values[order], q @ vectors[:, order]

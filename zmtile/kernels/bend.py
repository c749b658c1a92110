"""Bent maps: an affine matrix and a bend on top of it, applied, undone, and laid out as a lattice.

A point (x, y) of the frame goes to ``M (x, y) + B(u, v)``. M is the matrix, which is the map's
tangent at the frame's centre; (u, v) is the point in units of the frame, and B a homography's
curvature and a cubic polynomial without its affine part:

    u = (x - xc) / hx,  v = (y - yc) / hy,  both held within ±1
    B = L (hx u, hy v) · (1 / (1 + g u + h v) - 1) + Σ terms · (u², uv, v², u³, u²v, uv², v³)

L is the linear part of M. Beyond ±1 the bend stays what it is at the border, so the map goes on by
its matrix alone; as long as the bend changes by less than the matrix does, the whole is one to one
on the whole plane, and the fixed-point iteration that undoes it converges from anywhere.
"""

from __future__ import annotations

from typing import Any

from zmtile.kernels import brief, inlined, kernel

__all__ = ["BEND", "NODE_STEP", "bend_point", "bend_points", "lay_nodes", "steepness", "unbend_points"]

# Numbers of a bend: xc, yc, hx, hy; g, h; seven terms of x and seven of y.
BEND = 20
# Tile pixels between the nodes of a lattice.
NODE_STEP = 4
# Far below the 1/2048 px of the kernels' tables.
CLOSE = 1e-9
MOST_TURNS = 60


@inlined
def _bend(matrix: Any, bend: Any, x: float, y: float) -> Any:
    """Return the bend at a frame pixel, px of the target, and its derivatives along x and y."""
    hx, hy, g, h = bend[2], bend[3], bend[4], bend[5]
    u, v = (x - bend[0]) / hx, (y - bend[1]) / hy
    free_u, free_v = abs(u) <= 1.0, abs(v) <= 1.0
    u, v = min(max(u, -1.0), 1.0), min(max(v, -1.0), 1.0)
    q = 1.0 / (1.0 + g * u + h * v)
    line_x = matrix[0, 0] * hx * u + matrix[0, 1] * hy * v
    line_y = matrix[1, 0] * hx * u + matrix[1, 1] * hy * v
    px, py = bend[6:13], bend[13:20]
    bent_x = line_x * (q - 1.0) + u * (u * (px[0] + u * px[3]) + v * (px[1] + u * px[4]))
    bent_x += v * v * (px[2] + u * px[5] + v * px[6])
    bent_y = line_y * (q - 1.0) + u * (u * (py[0] + u * py[3]) + v * (py[1] + u * py[4]))
    bent_y += v * v * (py[2] + u * py[5] + v * py[6])
    # Along u and v, then divided by the frame's units.
    xu = matrix[0, 0] * hx * (q - 1.0) - line_x * q * q * g
    xu += u * (2.0 * px[0] + 3.0 * u * px[3]) + v * (px[1] + 2.0 * u * px[4] + v * px[5])
    xv = matrix[0, 1] * hy * (q - 1.0) - line_x * q * q * h
    xv += u * (px[1] + u * px[4]) + v * (2.0 * px[2] + 2.0 * u * px[5] + 3.0 * v * px[6])
    yu = matrix[1, 0] * hx * (q - 1.0) - line_y * q * q * g
    yu += u * (2.0 * py[0] + 3.0 * u * py[3]) + v * (py[1] + 2.0 * u * py[4] + v * py[5])
    yv = matrix[1, 1] * hy * (q - 1.0) - line_y * q * q * h
    yv += u * (py[1] + u * py[4]) + v * (2.0 * py[2] + 2.0 * u * py[5] + 3.0 * v * py[6])
    along_x, along_y = (1.0 / hx if free_u else 0.0), (1.0 / hy if free_v else 0.0)
    return bent_x, bent_y, xu * along_x, xv * along_y, yu * along_x, yv * along_y


@inlined
def _forward(matrix: Any, bend: Any, x: float, y: float) -> Any:
    """Return where a frame pixel goes, and by how much the map enlarges area there."""
    bent_x, bent_y, xx, xy, yx, yy = _bend(matrix, bend, x, y)
    area = abs((matrix[0, 0] + xx) * (matrix[1, 1] + yy) - (matrix[0, 1] + xy) * (matrix[1, 0] + yx))
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + bent_x,
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + bent_y,
        area,
    )


@inlined
def _backward(matrix: Any, back: Any, bend: Any, x: float, y: float) -> Any:
    """Return the frame pixel that goes to a point; `back` is the inverse of the matrix.

    p = M⁻¹ (q - B(p)), repeated: the bend is a contraction under M⁻¹ (`steepness`).
    """
    at_x = back[0, 0] * x + back[0, 1] * y + back[0, 2]
    at_y = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    start_x, start_y = at_x, at_y
    for _ in range(MOST_TURNS):
        bent_x, bent_y, _, _, _, _ = _bend(matrix, bend, at_x, at_y)
        next_x = start_x - (back[0, 0] * bent_x + back[0, 1] * bent_y)
        next_y = start_y - (back[1, 0] * bent_x + back[1, 1] * bent_y)
        moved = abs(next_x - at_x) + abs(next_y - at_y)
        at_x, at_y = next_x, next_y
        if moved < CLOSE:
            break
    return at_x, at_y


@kernel
def bend_point(matrix: Any, bend: Any, x: float, y: float) -> Any:
    """Return where a frame pixel goes, and by how much the map enlarges area there."""
    return _forward(matrix, bend, x, y)


@brief
def bend_points(matrix: Any, bend: Any, xy: Any, out: Any) -> None:
    """Move points (n, 2); `out` (n, 3) takes x, y and the local change of area."""
    for k in range(xy.shape[0]):
        out[k, 0], out[k, 1], out[k, 2] = bend_point(matrix, bend, xy[k, 0], xy[k, 1])


@brief
def unbend_points(matrix: Any, back: Any, bend: Any, xy: Any, out: Any) -> None:
    """Move points (n, 2) the other way; `out` (n, 3) takes x, y and the local change of area."""
    for k in range(xy.shape[0]):
        x, y = _backward(matrix, back, bend, xy[k, 0], xy[k, 1])
        out[k, 0], out[k, 1] = x, y
        out[k, 2] = 1.0 / _forward(matrix, bend, x, y)[2]


@kernel
def lay_nodes(
    matrix: Any, back: Any, bend: Any, x0: float, y0: float, row: int, col: int, nodes: Any
) -> None:
    """Fill the lattice of a block: frame x, frame y and the change of area at every node.

    Node (i, j) is tile pixel (`NODE_STEP` · (col + j), `NODE_STEP` · (row + i)), and (x0, y0) the
    point of the target at tile pixel (0, 0). Nodes belong to the tile, not to the block, so that
    blocks of any shape see the same ones. `nodes` is (3, rows, cols) float64.
    """
    for i in range(nodes.shape[1]):
        for j in range(nodes.shape[2]):
            to_x, to_y = float(NODE_STEP * (col + j)) + x0, float(NODE_STEP * (row + i)) + y0
            x, y = _backward(matrix, back, bend, to_x, to_y)
            nodes[0, i, j], nodes[1, i, j] = x, y
            nodes[2, i, j] = 1.0 / _forward(matrix, bend, x, y)[2]


@brief
def steepness(matrix: Any, back: Any, bend: Any, side: int) -> float:
    """Return how steeply M⁻¹ B changes at most, on side × side points of the frame (Frobenius norm).

    Below 1 the map is one to one.
    """
    most = 0.0
    for i in range(side):
        for j in range(side):
            x = bend[0] + bend[2] * (2.0 * j / (side - 1) - 1.0)
            y = bend[1] + bend[3] * (2.0 * i / (side - 1) - 1.0)
            _, _, xx, xy, yx, yy = _bend(matrix, bend, x, y)
            a, b = back[0, 0] * xx + back[0, 1] * yx, back[0, 0] * xy + back[0, 1] * yy
            c, d = back[1, 0] * xx + back[1, 1] * yx, back[1, 0] * xy + back[1, 1] * yy
            most = max(most, (a * a + b * b + c * c + d * d) ** 0.5)
    return most

// Bent maps, undone and laid out as a lattice: zmtile/kernels/bend.py.

struct Bent { double x, y, xx, xy, yx, yy; };

// The bend at a frame pixel, px of the target, and its derivatives along x and y.
__device__ Bent bend_at(const double* matrix, const double* bend, double x, double y)
{
    const double hx = bend[2], hy = bend[3], g = bend[4], h = bend[5];
    const double *px = bend + 6, *py = bend + 13;
    double u = (x - bend[0]) / hx, v = (y - bend[1]) / hy;
    const bool free_u = fabs(u) <= 1.0, free_v = fabs(v) <= 1.0;
    u = within(u, -1.0, 1.0);
    v = within(v, -1.0, 1.0);
    const double q = 1.0 / (1.0 + g * u + h * v);
    const double line_x = matrix[0] * hx * u + matrix[1] * hy * v;
    const double line_y = matrix[3] * hx * u + matrix[4] * hy * v;
    Bent at;
    at.x = line_x * (q - 1.0) + u * (u * (px[0] + u * px[3]) + v * (px[1] + u * px[4]));
    at.x += v * v * (px[2] + u * px[5] + v * px[6]);
    at.y = line_y * (q - 1.0) + u * (u * (py[0] + u * py[3]) + v * (py[1] + u * py[4]));
    at.y += v * v * (py[2] + u * py[5] + v * py[6]);
    double xu = matrix[0] * hx * (q - 1.0) - line_x * q * q * g;
    xu += u * (2.0 * px[0] + 3.0 * u * px[3]) + v * (px[1] + 2.0 * u * px[4] + v * px[5]);
    double xv = matrix[1] * hy * (q - 1.0) - line_x * q * q * h;
    xv += u * (px[1] + u * px[4]) + v * (2.0 * px[2] + 2.0 * u * px[5] + 3.0 * v * px[6]);
    double yu = matrix[3] * hx * (q - 1.0) - line_y * q * q * g;
    yu += u * (2.0 * py[0] + 3.0 * u * py[3]) + v * (py[1] + 2.0 * u * py[4] + v * py[5]);
    double yv = matrix[4] * hy * (q - 1.0) - line_y * q * q * h;
    yv += u * (py[1] + u * py[4]) + v * (2.0 * py[2] + 2.0 * u * py[5] + 3.0 * v * py[6]);
    const double along_x = free_u ? 1.0 / hx : 0.0, along_y = free_v ? 1.0 / hy : 0.0;
    at.xx = xu * along_x;
    at.xy = xv * along_y;
    at.yx = yu * along_x;
    at.yy = yv * along_y;
    return at;
}

// The frame pixel that goes to a point of the reference.
__device__ void backward(const Geometry& frame, double x, double y, double* out_x, double* out_y)
{
    const double* back = frame.back;
    double at_x = back[0] * x + back[1] * y + back[2];
    double at_y = back[3] * x + back[4] * y + back[5];
    const double start_x = at_x, start_y = at_y;
    for (int turn = 0; turn < MOST_TURNS; turn++) {
        const Bent bent = bend_at(frame.matrix, frame.bend, at_x, at_y);
        const double next_x = start_x - (back[0] * bent.x + back[1] * bent.y);
        const double next_y = start_y - (back[3] * bent.x + back[4] * bent.y);
        const double moved = fabs(next_x - at_x) + fabs(next_y - at_y);
        at_x = next_x;
        at_y = next_y;
        if (moved < CLOSE) break;
    }
    *out_x = at_x;
    *out_y = at_y;
}

// nodes: (3, rows, cols): frame x, frame y and change of area at tile pixels NODE_STEP * (col + j, row + i).
extern "C" __global__ void lay_nodes(const Geometry* frames, int frame, int row, int col, int rows, int cols, double* nodes)
{
    const Geometry& it = frames[frame];
    const double* matrix = it.matrix;
    const double shift = it.direct ? 0.5 : 0.0;
    const Index count = (Index)rows * cols;
    for (Index item = FIRST_ITEM; item < count; item += ALL_THREADS) {
        const double to_x = (double)(NODE_STEP * (col + item % cols)) + it.origin[0];
        const double to_y = (double)(NODE_STEP * (row + item / cols)) + it.origin[1];
        double x, y;
        backward(it, to_x, to_y, &x, &y);
        const Bent bent = bend_at(matrix, it.bend, x, y);
        const double area = fabs(
            (matrix[0] + bent.xx) * (matrix[4] + bent.yy) - (matrix[1] + bent.xy) * (matrix[3] + bent.yx));
        nodes[item] = x + shift;
        nodes[count + item] = y + shift;
        nodes[2 * count + item] = 1.0 / area;
    }
}

// Interpolation of a frame at the pixels of the tile, matched on the way: zmtile/kernels/warp.py.

struct Patch {
    const float* pixels;  // (rows, cols, depth)
    int row, col;         // frame pixel of its first pixel
    int rows, cols;
};

// TAPS 0: as many as the table has.
template <int TAPS, int DEPTH>
__device__ __forceinline__ void sample(
    const Patch& patch, int first_y, int first_x, int count, const float* across, const float* down, bool clamp,
    float* value)
{
    const int taps = TAPS ? TAPS : count;
    const int channels = DEPTH == 1 ? 1 : 3;
    float lowest[3];
#pragma unroll
    for (int tap = 0; tap < taps; tap++) {
        float total[3], low[3];
#pragma unroll
        for (int line = 0; line < taps; line++) {
            const Index at = (Index)(first_y + line) * patch.cols + (first_x + tap);
            float here[3];
            if (DEPTH == 1) {
                here[0] = patch.pixels[at];
            } else {
                const float4 colour = ((const float4*)patch.pixels)[at];
                here[0] = colour.x;
                here[1] = colour.y;
                here[2] = colour.z;
            }
#pragma unroll
            for (int c = 0; c < channels; c++) {
                const float weighted = here[c] * down[line];
                total[c] = line ? total[c] + weighted : weighted;
                low[c] = line ? smaller(here[c], low[c]) : here[c];
            }
        }
#pragma unroll
        for (int c = 0; c < channels; c++) {
            const float weighted = total[c] * across[tap];
            value[c] = tap ? value[c] + weighted : weighted;
            lowest[c] = tap ? smaller(low[c], lowest[c]) : low[c];
        }
    }
    if (clamp)
        for (int c = 0; c < channels; c++) value[c] = value[c] < lowest[c] ? lowest[c] : value[c];
}

template <int TAPS, int DEPTH>
__device__ void warp_rows(
    const Patch& patch, const Geometry& frame, const double* nodes, int node_rows, int node_cols,
    const float* table, int top, int left, int rows, int cols, Index apart, float* out)
{
    const int taps = TAPS ? TAPS : frame.taps;
    const int before = taps == 1 ? 0 : taps / 2 - 1;
    const int channels = DEPTH == 1 ? 1 : 3;
    const double* matrix = frame.matrix;
    const double shift = frame.direct ? 0.5 : 0.0;
    const Index lattice = (Index)node_rows * node_cols;
    for (Index item = FIRST_ITEM; item < (Index)rows * cols; item += ALL_THREADS) {
        const int i = (int)(item / cols), j = (int)(item % cols);
        const double y = (double)(top + i), x = (double)(left + j);
        double at_x, at_y, area = 1.0;
        if (frame.bent) {
            const double down = (double)((top + i) % NODE_STEP) / NODE_STEP;
            const double along = (double)((left + j) % NODE_STEP) / NODE_STEP;
            const double* node = nodes + (Index)((top + i) / NODE_STEP - top / NODE_STEP) * node_cols
                                 + ((left + j) / NODE_STEP - left / NODE_STEP);
            double at[3];
#pragma unroll
            for (int c = 0; c < 3; c++, node += lattice) {
                const double one = (1.0 - down) * node[0] + down * node[node_cols];
                const double two = (1.0 - down) * node[1] + down * node[node_cols + 1];
                at[c] = (1.0 - along) * one + along * two;
            }
            at_x = at[0];
            at_y = at[1];
            area = at[2];
        } else {
            at_x = matrix[0] * x + matrix[1] * y + (matrix[2] + shift);
            at_y = matrix[3] * x + matrix[4] * y + (matrix[5] + shift);
        }
        const double base_x = floor(at_x), base_y = floor(at_y);
        float value[3] = {NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER};
        // Tested before it is an integer: a place beyond all integers would become one of them.
        if (base_x >= patch.col + before && base_x <= patch.col + patch.cols - taps + before
            && base_y >= patch.row + before && base_y <= patch.row + patch.rows - taps + before) {
            const int first_x = (int)base_x - before - patch.col, first_y = (int)base_y - before - patch.row;
            const float* across = table + (Index)((at_x - base_x) * frame.steps + 0.5) * taps;
            const float* down = table + (Index)((at_y - base_y) * frame.steps + 0.5) * taps;
            sample<TAPS, DEPTH>(patch, first_y, first_x, taps, across, down, frame.clamp && taps > 2, value);
            if (frame.bent)
#pragma unroll
                for (int c = 0; c < channels; c++) value[c] = value[c] * (float)area;
        }
        const double u = (x - frame.middle[0]) / frame.half, v = (y - frame.middle[1]) / frame.half;
#pragma unroll
        for (int c = 0; c < channels; c++) {
            const double* surface = frame.surface + 6 * c;
            const double level = surface[0] + v * (surface[2] + v * surface[5]);
            const double slope = surface[1] + v * surface[4];
            const double sky = level + u * (slope + u * surface[3]);
            out[c * apart + item] = frame.scale[c] * value[c] + (float)sky;
        }
    }
}

template <int DEPTH>
__device__ void warp_depth(
    const Patch& patch, const Geometry& frame, const double* nodes, int node_rows, int node_cols,
    const float* table, int top, int left, int rows, int cols, Index apart, float* out)
{
#define WARP(taps) \
    warp_rows<taps, DEPTH>( \
        patch, frame, nodes, node_rows, node_cols, table, top, left, rows, cols, apart, out)
    switch (frame.taps) {
        case 1: WARP(1); break;
        case 2: WARP(2); break;
        case 4: WARP(4); break;
        case 6: WARP(6); break;
        case 8: WARP(8); break;
        default: WARP(0);
    }
#undef WARP
}

// out: this frame's samples of the first channel, (rows, cols); `apart` floats to those of the next channel.
extern "C" __global__ void warp(
    const float* pixels, int depth, int patch_row, int patch_col, int patch_rows, int patch_cols,
    const Geometry* frames, int frame, const double* nodes, int node_rows, int node_cols, const float* table,
    int top, int left, int rows, int cols, Index apart, float* out)
{
    const Patch patch = {pixels, patch_row, patch_col, patch_rows, patch_cols};
    if (depth == 1)
        warp_depth<1>(patch, frames[frame], nodes, node_rows, node_cols, table, top, left, rows, cols, apart, out);
    else
        warp_depth<4>(patch, frames[frame], nodes, node_rows, node_cols, table, top, left, rows, cols, apart, out);
}

// The part of its weight that a frame keeps near its edge: zmtile/stacking/warp.py. share: (rows, cols).
extern "C" __global__ void feather(
    const Geometry* frames, int frame, double width, float least, int top, int left, int rows, int cols, float* share)
{
    const Geometry& it = frames[frame];
    const double* matrix = it.matrix;
    for (Index item = FIRST_ITEM; item < (Index)rows * cols; item += ALL_THREADS) {
        const double x = (double)(left + item % cols), y = (double)(top + item / cols);
        double at_x = matrix[0] * x + matrix[1] * y + matrix[2], at_y = matrix[3] * x + matrix[4] * y + matrix[5];
        if (it.bent) backward(it, x + it.origin[0], y + it.origin[1], &at_x, &at_y);
        double inside = at_x < at_y ? at_x : at_y;
        const double right = it.cols - 1 - at_x, bottom = it.rows - 1 - at_y;
        inside = inside < right ? inside : right;
        inside = (inside < bottom ? inside : bottom) + 0.5;
        const double t = within(inside / width, 0.0, 1.0);
        share[item] = larger((float)(t * t * (3 - 2 * t)), least);
    }
}

// From stored numbers to ADU, corrected: what zmtile/frames/pixels.py and calibrate.py do to a rectangle.

enum Stored { BYTES = 0, SHORTS = 1, FLOATS = 2 };

__device__ __forceinline__ unsigned int byte_swapped(unsigned int word) {
    return (word >> 24) | ((word >> 8) & 0xff00u) | ((word << 8) & 0xff0000u) | (word << 24);
}

// raw: (planes, rows, cols), or (rows, cols, planes) if interleaved, one of Stored; big-endian if swap.
// masters: (planes or 1, master_rows, master_cols) each, or null; the rectangle begins at (row, col) of theirs.
// out: float32, `apart` floats from pixel to pixel and 1 from plane to plane.
extern "C" __global__ void develop(
    const unsigned char* raw, int stored, int swap, int interleaved, int planes, int rows, int cols,
    float bscale, float bzero, float largest, int has_blank, int blank,
    const float* bias, const float* dark, const float* flat, float dark_factor,
    int row, int col, int master_rows, int master_cols, int apart, float* out)
{
    const Index pixels = (Index)rows * cols;
    for (Index item = FIRST_ITEM; item < pixels * planes; item += ALL_THREADS) {
        const int plane = (int)(item / pixels);
        const Index pixel = item % pixels;
        const Index at = interleaved ? pixel * planes + plane : item;
        float value;
        int number = 0;
        if (stored == FLOATS) {
            unsigned int word = ((const unsigned int*)raw)[at];
            value = __int_as_float((int)(swap ? byte_swapped(word) : word));
        } else {
            if (stored == SHORTS) {
                unsigned short word = ((const unsigned short*)raw)[at];
                if (swap) word = (unsigned short)((word >> 8) | (word << 8));
                number = (short)word;
            } else {
                number = raw[at];
            }
            value = (float)number;
        }
        if (bscale != 1.0f) value = value * bscale;
        if (bzero != 0.0f) value = value + bzero;
        // No camera counts so far. Stored integers that are not scaled cannot, and have `largest` 0.
        if (largest > 0.0f && !(fabsf(value) < largest)) value = NOT_A_NUMBER;
        if (has_blank && number == blank) value = NOT_A_NUMBER;
        const int y = (int)(pixel / cols), x = (int)(pixel % cols);
        const Index there = ((Index)plane * master_rows + (row + y)) * master_cols + (col + x);
        if (bias) value = value - bias[there];
        if (dark) value = dark_factor == 1.0f ? value - dark[there] : value - dark_factor * dark[there];
        if (flat) value = value / flat[there];
        out[pixel * apart + plane] = value;
    }
}

// No data at the bad pixels of a frame, row * frame_cols + col each, that lie in the rectangle.
extern "C" __global__ void mask_pixels(
    const Index* bad, Index count, int frame_cols, int row, int col, int rows, int cols, int planes, int apart,
    float* out)
{
    for (Index item = FIRST_ITEM; item < count; item += ALL_THREADS) {
        const Index y = bad[item] / frame_cols - row, x = bad[item] % frame_cols - col;
        if (y < 0 || y >= rows || x < 0 || x >= cols) continue;
        for (int plane = 0; plane < planes; plane++) out[(y * cols + x) * apart + plane] = NOT_A_NUMBER;
    }
}

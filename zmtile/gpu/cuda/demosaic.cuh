// From a mosaic to colour: zmtile/kernels/demosaic.py tells why it is done so.

// mosaic: (rows, cols), pixel (row, col) of the frame first. out: (rows, cols, 4), the fourth float is padding.
extern "C" __global__ void demosaic(
    const float* mosaic, const Geometry* frames, int frame, int rows, int cols, int row, int col, float4* out)
{
    const int* codes = frames[frame].codes;
    const int direct = frames[frame].direct;
    for (Index item = FIRST_ITEM; item < (Index)rows * cols; item += ALL_THREADS) {
        const int y = (int)(item / cols), x = (int)(item % cols);
        const float* at = mosaic + item;
        const float here = *at;
        const int code = codes[((y + row) & 1) * 2 + ((x + col) & 1)];
        float colour[3] = {NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER};
        if (direct) {
            colour[0] = code == 0 ? here : NOT_A_NUMBER;
            colour[1] = code == 1 ? here : NOT_A_NUMBER;
            colour[2] = code == 2 ? here : NOT_A_NUMBER;
            out[item] = make_float4(colour[0], colour[1], colour[2], 0.0f);
            continue;
        }
        const bool inner_row = 0 < y && y < rows - 1, inner_col = 0 < x && x < cols - 1;
        const Index up = cols;
        float beside = NOT_A_NUMBER, above = NOT_A_NUMBER, corner = NOT_A_NUMBER;
        float far_x = NOT_A_NUMBER, far_y = NOT_A_NUMBER;
        if (inner_col) beside = 0.5f * (at[-1] + at[1]);
        if (inner_row) above = 0.5f * (at[-up] + at[up]);
        if (inner_row && inner_col) corner = 0.25f * ((at[-up - 1] + at[-up + 1]) + (at[up - 1] + at[up + 1]));
        if (1 < y && y < rows - 2 && 1 < x && x < cols - 2) {
            far_x = 0.5f * (at[-2] + at[2]);
            far_y = 0.5f * (at[-2 * up] + at[2 * up]);
        }
        float green, beside_green, above_green;  // of a pixel that measured green: the colours beside and above it
        if (code == 1) {
            const float level = 0.5f * (here - corner) + 0.125f * here;
            float step = level + 0.125f * far_y - 0.25f * far_x;
            beside_green = beside + (step == step ? TO_BOTH * step : 0.0f);
            step = level + 0.125f * far_x - 0.25f * far_y;
            above_green = above + (step == step ? TO_BOTH * step : 0.0f);
            const int across = codes[((y + row) & 1) * 2 + ((x + col + 1) & 1)];
            colour[0] = across == 0 ? beside_green : above_green;
            colour[1] = here;
            colour[2] = across == 0 ? above_green : beside_green;
        } else {
            float step = here - 0.5f * (far_x + far_y);
            step = step == step ? step : 0.0f;
            green = 0.5f * (beside + above) + TO_GREEN * step;
            const float opposite = corner + TO_OPPOSITE * step;
            colour[0] = code == 0 ? here : opposite;
            colour[1] = green;
            colour[2] = code == 0 ? opposite : here;
        }
        out[item] = make_float4(colour[0], colour[1], colour[2], 0.0f);
    }
}

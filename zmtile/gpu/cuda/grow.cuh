// Growth of the regions that were rejected in a frame: zmtile/kernels/grow.py and zmtile/stacking/grow.py.

// near: (frames, rows, cols), set to 1 within `radius` of every region of samples rejected above.
extern "C" __global__ void grow_regions(
    const float* samples, const float* upper, int frames, int rows, int cols, int radius, unsigned char* near)
{
    const Index pixels = (Index)rows * cols;
    for (Index item = FIRST_ITEM; item < frames * pixels; item += ALL_THREADS) {
        const Index pixel = item % pixels;
        const float* own = samples + item / pixels * pixels;
        if (!(own[pixel] > upper[pixel])) continue;
        const int row = (int)(pixel / cols), col = (int)(pixel % cols);
        int found = 0;
        for (int r = row - GROW_REACH; r <= row + GROW_REACH; r++)
            for (int c = col - GROW_REACH; c <= col + GROW_REACH; c++)
                if (r >= 0 && r < rows && c >= 0 && c < cols)
                    found += own[(Index)r * cols + c] > upper[(Index)r * cols + c];
        if (found < GROW_NEED) continue;
        unsigned char* region = near + item / pixels * pixels;
        for (int r = row - radius; r <= row + radius; r++)
            for (int c = col - radius; c <= col + radius; c++)
                if (r >= 0 && r < rows && c >= 0 && c < cols
                    && (r - row) * (r - row) + (c - col) * (c - col) <= radius * radius)
                    region[(Index)r * cols + c] = 1;  // several threads may, all alike
    }
}

// Take the survivors near a region away: what was rejected or is taken becomes NaN in the samples of the pixels
// where that happens (touched: 1). A pixel that would be left without a sample keeps what it has.
extern "C" __global__ void take_away(
    float* samples, const float* lower, const float* upper, const unsigned char* near, int frames, Index pixels,
    Index count_from, Index count_to, unsigned short* rejhigh, unsigned char* touched, unsigned long long* tally)
{
    for (Index pixel = FIRST_ITEM; pixel < pixels; pixel += ALL_THREADS) {
        int taken = 0, left = 0;
        for (int i = 0; i < frames; i++) {
            const float x = samples[i * pixels + pixel];
            if (!(x >= lower[pixel] && x <= upper[pixel])) continue;
            if (near[i * pixels + pixel]) taken++;
            else left++;
        }
        touched[pixel] = taken && left;
        if (!(taken && left)) continue;
        rejhigh[pixel] = (unsigned short)(rejhigh[pixel] + taken);
        const bool counted = pixel >= count_from && pixel < count_to;
        for (int i = 0; i < frames; i++) {
            float* x = samples + i * pixels + pixel;
            const bool survives = *x >= lower[pixel] && *x <= upper[pixel];
            if (survives && near[i * pixels + pixel] && counted) atomicAdd(tally + 3 * i + 2, 1ull);
            if (!survives || near[i * pixels + pixel]) *x = NOT_A_NUMBER;
        }
    }
}

// Where samples were taken away, what the rest makes.
extern "C" __global__ void put_back(
    const unsigned char* touched, Index pixels, const float* image_again, const float* uncert_again,
    const float* weight_again, float* image, float* uncert, float* weight)
{
    for (Index pixel = FIRST_ITEM; pixel < pixels; pixel += ALL_THREADS) {
        if (!touched[pixel]) continue;
        image[pixel] = image_again[pixel];
        uncert[pixel] = uncert_again[pixel];
        weight[pixel] = weight_again[pixel];
    }
}

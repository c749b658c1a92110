// Bounds of the survivors of every pixel, where sigma is not searched for: zmtile/kernels/bounds.py.

#if OWN_SIZE && !SEARCHING
// Up to OWN_SIZE frames, a thread for each pixel: its samples are sorted in registers.
extern "C" __global__ void __launch_bounds__(THREADS) bounds_own(STACK_ARGUMENTS)
{
    STACK_OUTPUTS
    for (Index pixel = FIRST_ITEM; pixel < pixels; pixel += ALL_THREADS) {
        Own<OWN_SIZE> column;
        int count = 0;
#pragma unroll
        for (int i = 0; i < OWN_SIZE; i++) {
            const float x = i < frames ? samples[i * pixels + pixel] : NOT_A_NUMBER;
            column.x[i] = x == x ? x : INF;
            count += x == x;
        }
        NETWORK(column.x)
        float lower, upper, centre;
#if METHOD == ESD
        double sums[OWN_SIZE], squares[OWN_SIZE];
        bounds_of(column, count, *rule, critical, sums, squares, 1, &lower, &upper, &centre);
#else
        bounds_of(column, count, *rule, critical, 0, 0, 1, &lower, &upper, &centre);
#endif
        put_bounds(out, pixel, count, lower, upper, centre);
    }
}
#elif !OWN_SIZE
// Any number of frames: a block sorts LANES pixels together, then each of its first threads has one of them.
// pairs: the comparators of a network, in stages that begin at stages[s] and are independent within.
// scratch: (blocks, frames, LANES) floats, or null if they fit shared memory; sums: (blocks, 2, frames, LANES) for ESD.
extern "C" __global__ void __launch_bounds__(THREADS) bounds_shared(
    STACK_ARGUMENTS, const int2* pairs, const int* stages, int stage_count, float* scratch, double* sums)
{
    STACK_OUTPUTS
    DYNAMIC_SHARED(cells);
    const Index block_cells = (Index)frames * LANES;
    float* tile = scratch ? scratch + blockIdx.x * block_cells : cells;
    double* sum = sums ? sums + 2 * blockIdx.x * block_cells : 0;
    for (Index start = (Index)blockIdx.x * LANES; start < pixels; start += (Index)gridDim.x * LANES) {
        for (Index q = threadIdx.x; q < block_cells; q += blockDim.x) {
            const Index pixel = start + q % LANES;
            const float x = pixel < pixels ? samples[q / LANES * pixels + pixel] : NOT_A_NUMBER;
            tile[q] = x == x ? x : INF;
        }
        __syncthreads();
        for (int s = 0; s < stage_count; s++) {
            const Index items = (Index)(stages[s + 1] - stages[s]) * LANES;
            for (Index q = threadIdx.x; q < items; q += blockDim.x) {
                const int2 pair = pairs[stages[s] + q / LANES];
                float* upper_row = tile + (Index)pair.x * LANES + q % LANES;
                float* lower_row = tile + (Index)pair.y * LANES + q % LANES;
                const float u = *upper_row, v = *lower_row;
                *upper_row = u < v ? u : v;
                *lower_row = u < v ? v : u;
            }
            __syncthreads();
        }
        for (int lane = threadIdx.x; lane < LANES; lane += blockDim.x) {
            Shared column = {tile + lane};
            int below = 0, count = frames;  // absent samples are the last ones: where they begin, by bisection
            while (below < count) {
                const int middle = (below + count) >> 1;
                if (column.at(middle) < INF) below = middle + 1;
                else count = middle;
            }
            float lower, upper, centre;
            bounds_of(
                column, count, *rule, critical, sum + lane, sum + block_cells + lane, LANES, &lower, &upper, &centre);
            if (start + lane < pixels) put_bounds(out, start + lane, count, lower, upper, centre);
        }
        __syncthreads();
    }
}
#endif

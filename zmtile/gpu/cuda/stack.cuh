// Rejection and combination of the samples of every pixel: zmtile/kernels/reject.py and uncertainty.py.

struct Rejection {
    float klow, khigh;
    double low, high;
    int clamp, use_median;
};

struct Inputs {
    const float* samples;  // (frames, pixels), NaN where a frame has no data
    Index pixels;
    int frames;
    const float* weights;  // (frames,)
    const float* shares;   // (frames, pixels), or null
    const float* noises;   // (frames,)
    const float* precisions;  // (frames,): 1 / noise^2
    const float* student;  // (2, table)
    const float* widening; // (table,)
    const double* critical;
    int table;             // length of these tables
    Index count_from, count_to;  // pixels whose samples are tallied
};

struct Outputs {
    float *image, *uncert, *weight;
    unsigned short *coverage, *rejlow, *rejhigh;
    float *lower, *upper;  // the bounds that samples were held to
    unsigned long long* tally;  // (frames, 3), added to
};

// Between the factors of `student`: see zmtile/kernels/uncertainty.py.
__device__ __forceinline__ float reached(float free, float bound, float apart)
{
    const float z = 0.5f * apart * (free / bound - bound / free);
    return bound * (z + sqrtf(z * z + 1.0f));
}

// Noise of the median of the survivors, as if it scattered no more than a mean.
__device__ float median_noise(const Inputs& in, const float* own, Index apart, float lower, float upper, bool clamp)
{
    float kept = 0.0f, squares = 0.0f;
    for (int i = 0; i < in.frames; i++) {
        const float x = own[i * apart];
        if ((clamp && x == x) || (lower <= x && x <= upper)) {
            kept = kept + 1.0f;
            squares = squares + in.noises[i] * in.noises[i];
        }
    }
    float error = sqrtf(squares) / kept;
    if (kept == 2.0f) return error;
    for (int turn = 0; turn < 8; turn++) {
        float total = 0.0f;
        squares = 0.0f;
        for (int i = 0; i < in.frames; i++) {
            const float x = own[i * apart];
            if ((clamp && x == x) || (lower <= x && x <= upper)) {
                const float variance = in.noises[i] * in.noises[i];
                const float influence = 1.0f / (variance + MEDIAN_VARIANCE * error * error);
                total = total + sqrtf(influence);
                squares = squares + influence * variance;
            }
        }
        error = sqrtf(squares) / total;
    }
    return error;
}

// Which rows of a sorted column survive, as bounds on the values, and about which centre to sum them.
template <class Column>
__device__ __forceinline__ void bounds_of(
    Column& column, int count, const Rejection& rule, const double* critical, double* sums, double* squares,
    int apart, float* lower, float* upper, float* centre)
{
    int first = 0, last = count;
    *lower = -INF;
    *upper = INF;
    *centre = 0.0f;
    if (count == 0) return;
    if (METHOD != WINSOR_QUANTILE) {
        if (count >= 3) {
            if (METHOD == SIGMA || METHOD == WINSOR)
                reject_sigma(column, count, rule.klow, rule.khigh, METHOD == WINSOR, &first, &last);
            if (METHOD == ESD)
                reject_esd(column, count, rule.low, critical, sums, squares, apart, &first, &last);
            if (METHOD == MAD) reject_mad(column, rule.klow, rule.khigh, &first, &last);
            if (METHOD == LINEAR_FIT) reject_linear_fit(column, rule.klow, rule.khigh, &first, &last);
            if (METHOD == MINMAX && rule.low + rule.high < count) {
                first = (int)rule.low;
                last = count - (int)rule.high;
            }
            if (METHOD == MAD || METHOD == LINEAR_FIT || METHOD == MINMAX)
                keep_equals(column, count, &first, &last);
        }
        *lower = column.at(first);
        *upper = column.at(last - 1);
        *centre = median(column, first, last);
        return;
    }
    if (count >= 3) {
        bounds_quantile(column, count, rule.low, rule.high, rule.klow, rule.khigh, lower, upper);
        while (first < last && column.at(first) < *lower) first++;
        while (last > first && column.at(last - 1) > *upper) last--;
        if (first == last && !rule.clamp) {  // all refused: then none goes
            first = 0;
            last = count;
            *lower = -INF;
            *upper = INF;
        }
    }
    if (rule.clamp)  // all samples count, the outliers at their bounds
        *centre = smaller(larger(median(column, 0, count), *lower), *upper);
    else
        *centre = median(column, first, last);
}

// Sum the survivors about the centre, and write what becomes of the pixel. All threads of a warp come by, those
// without a pixel (live false) too. own: the pixel's samples in the frames' order, `apart` floats from one to the next.
// seen: (frames, 3) counters of the block, or null to count in the tally itself.
__device__ __forceinline__ void combine(
    const Inputs& in, const Outputs& out, const Rejection& rule, Index pixel, bool live, const float* own, Index apart,
    int count, float lower, float upper, float centre, unsigned int* seen)
{
    float nlow = 0.0f, nhigh = 0.0f, sum_w = 0.0f, sum_p = 0.0f, spread_n = 0.0f;
    float shift = 0.0f, drift = 0.0f, spread = 0.0f;
    const float drop = rule.clamp ? 0.0f : 1.0f;
    const bool counted = live && pixel >= in.count_from && pixel < in.count_to;
    for (int i = 0; i < in.frames; i++) {
        float weight = in.weights[i];
        const float noise = in.noises[i];
        if (in.shares && live) weight = weight * in.shares[i * in.pixels + pixel];
        const float precision = in.precisions[i];
        const float variance = (weight * noise) * (weight * noise);
        float x = live ? own[i * apart] : NOT_A_NUMBER;
        const bool low = x < lower, high = x > upper, here = x == x;
        x = low ? lower : x;
        x = high ? upper : x;
        const float keep = (here ? 1.0f : 0.0f) - drop * ((low ? 1.0f : 0.0f) + (high ? 1.0f : 0.0f));
        const float d = keep > 0.0f ? x - centre : 0.0f;
        nlow = nlow + (low ? 1.0f : 0.0f);
        nhigh = nhigh + (high ? 1.0f : 0.0f);
        sum_w = sum_w + weight * keep;
        sum_p = sum_p + precision * keep;
        spread_n = spread_n + variance * keep;
        shift = shift + weight * d;
        drift = drift + precision * d;
        spread = spread + precision * d * d;
        const int kinds[3] = {
            WARP_COUNT(counted && here), WARP_COUNT(counted && low), WARP_COUNT(counted && high)};
        if (WARP_LEADER)
            for (int kind = 0; kind < 3; kind++)
                if (kinds[kind]) {
                    if (seen) atomicAdd(seen + 3 * i + kind, (unsigned int)kinds[kind]);
                    else atomicAdd(out.tally + 3 * i + kind, (unsigned long long)kinds[kind]);
                }
    }
    if (!live) return;
    const float kept = rule.clamp ? (float)count : (float)count - nlow - nhigh;
    out.coverage[pixel] = (unsigned short)count;
    out.rejlow[pixel] = (unsigned short)nlow;
    out.rejhigh[pixel] = (unsigned short)nhigh;
    out.weight[pixel] = sum_w;
    if (out.lower) {
        out.lower[pixel] = lower;
        out.upper[pixel] = upper;
    }
    if (kept == 0.0f) {
        out.image[pixel] = NOT_A_NUMBER;
        out.uncert[pixel] = NOT_A_NUMBER;
        return;
    }
    out.image[pixel] = rule.use_median ? centre : centre + shift / sum_w;
    float noise = sqrtf(spread_n) / sum_w;
    if (kept == 1.0f) {
        out.uncert[pixel] = noise;
        return;
    }
    if (rule.use_median) noise = median_noise(in, own, apart, lower, upper, rule.clamp);
    const float scatter = spread - drift * (drift / sum_p);
    float error = noise * sqrtf(larger(scatter, 0.0f) / (kept - 1.0f));
    const float common = smaller(1.0f / (noise * sqrtf(sum_p)), 1.0f);
    const int k = (int)kept;
    error = error * (reached(in.student[k], in.student[in.table + k], common) * in.widening[count]);
    out.uncert[pixel] = larger(error, LEAST_UNCERT * noise);
}

#define STACK_ARGUMENTS \
    const float *samples, Index pixels, int frames, const float *weights, const float *shares, const float *noises, \
        const float *precisions, const Rejection *rule, const float *student, const float *widening, const double *critical, int table, \
        Index count_from, Index count_to, float *image, float *uncert, float *weight, unsigned short *coverage, \
        unsigned short *rejlow, unsigned short *rejhigh, float *lower, float *upper, unsigned long long *tally

#define STACK_STRUCTS \
    const Inputs in = {samples, pixels,   frames,   weights, shares,     noises,  precisions, \
                       student, widening, critical, table,   count_from, count_to}; \
    const Outputs out = {image, uncert, weight, coverage, rejlow, rejhigh, lower, upper, tally};

#if OWN_SIZE
// Up to OWN_SIZE frames, a thread for each pixel. Its samples are read once: the column is sorted in registers, and
// they stay in shared memory, in the frames' order, for the combination.
extern "C" __global__ void __launch_bounds__(THREADS) stack_own(STACK_ARGUMENTS)
{
    STACK_STRUCTS
    DYNAMIC_SHARED(cells);
    float* own = cells + threadIdx.x;
    unsigned int* seen = (unsigned int*)(cells + frames * blockDim.x);
    for (int k = threadIdx.x; k < 3 * frames; k += blockDim.x) seen[k] = 0;
    __syncthreads();
    for (Index start = (Index)blockIdx.x * blockDim.x; start < pixels; start += ALL_THREADS) {
        const Index pixel = start + threadIdx.x;
        const bool live = pixel < pixels;
        Own<OWN_SIZE> column;
        int count = 0;
#pragma unroll
        for (int i = 0; i < OWN_SIZE; i++) {
            const float x = live && i < frames ? samples[i * pixels + pixel] : NOT_A_NUMBER;
            if (i < frames) own[i * blockDim.x] = x;
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
        combine(in, out, *rule, pixel, live, own, blockDim.x, count, lower, upper, centre, seen);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < 3 * frames; k += blockDim.x)
        if (seen[k]) atomicAdd(tally + k, (unsigned long long)seen[k]);
}
#else
// Any number of frames: a block sorts LANES pixels together, then each of its first threads has one of them.
// pairs: the comparators of a network, in stages that begin at stages[s] and are independent within.
// scratch: (blocks, frames, LANES) floats, or null if they fit shared memory; sums: (blocks, 2, frames, LANES) for ESD.
extern "C" __global__ void __launch_bounds__(THREADS) stack_shared(
    STACK_ARGUMENTS, const int2* pairs, const int* stages, int stage_count, float* scratch, double* sums)
{
    STACK_STRUCTS
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
            combine(
                in, out, *rule, start + lane, start + lane < pixels, samples + start + lane, pixels, count, lower,
                upper, centre, 0);
        }
        __syncthreads();
    }
}
#endif

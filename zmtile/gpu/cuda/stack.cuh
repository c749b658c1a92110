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
NOT_INLINE float median_noise(
    const float* noises, int frames, const float* own, Index apart, float lower, float upper, bool clamp)
{
    float kept = 0.0f, squares = 0.0f;
    for (int i = 0; i < frames; i++) {
        const float x = own[i * apart];
        if ((clamp && x == x) || (lower <= x && x <= upper)) {
            kept = kept + 1.0f;
            squares = squares + noises[i] * noises[i];
        }
    }
    float error = sqrtf(squares) / kept;
    if (kept == 2.0f) return error;
    for (int turn = 0; turn < 8; turn++) {
        float total = 0.0f;
        squares = 0.0f;
        for (int i = 0; i < frames; i++) {
            const float x = own[i * apart];
            if ((clamp && x == x) || (lower <= x && x <= upper)) {
                const float variance = noises[i] * noises[i];
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

// Write what becomes of a pixel.
__device__ __forceinline__ void put(
    const Inputs& in, const Outputs& out, const Rejection& rule, Index pixel, float lower, float upper, float centre,
    int nlow, int nhigh, float sum_w, float sum_p, float spread_n, float shift, float drift, float spread)
{
    const int count = out.coverage[pixel];
    const float kept = rule.clamp ? (float)count : (float)(count - nlow - nhigh);
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
    if (rule.use_median) noise = median_noise(in.noises, in.frames, in.samples + pixel, in.pixels, lower, upper, rule.clamp);
    const float scatter = spread - drift * (drift / sum_p);
    float error = noise * sqrtf(larger(scatter, 0.0f) / (kept - 1.0f));
    const float common = smaller(1.0f / (noise * sqrtf(sum_p)), 1.0f);
    const int k = (int)kept;
    error = error * (reached(in.student[k], in.student[in.table + k], common) * in.widening[count]);
    out.uncert[pixel] = larger(error, LEAST_UNCERT * noise);
}

// Sum the survivors about the centre, and write what becomes of the pixels: each thread takes PER of them, a warp's width
// apart. Their bounds and counts lie in the planes. seen: (frames, 3) counters of the block, or null to count in the
// tally itself. SHARES: whether there are any.
template <bool SHARES>
__device__ __forceinline__ void combine(
    const Inputs& in, const Outputs& out, const Rejection& rule, Index start, unsigned int* seen)
{
    float lower[PER], upper[PER], centre[PER];
    float sum_w[PER], sum_p[PER], spread_n[PER], shift[PER], drift[PER], spread[PER];
    unsigned int lost[PER];  // below, and above in the upper half
    bool live[PER], counted[PER];
#pragma unroll
    for (int k = 0; k < PER; k++) {
        const Index pixel = start + k * WARP_SIZE;
        live[k] = pixel < in.pixels;
        counted[k] = live[k] && pixel >= in.count_from && pixel < in.count_to;
        lower[k] = live[k] ? out.image[pixel] : 0.0f;
        upper[k] = live[k] ? out.uncert[pixel] : 0.0f;
        centre[k] = live[k] ? out.weight[pixel] : 0.0f;
        sum_w[k] = sum_p[k] = spread_n[k] = shift[k] = drift[k] = spread[k] = 0.0f;
        lost[k] = 0;
    }
    const int lane = threadIdx.x % WARP_SIZE;
    for (int i = 0; i < in.frames; i++) {
        const float given = in.weights[i], noise = in.noises[i], precision = in.precisions[i];
        unsigned int all_here = 0, all_lost = 0;
        float samples[PER];
#pragma unroll
        for (int k = 0; k < PER; k++)
            samples[k] = live[k] ? in.samples[i * in.pixels + start + k * WARP_SIZE] : NOT_A_NUMBER;
#pragma unroll
        for (int k = 0; k < PER; k++) {
            float weight = given, x = samples[k];
            if (SHARES && live[k]) weight = weight * in.shares[i * in.pixels + start + k * WARP_SIZE];
            const float variance = (weight * noise) * (weight * noise);
            const bool low = x < lower[k], high = x > upper[k];
            bool here = x == x;
            const unsigned int gone = (low ? 1u : 0u) + (high ? 1u << 16 : 0u);
            lost[k] += gone;
            if (counted[k]) {
                all_here += here;
                all_lost += gone;
            }
            if (rule.clamp) {
                x = low ? lower[k] : x;
                x = high ? upper[k] : x;
            } else here = here && !low && !high;
            const float d = here ? x - centre[k] : 0.0f;
            sum_w[k] = sum_w[k] + (here ? weight : 0.0f);
            sum_p[k] = sum_p[k] + (here ? precision : 0.0f);
            spread_n[k] = spread_n[k] + (here ? variance : 0.0f);
            shift[k] = shift[k] + weight * d;
            drift[k] = drift[k] + precision * d;
            spread[k] = spread[k] + precision * d * d;
        }
        all_here = WARP_SUM(all_here);
        all_lost = WARP_SUM(all_lost);
        for (int kind = lane; kind < 3; kind += WARP_SIZE) {
            const unsigned int found = kind == 0 ? all_here : kind == 1 ? all_lost & 0xffff : all_lost >> 16;
            if (found) {
                if (seen) atomicAdd(seen + 3 * i + kind, found);
                else atomicAdd(out.tally + 3 * i + kind, (unsigned long long)found);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < PER; k++)
        if (live[k])
            put(in, out, rule, start + k * WARP_SIZE, lower[k], upper[k], centre[k], lost[k] & 0xffff, lost[k] >> 16,
                sum_w[k], sum_p[k], spread_n[k], shift[k], drift[k], spread[k]);
}

#define STACK_ARGUMENTS \
    const float *samples, Index pixels, int frames, const float *weights, const float *shares, const float *noises, \
        const float *precisions, const Rejection *rule, const float *student, const float *widening, const double *critical, int table, \
        Index count_from, Index count_to, float *image, float *uncert, float *weight, unsigned short *coverage, \
        unsigned short *rejlow, unsigned short *rejhigh, float *lower, float *upper, unsigned long long *tally

#define STACK_INPUTS \
    const Inputs in = {samples, pixels,   frames,   weights, shares,     noises,  precisions, \
                       student, widening, critical, table,   count_from, count_to};
#define STACK_OUTPUTS \
    const Outputs out = {image, uncert, weight, coverage, rejlow, rejhigh, lower, upper, tally};

// What the rejection finds of a pixel waits in its planes for the combination.
__device__ __forceinline__ void put_bounds(
    const Outputs& out, Index pixel, int count, float lower, float upper, float centre)
{
    out.image[pixel] = lower;
    out.uncert[pixel] = upper;
    out.weight[pixel] = centre;
    out.coverage[pixel] = (unsigned short)count;
}

// After one of the other kernels, which leave the bounds in the planes. counters: those of all frames fit the shared memory.
extern "C" __global__ void __launch_bounds__(THREADS) combine_planes(STACK_ARGUMENTS, int counters)
{
    STACK_INPUTS
    STACK_OUTPUTS
    DYNAMIC_SHARED(cells);
    unsigned int* seen = counters ? (unsigned int*)cells : 0;
    for (int k = threadIdx.x; seen && k < 3 * frames; k += blockDim.x) seen[k] = 0;
    __syncthreads();
    const Rejection kept = *rule;
    const Index warps = ALL_THREADS / WARP_SIZE;
    for (Index group = FIRST_ITEM / WARP_SIZE; group * PER * WARP_SIZE < pixels; group += warps)
        if (shares) combine<true>(in, out, kept, group * PER * WARP_SIZE + threadIdx.x % WARP_SIZE, seen);
        else combine<false>(in, out, kept, group * PER * WARP_SIZE + threadIdx.x % WARP_SIZE, seen);
    __syncthreads();
    for (int k = threadIdx.x; seen && k < 3 * frames; k += blockDim.x)
        if (seen[k]) atomicAdd(tally + k, (unsigned long long)seen[k]);
}


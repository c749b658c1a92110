// The rejections: which rows of a sorted column survive. zmtile/kernels/winsor.py and bounds.py, pixel by pixel.

// Beyond median +- kappa sigma, again until none goes, with Huber's winsorised sigma or the plain SD.
template <class Column>
__device__ __forceinline__ void reject_sigma(Column& column, int count, float klow, float khigh, bool winsor, int* first, int* last)
{
    bool again = true;
    while (again) {
        const float centre = median(column, *first, *last);
        const float number = (float)(*last - *first), per_n = 1.0f / number, per_dof = 1.0f / (number - 1.0f);
        column.cover(*first, *last, centre);
        float low = -INF, high = INF, sigma = INF;
        for (int turn = 0;; turn++) {
            float total, square;
            column.sum(*first, *last, centre, low, high, &total, &square);
            const float spread = (square - total * (total * per_n)) * per_dof;
            const float old = sigma;
            sigma = sqrtf(spread > 0.0f ? spread : 0.0f);
            if (!winsor) break;
            if (turn > 0) {  // the first turn gives the plain SD, which settles nothing
                sigma = WINSOR_GROW * sigma;
                if (fabsf(sigma - old) <= WINSOR_SETTLED * old || turn >= WINSOR_ROUNDS) break;
            }
            const float bound = WINSOR_CLIP * sigma;
            low = -bound > low ? -bound : low;  // clipped again and again: the bounds only close
            high = bound < high ? bound : high;
        }
        int a = *first, b = *last;
        column.trim(centre - klow * sigma, centre + khigh * sigma, &a, &b);
        if (a == b) {  // a kappa below 1 can refuse them all; then none goes
            a = *first;
            b = *last;
        }
        again = b - a < *last - *first && b - a >= 3;
        *first = a;
        *last = b;
    }
}

// Quantile q of a sorted column, linear between samples.
template <class Column>
__device__ float quantile(const Column& column, int count, double q)
{
    const double place = q * (count - 1);
    const int below = (int)place, above = below + 1 < count - 1 ? below + 1 : count - 1;
    return column.at(below) + (float)(place - below) * (column.at(above) - column.at(below));
}

// Bounds from median and SD of a copy of a column that is clipped at its own quantiles.
template <class Column>
__device__ void bounds_quantile(
    const Column& column, int count, double qlow, double qhigh, float klow, float khigh, float* lower, float* upper)
{
    const float bottom = quantile(column, count, qlow), top = quantile(column, count, 1.0 - qhigh);
    const float centre = smaller(larger(median(column, 0, count), bottom), top);
    float total = 0.0f, square = 0.0f;
    for (int i = 0; i < count; i++) {
        const float d = smaller(larger(column.at(i), bottom), top) - centre;
        total = total + d;
        square = square + d * d;
    }
    const float spread = (square - total * (total / (float)count)) / (float)(count - 1);
    const float sigma = sqrtf(larger(spread, 0.0f));
    *lower = centre - klow * sigma;
    *upper = centre + khigh * sigma;
}

// Median distance from the centre: both sides, merged from the middle outwards.
template <class Column>
__device__ float deviation_median(const Column& column, int first, int last, float centre)
{
    const int count = last - first;
    int up = first + (count >> 1), down = up - 1;
    float value = 0.0f, before = 0.0f;
    for (int k = 0; k < (count >> 1) + 1; k++) {
        before = value;
        const float below = down >= first ? centre - column.at(down) : INF;
        const float above = up < last ? column.at(up) - centre : INF;
        if (below < above) {
            value = below;
            down--;
        } else {
            value = above;
            up++;
        }
    }
    return count & 1 ? value : before + 0.5f * (value - before);
}

template <class Column>
__device__ void reject_mad(const Column& column, float klow, float khigh, int* first, int* last)
{
    while (*last - *first >= 3) {
        const float centre = median(column, *first, *last);
        const float sigma = MAD_SCALE * deviation_median(column, *first, *last, centre);
        const float lower = centre - klow * sigma, upper = centre + khigh * sigma;
        int a = *first, b = *last;
        while (a < b && column.at(a) < lower) a++;
        while (b > a && column.at(b - 1) > upper) b--;
        if (a == b || b - a == *last - *first) break;
        *first = a;
        *last = b;
    }
}

// Near the straight line through the sorted samples over their rank, from the ends inwards.
template <class Column>
__device__ void reject_linear_fit(const Column& column, float klow, float khigh, int* first, int* last)
{
    while (*last - *first >= 3) {
        const double number = (double)(*last - *first);
        const float centre = median(column, *first, *last);
        const double middle = 0.5 * (*first + *last - 1);
        double total = 0.0, moment = 0.0;
        for (int i = *first; i < *last; i++) {
            const double d = (double)(column.at(i) - centre);
            total += d;
            moment += (i - middle) * d;
        }
        const double level = total / number;
        const double slope = 12.0 * moment / (number * (number * number - 1.0));
#define FROM_LINE(i) ((double)(column.at(i) - centre) - level - slope * ((i) - middle))
        double sigma = 0.0;
        for (int i = *first; i < *last; i++) sigma += fabs(FROM_LINE(i));
        sigma = sigma / number;
        const double least = 1e-6 * (double)(column.at(*last - 1) - column.at(*first));
        sigma = sigma > least ? sigma : least;
        int a = *first, b = *last;
        while (a < b && FROM_LINE(a) < -klow * sigma) a++;
        while (b > a && FROM_LINE(b - 1) > khigh * sigma) b--;
#undef FROM_LINE
        if (a == b || b - a == *last - *first) break;
        *first = a;
        *last = b;
    }
}

// Let samples that equal a survivor survive, too.
template <class Column>
__device__ void keep_equals(const Column& column, int count, int* first, int* last)
{
    while (*first > 0 && column.at(*first - 1) == column.at(*first)) --*first;
    while (*last < count && column.at(*last) == column.at(*last - 1)) ++*last;
}

// The generalised ESD test. sums, squares: scratch, `apart` doubles from row to row.
template <class Column>
__device__ void reject_esd(
    const Column& column, int count, double fraction, const double* critical, double* sums, double* squares,
    int apart, int* first, int* last)
{
    const int middle = count >> 1;
    const float centre = median(column, 0, count);
    double total = 0.0, square = 0.0;
    for (int i = middle; i < count; i++) {
        const double d = (double)(column.at(i) - centre);
        total += d;
        square += d * d;
        sums[(Index)i * apart] = total;
        squares[(Index)i * apart] = square;
    }
    total = square = 0.0;
    for (int i = middle - 1; i >= 0; i--) {
        const double d = (double)(column.at(i) - centre);
        total += d;
        square += d * d;
        sums[(Index)i * apart] = total;
        squares[(Index)i * apart] = square;
    }
    int a = 0, b = count, tests = (int)(fraction * count);
    tests = tests < count - 2 ? tests : count - 2;
    for (int test = 0; test < tests; test++) {
        const int left = b - a;
        total = a < middle ? sums[(Index)a * apart] : 0.0;
        square = a < middle ? squares[(Index)a * apart] : 0.0;
        if (b > middle) {
            total += sums[(Index)(b - 1) * apart];
            square += squares[(Index)(b - 1) * apart];
        }
        const double mean = total * (1.0 / left);
        const double lowest = mean - (double)(column.at(a) - centre);
        const double highest = (double)(column.at(b - 1) - centre) - mean;
        if (highest >= lowest) b--;
        else a++;
        const double far = highest > lowest ? highest : lowest;
        const double rest = square - total * mean;
        if (far * far > critical[left] * critical[left] / (left - 1) * (rest > 0.0 ? rest : 0.0)) {
            *first = a;
            *last = b;
        }
    }
    keep_equals(column, count, first, last);
}

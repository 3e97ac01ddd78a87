// Many gradient steps of one member's network in one call: what AWR.critic_update and Agent.actor_update compute, up to
// rounding. All of a small network stays in the cache, and nothing is called between one kernel and the next.
// (Of a member that is frozen, metrics are nan from then on.)
//
// A batch is cut into CHUNKS parts, and the parameters into as many slices, whatever the number of threads; parts are
// summed in their order. So results do not depend on the number of threads. Rows of matrices are padded with zeros to
// whole vectors, and zeros they stay.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

enum Loss { VALUE, GAUSSIAN, CATEGORICAL };
enum Optimizer { ADAM, HEAVY_BALL };

// Its fields are those of `Problem` in native.py, in the same order.
struct Problem {
    const int64_t* sizes;  // of the network's layers, inputs first: layers + 1
    const int64_t* places;  // rows of the table: `batch` of them each batch, a batch's `stride` after the last one's
    const int64_t* next_places;  // as places: where the next observations are; or null
    const float* table;  // rows of `width` numbers, an observation first; columns are counted from there
    const float *obs_mean, *obs_std;
    float* number;               // as places: each row's target, which is made here where V bootstraps, or its weight
    float* value;                // as places: V of each row after a batch's last step, or null
    const float *centre, *unit;  // a Gaussian's x is (action - centre) / unit
    const float *low, *high;     // bounds of x
    const float* log_std;        // of x, where it is not learnt
    float *theta, *mean, *square, *step, *alive;  // as `Parameters`
    float* average;  // of theta, or null
    double* metrics;  // of each step: squared error, explained variance and V, or loss, entropy and nothing
    int64_t layers, steps, repeats, batch, stride, width, action, reward, terminated;
    int64_t threads, loss, optimizer, learns_std, bootstraps;
    double obs_limit, rate, max_norm, value_scale, gamma, penalty, log_unit, ema_decay, course;
    double reward_scale, reward_shift;  // of a row's reward, to that which is learnt from
};

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, TILE_VECTORS = 4;
#else
constexpr int LANES = 8, TILE_VECTORS = 2;
#endif
constexpr int PANEL = TILE_VECTORS * LANES;
constexpr int TILE_ROWS = 6;  // with TILE_VECTORS: as many sums as the registers hold
constexpr int CHUNKS = 4;
constexpr int SPINS = 500;
constexpr double HALF_LOG_TWO_PI = 0.91893853320467274178;
// As in awr_exp/networks (heads.py, categorical.py) and awr_exp/math/optimizers.py.
constexpr float LOG_STD_MIN = -5, LOG_STD_MAX = 2, MOMENTUM = 0.9f, BETA_1 = 0.9f, BETA_2 = 0.999f, EPSILON = 1e-8f;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

int padded(int64_t size) { return int((size + LANES - 1) / LANES * LANES); }

// Zeros, in whole cache lines.
struct Floats {
    static constexpr std::align_val_t LINE{64};
    struct Free {
        void operator()(float* data) const { operator delete[](data, LINE); }
    };
    std::unique_ptr<float[], Free> data;

    explicit Floats(int64_t size = 0) : data(new (LINE) float[size]()) {}
    operator float*() const { return data.get(); }
};

// A matrix whose element (m, k) is at data[m * row + k * column]: as it lies in memory, or transposed.
struct Matrix {
    const float* data;
    int64_t row, column;

    Matrix below(int m) const { return {data + m * row, row, column}; }
    Matrix transposed() const { return {data, column, row}; }
};

// A matrix of `width` columns, which are whole vectors. As a table its rows follow each other. In panels, its first
// PANEL columns come first, row after row, then the next: what a product reads of it is in one piece.
struct Columns {
    float* data;
    int width, rows;  // rows: 0 for a table

    float* at(int n) const { return rows ? data + int64_t(n - n % PANEL) * rows + n % PANEL : data + n; }
    int64_t row(int n) const { return rows ? std::min(PANEL, width - (n - n % PANEL)) : width; }
};

// The next two: C = start + A B of M rows; B and C have rows of whole vectors, and start is one of them or null.
// A call of the first would hand over its matrix in memory, which takes as long as a tenth of a small product.
template <int M, int V>
[[gnu::always_inline]] inline void tile(int depth, Matrix a, const float* b, int64_t b_row, const float* start,
                                        float* c, int64_t c_row) {
    Vector sum[M][V];
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) sum[m][v] = start ? *(const Vector*)(start + v * LANES) : Vector{};
    for (int k = 0; k < depth; ++k, b += b_row, a.data += a.column)
        for (int m = 0; m < M; ++m)
            for (int v = 0; v < V; ++v) sum[m][v] += a.data[m * a.row] * *(const Vector*)(b + v * LANES);
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) *(Vector*)(c + m * c_row + v * LANES) = sum[m][v];
}

template <int V, int M = TILE_ROWS>
void tiles(int rows, int depth, const Matrix& a, const float* b, int64_t b_row, const float* start, float* c,
           int64_t c_row) {
    int m = 0;
    for (; m + M <= rows; m += M) tile<M, V>(depth, a.below(m), b, b_row, start, c + m * c_row, c_row);
    if constexpr (M > 1)
        if (m < rows) tiles<V, M - 1>(rows - m, depth, a.below(m), b, b_row, start, c + m * c_row, c_row);
}

// C[rows, width] = start + A[rows, depth] B[depth, width].
void product(int rows, int depth, const Matrix& a, const Columns& b, const float* start, const Columns& c) {
    int n = 0;
    const auto from = [&](int n) { return start ? start + n : nullptr; };
    for (; n + PANEL <= c.width; n += PANEL)
        tiles<TILE_VECTORS>(rows, depth, a, b.at(n), b.row(n), from(n), c.at(n), c.row(n));
    for (; n < c.width; n += LANES) tiles<1>(rows, depth, a, b.at(n), b.row(n), from(n), c.at(n), c.row(n));
}

// The sum of the rows of a table.
void sum_rows(int rows, const Columns& table, float* to) {
    for (int n = 0; n < table.width; n += LANES) {
        Vector sum{};
        for (int r = 0; r < rows; ++r) sum += *(const Vector*)(table.at(n) + r * table.row(n));
        *(Vector*)(to + n) = sum;
    }
}

// The sum of its lanes.
template <int N = LANES, typename Lanes = Vector>
float total(Lanes lanes) {
    if constexpr (N == 2)
        return lanes[0] + lanes[1];
    else {
        typedef float Half __attribute__((vector_size(2 * N)));
        Half halves[2];
        std::memcpy(halves, &lanes, sizeof lanes);
        return total<N / 2>(Half(halves[0] + halves[1]));
    }
}

// C[rows, columns] = start + A B of few columns of B, which are rows of `b`; rows of A and `b` are whole vectors.
void narrow_product(int rows, int columns, int depth, const float* a, const float* b, const float* start, float* c,
                    int64_t c_row) {
    for (int r = 0; r < rows; ++r, a += depth, c += c_row)
        for (int o = 0; o < columns; ++o) {
            Vector sum{};
            for (int k = 0; k < depth; k += LANES) sum += *(const Vector*)(a + k) * *(const Vector*)(b + o * depth + k);
            c[o] = start[o] + total(sum);
        }
}

// Leaves the core to its other hyperthread for a moment.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct Barrier {
    std::atomic<int> threads{0}, waiting{0}, passed{0};

    void wait() {
        const int before = passed;
        if (++waiting == threads) {
            waiting = 0;
            ++passed;
            return;
        }
        // A step takes microseconds; but another program may have the core of the one that is waited for.
        for (int spin = 0; passed == before; ++spin)
            if (spin < SPINS)
                relax();
            else
                std::this_thread::yield();
    }
};

// Weights and [out] biases, at these places in the padded parameters. The weights are [in, out] in panels, or [out, in]
// where there are few outputs, so that vectors are full. width: out, padded.
struct Layer {
    int in, out, width;
    bool narrow;
    int64_t weight, bias;

    Columns weights(float* parameters) const {
        return narrow ? Columns{parameters + weight, padded(in), 0} : Columns{parameters + weight, width, in};
    }
    float& one(float* parameters, int i, int o) const {
        const Columns all = weights(parameters);
        return narrow ? all.at(i)[o * all.row(i)] : all.at(o)[i * all.row(o)];
    }
};

// What a thread needs for a chunk. Of each layer: outputs and their gradients, [rows, width], and its weights
// transposed, [out, in] in panels, rows padded.
struct Workspace {
    std::vector<Floats> output, slope, transposed;
    std::vector<float> log_std, precision;

    Workspace(const std::vector<Layer>& layers, int64_t rows) {
        for (const Layer& layer : layers) {
            output.emplace_back(rows * layer.width);
            slope.emplace_back(rows * layer.width);
            transposed.emplace_back(int64_t(layer.out) * padded(layer.in));
        }
        log_std.resize(layers.back().out), precision.resize(layers.back().out);
    }

    Columns backward(size_t l, const Layer& layer) { return {transposed[l], padded(layer.in), layer.out}; }
};

// Of a chunk, for the metrics.
struct Sums {
    double loss = 0, entropy = 0, error = 0, error_square = 0, target = 0, target_square = 0;
};

class Descent {
  public:
    explicit Descent(const Problem& problem) : p(problem) {
        for (int64_t l = 0; l < p.layers; ++l) {
            const int in = int(p.sizes[l]), out = int(p.sizes[l + 1]), width = padded(out);
            const bool narrow = l && out <= LANES / 2;
            const int64_t bias = size + (narrow ? int64_t(out) * padded(in) : int64_t(in) * width);
            layers.push_back({in, out, width, narrow, size, bias});
            size = bias + width;
        }
        outputs = layers.back().out;
        std_place = size;
        size += p.learns_std ? layers.back().width : 0;
        theta = Floats(size), mean = Floats(size), square = Floats(size), average = Floats(p.average ? size : 0);
        const int64_t rows = (p.batch + CHUNKS - 1) / CHUNKS, numbers = rows * layers[0].in;
        for (int c = 0; c < CHUNKS; ++c) {
            grad[c] = Floats(size), obs[c] = Floats(numbers), next_obs[c] = Floats(p.bootstraps ? numbers : 0);
        }
        for (int64_t t = 0; t < std::clamp<int64_t>(p.threads, 1, CHUNKS); ++t) workspaces.emplace_back(layers, rows);
        for (int i = 0; i < layers[0].in; ++i) per_std.push_back(1 / p.obs_std[i]);
        with_given([](float& given, float& own) { own = given; });
    }

    void run() {
        if (*p.alive) {
            std::vector<std::thread> others;
            others.reserve(workspaces.size());
            try {
                while (others.size() + 1 < workspaces.size())
                    others.emplace_back([this, t = int(others.size()) + 1] {
                        while (!barrier.threads) std::this_thread::yield();
                        work(t);
                    });
            } catch (const std::exception&) {
                // There may be no more of them, or no memory for one; fewer come to the same results.
            }
            barrier.threads = int(others.size()) + 1;
            work(0);
            for (std::thread& other : others) other.join();
            with_given([](float& given, float& own) { given = own; });
        }
        std::fill(p.metrics + 3 * finished, p.metrics + 3 * p.steps, std::numeric_limits<double>::quiet_NaN());
    }

  private:
    const Problem p;
    Barrier barrier;
    std::vector<Layer> layers;
    int outputs;
    int64_t size = 0, std_place, finished = 0;
    Floats theta, mean, square, average, grad[CHUNKS], obs[CHUNKS], next_obs[CHUNKS];
    std::vector<float> per_std;
    double norm_square[CHUNKS];
    Sums sums[CHUNKS];
    std::vector<Workspace> workspaces;

    // Visits each number as it is given, and as our own, padded parameters have it.
    template <typename Visit>
    void with_given(Visit visit) const {
        for (auto [given, own] :
             {std::pair{p.theta, &theta}, {p.mean, &mean}, {p.square, &square}, {p.average, &average}}) {
            if (!given) continue;
            float* next = given;
            for (const Layer& layer : layers) {
                for (int i = 0; i < layer.in; ++i)
                    for (int o = 0; o < layer.out; ++o) visit(*next++, layer.one(*own, i, o));
                for (int o = 0; o < layer.out; ++o) visit(*next++, (*own)[layer.bias + o]);
            }
            for (int o = 0; p.learns_std && o < outputs; ++o) visit(*next++, (*own)[std_place + o]);
        }
    }

    void work(int thread) {
        Workspace& own = workspaces[thread];
        float count = *p.step;
        bool alive = true;
        int64_t step = 0;
        for (; step < p.steps && alive; ++step) {
            prepare(own);
            for (int c = thread; c < CHUNKS; c += barrier.threads) learn(step, c, own);
            barrier.wait();
            for (int c = thread; c < CHUNKS; c += barrier.threads) norm_square[c] = gather(c);
            barrier.wait();
            if (thread == 0) report(p.metrics + 3 * step);
            const float norm = float(std::sqrt(norm_square[0] + norm_square[1] + norm_square[2] + norm_square[3]));
            // What is not finite freezes the member as it was, for good.
            if ((alive = std::isfinite(norm))) {
                ++count;
                for (int c = thread; c < CHUNKS; c += barrier.threads) descend(c, norm, count), follow(c, count);
            }
            barrier.wait();
            if (p.value && alive && (step + 1) % p.repeats == 0)
                for (int c = thread; c < CHUNKS; c += barrier.threads) evaluate(step, c, own);
        }
        if (thread == 0) {
            *p.step = count;
            *p.alive = alive;
            finished = step;
        }
    }

    // What a step needs of the parameters in another form.
    void prepare(Workspace& own) const {
        for (size_t l = 1; l < layers.size(); ++l) {
            const Layer& layer = layers[l];
            if (layer.narrow) continue;
            const Columns from = layer.weights(theta), to = own.backward(l, layer);
            // In blocks, which stay in the cache.
            for (int n = 0; n < layer.width; n += LANES)
                for (int i = 0; i < layer.in; ++i)
                    for (int o = n; o < std::min(n + LANES, layer.out); ++o)
                        to.at(i)[o * to.row(i)] = from.at(n)[i * from.row(n) + o - n];
        }
        if (p.loss != GAUSSIAN) return;
        for (int i = 0; i < outputs; ++i) {
            own.log_std[i] = p.learns_std ? std::clamp(theta[std_place + i], LOG_STD_MIN, LOG_STD_MAX) : p.log_std[i];
            own.precision[i] = std::exp(-own.log_std[i]);
        }
    }

    // A part of a batch: `rows` of them, which begin at this place of places, number and value.
    struct Chunk {
        int64_t place;
        int rows;
    };

    Chunk chunk(int64_t step, int c) const {
        const int64_t first = p.batch * c / CHUNKS;
        return {step / p.repeats * p.stride + first, int(p.batch * (c + 1) / CHUNKS - first)};
    }

    Matrix input(const float* obs, const Workspace& own, size_t l) const {
        return l ? Matrix{own.output[l - 1], layers[l - 1].width, 1} : Matrix{obs, layers[0].in, 1};
    }

    // The network's outputs for these observations.
    void forward(int rows, const float* obs, Workspace& own) const {
        for (size_t l = 0; l < layers.size(); ++l) {
            const Layer& layer = layers[l];
            const int width = layer.width;
            float* output = own.output[l];
            if (layer.narrow)
                narrow_product(rows, layer.out, padded(layer.in), own.output[l - 1], theta + layer.weight,
                               theta + layer.bias, output, width);
            else
                product(rows, layer.in, input(obs, own, l), layer.weights(theta), theta + layer.bias, {output, width, 0});
            if (l + 1 < layers.size())
                for (int64_t i = 0; i < int64_t(rows) * width; ++i) output[i] = output[i] < 0 ? 0 : output[i];
        }
    }

    // Targets r + gamma (1 - terminated) V(s') of a chunk.
    void bootstrap(Chunk chunk, int c, Workspace& own) const {
        forward(chunk.rows, next_obs[c], own);
        for (int r = 0; r < chunk.rows; ++r) {
            const float* row = row_at(p.places[chunk.place + r]);
            const float value = float(p.value_scale) * own.output.back()[int64_t(r) * layers.back().width];
            const float reward = row[p.reward] * float(p.reward_scale) + float(p.reward_shift);
            p.number[chunk.place + r] = reward + float(p.gamma) * (1 - row[p.terminated]) * value;
        }
    }

    // V of a chunk, and targets that go with it, after a batch's last step.
    void evaluate(int64_t step, int c, Workspace& own) const {
        const Chunk part = chunk(step, c);
        if (p.bootstraps) bootstrap(part, c, own);
        forward(part.rows, obs[c], own);
        for (int r = 0; r < part.rows; ++r)
            p.value[part.place + r] = float(p.value_scale) * own.output.back()[int64_t(r) * layers.back().width];
    }

    // The gradient of a chunk of a batch.
    void learn(int64_t step, int c, Workspace& own) {
        const Chunk part = chunk(step, c);
        const int rows = part.rows;
        if (step % p.repeats == 0) {
            const bool goes_on = step + p.repeats < p.steps;
            const int64_t next = part.place + p.stride;
            observe(p.places + part.place, rows, obs[c]);
            if (goes_on) fetch(p.places + next, rows);
            if (p.bootstraps) {
                observe(p.next_places + part.place, rows, next_obs[c]);
                if (goes_on) fetch(p.next_places + next, rows);
            }
        }
        if (p.bootstraps) bootstrap(part, c, own);
        forward(rows, obs[c], own);
        judge(part, own, c);

        for (size_t l = layers.size(); l-- > 0;) {
            const Layer& layer = layers[l];
            const int width = layer.width, wide = padded(layer.in);
            const Columns slope{own.slope[l], width, 0}, to = layer.weights(grad[c]);
            const Matrix by_output{slope.data, width, 1}, by_input = input(obs[c], own, l);
            if (layer.narrow)
                product(layer.out, rows, by_output.transposed(), {own.output[l - 1], wide, 0}, nullptr, to);
            else
                product(layer.in, rows, by_input.transposed(), slope, nullptr, to);
            sum_rows(rows, slope, grad[c] + layer.bias);
            if (l == 0) break;
            float *below = own.slope[l - 1], *output = own.output[l - 1];
            const Columns back = layer.narrow ? layer.weights(theta) : own.backward(l, layer);
            product(rows, layer.out, by_output, back, nullptr, {below, wide, 0});
            for (int64_t i = 0; i < int64_t(rows) * wide; ++i) below[i] = output[i] > 0 ? below[i] : 0;
        }
    }

    const float* row_at(int64_t place) const {
        return p.table + place * p.width;
    }

    // Normalised, the observations in rows at these places.
    void observe(const int64_t* places, int rows, float* to) const {
        const float limit = float(p.obs_limit);
        const int count = layers[0].in;
        for (int r = 0; r < rows; ++r, to += count) {
            const float* from = row_at(places[r]);
            for (int i = 0; i < count; ++i) {
                const float z = (from[i] - p.obs_mean[i]) * per_std[i];
                to[i] = z > limit ? limit : z < -limit ? -limit : z;  // nan stays nan
            }
        }
    }

    // Rows at these places into the cache, for later.
    void fetch(const int64_t* places, int rows) const {
        for (int r = 0; r < rows; ++r)
            for (int64_t i = 0; i < p.width; i += 16) __builtin_prefetch(row_at(places[r]) + i);
    }

    // The loss of each row, and its gradient with respect to the network's output.
    void judge(Chunk chunk, Workspace& own, int c) {
        const int rows = chunk.rows;
        const Layer& layer = layers.back();
        const float* output = own.output.back();
        float* slope = own.slope.back();
        sums[c] = {};
        std::fill_n(slope, int64_t(rows) * layer.width, 0.0f);
        if (p.learns_std) std::fill_n(grad[c] + std_place, layer.width, 0.0f);
        for (int r = 0; r < rows; ++r, output += layer.width, slope += layer.width) {
            const float number = p.number[chunk.place + r];
            const float* action = row_at(p.places[chunk.place + r]) + p.action;
            if (p.loss == VALUE) value_loss(*output, number, slope, sums[c]);
            if (p.loss == GAUSSIAN) gaussian_loss(output, action, number, own, slope, grad[c] + std_place, sums[c]);
            if (p.loss == CATEGORICAL) categorical_loss(output, int(*action), number, slope, sums[c]);
        }
    }

    // mean((V - target)^2) / value_scale^2, where V = value_scale * output.
    void value_loss(float output, float target, float* slope, Sums& sum) const {
        const double error = p.value_scale * output - target;
        *slope = float(2 * error / (p.value_scale * double(p.batch)));
        sum.error += error, sum.error_square += error * error;
        sum.target += target, sum.target_square += double(target) * target;
    }

    // -mean(weight log N(x; output, std)) + penalty / 2 mean(|output's distance from the bounds|^2).
    void gaussian_loss(const float* output, const float* action, float weight, const Workspace& own, float* slope,
                       float* std_slope, Sums& sum) const {
        const float share = 1 / float(p.batch), penalty = float(p.penalty);
        float nll = 0, outside_square = 0;
        for (int i = 0; i < outputs; ++i) {
            const float z = ((action[i] - p.centre[i]) / p.unit[i] - output[i]) * own.precision[i];
            const float outside = output[i] - std::clamp(output[i], p.low[i], p.high[i]);
            nll += 0.5f * z * z + own.log_std[i];
            outside_square += outside * outside;
            slope[i] = share * (penalty * outside - weight * z * own.precision[i]);
            if (p.learns_std && own.log_std[i] == theta[std_place + i]) std_slope[i] += share * weight * (1 - z * z);
            sum.entropy += own.log_std[i] + 0.5 + HALF_LOG_TWO_PI;
        }
        sum.entropy += p.log_unit;
        sum.loss += weight * (nll + HALF_LOG_TWO_PI * outputs + p.log_unit) + 0.5 * p.penalty * outside_square;
    }

    // -mean(weight log softmax(output)[action]) + penalty / 2 mean(|output|^2).
    void categorical_loss(const float* output, int action, float weight, float* slope, Sums& sum) const {
        const float share = 1 / float(p.batch), penalty = float(p.penalty), most = *std::max_element(output, output + outputs);
        float total = 0;
        for (int i = 0; i < outputs; ++i) total += std::exp(output[i] - most);
        const float log_total = std::log(total) + most;
        for (int i = 0; i < outputs; ++i) {
            const float log_prob = output[i] - log_total, prob = std::exp(log_prob);
            slope[i] = share * (weight * (prob - float(i == action)) + penalty * output[i]);
            sum.entropy -= double(prob) * log_prob;
            sum.loss += 0.5 * p.penalty * output[i] * output[i];
        }
        sum.loss -= double(weight) * (output[action] - log_total);
    }

    // Leaves the whole gradient of a slice of the parameters in grad[0], and returns its squared norm.
    double gather(int slice) {
        Vector squares{};
        for (int64_t i = begin(slice); i < begin(slice + 1); i += LANES) {
            Vector& whole = *(Vector*)(grad[0] + i);
            for (int c = 1; c < CHUNKS; ++c) whole += *(const Vector*)(grad[c] + i);
            squares += whole * whole;
        }
        double sum = 0;
        for (int lane = 0; lane < LANES; ++lane) sum += squares[lane];
        return sum;
    }

    int64_t begin(int slice) const { return size / LANES * slice / CHUNKS * LANES; }

    // The optimiser's step number `count` on a slice.
    void descend(int slice, float norm, float count) {
        const float scale = std::min(1.0f, float(p.max_norm) / std::max(norm, 1e-12f));
        // As `half_cosine` in optimizers.py.
        const double done = std::min((count - 1) / p.course, 1.0);
        float rate = float(p.rate * (1 + std::cos(M_PI * done)) / 2), *t = theta, *m = mean, *s = square;
        const float* g = grad[0];
        if (p.optimizer == HEAVY_BALL) {
            for (int64_t i = begin(slice); i < begin(slice + 1); ++i) {
                m[i] = MOMENTUM * m[i] + scale * g[i];
                t[i] -= rate * m[i];
            }
            return;
        }
        rate /= 1 - std::pow(BETA_1, count);
        const float correction = 1 / std::sqrt(1 - std::pow(BETA_2, count));
        for (int64_t i = begin(slice); i < begin(slice + 1); ++i) {
            const float own = scale * g[i];
            m[i] += (1 - BETA_1) * (own - m[i]);
            s[i] = BETA_2 * s[i] + (1 - BETA_2) * own * own;
            t[i] -= rate * m[i] / (std::sqrt(s[i]) * correction + EPSILON);
        }
    }

    // As `Net.move_average`, on a slice.
    void follow(int slice, float count) {
        if (!p.average) return;
        const float share = 1 - std::min(float(p.ema_decay), (1 + count) / (10 + count));
        for (int64_t i = begin(slice); i < begin(slice + 1); ++i) average[i] += share * (theta[i] - average[i]);
    }

    void report(double* metrics) const {
        Sums all;
        for (const Sums& sum : sums) {
            all.loss += sum.loss, all.entropy += sum.entropy;
            all.error += sum.error, all.error_square += sum.error_square;
            all.target += sum.target, all.target_square += sum.target_square;
        }
        const double n = double(p.batch);
        if (p.loss != VALUE) {
            metrics[0] = all.loss / n;
            metrics[1] = all.entropy / n;
            return;
        }
        const auto variance = [&](double sum, double square) { return (square - sum * sum / n) / (n - 1); };
        const double least = std::numeric_limits<float>::min();
        metrics[0] = all.error_square / n;
        const double spread = std::max(variance(all.target, all.target_square), least);
        const double explained = 1 - variance(all.error, all.error_square) / spread;
        metrics[1] = explained < -1 ? -1 : explained;  // a nan stays
        metrics[2] = (all.error + all.target) / n;
    }
};

}  // namespace

// 0, or 1 where there is no memory for it.
extern "C" int descend(const Problem* problem) noexcept {
    try {
        Descent(*problem).run();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

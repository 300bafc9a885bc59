// The selective scan and the causal convolution of a Mamba layer with their gradients, for training on a CPU.
//
// fp32 throughout, states start at zero. Threads share the batch, so that nothing they sum into is shared.
// Layout: u, delta, z, y [batch][length][channels]; B, C [batch][length][state]; A [channels][state].
#include <algorithm>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 8;  // channels that go through the tokens together: one AVX2 register a value
constexpr int CHUNK = 32;  // tokens whose states the gradients hold at once, so that they stay in the cache
typedef float Block __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int Bits __attribute__((vector_size(4 * LANES), aligned(4)));

inline Block& at(float* p) { return *reinterpret_cast<Block*>(p); }
inline const Block& at(const float* p) { return *reinterpret_cast<const Block*>(p); }

// exp for x <= 0: 2^k times a polynomial of degree 6; relative error 2e-7.
inline Block exp_negative(Block x) {
    x = x < -87.0f ? Block{} - 87.0f : x;
    const Bits k = __builtin_convertvector(x * 1.44269504f - 0.5f, Bits);  // truncation rounds a negative number
    const Block whole = __builtin_convertvector(k, Block);
    Block r = x - whole * 0.693359375f;
    r += whole * 2.12194440e-4f;
    Block p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Bits scale = (k + 127) << 23;
    return p * (Block)scale;  // the same bits
}

inline Block sigmoid(Block x) {
    const Block e = exp_negative(x < 0.0f ? x : -x), s = 1.0f / (1.0f + e);
    return x < 0.0f ? e * s : s;
}

// max(x, 0) + log(1 + e) with e = exp(-|x|), the logarithm by its series in e / (2 + e), which is at most 1/3.
inline Block softplus(Block x) {
    const Block e = exp_negative(x < 0.0f ? x : -x), s = e / (2.0f + e), q = s * s;
    const Block series = ((((q / 11.0f + 1.0f / 9.0f) * q + 1.0f / 7.0f) * q + 0.2f) * q + 1.0f / 3.0f) * q + 1.0f;
    return (x < 0.0f ? Block{} : x) + 2.0f * s * series;
}

struct Sizes {
    long length, channels, state;
    bool reverse;
    long chunks() const { return (length + CHUNK - 1) / CHUNK; }
    long token(long i) const { return reverse ? length - 1 - i : i; }
};

// A block of LANES channels of A, transposed to [state][LANES].
void load_rates(const Sizes& s, const float* A, long c0, float* rates) {
    for (long n = 0; n < s.state; ++n)
        for (int j = 0; j < LANES; ++j) rates[n * LANES + j] = A[(c0 + j) * s.state + n];
}

}  // namespace

extern "C" {

// step [batch][length][channels] receives softplus(delta + bias), marks [batch][ceil(length / CHUNK)][channels * state]
// the states before every chunk, in the scan's order; channels is a multiple of LANES.
void scan_forward(long batch, long length, long channels, long state, int reverse, const float* u, const float* delta,
                  const float* A, const float* B, const float* C, const float* D, const float* z, const float* bias,
                  float* step, float* y, float* marks) {
    const Sizes s{length, channels, state, reverse != 0};
#pragma omp parallel for schedule(static)
    for (long b = 0; b < batch; ++b) {
        std::vector<float> rates(state * LANES), h(state * LANES);
        for (long c0 = 0; c0 < channels; c0 += LANES) {
            load_rates(s, A, c0, rates.data());
            std::fill(h.begin(), h.end(), 0.0f);
            for (long i = 0; i < length; ++i) {
                if (i % CHUNK == 0)
                    std::copy(h.begin(), h.end(), marks + ((b * s.chunks() + i / CHUNK) * channels + c0) * state);
                const long t = s.token(i), o = (b * length + t) * channels + c0;
                const float *Bt = B + (b * length + t) * state, *Ct = C + (b * length + t) * state;
                const Block dt = softplus(at(delta + o) + at(bias + c0)), inflow = dt * at(u + o);
                Block acc = at(D + c0) * at(u + o);
                for (long n = 0; n < state; ++n) {
                    Block& hn = at(h.data() + n * LANES);
                    hn = exp_negative(dt * at(rates.data() + n * LANES)) * hn + inflow * Bt[n];
                    acc += Ct[n] * hn;
                }
                at(step + o) = dt;
                at(y + o) = acc * at(z + o) * sigmoid(at(z + o));
            }
        }
    }
}

// Gradients for dy. dA [batch][channels][state], dD and dbias [batch][channels] are per sample; all outputs are set.
void scan_backward(long batch, long length, long channels, long state, int reverse, const float* u, const float* step,
                   const float* A, const float* B, const float* C, const float* D, const float* z, const float* marks,
                   const float* dy, float* du, float* ddelta, float* dA, float* dB, float* dC, float* dD, float* dz,
                   float* dbias) {
    const Sizes s{length, channels, state, reverse != 0};
    const long wide = state * LANES;
#pragma omp parallel
    {
        // What the forward pass had in a chunk: states and decays of every token, and the gate's input.
        std::vector<float> states((CHUNK + 1) * wide), decays(CHUNK * wide), ungated(CHUNK * LANES);
        std::vector<float> rates(channels * state), dh(channels * state), da(channels * state);
        std::vector<float> db(CHUNK * wide), dc(CHUNK * wide);
        for (long c0 = 0; c0 < channels; c0 += LANES) load_rates(s, A, c0, rates.data() + c0 * state);
#pragma omp for schedule(static)
        for (long b = 0; b < batch; ++b) {
            std::fill(dh.begin(), dh.end(), 0.0f);
            std::fill(da.begin(), da.end(), 0.0f);
            std::fill_n(dD + b * channels, channels, 0.0f);
            std::fill_n(dbias + b * channels, channels, 0.0f);
            for (long chunk = s.chunks() - 1; chunk >= 0; --chunk) {
                const long first = chunk * CHUNK, tokens = std::min<long>(CHUNK, length - first);
                std::fill(db.begin(), db.end(), 0.0f);
                std::fill(dc.begin(), dc.end(), 0.0f);
                for (long c0 = 0; c0 < channels; c0 += LANES) {
                    const float* rate = rates.data() + c0 * state;
                    std::copy_n(marks + ((b * s.chunks() + chunk) * channels + c0) * state, wide, states.data());
                    for (long i = 0; i < tokens; ++i) {
                        const long t = s.token(first + i), o = (b * length + t) * channels + c0;
                        const float *Bt = B + (b * length + t) * state, *Ct = C + (b * length + t) * state;
                        const float* before = states.data() + i * wide;
                        float *after = states.data() + (i + 1) * wide, *decay = decays.data() + i * wide;
                        const Block dt = at(step + o), inflow = dt * at(u + o);
                        Block acc = at(D + c0) * at(u + o);
                        for (long n = 0; n < state; ++n) {
                            const Block kept = exp_negative(dt * at(rate + n * LANES));
                            const Block h = kept * at(before + n * LANES) + inflow * Bt[n];
                            at(decay + n * LANES) = kept;
                            at(after + n * LANES) = h;
                            acc += Ct[n] * h;
                        }
                        at(ungated.data() + i * LANES) = acc;
                    }
                    Block dd{}, dbi{};
                    for (long i = tokens - 1; i >= 0; --i) {
                        const long t = s.token(first + i), o = (b * length + t) * channels + c0;
                        const float *Bt = B + (b * length + t) * state, *Ct = C + (b * length + t) * state;
                        const float *before = states.data() + i * wide, *after = before + wide;
                        const float* decay = decays.data() + i * wide;
                        float *dbt = db.data() + i * wide, *dct = dc.data() + i * wide;
                        float *dhc = dh.data() + c0 * state, *dac = da.data() + c0 * state;
                        const Block x = at(u + o), dt = at(step + o), inflow = dt * x;
                        const Block gate = sigmoid(at(z + o)), silu = at(z + o) * gate;
                        const Block g = at(dy + o) * silu;
                        at(dz + o) = at(dy + o) * at(ungated.data() + i * LANES) * (gate + silu * (1.0f - gate));
                        dd += g * x;
                        Block dstep{}, dinflow{};
                        for (long n = 0; n < state; ++n) {
                            const long l = n * LANES;
                            const Block d = at(dhc + l) + g * Ct[n];
                            at(dct + l) += g * at(after + l);
                            at(dbt + l) += d * inflow;
                            dinflow += d * Bt[n];
                            const Block carried = d * at(decay + l), through = carried * at(before + l);
                            dstep += through * at(rate + l);
                            at(dac + l) += through * dt;
                            at(dhc + l) = carried;
                        }
                        at(du + o) = g * at(D + c0) + dinflow * dt;
                        // softplus'(x) = 1 - exp(-softplus(x))
                        const Block raw = (dstep + dinflow * x) * (1.0f - exp_negative(-dt));
                        at(ddelta + o) = raw;
                        dbi += raw;
                    }
                    at(dD + b * channels + c0) += dd;
                    at(dbias + b * channels + c0) += dbi;
                }
                for (long i = 0; i < tokens; ++i)
                    for (long n = 0; n < state; ++n) {
                        const float *bn = db.data() + i * wide + n * LANES, *cn = dc.data() + i * wide + n * LANES;
                        const long o = (b * length + s.token(first + i)) * state + n;
                        dB[o] = dC[o] = 0.0f;
                        for (int j = 0; j < LANES; ++j) {
                            dB[o] += bn[j];
                            dC[o] += cn[j];
                        }
                    }
            }
            for (long c = 0; c < channels; ++c)
                for (long n = 0; n < state; ++n)
                    dA[(b * channels + c) * state + n] = da[c / LANES * wide + n * LANES + c % LANES];
        }
    }
}

// Depthwise convolution over the tokens before (reverse: after) each one, then SiLU. weight [width][channels].
void conv_forward(long batch, long length, long channels, long width, int reverse, const float* x, const float* weight,
                  const float* bias, float* y) {
#pragma omp parallel for schedule(static)
    for (long b = 0; b < batch; ++b)
        for (long t = 0; t < length; ++t) {
            float* out = y + (b * length + t) * channels;
            for (long c = 0; c < channels; ++c) out[c] = bias[c];
            for (long k = 0; k < width; ++k) {
                const long from = reverse ? t + (width - 1 - k) : t - (width - 1 - k);
                if (from < 0 || from >= length) continue;
                const float *in = x + (b * length + from) * channels, *w = weight + k * channels;
#pragma omp simd
                for (long c = 0; c < channels; ++c) out[c] += w[c] * in[c];
            }
            for (long c = 0; c < channels; c += LANES) at(out + c) *= sigmoid(at(out + c));
        }
}

// dweight [batch][width][channels] and dbias [batch][channels] are per sample.
void conv_backward(long batch, long length, long channels, long width, int reverse, const float* x,
                   const float* weight, const float* bias, const float* dy, float* dx, float* dweight, float* dbias) {
#pragma omp parallel
    {
        std::vector<float> before_silu(length * channels);  // gradients there
#pragma omp for schedule(static)
        for (long b = 0; b < batch; ++b) {
            float *dw = dweight + b * width * channels, *db = dbias + b * channels;
            const float *xb = x + b * length * channels, *dyb = dy + b * length * channels;
            std::fill_n(dw, width * channels, 0.0f);
            std::fill_n(db, channels, 0.0f);
            for (long t = 0; t < length; ++t)
                for (long c = 0; c < channels; c += LANES) {
                    Block pre = at(bias + c);
                    for (long k = 0; k < width; ++k) {
                        const long from = reverse ? t + (width - 1 - k) : t - (width - 1 - k);
                        if (from >= 0 && from < length) pre += at(weight + k * channels + c) * at(xb + from * channels + c);
                    }
                    const Block gate = sigmoid(pre), g = at(dyb + t * channels + c) * (gate + pre * gate * (1.0f - gate));
                    at(before_silu.data() + t * channels + c) = g;
                    at(db + c) += g;
                    for (long k = 0; k < width; ++k) {
                        const long from = reverse ? t + (width - 1 - k) : t - (width - 1 - k);
                        if (from >= 0 && from < length) at(dw + k * channels + c) += g * at(xb + from * channels + c);
                    }
                }
            for (long t = 0; t < length; ++t)
                for (long c = 0; c < channels; c += LANES) {
                    Block d{};
                    for (long k = 0; k < width; ++k) {
                        const long to = reverse ? t - (width - 1 - k) : t + (width - 1 - k);
                        if (to >= 0 && to < length)
                            d += at(weight + k * channels + c) * at(before_silu.data() + to * channels + c);
                    }
                    at(dx + (b * length + t) * channels + c) = d;
                }
        }
    }
}

}  // extern "C"

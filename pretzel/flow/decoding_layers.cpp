// Layers of a transformer at one position, as pretzel/flow/decoding.py lays them out: one call in
// the place of some twenty a layer. Reference: that file, and the law that compares the two.
#include <ATen/Parallel.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace {

using at::Tensor;
using at::TensorList;

// Tensors of a layer; empty where it has none.
enum Part { IN, IN_BIAS, OUT, OUT_BIAS, GAIN, UP, UP_BIAS, DOWN, DOWN_BIAS, NUM_PARTS };

template <typename T>
T dot(const T* a, const T* b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// y = scale x / sqrt(|x|^2 + n eps)
template <typename T>
void to_unit(const T* x, T* y, int64_t n, double eps, double scale = 1) {
  const T factor = static_cast<T>(scale) / std::sqrt(dot(x, x, n) + static_cast<T>(n * eps));
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

// The norm of a layer's input less gain and offset, which are in the weights behind it.
struct Norm {
  bool is_centred;
  double scale, eps;
};

template <typename T>
Tensor normed(const Tensor& x, const Norm& norm) {
  Tensor y = at::empty(x.sizes(), x.options());
  const int64_t n = x.size(1);
  for (int64_t row = 0; row < x.size(0); ++row) {
    const T* from = x.const_data_ptr<T>() + row * n;
    T* const to = y.data_ptr<T>() + row * n;
    if (norm.is_centred) {
      const T mean = std::accumulate(from, from + n, T(0)) / n;
      std::transform(from, from + n, to, [mean](T value) { return value - mean; });
      from = to;
    }
    to_unit(from, to, n, norm.eps, norm.scale);
  }
  return y;
}

// Channel pairs times complex numbers.
template <typename T>
void turn_pairs(T* x, const c10::complex<T>* turn, int64_t num_pairs) {
  for (int64_t i = 0; i < num_pairs; ++i) {
    const T a = x[2 * i], b = x[2 * i + 1], c = turn[i].real(), s = turn[i].imag();
    x[2 * i] = a * c - b * s;
    x[2 * i + 1] = a * s + b * c;
  }
}

Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias, double scale = 1) {
  if (bias.numel()) return at::addmm(bias, x, weight, scale, scale);
  Tensor y = at::mm(x, weight);
  return scale == 1 ? y : y.mul_(scale);
}

Tensor added_to(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias,
                double scale = 1) {
  Tensor z = at::addmm(y, x, weight, 1, scale);
  return bias.numel() ? z.add_(bias) : z;
}

Tensor hidden_of(const Tensor& up, int64_t activation) {
  if (activation == 0) return at::gelu(up);
  const int64_t width = up.size(1) / 2;
  const Tensor gate = up.narrow(1, 0, width);
  return at::mul(activation == 1 ? at::silu(gate) : at::gelu(gate, "tanh"), up.narrow(1, width, width));
}

struct Position {
  const Tensor& turn;    // rotation of the channel pairs, of all rows or of each; may be empty
  const Tensor& hidden;  // which positions a row must not read; may be empty
  const Tensor& scale;   // factor of the queries, of all rows or of each
  int64_t index;         // its place in the cache
  int64_t num_heads;     // of queries
  double eps;            // of the norms of queries and keys
};

// What the heads of a layer read, with gates where it has them; keys and values are written to
// entries [2, rows, heads, positions, width].
template <typename T>
Tensor attend(const Tensor& x, TensorList parts, const Tensor& entries, const Position& at) {
  const int64_t rows = x.size(0), kv = entries.size(2), length = entries.size(3);
  const int64_t width = entries.size(4), heads = at.num_heads, group = heads / kv;
  const int64_t end = at.index + 1;
  const Tensor incoming = product(x, parts[IN], parts[IN_BIAS]);
  const int64_t stride = incoming.size(1);
  T* const all = incoming.data_ptr<T>();
  T* const keys = entries.data_ptr<T>();
  T* const values = keys + rows * kv * length * width;
  const T* const gain = parts[GAIN].numel() ? parts[GAIN].const_data_ptr<T>() : nullptr;
  const T* const scale = at.scale.const_data_ptr<T>();
  const bool* const skipped = at.hidden.numel() ? at.hidden.const_data_ptr<bool>() : nullptr;
  const int64_t pairs = at.turn.numel() ? width / 2 : 0;
  const c10::complex<T>* const turn =
      pairs ? at.turn.const_data_ptr<c10::complex<T>>() : nullptr;
  const bool turns_rows = pairs && at.turn.numel() > pairs;

  const Tensor scores = at::empty({rows * heads, end}, x.options());
  T* const score = scores.data_ptr<T>();
  const auto prepare = [&](T* head, int64_t number, int64_t row) {
    if (gain) {
      to_unit(head, head, width, at.eps);
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) head[i] *= gain[number * width + i];
    }
    turn_pairs(head, turn + (turns_rows ? row * pairs : 0), pairs);
  };
  at::parallel_for(0, rows * kv, 1, [&](int64_t first, int64_t last) {
    for (int64_t cell = first; cell < last; ++cell) {
      const int64_t row = cell / kv, head = cell % kv;
      T* const own = all + row * stride;
      T* const key = own + (heads + head) * width;
      const T* const value = own + (heads + kv + head) * width;
      T* const read = keys + cell * length * width;
      prepare(key, heads + head, row);
      std::copy(key, key + width, read + at.index * width);
      std::copy(value, value + width, values + (cell * length + at.index) * width);
      for (int64_t number = head * group; number < (head + 1) * group; ++number) {
        T* const query = own + number * width;
        prepare(query, number, row);
        const T factor = scale[at.scale.numel() > 1 ? row : 0];
        T* const to = score + (row * heads + number) * end;
        for (int64_t j = 0; j < end; ++j) to[j] = factor * dot(query, read + j * width, width);
        for (int64_t j = 0; skipped && j < end; ++j)
          if (skipped[row * end + j]) to[j] = -std::numeric_limits<T>::infinity();
      }
    }
  });

  const Tensor weights = at::_softmax(scores, 1, false);
  const T* const weight = weights.const_data_ptr<T>();
  Tensor out = at::empty({rows, heads * width}, x.options());
  T* const result = out.data_ptr<T>();
  at::parallel_for(0, rows * heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t cell = first; cell < last; ++cell) {
      const int64_t row = cell / heads, head = cell % heads / group;
      const T* const read = values + (row * kv + head) * length * width;
      T* const to = result + cell * width;
      std::fill(to, to + width, T(0));
      for (int64_t j = 0; j < end; ++j) {
        const T share = weight[cell * end + j];
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] += share * read[j * width + i];
      }
    }
  });
  const int64_t before = (heads + 2 * kv) * width;
  if (stride > before) out.mul_(at::sigmoid(incoming.narrow(1, before, stride - before)));
  return out;
}

template <typename T>
Tensor run(Tensor h, TensorList parts, const Tensor& entries, const Position& at, const Norm& norm,
           int64_t activation, double inner, double outer) {
  for (int64_t number = 0; number < entries.size(0); ++number) {
    const TensorList own = parts.slice(number * NUM_PARTS, NUM_PARTS);
    const Tensor read = attend<T>(normed<T>(h, norm), own, entries.select(0, number), at);
    h = added_to(h, read, own[OUT], own[OUT_BIAS]);
    const Tensor up = product(normed<T>(h, norm), own[UP], own[UP_BIAS], 1 / inner);
    h = added_to(h, hidden_of(up, activation), own[DOWN], own[DOWN_BIAS], 1 / outer);
  }
  return h;
}

// entries: of the layers that run, [layers, 2, rows, heads, positions, width]; inner and outer:
// factors in the weights of the MLP.
Tensor decoding_layers(const Tensor& x, TensorList parts, const Tensor& entries, const Tensor& turn,
                       const Tensor& hidden, const Tensor& scale, int64_t index, int64_t num_heads,
                       double eps, bool is_centred, double norm_scale, double norm_eps,
                       int64_t activation, double inner, double outer) {
  TORCH_CHECK(index < entries.size(4), "cache holds ", entries.size(4), " positions, got ", index);
  const int64_t rows = entries.size(2), pairs = entries.size(5) / 2;
  const auto fits = [&](const Tensor& t, int64_t n) { return t.numel() == n || t.numel() == rows * n; };
  TORCH_CHECK(x.size(0) == rows && fits(scale, 1) && (!turn.numel() || fits(turn, pairs)) &&
                  (!hidden.numel() || hidden.numel() == rows * (index + 1)),
              "arguments must be of ", rows, " rows");
  const Position at{turn, hidden, scale, index, num_heads, eps};
  const Norm norm{is_centred, norm_scale, norm_eps};
  const auto of_type = x.scalar_type() == at::kDouble ? run<double> : run<float>;
  return of_type(x, parts, entries, at, norm, activation, inner, outer);
}

}  // namespace

TORCH_LIBRARY(pretzel, library) {
  library.def(
      "decoding_layers(Tensor x, Tensor[] parts, Tensor(a!) entries, Tensor turn, Tensor hidden, "
      "Tensor scale, int index, int num_heads, float eps, bool is_centred, float norm_scale, "
      "float norm_eps, int activation, float inner, float outer) -> Tensor");
  library.impl("decoding_layers", torch::dispatch(c10::DispatchKey::CPU, TORCH_FN(decoding_layers)));
}

"""Products with 4-bit weights in a compiled decode step, for CPUs that multiply 8-bit integers (AVX-512 VNNI).

torch's product dequantizes each weight to fp32. This one multiplies integers, as llama.cpp does, but with inputs in 15 bits,
which represent numbers in bf16 as well as bf16 itself does: in each group of 32 columns an input is

    x = step · (128 · high + low)   with step = max |x| / 16,256, high in -127 … 127, low in -64 … 63

and the sums of weights times `high` and of weights times `low` are exact. It reads the weights in the order of torch's
product (`gptkit.components.precision.modules.int4_layout`), so that no second copy is held: blocks of 64 rows, where byte r
of a column holds row r in its low half and row 32 + r in its high half; then one block of the 16, 32 or 48 rows that are
left, where byte r holds rows 2r and 2r + 1.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import fx

__all__ = ["define_int4_product", "replace_int4", "supported"]

_SOURCE = r"""
{{template.header().getvalue()}}
#include <immintrin.h>
#ifndef GPTKIT_INT4_PRODUCT
#define GPTKIT_INT4_PRODUCT
namespace gptkit_int4 {

constexpr int64_t GROUP = 32;


inline void round_row(const at::BFloat16* x, int64_t n_columns, int8_t* high, int8_t* low, float* step, float* sum) {
    for (int64_t g = 0; g < n_columns / GROUP; ++g) {
        float numbers[GROUP], largest = 0;
        for (int64_t i = 0; i < GROUP; ++i) {
            numbers[i] = x[g * GROUP + i];
            largest = std::max(largest, std::abs(numbers[i]));
        }
        const float inverse = largest > 0 ? 16256.0f / largest : 0.0f;
        int32_t total = 0;
        for (int64_t i = 0; i < GROUP; ++i) {
            const int32_t integer = static_cast<int32_t>(std::nearbyint(numbers[i] * inverse));
            const int32_t upper = (integer + 64) >> 7;
            high[g * GROUP + i] = static_cast<int8_t>(upper);
            low[g * GROUP + i] = static_cast<int8_t>(integer - 128 * upper);
            total += integer;
        }
        step[g] = largest / 16256.0f;
        sum[g] = step[g] * total;
    }
}

inline __m256i four_columns(const int8_t* integers) {
    int32_t together;
    std::memcpy(&together, integers, 4);
    return _mm256_set1_epi32(together);
}

// 64 rows times one row of inputs. Vector j of the first four holds rows 4j … 4j + 3 and 16 + 4j … 16 + 4j + 3; the
// last four hold the same rows of the second half.
inline void multiply_block(
    const uint8_t* weights, const at::BFloat16* pairs, int64_t pairs_of_group, int64_t group, int64_t n_columns,
    const int8_t* high, const int8_t* low, const float* step, const float* sum, at::BFloat16* y) {
    const __m256i half = _mm256_set1_epi8(15);
    __m256 total[8];
    for (int j = 0; j < 8; ++j) total[j] = _mm256_setzero_ps();
    for (int64_t g = 0; g < n_columns / GROUP; ++g) {
        __m256i with_high[8], with_low[8];
        for (int j = 0; j < 8; ++j) with_high[j] = with_low[j] = _mm256_setzero_si256();
        for (int64_t c = g * GROUP; c < (g + 1) * GROUP; c += 4, weights += 128) {
            __m256i column[4];
            for (int k = 0; k < 4; ++k) column[k] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 32 * k));
            // The four columns of a row next to one another.
            const __m256i a = _mm256_unpacklo_epi8(column[0], column[1]), b = _mm256_unpackhi_epi8(column[0], column[1]);
            const __m256i d = _mm256_unpacklo_epi8(column[2], column[3]), e = _mm256_unpackhi_epi8(column[2], column[3]);
            const __m256i rows[4] = {
                _mm256_unpacklo_epi16(a, d), _mm256_unpackhi_epi16(a, d),
                _mm256_unpacklo_epi16(b, e), _mm256_unpackhi_epi16(b, e)};
            const __m256i x_high = four_columns(high + c), x_low = four_columns(low + c);
            for (int j = 0; j < 4; ++j) {
                const __m256i first = _mm256_and_si256(rows[j], half);
                const __m256i second = _mm256_and_si256(_mm256_srli_epi16(rows[j], 4), half);
                with_high[j] = _mm256_dpbusd_epi32(with_high[j], first, x_high);
                with_low[j] = _mm256_dpbusd_epi32(with_low[j], first, x_low);
                with_high[4 + j] = _mm256_dpbusd_epi32(with_high[4 + j], second, x_high);
                with_low[4 + j] = _mm256_dpbusd_epi32(with_low[4 + j], second, x_low);
            }
        }
        const __m256 x_step = _mm256_set1_ps(step[g]), x_sum = _mm256_set1_ps(sum[g]);
        const at::BFloat16* own = pairs + g * GROUP / group * pairs_of_group;
        for (int j = 0; j < 8; ++j) {
            const at::BFloat16* at_row = own + 2 * (j / 4 * 32 + j % 4 * 4);
            const __m256i both = _mm256_loadu2_m128i(
                reinterpret_cast<const __m128i*>(at_row + 32), reinterpret_cast<const __m128i*>(at_row));
            const __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            const __m256 offset = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(0xffff0000)));
            const __m256i integers = _mm256_add_epi32(_mm256_slli_epi32(with_high[j], 7), with_low[j]);
            const __m256 sums = _mm256_mul_ps(_mm256_cvtepi32_ps(integers), x_step);
            total[j] = _mm256_fmadd_ps(sums, scale, total[j]);
            total[j] = _mm256_fmadd_ps(x_sum, _mm256_fnmadd_ps(_mm256_set1_ps(8), scale, offset), total[j]);
        }
    }
    float numbers[64];
    for (int j = 0; j < 8; ++j) {
        float* at_row = numbers + j / 4 * 32 + j % 4 * 4;
        _mm_storeu_ps(at_row, _mm256_castps256_ps128(total[j]));
        _mm_storeu_ps(at_row + 16, _mm256_extractf128_ps(total[j], 1));
    }
    for (int r = 0; r < 64; ++r) y[r] = numbers[r];
}

// The rows that are left, fewer than 64.
inline void multiply_rest(
    const uint8_t* weights, const at::BFloat16* pairs, int64_t pairs_of_group, int64_t group, int64_t n_columns,
    int64_t n_rows, const int8_t* high, const int8_t* low, const float* step, const float* sum, at::BFloat16* y) {
    float total[64] = {};
    for (int64_t g = 0; g < n_columns / GROUP; ++g) {
        int32_t integers[64] = {};
        for (int64_t c = g * GROUP; c < (g + 1) * GROUP; ++c) {
            const int32_t x = 128 * high[c] + low[c];
            for (int64_t r = 0; r < n_rows / 2; ++r) {
                const int32_t both = weights[c * n_rows / 2 + r];
                integers[2 * r] += (both & 15) * x;
                integers[2 * r + 1] += (both >> 4) * x;
            }
        }
        const at::BFloat16* own = pairs + g * GROUP / group * pairs_of_group;
        for (int64_t r = 0; r < n_rows; ++r) {
            const float scale = own[2 * r], offset = own[2 * r + 1];
            total[r] += integers[r] * step[g] * scale + sum[g] * (offset - 8 * scale);
        }
    }
    for (int64_t r = 0; r < n_rows; ++r) y[r] = total[r];
}

}  // namespace gptkit_int4
#endif
extern "C" {{kernel.def_kernel(inputs={"X": X, "weights": weights, "pairs": pairs}, outputs={"Y": Y})}}
{
    {{kernel.maybe_codegen_profile()}}
    using namespace gptkit_int4;
    constexpr int64_t n_columns = {{n_columns}}, n_rows = {{n_rows}}, group = {{group}};
    constexpr int64_t n_groups = n_columns / GROUP, n_blocks = (n_rows + 63) / 64;
    const int64_t n_inputs = {{kernel.size(X, 0)}};
    #pragma omp parallel num_threads({{threads}}) if (n_inputs * n_rows * n_columns > {{smallest}})
    {
        // Every thread rounds all inputs: that is shorter than to wait for others.
        std::unique_ptr<int8_t[]> high(new int8_t[n_inputs * n_columns]), low(new int8_t[n_inputs * n_columns]);
        std::unique_ptr<float[]> step(new float[n_inputs * n_groups]), sum(new float[n_inputs * n_groups]);
        for (int64_t m = 0; m < n_inputs; ++m) {
            round_row(X + m * n_columns, n_columns, &high[m * n_columns], &low[m * n_columns], &step[m * n_groups],
                      &sum[m * n_groups]);
        }
        #pragma omp for schedule(static)
        for (int64_t block = 0; block < n_blocks; ++block) {
            const int64_t first = block * 64, left = std::min<int64_t>(64, n_rows - first);
            for (int64_t m = 0; m < n_inputs; ++m) {
                const int8_t *x_high = &high[m * n_columns], *x_low = &low[m * n_columns];
                const float *x_step = &step[m * n_groups], *x_sum = &sum[m * n_groups];
                const uint8_t* own = weights + first * n_columns / 2;
                at::BFloat16* y = Y + m * n_rows + first;
                const at::BFloat16* its = pairs + 2 * first;
                if (left == 64) {
                    multiply_block(own, its, 2 * n_rows, group, n_columns, x_high, x_low, x_step, x_sum, y);
                } else {
                    multiply_rest(own, its, 2 * n_rows, group, n_columns, left, x_high, x_low, x_step, x_sum, y);
                }
            }
        }
    }
}
"""

_SMALLEST = 1 << 17
"""Number of products of two numbers up to which one thread is faster."""


def replace_int4(module: fx.GraphModule) -> None:
    """Let torch's products with 4-bit weights be `gptkit::int4_product` where inductor compiles for such CPUs; in place."""
    if not supported():
        return
    define_int4_product()
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._weight_int4pack_mm_for_cpu.default and _is_bf16(node.args[0]):
            node.target = torch.ops.gptkit.int4_product.default
    module.recompile()


def _is_bf16(x: Any) -> bool:
    return bool(x.meta["val"].dtype == torch.bfloat16)


@functools.cache
def supported() -> bool:
    """Whether inductor compiles with the instructions, for the order in which torch packs on this CPU."""
    from torch._inductor import cpu_vec_isa

    available = isinstance(cpu_vec_isa.pick_vec_isa(), cpu_vec_isa.VecAVX512VNNI)
    return available and torch.backends.cpu.get_cpu_capability() == "AVX512"


@functools.cache
def define_int4_product() -> Any:
    """The library with the operator `gptkit::int4_product`, and how inductor compiles it.

    Shapes:
        x (M, I) in bf16; packed weights as of `_convert_weight_to_int4pack_for_cpu`; scales and offsets (I / group, O, 2) in
        bf16 → (M, O)
    """
    from torch._inductor import ir, lowering
    from torch._inductor.codegen.cpp_template import CppTemplate

    library: Any = torch.library.Library("gptkit", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("int4_product(Tensor x, Tensor weights, int group, Tensor pairs) -> Tensor")
    library.impl("int4_product", torch.ops.aten._weight_int4pack_mm_for_cpu.default, "CompositeExplicitAutograd")
    library.impl("int4_product", lambda x, weights, group, pairs: x.new_empty(x.shape[0], pairs.shape[1]), "Meta")

    class Int4Product(CppTemplate):
        """The kernel of one product."""

        def __init__(self, inputs: list[Any], layout: Any, group: int) -> None:
            super().__init__("int4_product", inputs, layout, torch.get_num_threads())
            self.group = group

        def render(self, **options: Any) -> str:
            x, weights, pairs = self.input_nodes
            output = options.get("template_buffer_node") or self.output_node
            source: str = self._template_from_string(_SOURCE).render(
                template=self,
                kernel=options["kernel"],
                X=x,
                weights=weights,
                pairs=pairs,
                Y=output,
                n_columns=int(pairs.get_size()[0]) * self.group,
                n_rows=int(pairs.get_size()[1]),
                group=self.group,
                threads=self.num_threads,
                smallest=_SMALLEST,
            )
            return source

    def int4_product(x: Any, weights: Any, group: int, pairs: Any) -> Any:
        x = ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(x))
        inputs = [x, *(ir.ExternKernel.realize_input(each) for each in (weights, pairs))]
        layout = ir.FixedLayout(x.get_device(), torch.bfloat16, [x.get_size()[0], pairs.get_size()[1]])
        product: Any = Int4Product(inputs, layout, group)
        out = product.generate().output_node()
        out.data.data.allow_epilogue_fusion = False  # the kernel stores its numbers by itself
        return out

    lowering.register_lowering(torch.ops.gptkit.int4_product.default, type_promotion_kind=None)(int4_product)
    return library

#include "disk/sparse_table.h"

#include <algorithm>

namespace firn {

namespace {

// Cuts [first, first + count) into bytes of which only some bits belong to it, on_byte(offset,
// mask), and runs of whole bytes, on_run(offset, bytes).
template <typename Byte, typename Run>
void ForBits(uint64_t first, uint64_t count, Byte on_byte, Run on_run) {
  uint64_t bit = first;
  const uint64_t end = first + count;
  while (bit < end) {
    if (bit % 8 == 0 && end - bit >= 8) {
      const uint64_t bytes = (end - bit) / 8;
      on_run(bit / 8, bytes);
      bit += bytes * 8;
      continue;
    }
    const uint64_t stop = std::min(end, (bit / 8 + 1) * 8);
    const auto mask = static_cast<uint8_t>(((1u << (stop - bit)) - 1) << (bit % 8));
    on_byte(bit / 8, mask);
    bit = stop;
  }
}

}  // namespace

void SetBits(SparseTable* table, uint64_t first, uint64_t count) {
  const uint64_t page_bytes = table->page_bytes();
  ForBits(
      first, count,
      [&](uint64_t offset, uint8_t mask) { table->Touch(offset)[offset % page_bytes] |= mask; },
      [&](uint64_t offset, uint64_t bytes) {
        while (bytes > 0) {
          const uint64_t piece = std::min(bytes, page_bytes - offset % page_bytes);
          std::ranges::fill(table->Touch(offset).subspan(offset % page_bytes, piece),
                            uint8_t{0xFF});
          offset += piece;
          bytes -= piece;
        }
      });
}

bool AllBitsSet(const SparseTable& table, uint64_t first, uint64_t count) {
  const uint64_t page_bytes = table.page_bytes();
  bool all = true;
  ForBits(
      first, count,
      [&](uint64_t offset, uint8_t mask) {
        std::span<const uint8_t> page = table.Find(offset);
        all = all && !page.empty() && (page[offset % page_bytes] & mask) == mask;
      },
      [&](uint64_t offset, uint64_t bytes) {
        while (all && bytes > 0) {
          const uint64_t piece = std::min(bytes, page_bytes - offset % page_bytes);
          std::span<const uint8_t> page = table.Find(offset);
          all = !page.empty() && std::ranges::all_of(page.subspan(offset % page_bytes, piece),
                                                     [](uint8_t byte) { return byte == 0xFF; });
          offset += piece;
          bytes -= piece;
        }
      });
  return all;
}

}  // namespace firn

// Page-aligned memory for unbuffered I/O, owned by one object.
//
// Allocated once and kept: page faults on fresh memory cost more than LZ4 does on the same bytes.
// Large ones ask for huge pages.
#ifndef FIRN_IO_ALIGNED_BUFFER_H_
#define FIRN_IO_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "core/status.h"

namespace firn {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zero-filled, aligned to 4096 bytes at least. kInternal when memory is not to be had.
  static Result<AlignedBuffer> Allocate(size_t size);

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer();

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<uint8_t> span() { return {data_, size_}; }

 private:
  AlignedBuffer(uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace firn

#endif  // FIRN_IO_ALIGNED_BUFFER_H_

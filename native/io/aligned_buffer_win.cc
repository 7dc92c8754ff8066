#include <windows.h>

#include "core/bytes.h"
#include "io/aligned_buffer.h"

namespace firn {

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t size) {
  size = RoundUp(size, 4096);
  // Page-aligned, zero-filled, and ordinary pages: large ones need a privilege that services lack.
  void* memory = VirtualAlloc(nullptr, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
  if (memory == nullptr) {
    return Status::FromOs(Code::kInternal, "allocate", "", static_cast<int>(GetLastError()));
  }
  return AlignedBuffer(static_cast<uint8_t*>(memory), size);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) VirtualFree(data_, 0, MEM_RELEASE);
}

}  // namespace firn

#include <sys/mman.h>

#include <cerrno>

#include "core/bytes.h"
#include "io/aligned_buffer.h"

namespace firn {

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t size) {
  size = RoundUp(size, 4096);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Status::FromOs(Code::kInternal, "allocate", "", errno);
  // Ordinary pages: the large free blocks that huge ones are made of are those that a hypervisor
  // has taken back, and getting 60 MiB of them again takes a tenth of a second in the host
  // (measured). Requests of a mebibyte from registered buffers gain nothing from huge pages.
  return AlignedBuffer(static_cast<uint8_t*>(memory), size);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace firn

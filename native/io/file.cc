#include "io/file.h"

namespace firn {

Status File::ReadAt(uint64_t offset, std::span<uint8_t> out) {
  FIRN_ASSIGN_OR_RETURN(const size_t got, ReadSome(offset, out));
  return got == out.size() ? Status::Ok() : EndsBefore(path_, offset + got);
}

Status EndsBefore(const std::string& path, uint64_t offset) {
  return Status::Error(Code::kDiskTruncated, "the file ends before the data that should be here")
      .During("read")
      .At(path, offset)
      .DataLoss();
}

}  // namespace firn

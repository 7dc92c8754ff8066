#include "disk/layer.h"

namespace firn {

void AppendRun(const LayerRun& run, std::vector<LayerRun>* runs) {
  if (run.length == 0) return;
  if (!runs->empty()) {
    LayerRun& last = runs->back();
    const bool adjacent = last.offset + last.length == run.offset && last.kind == run.kind;
    const bool continues =
        run.kind != LayerRun::Kind::kData || last.source_offset + last.length == run.source_offset;
    if (adjacent && continues) {
      last.length += run.length;
      return;
    }
  }
  runs->push_back(run);
}

Result<LayerFiles> OpenLayerFiles(FileSystem& file_system, const std::string& path, bool direct,
                                  bool no_follow) {
  LayerFiles files;
  OpenOptions options;
  options.no_follow = no_follow;
  FIRN_ASSIGN_OR_RETURN(files.buffered, file_system.Open(path, options));
  FIRN_ASSIGN_OR_RETURN(files.bytes, files.buffered->Size());
  FIRN_ASSIGN_OR_RETURN(files.identity, files.buffered->Identity());
  if (!direct) return files;

  options.direct = true;
  FIRN_ASSIGN_OR_RETURN(files.direct, file_system.Open(path, options));
  if (!files.direct->direct()) {
    files.direct.reset();
    return files;
  }
  FIRN_ASSIGN_OR_RETURN(const FileIdentity identity, files.direct->Identity());
  if (identity != files.identity) {
    return Status::Error(Code::kSourceChanged, "the file was replaced while it was being opened")
        .During("open")
        .At(path)
        .Retryable();
  }
  return files;
}

Status Layer::CheckSizeUnchanged() const {
  FIRN_ASSIGN_OR_RETURN(const uint64_t bytes, file().Size());
  if (bytes == file_bytes()) return Status::Ok();
  return Status::Error(Code::kSourceChanged, "the file was " + std::to_string(file_bytes()) +
                                                 " bytes long when it was opened and is " +
                                                 std::to_string(bytes) + " now")
      .At(path());
}

void AddFinding(LayerInfo* info, DiskFinding::Severity severity, const char* code,
                std::string message, std::optional<uint64_t> offset) {
  info->findings.push_back({severity, code, std::move(message), offset});
}

void Warn(LayerInfo* info, const char* code, std::string message, std::optional<uint64_t> offset) {
  AddFinding(info, DiskFinding::Severity::kWarning, code, std::move(message), offset);
}

Status Refuse(LayerInfo* info, Code code, const char* finding, std::string message,
              uint64_t offset) {
  AddFinding(info, DiskFinding::Severity::kError, finding, message, offset);
  return Status::Error(code, std::move(message)).At(info->path, offset);
}

Status Invalid(LayerInfo* info, const char* finding, std::string message, uint64_t offset) {
  return Refuse(info, Code::kDiskInvalid, finding, std::move(message), offset);
}

Status Truncated(LayerInfo* info, const char* finding, std::string message, uint64_t offset) {
  return Refuse(info, Code::kDiskTruncated, finding, std::move(message), offset).DataLoss();
}

std::string Printable(std::string_view text, bool utf8) {
  std::string printable;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const bool keep = (byte >= 0x20 && byte < 0x7F) || (utf8 && byte >= 0x80);
    printable.push_back(keep ? c : '?');
  }
  return printable;
}

}  // namespace firn

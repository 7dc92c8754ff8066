#include "disk/layer_chain.h"

#include <algorithm>
#include <array>
#include <optional>

#include "disk/raw_layer.h"
#include "disk/vhd_format.h"
#include "disk/vhd_layer.h"
#include "disk/vhdx_format.h"
#include "disk/vhdx_layer.h"

namespace firn {
namespace {

// --- One layer ---

constexpr std::string_view kDiskExtensions[] = {".vhd", ".vhdx", ".avhd", ".avhdx"};
constexpr std::string_view kRawExtensions[] = {".raw", ".img"};
constexpr std::string_view kDiskSetExtensions[] = {".vhds"};

bool HasExtension(const std::string& path, std::span<const std::string_view> extensions) {
  std::string name = path;
  std::ranges::transform(name, name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return std::ranges::any_of(extensions, [&](auto suffix) { return name.ends_with(suffix); });
}

// Whether the bytes at `offset` are `signature`; false past the end of the file.
Result<bool> SignatureAt(File& file, uint64_t offset, std::string_view signature) {
  std::array<uint8_t, 8> bytes;
  FIRN_ASSIGN_OR_RETURN(const size_t got, file.ReadSome(offset, bytes));
  return vhdx::HasSignature(std::span(bytes).first(got), signature);
}

Result<DiskFormat> DetectFormat(const LayerFiles& files, LayerInfo* info) {
  // The first sectors of a raw disk are its guest's to write: a guest that puts a differencing
  // disk's structures there must not make the host read the parent that they name. So a name that
  // says raw is believed before any signature.
  if (HasExtension(info->path, kRawExtensions)) return DiskFormat::kRaw;
  if (HasExtension(info->path, kDiskSetExtensions)) {
    return Refuse(info, Code::kUnsupported, "disk-set",
                  "a VHD set points to the disk that it shares: name that .avhdx file instead", 0);
  }
  File& file = *files.buffered;
  FIRN_ASSIGN_OR_RETURN(const bool is_vhdx, SignatureAt(file, 0, vhdx::kFileSignature));
  if (is_vhdx) return DiskFormat::kVhdx;
  FIRN_ASSIGN_OR_RETURN(bool is_vhd, SignatureAt(file, 0, vhd::footer::kSignature));
  for (const size_t length : {vhd::footer::kBytes, vhd::footer::kOldBytes}) {
    if (is_vhd || files.bytes < length) continue;
    FIRN_ASSIGN_OR_RETURN(is_vhd, SignatureAt(file, files.bytes - length, vhd::footer::kSignature));
  }
  if (is_vhd) return DiskFormat::kVhd;
  if (HasExtension(info->path, kDiskExtensions)) {
    return Invalid(info, "no-signature",
                   "the file is named like a virtual disk, but has neither the signature of a VHDX "
                   "at its start nor that of a VHD at its start or end",
                   0);
  }
  return DiskFormat::kRaw;
}

struct LayerRequest {
  std::string path;
  std::optional<DiskFormat> format;
  bool direct = true;
  bool no_follow = false;
};

Result<std::unique_ptr<Layer>> OpenLayer(FileSystem& file_system, const LayerRequest& request,
                                         LayerInfo* info) {
  info->path = request.path;
  FIRN_ASSIGN_OR_RETURN(LayerFiles files, OpenLayerFiles(file_system, request.path, request.direct,
                                                         request.no_follow));
  info->file_bytes = files.bytes;
  DiskFormat format = DiskFormat::kRaw;
  if (request.format) {
    format = *request.format;
  } else {
    FIRN_ASSIGN_OR_RETURN(format, DetectFormat(files, info));
  }
  switch (format) {
    case DiskFormat::kVhdx:
      return OpenVhdxLayer(std::move(files), info);
    case DiskFormat::kVhd:
      return OpenVhdLayer(std::move(files), info);
    case DiskFormat::kRaw:
      return OpenRawLayer(std::move(files), info);
  }
  return Status::Error(Code::kInvalidArgument, "no such disk format").At(request.path);
}

}  // namespace

Status LayerChain::Open(const std::string& path) {
  LayerRequest request;
  request.path = path;
  request.format = options_.format;
  request.direct = options_.direct;
  infos_.emplace_back();
  Result<std::unique_ptr<Layer>> child = OpenLayer(file_system_, request, &infos_.back());
  if (!child.ok()) return NoteFailure(std::move(child).TakeStatus());
  layers_.push_back(std::move(*child));
  while (layers_.back()->parent() != nullptr) {
    FIRN_RETURN_IF_ERROR(NoteFailure(OpenParent()));
  }
  return Status::Ok();
}

// Makes sure that an error shows among the findings of the layer where it happened.
Status LayerChain::NoteFailure(Status status) {
  if (status.ok()) return status;
  LayerInfo& info = infos_.back();
  const bool noted = std::ranges::any_of(info.findings, [](const DiskFinding& finding) {
    return finding.severity == DiskFinding::Severity::kError;
  });
  if (!noted) {
    AddFinding(&info, DiskFinding::Severity::kError, "not-opened", status.message(),
               status.offset());
  }
  return status;
}

Status LayerChain::OpenParent() {
  const Layer& child = *layers_.back();
  const size_t index = layers_.size() - 1;
  if (layers_.size() >= options_.max_depth) {
    return Status::Error(Code::kUnsupported, "the chain of parents is longer than " +
                                                 std::to_string(options_.max_depth) + " layers")
        .At(child.path());
  }
  if (index < options_.parents.size()) return OpenExplicitParent(options_.parents[index]);

  FIRN_ASSIGN_OR_RETURN(ParentResolver::Search search,
                        resolver_.Find(child.path(), *child.parent()));
  std::optional<Attempt> problem;
  for (const std::string& candidate : search.candidates) {
    Attempt attempt = TryParent(candidate);
    if (attempt.status.ok()) return Status::Ok();
    if (attempt.outcome == Attempt::Outcome::kNotAParent) {
      search.tried += "; " + Printable(candidate, true) + " is no file that could be it";
    } else if (!problem) {
      problem = std::move(attempt);
    }
  }
  if (problem) return ReportProblem(std::move(*problem));
  return Status::Error(Code::kParentNotFound,
                       "the parent was not found: looked for " + search.tried +
                           "; further folders can be allowed (--parent-folder)")
      .At(child.path());
}

Status LayerChain::OpenExplicitParent(const std::string& path) {
  Result<std::string> real = file_system_.RealPath(path);
  if (!real.ok()) {
    return Status::Error(Code::kParentNotFound,
                         "the parent that was named, " + path + ", is not there")
        .At(layers_.back()->path());
  }
  Attempt attempt = TryParent(*real);
  if (attempt.status.ok()) return Status::Ok();
  return ReportProblem(std::move(attempt));
}

Status LayerChain::ReportProblem(Attempt attempt) {
  // A mismatch is a finding about the child; damage is one about the parent.
  if (attempt.outcome == Attempt::Outcome::kDamaged) infos_.push_back(std::move(attempt.info));
  return std::move(attempt.status);
}

// Opens `path` and appends it to the chain if it is the parent of the last layer.
LayerChain::Attempt LayerChain::TryParent(const std::string& path) {
  using Outcome = Attempt::Outcome;
  const Layer& child = *layers_.back();
  Attempt attempt;
  // Before anything in the file is believed: a file of the chain can't be its own ancestor.
  Result<const Layer*> in_chain = FindInChain(path);
  if (!in_chain.ok()) {
    attempt.status = std::move(in_chain).TakeStatus();
    const Code code = attempt.status.code();
    const bool is_no_file = code == Code::kInvalidArgument || code == Code::kNotFound;
    attempt.outcome = is_no_file ? Outcome::kNotAParent : Outcome::kUnreadable;
    return attempt;
  }
  if (*in_chain != nullptr) {
    // A child often has its parent's name in another folder, so the search by name may just have
    // come upon the child.
    const bool is_cycle = CheckIsParent(child, **in_chain).ok();
    attempt.outcome = is_cycle ? Outcome::kMismatch : Outcome::kNotAParent;
    attempt.status = Status::Error(is_cycle ? Code::kDiskInvalid : Code::kParentMismatch,
                                   is_cycle ? "the chain of parents comes back to itself at " + path
                                            : path + " is in the chain already, and not the parent")
                         .At(child.path());
    return attempt;
  }

  LayerRequest request;
  request.path = path;
  request.direct = options_.direct;
  request.no_follow = true;
  Result<std::unique_ptr<Layer>> parent = OpenLayer(file_system_, request, &attempt.info);
  if (!parent.ok()) {
    attempt.status = std::move(parent).TakeStatus();
    attempt.outcome = Outcome::kDamaged;
    return attempt;
  }
  attempt.status = CheckIsParent(child, **parent);
  if (!attempt.status.ok()) {
    attempt.outcome = Outcome::kMismatch;
    return attempt;
  }
  if ((*parent)->size() != child.size()) {
    Warn(&infos_.back(), "parent-size-differs",
         "the parent is " + std::to_string((*parent)->size()) + " bytes long, this layer " +
             std::to_string(child.size()));
  }
  infos_.push_back(std::move(attempt.info));
  layers_.push_back(std::move(*parent));
  return attempt;
}

// The layer that `path` is a name of, or null.
Result<const Layer*> LayerChain::FindInChain(const std::string& path) const {
  OpenOptions options;
  options.no_follow = true;
  FIRN_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, file_system_.Open(path, options));
  FIRN_ASSIGN_OR_RETURN(const FileIdentity identity, file->Identity());
  for (const std::unique_ptr<Layer>& layer : layers_) {
    if (layer->file_identity() == identity) return static_cast<const Layer*>(layer.get());
  }
  return static_cast<const Layer*>(nullptr);
}

Status LayerChain::CheckIsParent(const Layer& child, const Layer& parent) {
  const auto mismatch = [&](const std::string& why) {
    return Status::Error(Code::kParentMismatch, parent.path() + " " + why).At(child.path());
  };
  if (child.identity().format != parent.identity().format) {
    return mismatch(std::string("is a ") + FormatName(parent.identity().format) +
                    " image and can't be the parent of a " + FormatName(child.identity().format) +
                    " layer");
  }
  const std::vector<Guid>& linkages = child.parent()->linkages;
  if (std::ranges::find(linkages, parent.linkage_id()) == linkages.end()) {
    return mismatch(
        "is not the parent that this layer was made from, or was changed since: its id is " +
        child.LinkageToString(parent.linkage_id()) + ", the layer names " +
        child.LinkageToString(linkages.front()));
  }
  if (child.identity().logical_sector_size != parent.identity().logical_sector_size) {
    return mismatch("has another logical sector size than this layer");
  }
  return Status::Ok();
}

}  // namespace firn

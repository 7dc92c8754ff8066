#include "disk/virtdisk_win.h"

#include <initguid.h>
// After windows.h (io/file_win.h) and initguid.h, which makes its GUIDs ours.
#include <virtdisk.h>

#include <algorithm>
#include <cstring>

#include "disk/image_file.h"
#include "io/handle_win.h"

namespace firn {

namespace {

// VIRTUAL_STORAGE_TYPE_DEVICE_*
constexpr ULONG kDeviceVhd = 2;
constexpr ULONG kDeviceVhdx = 3;
// ProviderSubtype of a GET_VIRTUAL_DISK_INFO
constexpr ULONG kSubtypeFixed = 2;
constexpr ULONG kSubtypeDifferencing = 4;

constexpr uint64_t kPage = 4096;  // as lists of changes count (LayerChanges)
// VHDX goes to 64 TiB; nothing that a driver says above that is believed.
constexpr uint64_t kDiskBytesMax = 64 * kTiB;
// Ranges that one query gives at most.
constexpr ULONG kRangesPerQuery = 4096;
// More than this is no list any more: then the disk is read.
constexpr size_t kRangesMax = 4 * 1024 * 1024;

// Facility VHD (0x3A) of an HRESULT that says that tracking can't answer: no tracking, an unknown
// id, changes behind its back, lost or damaged tracking files (winerror.h, ERROR_CTLOG_*).
bool IsTrackingLost(DWORD error) {
  return (error >= 0xC03A0020 && error <= 0xC03A0024) || error == 0xC03A0029 ||
         error == 0xC03A002A || error == 0xC03A0030;
}

struct Library {
  decltype(&::OpenVirtualDisk) open = nullptr;
  decltype(&::AttachVirtualDisk) attach = nullptr;
  decltype(&::GetVirtualDiskInformation) get_information = nullptr;
  decltype(&::QueryChangesVirtualDisk) query_changes = nullptr;  // null before 2016
};

template <typename Call>
Call Lookup(HMODULE module, const char* name) {
  return reinterpret_cast<Call>(reinterpret_cast<void*>(GetProcAddress(module, name)));
}

// Null if the system has none. From the system's folder alone: a library of that name beside the
// program is nobody we know.
const Library* VirtDisk() {
  static const Library library = [] {
    Library found;
    const HMODULE module = LoadLibraryExW(L"virtdisk.dll", nullptr, LOAD_LIBRARY_SEARCH_SYSTEM32);
    if (module == nullptr) return found;
    found.open = Lookup<decltype(found.open)>(module, "OpenVirtualDisk");
    found.attach = Lookup<decltype(found.attach)>(module, "AttachVirtualDisk");
    found.get_information =
        Lookup<decltype(found.get_information)>(module, "GetVirtualDiskInformation");
    found.query_changes = Lookup<decltype(found.query_changes)>(module, "QueryChangesVirtualDisk");
    return found;
  }();
  const bool whole =
      library.open != nullptr && library.attach != nullptr && library.get_information != nullptr;
  return whole ? &library : nullptr;
}

Status NoLibrary(const std::string& path) {
  return Status::Error(Code::kUnsupported,
                       "this Windows has no driver for virtual disks (virtdisk)")
      .At(path);
}

Status FromVirtDisk(const char* op, const std::string& path, DWORD error) {
  if (!IsTrackingLost(error)) {
    return Status::FromOs(Code::kRead, op, path, static_cast<int>(error));
  }
  char hex[16];
  std::snprintf(hex, sizeof hex, "0x%08lX", error);
  return Status::Error(Code::kSourceChanged,
                       std::string("the disk's change tracking can't tell (") + hex + ")")
      .During(op)
      .At(path);
}

// Opened for reading, in the way that works beside a running machine: the second version of the
// parameters takes no access mask, and a resiliency id of its own keeps the open from being taken
// for one of the machine's.
Result<ScopedHandle> OpenReadOnly(const Library& library, const std::string& path, bool info_only) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  VIRTUAL_STORAGE_TYPE any{};  // the driver sees what it is
  OPEN_VIRTUAL_DISK_PARAMETERS parameters{};
  parameters.Version = OPEN_VIRTUAL_DISK_VERSION_2;
  parameters.Version2.GetInfoOnly = info_only;
  parameters.Version2.ReadOnly = TRUE;
  const Guid resiliency = RandomGuid();
  std::memcpy(&parameters.Version2.ResiliencyGuid, resiliency.data(), resiliency.size());
  HANDLE handle = nullptr;
  const DWORD error = library.open(&any, wide.c_str(), VIRTUAL_DISK_ACCESS_NONE,
                                   OPEN_VIRTUAL_DISK_FLAG_NONE, &parameters, &handle);
  if (error != ERROR_SUCCESS) return FromVirtDisk("open virtual disk", path, error);
  return ScopedHandle(handle);
}

// A GET_VIRTUAL_DISK_INFO, which for some versions has text after its end.
class Information {
 public:
  // ERROR_SUCCESS, or what the library says.
  DWORD Ask(const Library& library, HANDLE disk, GET_VIRTUAL_DISK_INFO_VERSION version) {
    bytes_.assign(kBytes, 0);
    info()->Version = version;
    ULONG size = kBytes, used = 0;
    const DWORD error = library.get_information(disk, &size, info(), &used);
    used_ = std::min<ULONG>(used == 0 ? size : used, kBytes);
    return error;
  }
  GET_VIRTUAL_DISK_INFO* info() { return reinterpret_cast<GET_VIRTUAL_DISK_INFO*>(bytes_.data()); }
  ULONG used() const { return used_; }

 private:
  static constexpr ULONG kBytes = 4096;
  // Of the alignment that every allocation has.
  std::vector<uint8_t> bytes_;
  ULONG used_ = 0;
};

Status AskIdentity(const Library& library, HANDLE disk, const std::string& path,
                   DiskIdentity* identity) {
  Information information;
  const DWORD error = information.Ask(library, disk, GET_VIRTUAL_DISK_INFO_SIZE);
  if (error != ERROR_SUCCESS) return FromVirtDisk("ask virtual disk", path, error);
  identity->size = information.info()->Size.VirtualSize;
  identity->block_size = information.info()->Size.BlockSize;
  identity->logical_sector_size = information.info()->Size.SectorSize;
  identity->physical_sector_size = identity->logical_sector_size;
  const bool plausible =
      identity->size > 0 && identity->size <= kDiskBytesMax &&
      (identity->logical_sector_size == 512 || identity->logical_sector_size == 4096) &&
      identity->size % identity->logical_sector_size == 0;
  if (!plausible) {
    return Status::Error(Code::kDiskInvalid, "the driver says that the disk has " +
                                                 std::to_string(identity->size) +
                                                 " bytes in sectors of " +
                                                 std::to_string(identity->logical_sector_size))
        .At(path);
  }
  // The rest is of use and not of need.
  const auto asked = [&](GET_VIRTUAL_DISK_INFO_VERSION version) {
    return information.Ask(library, disk, version) == ERROR_SUCCESS;
  };
  if (asked(GET_VIRTUAL_DISK_INFO_VIRTUAL_STORAGE_TYPE)) {
    const ULONG device = information.info()->VirtualStorageType.DeviceId;
    identity->format = device == kDeviceVhdx  ? DiskFormat::kVhdx
                       : device == kDeviceVhd ? DiskFormat::kVhd
                                              : DiskFormat::kRaw;
  }
  if (asked(GET_VIRTUAL_DISK_INFO_PROVIDER_SUBTYPE)) {
    const ULONG subtype = information.info()->ProviderSubtype;
    identity->kind = subtype == kSubtypeFixed          ? DiskKind::kFixed
                     : subtype == kSubtypeDifferencing ? DiskKind::kDifferencing
                                                       : DiskKind::kDynamic;
  }
  if (asked(GET_VIRTUAL_DISK_INFO_VHD_PHYSICAL_SECTOR_SIZE)) {
    const ULONG physical = information.info()->VhdPhysicalSectorSize;
    if (physical == 512 || physical == 4096) identity->physical_sector_size = physical;
  }
  if (asked(GET_VIRTUAL_DISK_INFO_VIRTUAL_DISK_ID)) {
    std::memcpy(identity->disk_id.data(), &information.info()->VirtualDiskId,
                identity->disk_id.size());
  }
  return Status::Ok();
}

// All of it may be data, for the driver doesn't say what exists.
class AttachedDisk final : public Disk {
 public:
  AttachedDisk(const DiskIdentity& identity, std::unique_ptr<File> file)
      : identity_(identity), file_(std::move(file)), source_{file_.get(), file_.get()} {
    LayerInfo layer;
    layer.path = file_->path();
    layer.identity = identity;
    layers_.push_back(std::move(layer));
  }

  const DiskIdentity& identity() const override { return identity_; }
  const std::vector<LayerInfo>& layers() const override { return layers_; }
  Status Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const override {
    assert(RangeInside(offset, length, size()));
    if (length > 0) extents->push_back({offset, length, &source_, offset});
    return Status::Ok();
  }
  Result<uint64_t> NextPresent(uint64_t offset) const override { return std::min(offset, size()); }
  // The driver holds the layers against writing.
  Status CheckUnchanged() const override { return Status::Ok(); }

 private:
  const DiskIdentity identity_;
  const std::unique_ptr<File> file_;
  const SourceFile source_;
  std::vector<LayerInfo> layers_;
};

Status NoSense(const std::string& path) {
  return Status::Error(Code::kSourceChanged, "the driver's list of changes makes no sense")
      .During("query changes")
      .At(path);
}

using Range = LayerChanges::Range;

// In whole pages but at the disk's end, in order, and joined where they touch or overlap.
void Normalise(uint64_t disk_bytes, std::vector<Range>* ranges) {
  std::ranges::sort(*ranges, {}, &Range::offset);
  size_t kept = 0;
  for (const Range& range : *ranges) {
    const uint64_t begin = RoundDown(range.offset, kPage);
    const uint64_t end = std::min(RoundUp(range.offset + range.length, kPage), disk_bytes);
    Range* const last = kept > 0 ? &(*ranges)[kept - 1] : nullptr;
    if (last != nullptr && begin <= last->offset + last->length) {
      last->length = std::max(last->offset + last->length, end) - last->offset;
    } else {
      (*ranges)[kept++] = {begin, end - begin};
    }
  }
  ranges->resize(kept);
}

}  // namespace

Result<std::unique_ptr<Disk>> OpenAttachedDisk(WinFileSystem& file_system,
                                               const std::string& path) {
  const Library* const library = VirtDisk();
  if (library == nullptr) return NoLibrary(path);
  FIRN_ASSIGN_OR_RETURN(ScopedHandle handle, OpenReadOnly(*library, path, false));
  ATTACH_VIRTUAL_DISK_PARAMETERS parameters{};
  parameters.Version = ATTACH_VIRTUAL_DISK_VERSION_1;
  // Detached again when the handle is closed, also by a process that dies.
  const auto flags = static_cast<ATTACH_VIRTUAL_DISK_FLAG>(ATTACH_VIRTUAL_DISK_FLAG_READ_ONLY |
                                                           ATTACH_VIRTUAL_DISK_FLAG_NO_LOCAL_HOST);
  const DWORD error = library->attach(handle.get(), nullptr, flags, 0, &parameters, nullptr);
  if (error != ERROR_SUCCESS) return FromVirtDisk("attach virtual disk", path, error);
  DiskIdentity identity;
  FIRN_RETURN_IF_ERROR(AskIdentity(*library, handle.get(), path, &identity));
  FIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<File> file,
      file_system.Adopt(path, std::move(handle), identity.size, identity.logical_sector_size));
  return std::unique_ptr<Disk>(new AttachedDisk(identity, std::move(file)));
}

Result<TrackingState> AskTrackingState(const std::string& path) {
  const Library* const library = VirtDisk();
  if (library == nullptr) return NoLibrary(path);
  FIRN_ASSIGN_OR_RETURN(const ScopedHandle handle, OpenReadOnly(*library, path, true));
  Information information;
  const DWORD error =
      information.Ask(*library, handle.get(), GET_VIRTUAL_DISK_INFO_CHANGE_TRACKING_STATE);
  if (error != ERROR_SUCCESS) return FromVirtDisk("ask change tracking", path, error);
  const auto& answer = information.info()->ChangeTrackingState;
  TrackingState state;
  state.enabled = answer.Enabled != FALSE;
  state.newer_changes = answer.NewerChanges != FALSE;
  // The text may end without a zero where the answer does.
  const auto text_begin =
      static_cast<size_t>(reinterpret_cast<const uint8_t*>(answer.MostRecentId) -
                          reinterpret_cast<uint8_t*>(information.info()));
  if (information.used() > text_begin) {
    const std::wstring_view text(answer.MostRecentId,
                                 (information.used() - text_begin) / sizeof(wchar_t));
    state.most_recent_id = Utf8FromWide(text.substr(0, text.find(L'\0')));
  }
  return state;
}

Result<LayerChanges> QueryTrackedChanges(const std::string& path, const std::string& tracking_id) {
  const Library* const library = VirtDisk();
  if (library == nullptr) return NoLibrary(path);
  if (library->query_changes == nullptr) {
    return Status::Error(Code::kUnsupported, "this Windows tracks no changes of virtual disks")
        .At(path);
  }
  FIRN_ASSIGN_OR_RETURN(const std::wstring id, WideFromUtf8(tracking_id));
  FIRN_ASSIGN_OR_RETURN(const ScopedHandle handle, OpenReadOnly(*library, path, false));
  LayerChanges changes;
  const DiskIdentity& identity = changes.identity;
  FIRN_RETURN_IF_ERROR(AskIdentity(*library, handle.get(), path, &changes.identity));
  std::vector<QUERY_CHANGES_VIRTUAL_DISK_RANGE> found(kRangesPerQuery);
  for (uint64_t offset = 0; offset < identity.size;) {
    ULONG count = kRangesPerQuery;
    ULONG64 processed = 0;
    const DWORD error = library->query_changes(
        handle.get(), id.c_str(), offset, identity.size - offset,
        QUERY_CHANGES_VIRTUAL_DISK_FLAG_NONE, found.data(), &count, &processed);
    // There is more than fits: what was given is right as far as `processed` goes.
    if (error != ERROR_SUCCESS && error != ERROR_MORE_DATA) {
      return FromVirtDisk("query changes", path, error);
    }
    if (processed == 0 || processed > identity.size - offset || count > kRangesPerQuery) {
      return NoSense(path);
    }
    for (const QUERY_CHANGES_VIRTUAL_DISK_RANGE& range : std::span(found).first(count)) {
      if (!RangeInside(range.ByteOffset, range.ByteLength, identity.size)) return NoSense(path);
      if (range.ByteLength > 0) changes.ranges.push_back({range.ByteOffset, range.ByteLength});
    }
    if (changes.ranges.size() > kRangesMax) {
      Normalise(identity.size, &changes.ranges);
      if (changes.ranges.size() > kRangesMax) return NoSense(path);
    }
    offset += processed;
  }
  Normalise(identity.size, &changes.ranges);
  return changes;
}

}  // namespace firn

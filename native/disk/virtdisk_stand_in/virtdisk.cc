// A stand-in for virtdisk.dll, for machines without Windows' driver for virtual disks.
//
// A "virtual disk" is a file with the disk's bytes and a text file beside it (NAME.stand-in) that
// says what the driver would:
//
//   size BYTES            sector BYTES           id TRACKING-ID
//   range OFFSET LENGTH   per-query COUNT        changes-error CODE
//   open-error CODE       attach-error CODE      stuck
//
// The names are exported by virtdisk.def. It is as strict as the driver is known to be: it opens
// what is asked for read-only in the second version of the parameters, attaches what is asked for
// without a path, and knows the ids that it was told. The handle that it gives is the file's own,
// so reads are real.

#include <windows.h>
// After windows.h, whose types it uses.
#include <initguid.h>
#include <virtdisk.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Script {
  uint64_t size = 0;
  uint32_t sector = 512;
  uint32_t per_query = 1000;
  uint32_t open_error = 0, attach_error = 0, changes_error = 0;
  bool stuck = false;
  std::wstring id;
  std::vector<QUERY_CHANGES_VIRTUAL_DISK_RANGE> ranges;
};

std::mutex mutex;
std::map<HANDLE, Script> open_disks;

bool ReadScript(const std::wstring& path, Script* script) {
  FILE* const file = _wfopen((path + L".stand-in").c_str(), L"r");
  if (file == nullptr) return false;
  char word[64];
  while (std::fscanf(file, "%63s", word) == 1) {
    const std::string key = word;
    unsigned long long a = 0, b = 0;
    char text[64];
    if (key == "size" && std::fscanf(file, "%llu", &a) == 1) script->size = a;
    if (key == "sector" && std::fscanf(file, "%llu", &a) == 1) {
      script->sector = static_cast<uint32_t>(a);
    }
    if (key == "per-query" && std::fscanf(file, "%llu", &a) == 1) {
      script->per_query = static_cast<uint32_t>(a);
    }
    if (key == "open-error" && std::fscanf(file, "%llu", &a) == 1) {
      script->open_error = static_cast<uint32_t>(a);
    }
    if (key == "attach-error" && std::fscanf(file, "%llu", &a) == 1) {
      script->attach_error = static_cast<uint32_t>(a);
    }
    if (key == "changes-error" && std::fscanf(file, "%llu", &a) == 1) {
      script->changes_error = static_cast<uint32_t>(a);
    }
    if (key == "id" && std::fscanf(file, "%63s", text) == 1) {
      script->id.assign(text, text + std::char_traits<char>::length(text));
    }
    if (key == "range" && std::fscanf(file, "%llu %llu", &a, &b) == 2) {
      script->ranges.push_back({a, b, 0});
    }
    if (key == "stuck") script->stuck = true;
  }
  std::fclose(file);
  return true;
}

// Null for a handle that is none of ours.
const Script* Find(HANDLE handle) {
  const auto found = open_disks.find(handle);
  return found == open_disks.end() ? nullptr : &found->second;
}

}  // namespace

extern "C" {

// By which a test knows whom it speaks with.
int FirnStandIn() { return 1; }

DWORD WINAPI OpenVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path,
                             VIRTUAL_DISK_ACCESS_MASK access, OPEN_VIRTUAL_DISK_FLAG flags,
                             POPEN_VIRTUAL_DISK_PARAMETERS parameters, PHANDLE handle) {
  const GUID none{};
  if (type == nullptr || parameters == nullptr || flags != OPEN_VIRTUAL_DISK_FLAG_NONE ||
      parameters->Version != OPEN_VIRTUAL_DISK_VERSION_2 || access != VIRTUAL_DISK_ACCESS_NONE ||
      !parameters->Version2.ReadOnly || parameters->Version2.ResiliencyGuid == none) {
    return ERROR_INVALID_PARAMETER;
  }
  Script script;
  if (!ReadScript(path, &script)) return ERROR_FILE_NOT_FOUND;
  if (script.open_error != 0) return script.open_error;
  *handle = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr,
                        OPEN_EXISTING, FILE_FLAG_OVERLAPPED, nullptr);
  if (*handle == INVALID_HANDLE_VALUE) return GetLastError();
  std::lock_guard lock(mutex);
  open_disks[*handle] = script;
  return ERROR_SUCCESS;
}

DWORD WINAPI AttachVirtualDisk(HANDLE handle, PSECURITY_DESCRIPTOR, ATTACH_VIRTUAL_DISK_FLAG flags,
                               ULONG, PATTACH_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED) {
  std::lock_guard lock(mutex);
  const Script* const script = Find(handle);
  if (script == nullptr) return ERROR_INVALID_HANDLE;
  if (flags != (ATTACH_VIRTUAL_DISK_FLAG_READ_ONLY | ATTACH_VIRTUAL_DISK_FLAG_NO_LOCAL_HOST) ||
      parameters == nullptr || parameters->Version != ATTACH_VIRTUAL_DISK_VERSION_1) {
    return ERROR_INVALID_PARAMETER;
  }
  return script->attach_error;
}

DWORD WINAPI GetVirtualDiskInformation(HANDLE handle, PULONG size, PGET_VIRTUAL_DISK_INFO info,
                                       PULONG used) {
  std::lock_guard lock(mutex);
  const Script* const script = Find(handle);
  if (script == nullptr) return ERROR_INVALID_HANDLE;
  if (used != nullptr) *used = sizeof *info;
  switch (info->Version) {
    case GET_VIRTUAL_DISK_INFO_SIZE:
      info->Size.VirtualSize = script->size;
      info->Size.PhysicalSize = script->size;
      info->Size.BlockSize = 2 * 1024 * 1024;
      info->Size.SectorSize = script->sector;
      return ERROR_SUCCESS;
    case GET_VIRTUAL_DISK_INFO_VIRTUAL_STORAGE_TYPE:
      info->VirtualStorageType.DeviceId = 3;
      return ERROR_SUCCESS;
    case GET_VIRTUAL_DISK_INFO_PROVIDER_SUBTYPE:
      info->ProviderSubtype = 4;
      return ERROR_SUCCESS;
    case GET_VIRTUAL_DISK_INFO_VHD_PHYSICAL_SECTOR_SIZE:
      info->VhdPhysicalSectorSize = 4096;
      return ERROR_SUCCESS;
    case GET_VIRTUAL_DISK_INFO_VIRTUAL_DISK_ID:
      info->VirtualDiskId = {
          0xbeca12ab, 0xb2e6, 0x4523, {0x93, 0xef, 0xc3, 9, 0xe0, 0, 0xc7, 0x46}};
      return ERROR_SUCCESS;
    case GET_VIRTUAL_DISK_INFO_CHANGE_TRACKING_STATE: {
      auto& state = info->ChangeTrackingState;
      const auto text_at = static_cast<ULONG>(reinterpret_cast<const char*>(state.MostRecentId) -
                                              reinterpret_cast<const char*>(info));
      const auto text_bytes = static_cast<ULONG>((script->id.size() + 1) * sizeof(wchar_t));
      if (*size < text_at + text_bytes) return ERROR_INSUFFICIENT_BUFFER;
      state.Enabled = !script->id.empty();
      state.NewerChanges = !script->ranges.empty();
      std::copy_n(script->id.c_str(), script->id.size() + 1, state.MostRecentId);
      *used = text_at + text_bytes;
      return ERROR_SUCCESS;
    }
    default:
      return ERROR_INVALID_PARAMETER;
  }
}

DWORD WINAPI QueryChangesVirtualDisk(HANDLE handle, PCWSTR id, ULONG64 offset, ULONG64 length,
                                     QUERY_CHANGES_VIRTUAL_DISK_FLAG flags,
                                     PQUERY_CHANGES_VIRTUAL_DISK_RANGE ranges, PULONG count,
                                     PULONG64 processed) {
  std::lock_guard lock(mutex);
  const Script* const script = Find(handle);
  if (script == nullptr) return ERROR_INVALID_HANDLE;
  if (flags != QUERY_CHANGES_VIRTUAL_DISK_FLAG_NONE) return ERROR_INVALID_PARAMETER;
  if (script->id != id) return 0xC03A0029;  // ERROR_VHD_INVALID_CHANGE_TRACKING_ID
  if (script->changes_error != 0) return script->changes_error;
  ULONG given = 0;
  const ULONG room = std::min<ULONG>(*count, script->per_query);
  *count = 0;
  *processed = script->stuck ? 0 : length;
  for (const QUERY_CHANGES_VIRTUAL_DISK_RANGE& range : script->ranges) {
    if (range.ByteOffset < offset || script->stuck) continue;
    if (given == room) {
      // As far as the ranges that were given go, and there is more.
      *processed = range.ByteOffset - offset;
      *count = given;
      return ERROR_MORE_DATA;
    }
    ranges[given++] = range;
  }
  *count = given;
  return ERROR_SUCCESS;
}

}  // extern "C"

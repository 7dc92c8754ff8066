// What is Windows' alone: sharing, names, sectors, sparse files, devices, links. That its files and
// folders do what all do is in file_test.cc.

#include "io/file_win.h"

#include <filesystem>

#include "io/aligned_buffer.h"
#include "io/calls_win_test_util.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using test::FailWith;
using test::Must;

class WinFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<File> Create(const std::string& name,
                               const OpenOptions& options = {.access = Access::kCreateNew}) {
    return Must(fs_.Open(folder_ / name, options));
  }
  // As another program holds a file.
  ScopedHandle Hold(const std::string& name, DWORD access, DWORD share) {
    ScopedHandle handle(CreateFileW(std::filesystem::path(folder_ / name).c_str(), access, share,
                                    nullptr, OPEN_EXISTING, 0, nullptr));
    EXPECT_TRUE(handle.ok()) << GetLastError();
    return handle;
  }

  test::TestCalls calls_;
  WinFileSystem fs_{calls_.table()};
  test::TestFolder folder_;
  test::Random random_{41};
};

TEST_F(WinFileTest, AFileThatAnotherHoldsForItselfIsInUseAndWorthAnotherTry) {
  Create("a");
  {
    const ScopedHandle hyper_v = Hold("a", GENERIC_READ | GENERIC_WRITE, 0);
    for (const OpenOptions& options :
         {OpenOptions{}, OpenOptions{.direct = true}, OpenOptions{.access = Access::kReadWrite},
          OpenOptions{.no_follow = true}}) {
      const Status status = fs_.Open(folder_ / "a", options).status();
      EXPECT_STREQ(CodeName(status.code()), "ERR_FILE_IN_USE") << status.ToString();
      EXPECT_TRUE(status.retryable());
      EXPECT_EQ(status.os_code(), ERROR_SHARING_VIOLATION);
      EXPECT_EQ(status.path(), folder_ / "a");
    }
    EXPECT_TRUE(fs_.Exists(folder_ / "a"));
    EXPECT_EQ(fs_.Map(folder_ / "a").status().code(), Code::kFileInUse);
    EXPECT_EQ(fs_.Remove(folder_ / "a").code(), Code::kFileInUse);
  }
  FIRN_EXPECT_OK(fs_.Open(folder_ / "a", {}));
}

TEST_F(WinFileTest, WhoeverUsesAFileMayGoOnWhileItIsRead) {
  Create("a");
  // Somebody who writes and lets others read; then somebody who renames and removes.
  ScopedHandle writer = Hold("a", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE);
  auto file = Must(fs_.Open(folder_ / "a", {}));
  writer = ScopedHandle();
  Hold("a", GENERIC_READ | GENERIC_WRITE | DELETE,
       FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
  EXPECT_TRUE(MoveFileW(std::filesystem::path(folder_ / "a").c_str(),
                        std::filesystem::path(folder_ / "b").c_str()));
  EXPECT_TRUE(DeleteFileW(std::filesystem::path(folder_ / "b").c_str()));
}

TEST_F(WinFileTest, NamesMayBeLongAndInAnyScriptAndDifferInMoreThanCase) {
  std::string deep = folder_.path();
  for (int i = 0; i < 3; ++i) {
    deep = JoinPath(deep, std::string(120, static_cast<char>('a' + i)));
    FIRN_ASSERT_OK(fs_.CreateDirectory(deep));
  }
  const std::string name = "Gr\xC3\xBC\xC3\x9F Gott \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x92\xBE.vhdx";
  const std::string path = JoinPath(deep, name);
  ASSERT_GT(path.size(), 380u);
  {
    auto file = Must(fs_.Open(path, {.access = Access::kCreateNew}));
    FIRN_ASSERT_OK(file->WriteAt(0, random_.Bytes(10)));
  }
  EXPECT_EQ(Must(fs_.List(deep)), std::vector<std::string>{name});
  // Wine 8 can't tell the name of a handle if that is longer than 260 characters.
  if (!test::RunningUnderWine()) {
    EXPECT_EQ(Must(fs_.RealPath(path)), path);
    EXPECT_EQ(Must(fs_.RealPath("\\\\?\\" + path)), path);
  }
  EXPECT_EQ(Must(Must(fs_.Open("\\\\?\\" + path, {}))->Size()), 10u);
  FIRN_EXPECT_OK(fs_.Rename(path, JoinPath(deep, "Other.VHDX")));
  EXPECT_TRUE(fs_.Exists(JoinPath(deep, "oTHER.vhdx")));
  EXPECT_EQ(fs_.Open(JoinPath(deep, "other.vhdx"), {.access = Access::kCreateNew}).status().code(),
            Code::kExists);
  FIRN_EXPECT_OK(fs_.SyncDirectory(deep));
  FIRN_EXPECT_OK(fs_.Remove(JoinPath(deep, "OTHER.VHDX")));
  for (; deep != folder_.path(); deep = DirectoryOf(deep)) {
    EXPECT_TRUE(RemoveDirectoryW(Must(WidePath(deep)).c_str()));
  }
}

// Wine has no shadow copies: what CreateFileW is given is looked at, and the file is one in the
// folder.
TEST_F(WinFileTest, AFileInAShadowCopyIsOpenedUnbufferedByItsNameThere) {
  const std::vector<uint8_t> content = random_.Bytes(8192);
  test::WriteWholeFile(folder_ / "disk.vhdx", content);
  const std::wstring shadow = LR"(\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy12\vm\disk.vhdx)";
  const std::wstring real = Must(WidePath(folder_ / "disk.vhdx"));
  DWORD asked_flags = 0;
  calls_.create_file = [&](LPCWSTR path, DWORD access, DWORD share, LPSECURITY_ATTRIBUTES security,
                           DWORD disposition, DWORD flags, HANDLE model) {
    EXPECT_EQ(path, shadow);
    EXPECT_EQ(access, GENERIC_READ);
    EXPECT_EQ(share, static_cast<DWORD>(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE));
    asked_flags = flags;
    return CreateFileW(real.c_str(), access, share, security, disposition, flags, model);
  };
  auto file = Must(fs_.Open(Utf8FromWide(shadow), {.direct = true}));
  EXPECT_TRUE(file->direct());
  EXPECT_TRUE((asked_flags & FILE_FLAG_NO_BUFFERING) != 0);
  EXPECT_TRUE((asked_flags & FILE_FLAG_OVERLAPPED) != 0);
  EXPECT_EQ(file->path(), Utf8FromWide(shadow));
  AlignedBuffer memory = Must(AlignedBuffer::Allocate(8192));
  FIRN_ASSERT_OK(file->ReadAt(0, memory.span()));
  EXPECT_EQ(std::memcmp(memory.data(), content.data(), content.size()), 0);
}

// The root of a volume has neither "." nor "..": "not found" is all that the system says of it.
TEST_F(WinFileTest, AnEmptyVolumeHasNoNamesAndIsThere) {
  const char* const volume = std::getenv("FIRN_EMPTY_VOLUME");
  if (volume == nullptr) GTEST_SKIP() << "FIRN_EMPTY_VOLUME names none";
  EXPECT_TRUE(Must(fs_.List(volume)).empty());
  EXPECT_EQ(fs_.List(std::string(volume) + "none").status().code(), Code::kNotFound);
}

TEST_F(WinFileTest, RelativePathsAreFollowedFromTheCurrentFolder) {
  Create("a");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder_.path());
  FIRN_EXPECT_OK(fs_.Open("a", {}));
  FIRN_EXPECT_OK(fs_.Open("./x/../a", {}));
  EXPECT_EQ(Must(fs_.RealPath("a")), Must(fs_.RealPath(folder_ / "a")));
  std::filesystem::current_path(before);
}

TEST_F(WinFileTest, NamesOfDevicesAndWhatIsNoTextAreRefused) {
  for (const char* name : {"nul", "con.vhdx", "COM1", "a.", "a ", "a:stream", "a*"}) {
    const Status status = fs_.Open(folder_ / name, {.access = Access::kCreateNew}).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.ToString();
    EXPECT_EQ(fs_.Rename(folder_ / "a", folder_ / name).code(), Code::kInvalidArgument);
    EXPECT_FALSE(fs_.Exists(folder_ / name));
  }
  EXPECT_EQ(fs_.Open(folder_.path() + "\\\xFF\xFE", {}).status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(Must(fs_.List(folder_.path())).empty());
}

TEST_F(WinFileTest, UnbufferedHandlesDemandWhatTheVolumeSays) {
  calls_.get_information = [](HANDLE file, FILE_INFO_BY_HANDLE_CLASS kind, LPVOID out, DWORD size) {
    if (kind == FileStorageInfo) {
      FILE_STORAGE_INFO info{};
      info.LogicalBytesPerSector = 4096;
      std::memcpy(out, &info, sizeof info);
      return TRUE;
    }
    if (kind == FileAlignmentInfo) {
      const FILE_ALIGNMENT_INFO info{0x1FFF};
      std::memcpy(out, &info, sizeof info);
      return TRUE;
    }
    return GetFileInformationByHandleEx(file, kind, out, size);
  };
  auto file = Create("a", {.access = Access::kCreateNew, .direct = true});
  ASSERT_TRUE(file->direct());
  EXPECT_EQ(file->alignment().offset, 4096u);
  EXPECT_EQ(file->alignment().memory, 8192u);
}

TEST_F(WinFileTest, UnbufferedOpensFallBackWhereTheyAreRefused) {
  calls_.create_file = [](LPCWSTR path, DWORD access, DWORD share, LPSECURITY_ATTRIBUTES security,
                          DWORD disposition, DWORD flags, HANDLE model) -> HANDLE {
    if ((flags & FILE_FLAG_NO_BUFFERING) != 0) {
      SetLastError(ERROR_INVALID_PARAMETER);
      return INVALID_HANDLE_VALUE;
    }
    return CreateFileW(path, access, share, security, disposition, flags, model);
  };
  auto file = Create("a", {.access = Access::kCreateNew, .direct = true});
  EXPECT_FALSE(file->direct());
  EXPECT_EQ(file->alignment().offset, 1u);
}

TEST_F(WinFileTest, AFullDiskAndACancelledTransferAreToldWithTheirPlace) {
  auto file = Create("a");
  calls_.write_file = [](HANDLE real, LPCVOID data, DWORD length, LPDWORD done,
                         LPOVERLAPPED overlapped) {
    if (test::OffsetOf(*overlapped) >= 4096) return FailWith(ERROR_DISK_FULL);
    return ::WriteFile(real, data, std::min<DWORD>(length, 4096), done, overlapped);
  };
  const Status full = file->WriteAt(0, random_.Bytes(10'000));
  EXPECT_EQ(full.code(), Code::kDiskFull);
  EXPECT_TRUE(full.retryable());
  EXPECT_EQ(full.offset(), 4096u);
  calls_.read_file = [](HANDLE, LPVOID, DWORD, LPDWORD, LPOVERLAPPED) {
    return FailWith(ERROR_OPERATION_ABORTED);
  };
  std::vector<uint8_t> out(100);
  const Status cancelled = file->ReadAt(7, out);
  EXPECT_EQ(cancelled.code(), Code::kRead);
  EXPECT_TRUE(cancelled.retryable());
  EXPECT_EQ(cancelled.offset(), 7u);
}

TEST_F(WinFileTest, AFlushThatFailsMayHaveLostData) {
  auto file = Create("a");
  calls_.flush = [](HANDLE) { return FailWith(ERROR_IO_DEVICE); };
  const Status status = file->Sync();
  EXPECT_EQ(status.code(), Code::kWrite);
  EXPECT_TRUE(status.data_loss());
  // Whereas a folder that can't be flushed has nothing that was not written through.
  calls_.flush = [](HANDLE) { return FailWith(ERROR_ACCESS_DENIED); };
  FIRN_EXPECT_OK(fs_.SyncDirectory(folder_.path()));
}

TEST_F(WinFileTest, RenamesAreWrittenThroughAndReplaceOnlyWhenTheyMay) {
  Create("a");
  std::vector<DWORD> flags;
  calls_.move_file = [&](LPCWSTR from, LPCWSTR to, DWORD move_flags) {
    flags.push_back(move_flags);
    return ::MoveFileExW(from, to, move_flags);
  };
  FIRN_EXPECT_OK(fs_.RenameNew(folder_ / "a", folder_ / "b"));
  FIRN_EXPECT_OK(fs_.Rename(folder_ / "b", folder_ / "c"));
  EXPECT_EQ(flags, (std::vector<DWORD>{MOVEFILE_WRITE_THROUGH,
                                       MOVEFILE_WRITE_THROUGH | MOVEFILE_REPLACE_EXISTING}));
}

// Windows denies access to a target that somebody has open; then it is replaced as POSIX does it.
TEST_F(WinFileTest, AnOpenTargetIsReplacedUnderTheFeetOfWhoeverHasIt) {
  Create("a");
  Create("b");
  DWORD denied = ERROR_ACCESS_DENIED;
  calls_.move_file = [&](LPCWSTR, LPCWSTR, DWORD) { return FailWith(denied); };
  std::wstring name;
  DWORD flags = 0, answer = ERROR_SUCCESS;
  int asked = 0;
  calls_.set_information = [&](HANDLE, FILE_INFO_BY_HANDLE_CLASS kind, LPVOID in, DWORD size) {
    EXPECT_EQ(kind, kFileRenameInfoEx);
    const auto* const info = static_cast<const FILE_RENAME_INFO*>(in);
    EXPECT_GT(size, offsetof(FILE_RENAME_INFO, FileName) + info->FileNameLength);
    flags = info->Flags;
    name.assign(info->FileName, info->FileNameLength / sizeof(wchar_t));
    ++asked;
    return answer == ERROR_SUCCESS ? TRUE : FailWith(answer);
  };
  FIRN_EXPECT_OK(fs_.Rename(folder_ / "a", folder_ / "b"));
  EXPECT_EQ(name, Must(WidePath(folder_ / "b")));
  EXPECT_EQ(flags, static_cast<DWORD>(FILE_RENAME_FLAG_REPLACE_IF_EXISTS |
                                      FILE_RENAME_FLAG_POSIX_SEMANTICS));
  // Where that is not offered, the first answer stands.
  answer = ERROR_INVALID_PARAMETER;
  EXPECT_EQ(fs_.Rename(folder_ / "a", folder_ / "b").os_code(), ERROR_ACCESS_DENIED);
  denied = ERROR_SHARING_VIOLATION;
  EXPECT_EQ(fs_.Rename(folder_ / "a", folder_ / "b").code(), Code::kFileInUse);
  EXPECT_EQ(asked, 3);
  // Nothing else is tried a second time, and what must not replace never does.
  EXPECT_EQ(fs_.RenameNew(folder_ / "a", folder_ / "b").code(), Code::kFileInUse);
  denied = ERROR_DISK_FULL;
  EXPECT_EQ(fs_.Rename(folder_ / "a", folder_ / "b").code(), Code::kDiskFull);
  EXPECT_EQ(asked, 3);
}

// A wait may fail before the transfer is over. Its OVERLAPPED is on the stack, and the kernel's.
TEST_F(WinFileTest, ABlockingTransferIsNotLeftBeforeTheSystemHasLetGoOfIt) {
  auto file = Create("a");
  OVERLAPPED* held = nullptr;
  calls_.write_file = [&](HANDLE, LPCVOID, DWORD, LPDWORD, LPOVERLAPPED overlapped) {
    overlapped->Internal = STATUS_PENDING;
    held = overlapped;
    return FailWith(ERROR_IO_PENDING);
  };
  int waits = 0;
  calls_.get_overlapped_result = [&](HANDLE, LPOVERLAPPED overlapped, LPDWORD bytes, BOOL wait) {
    EXPECT_EQ(overlapped, held);
    EXPECT_TRUE(wait);
    if (++waits < 3) return FailWith(ERROR_NOT_ENOUGH_MEMORY);
    overlapped->Internal = 0;
    *bytes = 10;
    return TRUE;
  };
  FIRN_EXPECT_OK(file->WriteAt(0, random_.Bytes(10)));
  EXPECT_EQ(waits, 3);
}

TEST_F(WinFileTest, ReservingSpaceNeverCutsAFileOff) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->WriteAt(0, random_.Bytes(10'000)));
  std::vector<LONGLONG> reserved;
  calls_.set_information = [&](HANDLE real, FILE_INFO_BY_HANDLE_CLASS kind, LPVOID in, DWORD size) {
    if (kind != FileAllocationInfo) return SetFileInformationByHandle(real, kind, in, size);
    reserved.push_back(static_cast<FILE_ALLOCATION_INFO*>(in)->AllocationSize.QuadPart);
    return TRUE;
  };
  FIRN_EXPECT_OK(file->Preallocate(0, 5000));
  EXPECT_TRUE(reserved.empty());
  FIRN_EXPECT_OK(file->Preallocate(kMiB, kMiB));
  EXPECT_EQ(reserved, std::vector<LONGLONG>{2 * kMiB});
  calls_.set_information = [](HANDLE, FILE_INFO_BY_HANDLE_CLASS, LPVOID, DWORD) {
    return FailWith(ERROR_NOT_SUPPORTED);
  };
  EXPECT_EQ(file->Preallocate(kMiB, kMiB).code(), Code::kUnsupported);
  calls_.set_information = [](HANDLE, FILE_INFO_BY_HANDLE_CLASS, LPVOID, DWORD) {
    return FailWith(ERROR_DISK_FULL);
  };
  EXPECT_EQ(file->Preallocate(kMiB, kMiB).code(), Code::kDiskFull);
}

TEST_F(WinFileTest, SparseFilesAreMadeAndTheirRangesAskedFor) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->Truncate(16 * kMiB));
  std::vector<DWORD> asked;
  DWORD answer = ERROR_SUCCESS;
  FILE_ALLOCATED_RANGE_BUFFER range{};
  bool has_range = true;
  calls_.device_io_control = [&](HANDLE, DWORD code, LPVOID, DWORD, LPVOID out, DWORD, LPDWORD,
                                 LPOVERLAPPED overlapped) {
    asked.push_back(code);
    if (answer != ERROR_SUCCESS && answer != ERROR_MORE_DATA) return FailWith(answer);
    overlapped->InternalHigh = 0;
    if (code == FSCTL_QUERY_ALLOCATED_RANGES && has_range) {
      std::memcpy(out, &range, sizeof range);
      overlapped->InternalHigh = sizeof range;
    }
    return answer == ERROR_SUCCESS ? TRUE : FailWith(answer);
  };
  calls_.get_overlapped_result = [&](HANDLE, LPOVERLAPPED overlapped, LPDWORD bytes, BOOL) {
    *bytes = static_cast<DWORD>(overlapped->InternalHigh);
    return answer == ERROR_SUCCESS ? TRUE : FailWith(answer);
  };
  FIRN_EXPECT_OK(file->MakeSparse());
  EXPECT_EQ(asked, std::vector<DWORD>{FSCTL_SET_SPARSE});

  const auto next = [&](uint64_t offset) { return Must(file->NextData(offset)); };
  range.FileOffset.QuadPart = 2 * kMiB;
  range.Length.QuadPart = kMiB;
  answer = ERROR_MORE_DATA;  // there are further ranges
  EXPECT_EQ(next(0)->begin, 2 * kMiB);
  EXPECT_EQ(next(0)->end, 3 * kMiB);
  EXPECT_EQ(next(2 * kMiB + 10)->begin, 2 * kMiB + 10);
  answer = ERROR_SUCCESS;
  range.Length.QuadPart = kTiB;
  EXPECT_EQ(next(0)->end, 16 * kMiB);
  // An answer that makes no sense hides no data.
  range.FileOffset.QuadPart = kTiB;
  EXPECT_EQ(next(5)->begin, 5u);
  EXPECT_EQ(next(5)->end, 16 * kMiB);
  range.FileOffset.QuadPart = -4096;
  range.Length.QuadPart = -1;
  EXPECT_EQ(next(5)->begin, 5u);
  EXPECT_EQ(next(5)->end, 16 * kMiB);
  has_range = false;
  EXPECT_FALSE(next(0));
  answer = ERROR_NOT_SUPPORTED;
  EXPECT_EQ(next(5)->begin, 5u);
  EXPECT_EQ(next(5)->end, 16 * kMiB);
  FIRN_EXPECT_OK(file->MakeSparse());
}

// A device: no size of a file, whole sectors alone. The bytes are a file's.
TEST_F(WinFileTest, DevicesAreReadInSectorsAndAnswerForAnyBytes) {
  constexpr uint64_t kSize = 3 * kMiB + 4096;
  constexpr uint32_t kSector = 4096;
  const std::vector<uint8_t> content = random_.Bytes(kSize);
  test::WriteWholeFile(folder_ / "disk", content);
  calls_.get_information = [](HANDLE, FILE_INFO_BY_HANDLE_CLASS, LPVOID, DWORD) {
    return FailWith(ERROR_INVALID_FUNCTION);
  };
  calls_.device_io_control = [&](HANDLE, DWORD code, LPVOID, DWORD, LPVOID out, DWORD, LPDWORD,
                                 LPOVERLAPPED overlapped) {
    GET_LENGTH_INFORMATION length{};
    length.Length.QuadPart = kSize;
    DISK_GEOMETRY geometry{};
    geometry.BytesPerSector = kSector;
    STORAGE_DEVICE_NUMBER number{};
    number.DeviceType = FILE_DEVICE_DISK;
    number.DeviceNumber = 3;
    const std::map<DWORD, std::pair<void*, size_t>> answers = {
        {IOCTL_DISK_GET_LENGTH_INFO, {&length, sizeof length}},
        {IOCTL_DISK_GET_DRIVE_GEOMETRY, {&geometry, sizeof geometry}},
        {IOCTL_STORAGE_GET_DEVICE_NUMBER, {&number, sizeof number}}};
    const auto answer = answers.find(code);
    if (answer == answers.end()) return FailWith(ERROR_INVALID_FUNCTION);
    std::memcpy(out, answer->second.first, answer->second.second);
    overlapped->InternalHigh = answer->second.second;
    overlapped->Internal = 0;
    SetEvent(reinterpret_cast<HANDLE>(reinterpret_cast<uintptr_t>(overlapped->hEvent) & ~1ull));
    return TRUE;
  };
  calls_.read_file = [&](HANDLE file, LPVOID data, DWORD length, LPDWORD done,
                         LPOVERLAPPED overlapped) {
    const uint64_t offset = test::OffsetOf(*overlapped);
    if ((offset | length | reinterpret_cast<uintptr_t>(data)) % kSector != 0 ||
        offset + length > kSize) {
      return FailWith(ERROR_INVALID_PARAMETER);
    }
    return ::ReadFile(file, data, length, done, overlapped);
  };
  auto device = Must(fs_.Open(folder_ / "disk", {}));
  EXPECT_TRUE(device->direct());
  EXPECT_EQ(device->alignment().offset, kSector);
  EXPECT_EQ(Must(device->Size()), kSize);
  EXPECT_EQ(Must(device->Identity()).file, 3u);
  for (const auto& [offset, length] : std::initializer_list<std::pair<uint64_t, size_t>>{
           {0, 512}, {1, 1}, {4095, 2}, {4096, 8192}, {777, 2 * kMiB + 99}, {kSize - 10, 10}}) {
    std::vector<uint8_t> out(length);
    FIRN_ASSERT_OK(device->ReadAt(offset, out));
    EXPECT_EQ(std::memcmp(out.data(), &content[offset], length), 0) << offset;
  }
  std::vector<uint8_t> out(100);
  EXPECT_EQ(Must(device->ReadSome(kSize - 10, out)), 10u);
  EXPECT_EQ(Must(device->ReadSome(kSize + 10, out)), 0u);
  const Status past = device->ReadAt(kSize - 10, out);
  EXPECT_EQ(past.code(), Code::kDiskTruncated);
  EXPECT_EQ(past.offset(), kSize);
}

// With no_follow a link is refused; what only looks like one to programs that ask is opened again
// through its filter.
TEST_F(WinFileTest, LinksAreToldFromOtherReparsePoints) {
  Create("a");
  DWORD tag = IO_REPARSE_TAG_SYMLINK;
  std::vector<DWORD> opened;
  calls_.create_file = [&](LPCWSTR path, DWORD access, DWORD share, LPSECURITY_ATTRIBUTES security,
                           DWORD disposition, DWORD flags, HANDLE model) {
    opened.push_back(flags & FILE_FLAG_OPEN_REPARSE_POINT);
    return CreateFileW(path, access, share, security, disposition, flags, model);
  };
  calls_.get_information = [&](HANDLE file, FILE_INFO_BY_HANDLE_CLASS kind, LPVOID out,
                               DWORD size) {
    if (kind != FileAttributeTagInfo) return GetFileInformationByHandleEx(file, kind, out, size);
    const FILE_ATTRIBUTE_TAG_INFO info{FILE_ATTRIBUTE_REPARSE_POINT, tag};
    std::memcpy(out, &info, sizeof info);
    return TRUE;
  };
  for (const DWORD link : {IO_REPARSE_TAG_SYMLINK, IO_REPARSE_TAG_MOUNT_POINT}) {
    tag = link;
    EXPECT_EQ(fs_.Open(folder_ / "a", {.no_follow = true}).status().code(), Code::kAccessDenied);
    FIRN_EXPECT_OK(fs_.Open(folder_ / "a", {}));
  }
  opened.clear();
  tag = IO_REPARSE_TAG_DEDUP;
  FIRN_EXPECT_OK(fs_.Open(folder_ / "a", {.no_follow = true}));
  EXPECT_EQ(opened, (std::vector<DWORD>{FILE_FLAG_OPEN_REPARSE_POINT, 0}));
}

}  // namespace
}  // namespace firn

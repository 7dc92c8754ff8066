#include "core/status.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <cerrno>
#endif
#include <set>
#include <string>
#include <vector>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(StatusTest, ADefaultStatusIsOkAndSaysNothing) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.code(), Code::kOk);
  EXPECT_EQ(status.message(), "");
  EXPECT_EQ(status.op(), "");
  EXPECT_EQ(status.path(), "");
  EXPECT_FALSE(status.offset());
  EXPECT_EQ(status.os_code(), 0);
  EXPECT_FALSE(status.retryable());
  EXPECT_FALSE(status.data_loss());
  EXPECT_EQ(status.ToString(), "OK");
}

TEST(StatusTest, EveryCodeHasAStableNameOfItsOwn) {
  std::set<std::string> names;
  for (int code = 1; code <= static_cast<int>(Code::kInternal); ++code) {
    const std::string name = CodeName(static_cast<Code>(code));
    EXPECT_EQ(name.rfind("ERR_", 0), 0u) << name;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
  EXPECT_STREQ(CodeName(Code::kOk), "OK");
  EXPECT_STREQ(CodeName(Code::kDiskFull), "ERR_DISK_FULL");
  EXPECT_STREQ(CodeName(Code::kCorruptChunk), "ERR_CORRUPT_CHUNK");
}

TEST(StatusTest, BuildersFillWhatIsEmpty) {
  const Status status = Status::Error(Code::kRead, "broken")
                            .During("read")
                            .At("disk.vhdx", 65536)
                            .Retryable()
                            .DataLoss();
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), Code::kRead);
  EXPECT_EQ(status.message(), "broken");
  EXPECT_EQ(status.op(), "read");
  EXPECT_EQ(status.path(), "disk.vhdx");
  EXPECT_EQ(status.offset(), 65536u);
  EXPECT_TRUE(status.retryable());
  EXPECT_TRUE(status.data_loss());
  EXPECT_EQ(status.ToString(), "ERR_READ read: disk.vhdx at 65536: broken");
}

TEST(StatusTest, BuildersKeepThePlaceNearestToTheFailure) {
  Status status = Status::Error(Code::kRead, "broken").During("read").At("inner", 1);
  status = std::move(status).During("open").At("outer", 2);
  EXPECT_EQ(status.op(), "read");
  EXPECT_EQ(status.path(), "inner");
  EXPECT_EQ(status.offset(), 1u);
}

TEST(StatusTest, AnOffsetIsAddedToThePathItBelongsTo) {
  const Status status = Status::Error(Code::kRead, "broken").At("disk").At("disk", 7);
  EXPECT_EQ(status.path(), "disk");
  EXPECT_EQ(status.offset(), 7u);
}

TEST(StatusTest, AnOffsetInOneFileIsNeverTakenForOneInAnother) {
  const Status status = Status::Error(Code::kRead, "broken").At("inner").At("outer", 7);
  EXPECT_EQ(status.path(), "inner");
  EXPECT_FALSE(status.offset()) << *status.offset();
}

TEST(StatusTest, BuildersLeaveOkAlone) {
  const Status status = Status::Ok().During("read").At("disk", 1).Retryable().DataLoss();
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.ToString(), "OK");
}

TEST(StatusTest, CopiesAreIndependent) {
  const Status first = Status::Error(Code::kWrite, "full").At("a", 1);
  Status second = first;
  second = std::move(second).DataLoss();
  EXPECT_FALSE(first.data_loss());
  EXPECT_TRUE(second.data_loss());
  EXPECT_EQ(second.path(), "a");
  Status& alias = second;
  second = alias;
  EXPECT_EQ(second.message(), "full");
  second = Status::Ok();
  EXPECT_TRUE(second.ok());
}

TEST(StatusTest, OsErrorsBecomeCodesAndKeepTheirNumber) {
  struct Row {
    int os_code;
    Code code;
    bool retryable;
  };
#ifdef _WIN32
  const std::vector<Row> rows = {
      {ERROR_FILE_NOT_FOUND, Code::kNotFound, false},
      {ERROR_PATH_NOT_FOUND, Code::kNotFound, false},
      {ERROR_BAD_NETPATH, Code::kNotFound, false},
      {ERROR_ACCESS_DENIED, Code::kAccessDenied, false},
      {ERROR_WRITE_PROTECT, Code::kAccessDenied, false},
      {ERROR_SHARING_VIOLATION, Code::kFileInUse, true},
      {ERROR_LOCK_VIOLATION, Code::kFileInUse, true},
      {ERROR_USER_MAPPED_FILE, Code::kFileInUse, true},
      {ERROR_DISK_FULL, Code::kDiskFull, true},
      {ERROR_HANDLE_DISK_FULL, Code::kDiskFull, true},
      {ERROR_ALREADY_EXISTS, Code::kExists, false},
      {ERROR_FILE_EXISTS, Code::kExists, false},
      {ERROR_INVALID_NAME, Code::kInvalidArgument, false},
      {ERROR_OPERATION_ABORTED, Code::kRead, true},
      {ERROR_NETNAME_DELETED, Code::kRead, true},
      {ERROR_INVALID_PARAMETER, Code::kRead, false},
      {ERROR_CRC, Code::kRead, false},
  };
#else
  const std::vector<Row> rows = {
      {ENOENT, Code::kNotFound, false},
      {ENOTDIR, Code::kNotFound, false},
      {EACCES, Code::kAccessDenied, false},
      {EPERM, Code::kAccessDenied, false},
      {EROFS, Code::kAccessDenied, false},
      {EBUSY, Code::kFileInUse, true},
      {ENOSPC, Code::kDiskFull, true},
      {EDQUOT, Code::kDiskFull, true},
      {EEXIST, Code::kExists, false},
      {EINTR, Code::kRead, true},
      {EIO, Code::kRead, false},
  };
#endif
  for (const Row& row : rows) {
    const Status status = Status::FromOs(Code::kRead, "open", "x.vhdx", row.os_code);
    EXPECT_EQ(status.code(), row.code) << row.os_code;
    EXPECT_EQ(status.retryable(), row.retryable) << row.os_code;
    EXPECT_EQ(status.os_code(), row.os_code);
    EXPECT_EQ(status.op(), "open");
    EXPECT_EQ(status.path(), "x.vhdx");
    EXPECT_FALSE(status.message().empty());
  }
}

TEST(ResultTest, HoldsAValueOrTheStatusThatSaysWhyNot) {
  Result<std::string> good = std::string("value");
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*good, "value");
  EXPECT_EQ(good->size(), 5u);
  EXPECT_TRUE(good.status().ok());
  Result<std::string> bad = Status::Error(Code::kNotFound, "nothing").At("here");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().path(), "here");
  EXPECT_EQ(std::move(bad).TakeStatus().code(), Code::kNotFound);
}

TEST(ResultTest, CarriesWhatCanOnlyBeMoved) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  ASSERT_TRUE(result.ok());
  std::unique_ptr<int> value = std::move(*result);
  EXPECT_EQ(*value, 7);
}

Result<int> Half(int value) {
  if (value % 2 != 0) return Status::Error(Code::kInvalidArgument, "odd");
  return value / 2;
}

Status Quarter(int value, int* out) {
  FIRN_ASSIGN_OR_RETURN(int half, Half(value));
  FIRN_ASSIGN_OR_RETURN(*out, Half(half));
  FIRN_RETURN_IF_ERROR(Status::Ok());
  return Status::Ok();
}

TEST(ResultTest, TheMacrosPassFailuresOnAndValuesThrough) {
  int out = 0;
  FIRN_EXPECT_OK(Quarter(8, &out));
  EXPECT_EQ(out, 2);
  EXPECT_EQ(Quarter(6, &out).code(), Code::kInvalidArgument);
  EXPECT_EQ(Quarter(7, &out).message(), "odd");
}

}  // namespace
}  // namespace firn

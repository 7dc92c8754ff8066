#include <gtest/gtest.h>

#include "io/file.h"

namespace firn {
namespace {

TEST(PathTest, ADirectoryIsWhatStandsBeforeTheLastSeparator) {
  EXPECT_EQ(DirectoryOf("a/b/c.vhdx"), "a/b");
  EXPECT_EQ(DirectoryOf("c.vhdx"), ".");
  EXPECT_EQ(DirectoryOf("/c.vhdx"), "/");
  EXPECT_EQ(DirectoryOf("/a/c.vhdx"), "/a");
  EXPECT_EQ(DirectoryOf("a/"), "a");
}

TEST(PathTest, JoiningPutsExactlyOneSeparatorBetween) {
#ifdef _WIN32
  EXPECT_EQ(JoinPath("C:\\a", "b"), "C:\\a\\b");
  EXPECT_EQ(JoinPath("C:\\", "b"), "C:\\b");
#else
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
#endif
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("/", "b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

#ifdef _WIN32
TEST(PathTest, TheRootOfADriveOrShareIsADirectoryOfItsOwn) {
  EXPECT_EQ(DirectoryOf("C:\\a.vhdx"), "C:\\");
  EXPECT_EQ(DirectoryOf("C:\\vm\\a.vhdx"), "C:\\vm");
  EXPECT_EQ(DirectoryOf("\\\\server\\share\\a.vhdx"), "\\\\server\\share\\");
  const std::string shadow = "\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy1\\";
  EXPECT_EQ(DirectoryOf(shadow + "a.vhdx"), shadow);
  EXPECT_EQ(DirectoryOf(shadow + "vm\\a.vhdx"), shadow + "vm");
  EXPECT_EQ(JoinPath(shadow, "a"), shadow + "a");
}
#endif

}  // namespace
}  // namespace firn

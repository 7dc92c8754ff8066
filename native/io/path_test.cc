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
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("/", "b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

}  // namespace
}  // namespace firn

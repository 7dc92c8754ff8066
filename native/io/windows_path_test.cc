#include "io/windows_path.h"

#include "core/core_test_util.h"

namespace firn {
namespace {

std::string Extended(const std::string& path, const std::string& folder = "C:\\work") {
  const Result<std::string> result = ExtendedWindowsPath(path, folder);
  return result.ok() ? *result : CodeName(result.status().code());
}

TEST(WindowsPathTest, EveryKindOfPathGetsItsExtendedForm) {
  struct Case {
    const char *path, *expected;
  };
  const Case cases[] = {
      {R"(C:\vm\disk.vhdx)", R"(\\?\C:\vm\disk.vhdx)"},
      {"c:/vm/disk.vhdx", R"(\\?\c:\vm\disk.vhdx)"},
      {R"(C:\)", R"(\\?\C:\)"},
      {R"(C:\vm\.\a\..\b\\c)", R"(\\?\C:\vm\b\c)"},
      {R"(C:\..\..\a)", R"(\\?\C:\a)"},
      {"a.vhdx", R"(\\?\C:\work\a.vhdx)"},
      {R"(..\a)", R"(\\?\C:\a)"},
      {".", R"(\\?\C:\work)"},
      {R"(\a)", R"(\\?\C:\a)"},
      {R"(\\server\share\vm\a)", R"(\\?\UNC\server\share\vm\a)"},
      {"//server/share/a", R"(\\?\UNC\server\share\a)"},
      {R"(\\server\share\..\a)", R"(\\?\UNC\server\share\a)"},
      {R"(\\server\share)", R"(\\?\UNC\server\share\)"},
      {R"(\\?\C:\vm\..\a)", R"(\\?\C:\a)"},
      {R"(\\?\C:\vm/a)", R"(\\?\C:\vm\a)"},
      {R"(\\?\UNC\server\share\a)", R"(\\?\UNC\server\share\a)"},
      {R"(\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\vm\a.vhdx)",
       R"(\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\vm\a.vhdx)"},
      {R"(\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\..\..\a)",
       R"(\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\a)"},
      {R"(\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\a)",
       R"(\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\a)"},
      {R"(\\.\PhysicalDrive3)", R"(\\.\PhysicalDrive3)"},
      {R"(\\.\C:)", R"(\\.\C:)"},
      {"caf\xC3\xA9 \xE2\x82\xAC.vhdx", "\\\\?\\C:\\work\\caf\xC3\xA9 \xE2\x82\xAC.vhdx"},
  };
  for (const Case& c : cases) EXPECT_EQ(Extended(c.path), c.expected) << c.path;
}

TEST(WindowsPathTest, RelativePathsFollowTheFolderWhateverItsForm) {
  EXPECT_EQ(Extended("a", R"(\\server\share)"), R"(\\?\UNC\server\share\a)");
  EXPECT_EQ(Extended("a", R"(\\server\share\b)"), R"(\\?\UNC\server\share\b\a)");
  EXPECT_EQ(Extended(R"(\a)", R"(\\server\share\b)"), R"(\\?\UNC\server\share\a)");
  EXPECT_EQ(Extended("a", R"(\\?\D:\b)"), R"(\\?\D:\b\a)");
}

TEST(WindowsPathTest, WhatNamesNoFileIsRefused) {
  for (const char* path :
       {"", "C:a", "C:", R"(C:\a:stream)", R"(C:\vm\*.vhdx)", "C:\\a\tb", R"(\\server)",
        R"(\\server\)", R"(\\\share\a)", R"(\\?\)", R"(\\?\UNC\server)", "a|b", R"(\\?\C:\a:b)"}) {
    EXPECT_EQ(Extended(path), "ERR_INVALID_ARGUMENT") << path;
  }
}

TEST(WindowsPathTest, NamesThatWindowsWouldReinterpretNeedTheExtendedForm) {
  for (const char* name : {"nul", "NUL.vhdx", "con", "Aux.txt", "com1", "COM9.a.b", "lpt1 .x",
                           "conin$", "com\xC2\xB9", "a.", "a ", "a. "}) {
    EXPECT_EQ(Extended(std::string("C:\\vm\\") + name), "ERR_INVALID_ARGUMENT") << name;
    EXPECT_EQ(Extended(std::string("C:\\") + name + "\\a"), "ERR_INVALID_ARGUMENT") << name;
    const std::string literal = std::string("\\\\?\\C:\\vm\\") + name;
    EXPECT_EQ(Extended(literal), literal);
  }
  for (const char* name : {"nul1", "com", "com10", "lpt", "console", "xnul", ".a", "a..b"}) {
    EXPECT_EQ(Extended(name), std::string("\\\\?\\C:\\work\\") + name);
  }
}

TEST(WindowsPathTest, TheRootIsWhatDotDotCannotLeave) {
  for (const auto& [root, rest] : std::initializer_list<std::pair<std::string, std::string>>{
           {"C:\\", "a"},
           {"C:", "a"},
           {"\\", "a"},
           {"/", "a"},
           {"", "a\\b"},
           {"\\\\server\\share\\", "a"},
           {"//server/share/", "a"},
           {"\\\\?\\C:\\", "a"},
           {"\\\\?\\UNC\\server\\share\\", "a"},
           {"\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy1\\", "a\\b"},
           {"\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\", "a"},
           {"\\\\.\\PhysicalDrive0", ""}}) {
    EXPECT_EQ(WindowsRootLength(root + rest), root.size()) << root + rest;
  }
}

TEST(WindowsPathTest, ThePrefixGoesWhereItIsNotNeeded) {
  EXPECT_EQ(WithoutExtendedPrefix(R"(\\?\C:\vm\a.vhdx)"), R"(C:\vm\a.vhdx)");
  EXPECT_EQ(WithoutExtendedPrefix(R"(\\?\C:\)"), R"(C:\)");
  EXPECT_EQ(WithoutExtendedPrefix(R"(\\?\UNC\server\share\a)"), R"(\\server\share\a)");
  for (const char* kept :
       {R"(\\?\C:\vm\nul)", R"(\\?\C:\vm\a.)", R"(\\?\C:)", R"(C:\a)", R"(\\.\PhysicalDrive0)",
        R"(\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1\a)",
        R"(\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\a)"}) {
    EXPECT_EQ(WithoutExtendedPrefix(kept), kept);
  }
}

// Whatever it is given, it answers or refuses, and an answer is stable.
TEST(WindowsPathTest, AnyTextIsTakenOnceAndForAll) {
  test::Random random(5);
  const std::string alphabet = "ab\\\\\\//.:?CUN \x01*";
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string path;
    for (uint64_t n = random.Below(16); n > 0; --n) path += alphabet[random.Below(alphabet.size())];
    EXPECT_LE(WindowsRootLength(path), path.size());
    const Result<std::string> once = ExtendedWindowsPath(path, "C:\\work");
    if (!once.ok()) continue;
    ++accepted;
    const Result<std::string> twice = ExtendedWindowsPath(*once, "D:\\other");
    FIRN_ASSERT_OK(twice);
    ASSERT_EQ(*twice, *once) << path;
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace firn

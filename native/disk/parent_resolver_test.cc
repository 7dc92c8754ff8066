#include "disk/parent_resolver.h"

#include <gtest/gtest.h>
#ifndef _WIN32
#include <sys/stat.h>
#endif

#include <filesystem>

#include "disk/vhdx_image_test_util.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
namespace fs = std::filesystem;
using Kind = ParsedParentPath::Kind;
using Names = std::vector<std::string>;

TEST(ParentPathTest, PathsAreTakenApartAsWindowsMeansThem) {
  struct Case {
    const char* path;
    Kind kind;
    Names components;
  };
  const Case cases[] = {
      {".\\parent.vhdx", Kind::kRelative, {"parent.vhdx"}},
      {"..\\base\\parent.vhdx", Kind::kRelative, {"..", "base", "parent.vhdx"}},
      {"a/./b//c.vhdx", Kind::kRelative, {"a", "b", "c.vhdx"}},
      {"C:\\vm\\parent.vhdx", Kind::kAbsolute, {"vm", "parent.vhdx"}},
#ifdef _WIN32
      {"c:parent.vhdx", Kind::kRefused, {}},
#else
      {"c:parent.vhdx", Kind::kRelative, {"c:parent.vhdx"}},
#endif
      {"\\\\?\\d:\\vm\\parent.vhdx", Kind::kAbsolute, {"vm", "parent.vhdx"}},
      {"\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\vm\\p.vhdx",
       Kind::kAbsolute,
       {"vm", "p.vhdx"}},
      {"/srv/vm/parent.vhdx", Kind::kAbsolute, {"srv", "vm", "parent.vhdx"}},
      {"\\\\server\\share\\p.vhdx", Kind::kNetwork, {"server", "share", "p.vhdx"}},
      {"//server/share/p.vhdx", Kind::kNetwork, {"server", "share", "p.vhdx"}},
      {"\\\\?\\UNC\\server\\share\\p.vhdx", Kind::kNetwork, {"server", "share", "p.vhdx"}},
      {"\\\\?\\unc\\server\\share\\p.vhdx", Kind::kNetwork, {"server", "share", "p.vhdx"}},
      {"\\\\.\\PhysicalDrive0", Kind::kRefused, {}},
      {"\\\\?\\GLOBALROOT\\Device\\Harddisk0", Kind::kRefused, {}},
      {"", Kind::kRefused, {}},
      {".", Kind::kRefused, {}},
      {"..\\..", Kind::kRefused, {}},
      {"C:\\", Kind::kRefused, {}},
      {"\\\\?\\", Kind::kRefused, {}},
      {"a\nb", Kind::kRefused, {}},
  };
  for (const Case& c : cases) {
    const ParsedParentPath parsed = ParseParentPath(c.path);
    EXPECT_EQ(parsed.kind, c.kind) << c.path;
    EXPECT_EQ(parsed.components, c.components) << c.path;
  }
}

TEST(ParentPathTest, LyingInsideAFolderIsMoreThanACommonPrefix) {
  EXPECT_TRUE(LiesInside("/a/b/c.vhdx", "/a/b"));
  EXPECT_TRUE(LiesInside("/a/b/x/c.vhdx", "/a/b"));
  EXPECT_TRUE(LiesInside("/c.vhdx", "/"));
  EXPECT_FALSE(LiesInside("/a/bc/c.vhdx", "/a/b"));
  EXPECT_FALSE(LiesInside("/a", "/a/b"));
  EXPECT_FALSE(LiesInside("/x", ""));
}

// A child in vm/, parents wherever a test puts them.
class ParentResolverTest : public ::testing::Test {
 protected:
  void WriteChild(const KeyValues& paths) {
    VhdxOptions options;
    options.locator = {{"parent_linkage", Braced(MakeGuid(0xAA))}};
    options.locator.insert(options.locator.end(), paths.begin(), paths.end());
    VhdxImage(options).WriteTo(child_path_);
  }
  void WriteParent(const std::string& path, uint8_t id = 0xAA) {
    fs::create_directories(fs::path(path).parent_path());
    VhdxOptions options;
    options.data_write_guid = MakeGuid(id);
    VhdxImage(options).WriteTo(path);
  }

  // EXPECTs that the child's parent is the file at `path`.
  void ExpectParent(const std::string& path, const Names& folders = {}) {
    OpenDiskOptions options = Buffered();
    options.parent_folders = folders;
    const auto disk = MustOpen(child_path_, options);
    ASSERT_NE(disk, nullptr);
    ASSERT_EQ(disk->layers().size(), 2u);
    EXPECT_EQ(disk->layers()[1].path, fs::path(path).make_preferred().string());
  }
  // EXPECTs that none is found, and returns what the error says.
  std::string ExpectNoParent(const Names& folders = {}) {
    OpenDiskOptions options = Buffered();
    options.parent_folders = folders;
    const Status status = OpenError(child_path_, options);
    EXPECT_EQ(status.code(), Code::kParentNotFound) << status.ToString();
    return status.message();
  }

  TestFolder folder_;
  const std::string vm_ = folder_.MakeFolder("vm");
  const std::string child_path_ = vm_ + "/child.avhdx";
};

TEST_F(ParentResolverTest, ARelativePathStartsAtTheChildsFolder) {
  WriteParent(vm_ + "/base/Parent.vhdx");
  WriteChild({{"relative_path", "base\\Parent.vhdx"}});
  // Not at the folder in which the process happens to run.
  const fs::path before = fs::current_path();
  fs::current_path("/");
  ExpectParent(vm_ + "/base/Parent.vhdx");
  fs::current_path(before);
}

TEST_F(ParentResolverTest, NamesMatchInAnyCaseIfNotExactly) {
  WriteParent(vm_ + "/Base/PARENT.vhdx");
  WriteChild({{"relative_path", ".\\bASE\\parent.VHDX"}});
  ExpectParent(vm_ + "/Base/PARENT.vhdx");
#ifdef _WIN32
  GTEST_SKIP() << "names that differ in case alone are the same name here";
#endif
  // The exact name comes first, and of the others the one that is linked.
  WriteParent(vm_ + "/Base/parent.VHDX", 0x11);
  WriteParent(vm_ + "/Base/Parent.vhdx", 0x22);
  const Status status = OpenError(child_path_);
  EXPECT_EQ(status.code(), Code::kParentMismatch);
  fs::remove(vm_ + "/Base/parent.VHDX");
  ExpectParent(vm_ + "/Base/PARENT.vhdx");
}

TEST_F(ParentResolverTest, APathOutOfTheFolderNeedsAllowance) {
  WriteParent(folder_ / "base/parent.vhdx");
  WriteChild({{"relative_path", "..\\base\\parent.vhdx"}});
  const std::string message = ExpectNoParent();
  EXPECT_NE(message.find("lies outside"), std::string::npos) << message;
  EXPECT_NE(message.find("..\\base\\parent.vhdx"), std::string::npos);
  EXPECT_NE(message.find(vm_), std::string::npos);
  ExpectParent(folder_ / "base/parent.vhdx", {folder_ / "base"});
  ExpectParent(folder_ / "base/parent.vhdx", {folder_ / "missing", folder_.path()});
}

TEST_F(ParentResolverTest, ADriveThatIsNotHereIsSearchedByName) {
  WriteChild({{"absolute_win32_path", "C:\\ClusterStorage\\Volume1\\vm\\Parent.vhdx"}});
  ExpectNoParent();
  WriteParent(folder_ / "mnt/parent.vhdx");
  ExpectParent(folder_ / "mnt/parent.vhdx", {folder_ / "mnt"});
  WriteParent(vm_ + "/Parent.vhdx");
  ExpectParent(vm_ + "/Parent.vhdx", {folder_ / "mnt"});
}

TEST_F(ParentResolverTest, ARelativePathThatIsStaleIsSearchedByNameToo) {
  WriteChild({{"relative_path", "..\\old\\parent.vhdx"}});
  WriteParent(folder_ / "mnt/parent.vhdx");
  ExpectParent(folder_ / "mnt/parent.vhdx", {folder_ / "mnt"});
}

TEST_F(ParentResolverTest, TheOrderOfLookupIsRelativeThenVolumeThenAbsolute) {
  WriteChild({{"absolute_win32_path", "C:\\vm\\c.vhdx"},
              {"volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\b.vhdx"},
              {"relative_path", ".\\a.vhdx"}});
  WriteParent(vm_ + "/c.vhdx");
  ExpectParent(vm_ + "/c.vhdx");
  WriteParent(vm_ + "/b.vhdx");
  ExpectParent(vm_ + "/b.vhdx");
  WriteParent(vm_ + "/a.vhdx");
  ExpectParent(vm_ + "/a.vhdx");
}

TEST_F(ParentResolverTest, AWrongFileDoesNotHideTheRightOne) {
  WriteChild({{"relative_path", ".\\a.vhdx"}, {"absolute_win32_path", "C:\\vm\\b.vhdx"}});
  WriteParent(vm_ + "/a.vhdx", 0x11);
  WriteParent(vm_ + "/b.vhdx");
  ExpectParent(vm_ + "/b.vhdx");
}

TEST_F(ParentResolverTest, AnAbsolutePathIsFollowedOnlyInsideAllowedFolders) {
  WriteParent(folder_ / "secret/parent.vhdx");
  WriteChild({{"absolute_win32_path", folder_ / "secret/parent.vhdx"}});
  ExpectNoParent();
  ExpectParent(folder_ / "secret/parent.vhdx", {folder_ / "secret"});
  WriteChild({{"relative_path", folder_ / "secret/parent.vhdx"}});
  ExpectNoParent();
  WriteChild({{"relative_path", "..\\..\\..\\..\\..\\..\\..\\..\\etc\\passwd"}});
  ExpectNoParent();
}

TEST_F(ParentResolverTest, ALinkOutOfTheFolderIsNotFollowed) {
  WriteParent(folder_ / "secret/parent.vhdx");
  WriteChild({{"relative_path", ".\\parent.vhdx"}});
  if (!test::MakeLink(folder_ / "secret/parent.vhdx", vm_ + "/parent.vhdx")) {
    GTEST_SKIP() << "links can't be made here";
  }
  const std::string message = ExpectNoParent();
  EXPECT_NE(message.find("lies outside"), std::string::npos) << message;
  fs::remove(vm_ + "/parent.vhdx");
  fs::create_directory_symlink(folder_ / "secret", vm_ + "/base");
  WriteChild({{"relative_path", "base\\parent.vhdx"}});
  ExpectNoParent();
}

TEST_F(ParentResolverTest, ALinkInsideTheFolderIsFollowed) {
  WriteParent(vm_ + "/real.vhdx");
  WriteChild({{"relative_path", ".\\parent.vhdx"}});
  if (!test::MakeLink("real.vhdx", vm_ + "/parent.vhdx")) {
    GTEST_SKIP() << "links can't be made here";
  }
  ExpectParent(vm_ + "/real.vhdx");
}

TEST_F(ParentResolverTest, AChildBehindALinkIsRelativeToWhereItReallyLies) {
  WriteParent(vm_ + "/parent.vhdx");
  WriteChild({{"relative_path", ".\\parent.vhdx"}});
  if (!test::MakeLink(child_path_, folder_ / "link.avhdx")) {
    GTEST_SKIP() << "links can't be made here";
  }
  const auto disk = MustOpen(folder_ / "link.avhdx");
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[1].path, fs::path(vm_ + "/parent.vhdx").make_preferred().string());
}

TEST_F(ParentResolverTest, NetworkAndDevicePathsAreNeverOpened) {
  for (const char* path : {"\\\\attacker\\share\\p.vhdx", "\\\\?\\UNC\\attacker\\share\\p.vhdx",
                           "\\\\.\\PhysicalDrive0", "//attacker/share/p.vhdx"}) {
    WriteChild({{"absolute_win32_path", path}, {"relative_path", path}});
    const std::string message = ExpectNoParent();
    EXPECT_NE(message.find(path), std::string::npos);
  }
  // A parent on a share is found by its name in a folder that was allowed.
  WriteChild({{"absolute_win32_path", "\\\\server\\share\\p.vhdx"}});
  WriteParent(folder_ / "mnt/p.vhdx");
  ExpectParent(folder_ / "mnt/p.vhdx", {folder_ / "mnt"});
}

TEST_F(ParentResolverTest, WhatIsNoRegularFileIsNoParent) {
  WriteChild({{"relative_path", ".\\parent.vhdx"}});
#ifndef _WIN32
  // A FIFO would block whoever opens it.
  ASSERT_EQ(mkfifo((vm_ + "/parent.vhdx").c_str(), 0600), 0);
  const std::string message = ExpectNoParent();
  EXPECT_NE(message.find("no file that could be it"), std::string::npos);
  fs::remove(vm_ + "/parent.vhdx");
#endif
  // A folder is no image.
  fs::create_directory(vm_ + "/parent.vhdx");
  ExpectNoParent();
}

TEST_F(ParentResolverTest, HostileNamesAreShownWithoutControlCharacters) {
  WriteChild({{"relative_path", "a\x1b[2Jb.vhdx"}});
  const std::string message = ExpectNoParent();
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace firn

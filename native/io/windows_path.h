// The names of files on Windows, as text: what a path's root is, and the form that the kernel takes
// literally.
//
// Pure functions of UTF-8 strings, the same on every platform. Firn hands Windows nothing but
// extended paths ("\\?\C:\vm\disk.vhdx"): they may be longer than 260 characters, and Windows does
// not reinterpret them. What it would have done to a path ("." and "..", '/', a relative path) is
// done here; what it would have made of one behind the caller's back (a device for "nul.vhdx",
// another name for "a. ", a stream for "a:b") is refused instead.
#ifndef FIRN_IO_WINDOWS_PATH_H_
#define FIRN_IO_WINDOWS_PATH_H_

#include <string>
#include <string_view>

#include "core/status.h"

namespace firn {

// How much of the path names what ".." can't leave, with its separator if there is one: 3 for
// "C:\a", 15 for "\\server\share\a", 49 for "\\?\Volume{<guid>}\a", 46 for
// "\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1\a"; 0 for a relative path.
size_t WindowsRootLength(std::string_view path);

// "\\?\C:\vm\disk.vhdx" of "vm/disk.vhdx" in "C:\". Device paths ("\\.\PhysicalDrive1") stay what
// they are. kInvalidArgument for what names no file: an empty path, a path relative to a drive's
// own folder ("C:a"), control characters and wildcards, a stream, and, unless the path is an
// extended one already, devices ("nul", "com1.vhdx") and names that end in a dot or a space.
// REQUIRES: `current_folder` is an absolute path; it is used for relative paths only.
Result<std::string> ExtendedWindowsPath(const std::string& path, const std::string& current_folder);

// "C:\vm\disk.vhdx" of "\\?\C:\vm\disk.vhdx", "\\server\share\a" of "\\?\UNC\server\share\a"; any
// other path, and one whose names mean something else without the prefix, as it is.
std::string WithoutExtendedPrefix(const std::string& path);

}  // namespace firn

#endif  // FIRN_IO_WINDOWS_PATH_H_

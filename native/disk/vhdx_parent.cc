#include "disk/vhdx_parent.h"

#include <algorithm>
#include <string_view>

#include "core/bytes.h"
#include "disk/vhdx_format.h"

namespace firn {

namespace {

constexpr char kZeroLinkage[] = "{00000000-0000-0000-0000-000000000000}";

bool IsSeparator(char c) {
#ifdef _WIN32
  return c == '/' || c == '\\';
#else
  return c == '/';
#endif
}

// "\\?\C:\vm" -> "C:\vm": Windows writes locators without the prefix that its own resolver adds.
std::string WithoutLongPathPrefix(std::string path) {
  constexpr std::string_view kUnc = R"(\\?\UNC\)";
  constexpr std::string_view kLocal = R"(\\?\)";
  if (path.starts_with(kUnc)) return R"(\\)" + path.substr(kUnc.size());
  if (path.starts_with(kLocal)) return path.substr(kLocal.size());
  return path;
}

std::vector<std::string> Components(const std::string& path) {
  std::vector<std::string> components;
  std::string component;
  for (char c : path) {
    if (!IsSeparator(c)) {
      component += c;
    } else if (!component.empty()) {
      components.push_back(std::move(component));
      component.clear();
    }
  }
  if (!component.empty()) components.push_back(std::move(component));
  return components;
}

std::string WithBackslashes(std::string path) {
  std::ranges::replace(path, '/', '\\');
  return path;
}

Status ParentError(Code code, std::string message, const std::string& path) {
  return Status::Error(code, std::move(message)).During("link to parent").At(path);
}

// The parent's own layer, with nothing wrong that concerns it.
Result<LayerInfo> InspectParent(FileSystem& file_system, const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(Inspection inspection, InspectDisk(file_system, path, {}));
  const bool only_its_parents_missing = inspection.error.code() == Code::kParentNotFound;
  if (!inspection.error.ok() && !only_its_parents_missing) return inspection.error;
  if (inspection.layers.empty() || inspection.layers.front().identity.format != DiskFormat::kVhdx) {
    return ParentError(Code::kInvalidArgument, "the parent of a VHDX must be a VHDX", path);
  }
  return std::move(inspection.layers.front());
}

}  // namespace

Result<VhdxParentLink> LinkToVhdxParent(FileSystem& file_system, const std::string& child_path,
                                        const std::string& parent_path) {
  if (parent_path.empty()) {
    return ParentError(Code::kInvalidArgument, "a differencing disk needs a parent", child_path);
  }
  Result<std::string> resolved = file_system.RealPath(parent_path);
  if (!resolved.ok()) {
    Status status = resolved.status();
    if (status.code() != Code::kNotFound) return status;
    return ParentError(Code::kParentNotFound, "the parent is not there", parent_path);
  }
  const std::string& parent = *resolved;
  FIRN_ASSIGN_OR_RETURN(std::string folder, file_system.RealPath(DirectoryOf(child_path)));
  if (file_system.Exists(child_path)) {
    FIRN_ASSIGN_OR_RETURN(std::string child, file_system.RealPath(child_path));
    if (child == parent) {
      return ParentError(Code::kInvalidArgument, "the image would replace its own parent", parent);
    }
  }
#ifndef _WIN32
  if (parent.find('\\') != std::string::npos) {
    return ParentError(Code::kInvalidArgument,
                       "a path with a backslash in it can't be written into a parent locator",
                       parent);
  }
#endif

  FIRN_ASSIGN_OR_RETURN(LayerInfo layer, InspectParent(file_system, parent));
  Guid linkage{};
  if (!GuidFromString(layer.data_write_guid, &linkage) || linkage == Guid{}) {
    return ParentError(Code::kDiskInvalid, "the parent has no DataWriteGuid to link to", parent);
  }

  VhdxParentLink link;
  link.identity = layer.identity;
  link.locator.emplace_back(vhdx::locator::kParentLinkage, "{" + GuidToString(linkage) + "}");
  link.locator.emplace_back(vhdx::locator::kAbsolutePath,
                            WithBackslashes(WithoutLongPathPrefix(parent)));
  const std::string relative = RelativeWindowsPath(folder, parent);
  if (!relative.empty()) link.locator.emplace_back(vhdx::locator::kRelativePath, relative);
  link.locator.emplace_back(vhdx::locator::kParentLinkage2, kZeroLinkage);
  return link;
}

std::string RelativeWindowsPath(const std::string& folder, const std::string& file) {
  const std::vector<std::string> from = Components(WithoutLongPathPrefix(folder));
  const std::vector<std::string> to = Components(WithoutLongPathPrefix(file));
  size_t common = 0;
  while (common < from.size() && common + 1 < to.size() && from[common] == to[common]) ++common;
#ifdef _WIN32
  if (common == 0) return "";  // another drive or server
#endif
  std::string path = common == from.size() ? ".\\" : "";
  for (size_t i = common; i < from.size(); ++i) path += "..\\";
  for (size_t i = common; i < to.size(); ++i) path += to[i] + (i + 1 < to.size() ? "\\" : "");
  return path;
}

}  // namespace firn

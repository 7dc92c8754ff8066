#include "disk/parent_resolver.h"

#include <algorithm>
#include <string_view>

namespace firn {
namespace {

// Names in a folder that differ from the wanted one in case only; more than this is no accident.
constexpr size_t kSameNamesMax = 16;

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool SameIgnoringCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, LowerAscii, LowerAscii);
}

bool StartsWithIgnoringCase(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && SameIgnoringCase(text.substr(0, prefix.size()), prefix);
}

bool IsSeparator(char c) { return c == '/' || c == '\\'; }

bool IsDrive(std::string_view component) {
  return component.size() == 2 && component[1] == ':' && LowerAscii(component[0]) >= 'a' &&
         LowerAscii(component[0]) <= 'z';
}

// A name that means a file and nothing else on this platform.
bool IsPlainName(std::string_view name) {
  for (const char c : name) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F) return false;
#ifdef _WIN32
    // Streams, wildcards and what else the system gives a meaning to.
    if (std::string_view(":*?\"<>|").find(c) != std::string_view::npos) return false;
#endif
  }
  return !name.empty();
}

std::vector<std::string> Split(std::string_view path) {
  std::vector<std::string> components;
  std::string component;
  for (const char c : path) {
    if (!IsSeparator(c)) {
      component.push_back(c);
      continue;
    }
    if (!component.empty() && component != ".") components.push_back(component);
    component.clear();
  }
  if (!component.empty() && component != ".") components.push_back(component);
  return components;
}

}  // namespace

ParsedParentPath ParseParentPath(const std::string& path) {
  using Kind = ParsedParentPath::Kind;
  ParsedParentPath parsed;
  std::string slashes = path;
  std::ranges::replace(slashes, '\\', '/');
  std::string_view rest = slashes;
  Kind kind = Kind::kRelative;
  if (rest.starts_with("//./")) return parsed;  // a device
  if (rest.starts_with("//?/")) {
    rest.remove_prefix(4);
    kind = Kind::kAbsolute;
    if (StartsWithIgnoringCase(rest, "unc/")) {
      rest.remove_prefix(4);
      kind = Kind::kNetwork;
    } else if (StartsWithIgnoringCase(rest, "globalroot")) {
      return parsed;
    }
  } else if (rest.starts_with("//")) {
    kind = Kind::kNetwork;
  } else if (rest.starts_with("/")) {
    kind = Kind::kAbsolute;
  }
  std::vector<std::string> components = Split(rest);
  const bool has_drive = !components.empty() && IsDrive(components.front());
  if (has_drive && kind == Kind::kRelative) kind = Kind::kAbsolute;
  // What names the root is no part of the path below it.
  const bool has_volume =
      !components.empty() && StartsWithIgnoringCase(components.front(), "volume{");
  if (has_drive || (kind == Kind::kAbsolute && has_volume)) components.erase(components.begin());
  if (components.empty() || components.back() == ".." ||
      !std::ranges::all_of(components, IsPlainName)) {
    return parsed;
  }
  parsed.kind = kind;
  parsed.components = std::move(components);
  return parsed;
}

bool LiesInside(const std::string& path, const std::string& folder) {
  if (folder.empty() || path.size() < folder.size()) return false;
  for (size_t i = 0; i < folder.size(); ++i) {
#ifdef _WIN32
    const bool same = LowerAscii(path[i]) == LowerAscii(folder[i]) ||
                      (IsSeparator(path[i]) && IsSeparator(folder[i]));
#else
    const bool same = path[i] == folder[i];
#endif
    if (!same) return false;
  }
  const auto separates = [](char c) {
#ifdef _WIN32
    return IsSeparator(c);
#else
    return c == '/';
#endif
  };
  return path.size() == folder.size() || separates(folder.back()) || separates(path[folder.size()]);
}

// One search.
struct ParentResolver::Pass {
  std::string child_folder;          // real path
  std::vector<std::string> allowed;  // the child's folder first
  std::vector<std::string> outside;  // files that exist but may not be used
  Search search;
};

ParentResolver::ParentResolver(FileSystem& file_system,
                               const std::vector<std::string>& parent_folders)
    : file_system_(file_system) {
  for (const std::string& folder : parent_folders) {
    Result<std::string> real = file_system_.RealPath(folder);
    if (real.ok()) {
      folders_.push_back(std::move(*real));
    } else {
      missing_folders_.push_back(folder);
    }
  }
}

// Takes `path` as a candidate if it is there and allowed.
void ParentResolver::TryPath(const std::string& path, Pass* pass) const {
  Result<std::string> real = file_system_.RealPath(path);
  if (!real.ok()) return;
  const bool allowed = std::ranges::any_of(
      pass->allowed, [&](const std::string& folder) { return LiesInside(*real, folder); });
  auto& list = allowed ? pass->search.candidates : pass->outside;
  if (std::ranges::find(list, *real) == list.end()) list.push_back(std::move(*real));
}

// Follows a path from the child's folder; names are matched without regard to case where the exact
// one is not there.
void ParentResolver::TryRelative(const std::vector<std::string>& components, Pass* pass) const {
  std::string folder = pass->child_folder;
  for (size_t i = 0; i + 1 < components.size(); ++i) {
    std::string next = JoinPath(folder, components[i]);
    if (components[i] != ".." && !file_system_.Exists(next)) {
      // A folder that may not be used may not be listed either.
      Result<std::string> real = file_system_.RealPath(folder);
      const bool allowed = real.ok() && std::ranges::any_of(pass->allowed, [&](const auto& root) {
                             return LiesInside(*real, root);
                           });
      if (!allowed) return;
      Result<std::vector<std::string>> names = file_system_.List(folder);
      if (!names.ok()) return;
      std::ranges::sort(*names);
      const auto match = std::ranges::find_if(
          *names, [&](const std::string& name) { return SameIgnoringCase(name, components[i]); });
      if (match == names->end()) return;
      next = JoinPath(folder, *match);
    }
    folder = std::move(next);
  }
  TryName(folder, components.back(), pass);
}

// Looks for a file by name in one folder.
void ParentResolver::TryName(const std::string& folder, const std::string& name, Pass* pass) const {
  const std::string exact = JoinPath(folder, name);
  if (file_system_.Exists(exact)) return TryPath(exact, pass);
  Result<std::string> real = file_system_.RealPath(folder);
  if (!real.ok()) return;
  const bool allowed = std::ranges::any_of(
      pass->allowed, [&](const std::string& root) { return LiesInside(*real, root); });
  if (!allowed) return;
  Result<std::vector<std::string>> names = file_system_.List(folder);
  if (!names.ok()) return;
  std::erase_if(*names, [&](const std::string& other) { return !SameIgnoringCase(other, name); });
  std::ranges::sort(*names);
  if (names->size() > kSameNamesMax) names->resize(kSameNamesMax);
  for (const std::string& same : *names) TryPath(JoinPath(folder, same), pass);
}

Result<ParentResolver::Search> ParentResolver::Find(const std::string& child_path,
                                                    const ParentReference& reference) const {
  using Kind = ParsedParentPath::Kind;
  Pass pass;
  FIRN_ASSIGN_OR_RETURN(const std::string real_child, file_system_.RealPath(child_path));
  pass.child_folder = DirectoryOf(real_child);
  pass.allowed.push_back(pass.child_folder);
  pass.allowed.insert(pass.allowed.end(), folders_.begin(), folders_.end());

  std::vector<ParsedParentPath> paths;
  std::string& tried = pass.search.tried;
  for (const ParentReference::Location& location : reference.locations) {
    tried +=
        (tried.empty() ? "" : ", ") + location.key + " \"" + Printable(location.path, true) + "\"";
    ParsedParentPath parsed = ParseParentPath(location.path);
    if (parsed.kind == Kind::kRefused) {
      tried += " (refused: no path of a file)";
      continue;
    }
    if (parsed.kind == Kind::kRelative && location.relative) TryRelative(parsed.components, &pass);
#ifdef _WIN32
    if (parsed.kind == Kind::kAbsolute) TryPath(location.path, &pass);
#else
    if (parsed.kind == Kind::kAbsolute && location.path.starts_with('/')) {
      TryPath(location.path, &pass);
    }
#endif
    paths.push_back(std::move(parsed));
  }
  for (const ParsedParentPath& parsed : paths) {
    for (const std::string& folder : pass.allowed) TryName(folder, parsed.components.back(), &pass);
  }

  if (tried.empty()) tried = "nothing, for the layer names no path";
  tried += "; searched";
  for (const std::string& folder : pass.allowed) tried += " " + folder;
  for (const std::string& folder : missing_folders_) tried += " " + folder + " (not there)";
  for (const std::string& file : pass.outside) {
    tried += "; " + Printable(file, true) + " is there but lies outside these folders";
  }
  return std::move(pass.search);
}

}  // namespace firn

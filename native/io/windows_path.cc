#include "io/windows_path.h"

#include <algorithm>
#include <array>
#include <vector>

namespace firn {

namespace {

constexpr std::string_view kExtended = R"(\\?\)";
constexpr std::string_view kDevice = R"(\\.\)";
constexpr std::string_view kExtendedNetwork = R"(\\?\UNC\)";
constexpr std::string_view kGlobalRoot = "GLOBALROOT\\";

bool IsSeparator(char c) { return c == '/' || c == '\\'; }

char UpperAscii(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

bool StartsWithIgnoringCase(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::ranges::equal(text.substr(0, prefix.size()), prefix, {}, UpperAscii, UpperAscii);
}

std::string WithBackslashes(std::string_view path) {
  std::string copy(path);
  std::ranges::replace(copy, '/', '\\');
  return copy;
}

bool HasDrive(std::string_view path) {
  return path.size() >= 2 && path[1] == ':' && UpperAscii(path[0]) >= 'A' &&
         UpperAscii(path[0]) <= 'Z';
}

// Where `count` names, each with the separator that ends it, are over.
size_t SkipNames(std::string_view path, size_t at, int count) {
  for (; count > 0 && at < path.size(); --count) {
    while (at < path.size() && !IsSeparator(path[at])) ++at;
    if (at < path.size()) ++at;
  }
  return at;
}

// WindowsRootLength of a path that has backslashes alone.
size_t RootLength(std::string_view path) {
  if (path.starts_with(kExtended) || path.starts_with(kDevice)) {
    const std::string_view rest = path.substr(kExtended.size());
    if (StartsWithIgnoringCase(rest, "UNC\\")) return SkipNames(path, kExtendedNetwork.size(), 2);
    // \\?\GLOBALROOT\Device\NAME\...
    if (StartsWithIgnoringCase(rest, kGlobalRoot)) {
      return SkipNames(path, kExtended.size() + kGlobalRoot.size(), 2);
    }
    return SkipNames(path, kExtended.size(), 1);
  }
  if (path.starts_with(R"(\\)")) return SkipNames(path, 2, 2);
  if (HasDrive(path)) return path.size() > 2 && path[2] == '\\' ? 3 : 2;
  return path.starts_with('\\') ? 1 : 0;
}

// Whether Windows takes a name, with whatever extension, for a device in every folder.
bool IsReservedName(std::string_view name) {
  std::string_view stem = name.substr(0, name.find('.'));
  while (stem.ends_with(' ')) stem.remove_suffix(1);
  std::string upper(stem);
  std::ranges::transform(upper, upper.begin(), UpperAscii);
  constexpr std::array<std::string_view, 6> kDevices = {"CON", "PRN",    "AUX",
                                                        "NUL", "CONIN$", "CONOUT$"};
  if (std::ranges::find(kDevices, upper) != kDevices.end()) return true;
  if (!upper.starts_with("COM") && !upper.starts_with("LPT")) return false;
  // Superscript one, two and three count as digits.
  constexpr std::array<std::string_view, 3> kSuperscripts = {"\xC2\xB9", "\xC2\xB2", "\xC2\xB3"};
  const std::string_view digit = std::string_view(upper).substr(3);
  return (digit.size() == 1 && digit[0] >= '0' && digit[0] <= '9') ||
         std::ranges::find(kSuperscripts, digit) != kSuperscripts.end();
}

// "" if the name means a file and nothing else; else what is wrong with it.
const char* Objection(std::string_view name, bool literal) {
  for (const char c : name) {
    if (static_cast<uint8_t>(c) < 0x20) return "a control character";
    if (c == ':') return "a colon, which names a stream of a file";
    if (std::string_view("*?\"<>|").find(c) != std::string_view::npos) return "a wildcard";
  }
  if (literal) return "";
  if (name.ends_with('.') || name.ends_with(' ')) return "a name that ends in a dot or a space";
  return IsReservedName(name) ? "a name that means a device" : "";
}

Status NoPath(std::string message, const std::string& path) {
  return Status::Error(Code::kInvalidArgument, std::move(message)).During("open").At(path);
}

// Takes the names of `rest` on to `names`, with "." and ".." followed.
Status AppendNames(std::string_view rest, bool literal, const std::string& path,
                   std::vector<std::string_view>* names) {
  for (size_t begin = 0; begin < rest.size();) {
    const size_t end = std::min(rest.find('\\', begin), rest.size());
    const std::string_view name = rest.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty() || name == ".") continue;
    if (name == "..") {
      if (!names->empty()) names->pop_back();
      continue;
    }
    const char* const objection = Objection(name, literal);
    if (*objection != '\0') return NoPath(std::string("the path has ") + objection, path);
    names->push_back(name);
  }
  return Status::Ok();
}

std::string Joined(std::string root, const std::vector<std::string_view>& names) {
  for (const std::string_view name : names) {
    if (!root.ends_with('\\')) root += '\\';
    root += name;
  }
  return root;
}

// "server\share", with or without a separator after it.
bool NamesAShare(std::string_view text) {
  const size_t server = text.find('\\');
  return server != 0 && server != std::string_view::npos && server + 1 < text.size() &&
         text[server + 1] != '\\';
}

// The root of an absolute path in its extended form; "" if it is not whole.
std::string ExtendedRoot(std::string_view root) {
  if (root.starts_with(kExtended) || root.starts_with(kDevice)) {
    const std::string_view rest = root.substr(kExtended.size());
    if (StartsWithIgnoringCase(rest, "UNC\\")) {
      return NamesAShare(root.substr(kExtendedNetwork.size())) ? std::string(root) : "";
    }
    // Without a separator after it ("\\?\C:") it is the volume itself, which is a device.
    return rest.empty() || rest == "\\" ? "" : std::string(root);
  }
  if (HasDrive(root)) return root.size() == 3 ? std::string(kExtended) + std::string(root) : "";
  if (!root.starts_with(R"(\\)") || !NamesAShare(root.substr(2))) return "";
  std::string extended = std::string(kExtendedNetwork) + std::string(root.substr(2));
  if (!extended.ends_with('\\')) extended += '\\';
  return extended;
}

}  // namespace

size_t WindowsRootLength(std::string_view path) { return RootLength(WithBackslashes(path)); }

Result<std::string> ExtendedWindowsPath(const std::string& path,
                                        const std::string& current_folder) {
  if (path.empty()) return NoPath("the path is empty", path);
  const std::string text = WithBackslashes(path);
  const bool literal = text.starts_with(kExtended) || text.starts_with(kDevice);
  size_t root_length = RootLength(text);
  const std::string folder = WithBackslashes(current_folder);
  std::vector<std::string_view> names;
  std::string root = text.substr(0, root_length);
  if (root_length <= 1) {
    // "\a" is on the current folder's drive, and "a" below the folder.
    const size_t folder_root = RootLength(folder);
    root = folder.substr(0, folder_root);
    if (root_length == 0) {
      FIRN_RETURN_IF_ERROR(
          AppendNames(std::string_view(folder).substr(folder_root), true, path, &names));
    }
  }
  const std::string extended = ExtendedRoot(root);
  if (extended.empty()) return NoPath("the path says neither a volume nor a share", path);
  FIRN_RETURN_IF_ERROR(
      AppendNames(std::string_view(text).substr(root_length), literal, path, &names));
  return Joined(extended, names);
}

std::string WithoutExtendedPrefix(const std::string& path) {
  std::string plain;
  if (path.starts_with(kExtendedNetwork)) {
    plain = R"(\\)" + path.substr(kExtendedNetwork.size());
  } else if (path.starts_with(kExtended) && HasDrive(path.substr(kExtended.size())) &&
             path.size() > kExtended.size() + 2 && path[kExtended.size() + 2] == '\\') {
    plain = path.substr(kExtended.size());
  } else {
    return path;
  }
  const Result<std::string> back = ExtendedWindowsPath(plain, "");
  return back.ok() && *back == path ? plain : path;
}

}  // namespace firn

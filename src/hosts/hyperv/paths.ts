/** Names of files on a Windows host, for those who are not on it. Pure text; nothing here touches a file. */

/**
 * The path under which another Windows machine reads a file of `computer`: "D:\VMs\a.vhdx" is "\\COMPUTER\D$\VMs\a.vhdx" (the
 * administrative share of the drive, so it takes an administrator of that host). A path that is a share's already stays as it is.
 * Undefined for what no share shows: a shadow copy's device ("\\?\GLOBALROOT\..."), or a relative path.
 */
export function uncPath(computer: string, path: string): string | undefined {
  const plain = path.replace(/^\\\\\?\\UNC\\/i, '\\\\').replace(/^\\\\\?\\(?=[A-Za-z]:\\)/, '');
  const drive = /^([A-Za-z]):\\(.*)$/s.exec(plain);
  if (drive !== null) {
    // A colon cannot stand in a share's name; this is Windows' own way to write an IPv6 address there.
    const server = computer.includes(':')
      ? `${computer.replaceAll(':', '-')}.ipv6-literal.net`
      : computer;
    return `\\\\${server}\\${drive[1]}$\\${drive[2]}`;
  }
  return /^\\\\[^\\?.][^\\]*\\[^\\]/.test(plain) ? plain : undefined;
}

/**
 * Makes a small Linux guest and runs it in QEMU, for tests that need a machine that is alive: it has an ext4 file system that it writes
 * to without pause, a second disk, and a guest agent that can freeze. No image is downloaded: the kernel and the agent are packages of the
 * distribution, unpacked beside it, and the rest is busybox. It runs under emulation (TCG), so it needs no rights and no hardware.
 *
 *   node scripts/live-guest.mjs      makes the guest ready; exits with 77 when that cannot be done on this machine
 *
 * What the guest writes, over and over, each time with a number N that grows:
 *   /w/r<N mod 500>.<SHA-256>  64 KiB whose checksum is the name; synced, then renamed into place
 *   /counter                   N in decimal; synced, then renamed into place
 *   the second disk            N as 16 digits at its start, synced: equal to /counter or one less, if both are of one moment
 * and "W N" on the serial console.
 */

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** Exit code for "cannot be run on this machine", as automake and others have it. */
export const CANNOT_RUN_HERE = 77;

/** Thrown when the guest cannot be had here; the message says what would help. */
export class CannotRunHere extends Error {}

const TOOLS = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  nbdinfo: 'libnbd-bin',
  busybox: 'busybox-static',
  cpio: 'cpio',
  mke2fs: 'e2fsprogs',
};
const KERNEL_PACKAGE = 'linux-image-cloud-amd64';
const AGENT_PACKAGE = 'qemu-guest-agent';
/** In the order in which they depend on each other; what is built into the kernel is not found and left out. */
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'virtio_blk',
  'virtio_console',
  'crc16',
  'crc32c_generic',
  'libcrc32c',
  'mbcache',
  'jbd2',
  'ext4',
];

const INIT = `#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in ${MODULES.join(' ')}; do
  [ -f /modules/$module.ko ] && insmod /modules/$module.ko 2>/dev/null
done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
mount -t ext4 /dev/vda /mnt || { echo NO-DISK; poweroff -f; }
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  [ -s $port/name ] && ln -s /dev/\${port##*/} /dev/virtio-ports/$(cat $port/name)
done
PORT=/dev/virtio-ports/org.qemu.guest_agent.0
grep -q noagent /proc/cmdline || {
  [ -e $PORT ] && qemu-ga -d -m virtio-serial -p $PORT -f /run/qga.pid -t /run -l /run/qga.log
}
echo GUEST-UP

mkdir -p /mnt/w
work() {
  n=$(cat /mnt/counter 2>/dev/null || echo 0)
  while true; do
    file=/mnt/w/r$((n % 500))
    dd if=/dev/urandom of=$file.tmp bs=64k count=1 conv=fsync 2>/dev/null
    sum=$(sha256sum < $file.tmp | cut -c1-64)
    rm -f $file.[0-9a-f]*
    mv $file.tmp $file.$sum
    n=$((n + 1))
    echo $n > /mnt/counter.tmp
    sync /mnt/counter.tmp
    mv /mnt/counter.tmp /mnt/counter
    sync /mnt
    [ -b /dev/vdb ] && printf '%016d' $n | dd of=/dev/vdb bs=16 count=1 conv=notrunc,fsync 2>/dev/null
    echo "W $n"
  done
}
work &
WRITER=$!

while read -r command; do
  case "$command" in
    # What the writer had begun may still hold the file system for a moment.
    stop) kill -9 $WRITER; until umount /mnt 2>/dev/null; do sleep 0.05; done; sync; poweroff -f ;;
    *) sh -c "$command"; echo "EXIT $?" ;;
  esac
done
poweroff -f
`;

/** Makes the guest's kernel and initial file system, unless they are there. Throws CannotRunHere. */
export function ensureLiveGuest() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new CannotRunHere('the live guest needs Linux on x86-64');
  }
  ensureTools();
  const cache = process.env.FIRN_LIVE_CACHE || join(homedir(), '.cache/firn-live');
  const version = createHash('sha256').update(INIT).digest('hex').slice(0, 12);
  const guest = join(cache, `guest-${version}`);
  const made = { kernel: join(guest, 'vmlinuz'), initrd: join(guest, 'initrd.gz') };
  if (existsSync(made.kernel) && existsSync(made.initrd)) return made;
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'work-'));
  try {
    buildGuest(work);
    rmSync(guest, { recursive: true, force: true });
    renameSync(join(work, 'guest'), guest);
  } catch (error) {
    // Another process may have been faster.
    if (!existsSync(made.initrd)) throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return made;
}

function ensureTools() {
  const missing = Object.keys(TOOLS).filter((tool) => find(tool) === undefined);
  // A busybox with shared libraries would not run in a guest that has none.
  if (!missing.includes('busybox') && !isStatic(find('busybox'))) missing.push('busybox');
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => TOOLS[tool]))];
  const install = `apt-get install --no-install-recommends ${packages.join(' ')}`;
  if (find('apt-get') === undefined || process.getuid?.() !== 0) {
    throw new CannotRunHere(`these are missing: ${missing.join(', ')}. On Debian: sudo ${install}`);
  }
  say(`installing ${packages.join(' ')}`);
  process.env.DEBIAN_FRONTEND = 'noninteractive';
  run('apt-get', '-o', 'DPkg::Lock::Timeout=300', '-qq', 'update');
  run('apt-get', '-o', 'DPkg::Lock::Timeout=300', '-qq', '-y', ...install.split(' ').slice(1));
}

function buildGuest(work) {
  const kernel = unpack(work, kernelPackage());
  const agent = unpack(work, AGENT_PACKAGE);
  const guest = join(work, 'guest');
  const root = join(work, 'root');
  mkdirSync(guest);
  const folders = ['bin', 'sbin', 'dev', 'proc', 'sys', 'mnt', 'run', 'tmp', 'etc', 'modules'];
  for (const folder of [...folders, 'var/run', 'var/log']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  addBusybox(root);
  addModules(root, join(kernel, 'lib/modules'));
  addWithLibraries(root, join(agent, 'usr/sbin/qemu-ga'), 'sbin/qemu-ga');
  writeFileSync(join(root, 'init'), INIT, { mode: 0o755 });
  const archive = join(guest, 'initrd.gz');
  run('sh', '-c', `cd "$0" && find . | cpio -o -H newc --quiet | gzip -1 > "$1"`, root, archive);
  const [image] = readdirSync(join(kernel, 'boot')).filter((name) => name.startsWith('vmlinuz'));
  cpSync(join(kernel, 'boot', image), join(guest, 'vmlinuz'));
}

function kernelPackage() {
  const depends = output('apt-cache', 'depends', KERNEL_PACKAGE);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name !== undefined) return name;
  throw new CannotRunHere(
    `apt knows no ${KERNEL_PACKAGE}: is this Debian, and was "apt-get update" run?`,
  );
}

/** Downloads a package and unpacks it without installing it; where. */
function unpack(work, name) {
  const folder = join(work, name);
  mkdirSync(folder);
  run('sh', '-c', `cd "$0" && apt-get -qq download "$1" 2>/dev/null`, folder, name);
  const [file] = readdirSync(folder).filter((each) => each.endsWith('.deb'));
  if (file === undefined) throw new CannotRunHere(`"apt-get download ${name}" failed`);
  run('dpkg', '-x', join(folder, file), join(folder, 'x'));
  return join(folder, 'x');
}

function addBusybox(root) {
  const busybox = find('busybox');
  cpSync(realpathSync(busybox), join(root, 'bin/busybox'));
  for (const applet of output(busybox, '--list').split('\n')) {
    const path = join(root, 'bin', applet);
    if (applet !== '' && !existsSync(path)) symlinkSync('busybox', path);
  }
}

function addModules(root, folder) {
  for (const entry of readdirSync(folder, { recursive: true })) {
    const name = basename(entry, '.ko');
    if (entry.endsWith('.ko') && MODULES.includes(name)) {
      cpSync(join(folder, entry), join(root, 'modules', basename(entry)));
    }
  }
}

function addWithLibraries(root, program, place) {
  cpSync(program, join(root, place));
  const libraries = output('ldd', program);
  if (libraries.includes('not found')) {
    throw new CannotRunHere(`the guest agent needs libraries that are not here:\n${libraries}`);
  }
  for (const [, path] of libraries.matchAll(/(\/\S+) \(0x/g)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    cpSync(realpathSync(path), join(root, path));
  }
}

/** Makes the two disks of a guest: `system.vhdx` with ext4 on the whole of it, and `data.vhdx`, empty. */
export function makeGuestDisks(folder, { systemMib = 256, dataMib = 16 } = {}) {
  const raw = join(folder, 'system.raw');
  const disks = [join(folder, 'system.vhdx'), join(folder, 'data.vhdx')];
  run('truncate', '-s', `${systemMib}M`, raw);
  run(find('mke2fs'), '-q', '-t', 'ext4', '-F', raw);
  run('qemu-img', 'convert', '-O', 'vhdx', '-o', 'block_size=1M', raw, disks[0]);
  rmSync(raw);
  run('qemu-img', 'create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', disks[1], `${dataMib}M`);
  return disks;
}

/**
 * Starts a guest and waits until it is up. `folder` gets qmp.sock, qga.sock and serial.log; `disks` are VHDX files, or layers on them
 * (.qcow2). `agent: false` leaves out the guest agent.
 */
export async function startGuest({ folder, disks, agent = true }) {
  const { kernel, initrd } = ensureLiveGuest();
  const log = join(folder, 'serial.log');
  rmSync(log, { force: true });
  const qemu = spawn(
    'qemu-system-x86_64',
    parameters({ folder, disks, agent, kernel, initrd, log }),
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let errors = '';
  qemu.stderr.setEncoding('utf8').on('data', (text) => {
    errors += text;
  });
  const ended = new Promise((resolve) => {
    qemu.once('close', resolve);
    qemu.once('error', resolve);
  });
  const serial = () => (existsSync(log) ? readFileSync(log, 'utf8') : '');
  const isRunning = () => qemu.exitCode === null && qemu.signalCode === null;
  const kill = async () => {
    qemu.kill('SIGKILL');
    await ended;
  };
  const command = (line) => tell(join(folder, 'serial.sock'), line);
  for (const endMs = performance.now() + 90_000; !serial().includes('GUEST-UP'); ) {
    if (!isRunning() || performance.now() > endMs) {
      await kill();
      throw new Error(`the guest did not come up: ${errors}\n${serial().slice(-1000)}`);
    }
    await sleep(50);
  }
  return {
    pid: qemu.pid,
    serial,
    isRunning,
    kill,
    /** Has a line executed in the guest. */
    command,
    /** The last N that the guest has told. */
    count: () => Number([...serial().matchAll(/^W (\d+)\r?$/gm)].at(-1)?.[1] ?? 0),
    /** Shuts the guest down: its file system is unmounted. */
    async stop() {
      if (isRunning()) await command('stop');
      await Promise.race([ended, sleep(30_000, undefined, { ref: false })]);
      if (isRunning()) await kill();
    },
  };
}

function parameters({ folder, disks, agent, kernel, initrd, log }) {
  const socket = (id, name, more = '') =>
    `socket,id=${id},path=${join(folder, name)},server=on,wait=off${more}`;
  const agentPort = [
    ...['-device', 'virtio-serial-pci', '-chardev', socket('qga', 'qga.sock')],
    ...['-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0'],
  ];
  const drives = disks.flatMap((disk, index) => [
    ...['-blockdev', `driver=file,node-name=f${index},filename=${disk}`],
    '-blockdev',
    `driver=${disk.endsWith('.qcow2') ? 'qcow2' : 'vhdx'},node-name=d${index},file=f${index}`,
    ...['-device', `virtio-blk-pci,drive=d${index},id=vd${index}`],
  ]);
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', '256', '-smp', '1'],
    ...['-kernel', kernel, '-initrd', initrd],
    ...['-append', `console=ttyS0 quiet panic=-1${agent ? '' : ' noagent'}`],
    ...[
      '-chardev',
      socket('serial', 'serial.sock', `,logfile=${log}`),
      '-serial',
      'chardev:serial',
    ],
    ...['-chardev', socket('qmp', 'qmp.sock'), '-mon', 'chardev=qmp,mode=control'],
    ...agentPort,
    ...drives,
  ];
}

function tell(path, line) {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      // The console takes bytes as slowly as a line did: what is closed too early is lost.
      socket.write(`${line}\n`);
      setTimeout(() => {
        socket.destroy();
        resolve();
      }, 300);
    });
  });
}

function find(tool) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/bin'];
  return folders.map((folder) => join(folder, tool)).find((path) => existsSync(path));
}

function isStatic(program) {
  // Says "not a dynamic executable" and fails.
  return spawnSync('ldd', [program], { stdio: 'ignore' }).status !== 0;
}

function run(command, ...parameters) {
  const { status, stderr, error } = spawnSync(command, parameters, { encoding: 'utf8' });
  if (status === 0) return;
  throw new Error(`"${[command, ...parameters].join(' ')}" failed: ${error?.message ?? stderr}`);
}

function output(command, ...parameters) {
  return spawnSync(command, parameters, { encoding: 'utf8' }).stdout ?? '';
}

function say(line) {
  process.stderr.write(`live-guest: ${line}\n`);
}

if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  try {
    const { kernel, initrd } = ensureLiveGuest();
    process.stdout.write(`${JSON.stringify({ kernel, initrd })}\n`);
  } catch (error) {
    say(error.message);
    process.exit(error instanceof CannotRunHere ? CANNOT_RUN_HERE : 1);
  }
}
